"""The questionnaire from the command line, on the tiny random model and adapters that one step made."""

import csv
import itertools
import json
import re
import shutil

import pytest
from command_line import refused
from runs_of_tiny import OWN, SHORT, train

from jaxalign.evaluate import main
from jaxalign.export import main as export
from jaxalign.values.schwartz import VALUES

FEW = ["benchmark.limit=10", "benchmark.choice=false", "benchmark.max_tokens=4", "precision=float32"]
FEW += ["alignment.validation_fraction=0.02"]  # perplexity is then of 13 texts
QUICK = [*SHORT, *FEW]


def table(folder):
    with (folder / "table.csv").open() as file:
        return list(csv.DictReader(file))


@pytest.mark.slow
def test_one_table_holds_all_adapters_beside_the_base_a_role_and_the_best_constant(adapters, tmp_path, capsys):
    run = tmp_path / "run"
    arguments = [f"adapters={adapters}/*", "+value=power", f"run.dir={run}", *OWN, "alignment=short_roleplay", *FEW]
    main(arguments)
    rows = table(run)
    names = [(row["name"], row["value"], row["reading"]) for row in rows]
    assert names == [
        *((name, "power", how) for name in ("base", "role-play", "power") for how in ("likelihood", "parse")),
        *((name, "security", how) for name in ("base", "security") for how in ("likelihood", "parse")),
        ("best constant", "power", "none"),
        ("best constant", "security", "none"),
    ]
    assert all(1 <= float(row[value]) <= 6 for row in rows if row["reading"] == "likelihood" for value in VALUES)
    by_name = {name: row for name, row in zip(names, rows, strict=True)}
    # The base answers once, and is held against both targets.
    base, other = (by_name["base", value, "likelihood"] for value in ("power", "security"))
    assert base["power"] == other["power"] and base["perplexity"] == other["perplexity"]
    assert float(by_name["best constant", "power", "none"]["nmse"]) == pytest.approx(0.09)
    readings = [json.loads(line)["results"] for line in (run / "questionnaire.jsonl").read_text().splitlines()]
    assert len(readings) == 4 and all(one != other for one, other in itertools.combinations(readings, 2))
    page = (run / "table.md").read_text()
    assert "| role-play | power | likelihood |" in page
    assert (run / "figures" / "portraits.png").read_bytes().startswith(b"\x89PNG")
    assert len(json.loads((run / "summary.json").read_text())["rows"]) == len(rows)
    capsys.readouterr()
    main(arguments)
    again = capsys.readouterr().out
    assert "power" in again and "questionnaire:" not in again  # nothing is asked twice


@pytest.mark.slow
def test_a_scale_of_zero_is_the_base_and_an_interrupted_evaluation_asks_only_what_is_missing(
    adapters, tmp_path, capsys
):
    run = tmp_path / "run"
    arguments = [f"adapter={adapters / 'power'}", "adapter.scale=0", f"run.dir={run}", *QUICK]
    main([*arguments, "benchmark.reading=likelihood"])
    first, second, _ = table(run)
    assert (first["name"], first["scale"], second["name"], second["scale"]) == ("base", "", "power", "0.0")
    assert "| power × 0 | power | likelihood |" in (run / "table.md").read_text()
    assert {first[value] == second[value] for value in VALUES} == {True}
    (run / "summary.json").unlink()
    before = (run / "questionnaire.jsonl").read_bytes()
    capsys.readouterr()
    main([*arguments, "benchmark.reading=likelihood"])
    assert (run / "questionnaire.jsonl").read_bytes() == before
    assert "questionnaire:" not in capsys.readouterr().out
    summary = json.loads((run / "summary.json").read_text())
    del summary["rows"][1]["scores"]["power"]
    (run / "summary.json").write_text(json.dumps(summary))
    line = refused(main, [*arguments, "benchmark.reading=likelihood"], capsys)
    assert "summary.json is damaged (rows 2, scores: 'power' is missing or damaged); remove" in line
    (run / "summary.json").unlink()
    (run / "questionnaire.jsonl").write_bytes(before + b'{"when": "base-plain", "results": {"scores": {}}}\n')
    line = refused(main, [*arguments, "benchmark.reading=likelihood"], capsys)
    assert re.search(r"questionnaire\.jsonl, line \d: results, scores: '\w+' is missing or damaged; remove the", line)


@pytest.mark.slow
def test_a_model_alone_has_no_target(tmp_path, capsys):
    main(["model=tiny", f"run.dir={tmp_path / 'run'}", "benchmark.reading=parse", *QUICK])
    (row,) = table(tmp_path / "run")
    assert (row["name"], row["value"], row["nmse"]) == ("base", "", "")


@pytest.mark.slow
def test_the_progress_of_reading_tells_speed_and_time_left(tmp_path, capsys):
    main(["model=tiny", f"run.dir={tmp_path / 'run'}", "benchmark.reading=likelihood", *QUICK])
    lines = [line for line in capsys.readouterr().out.splitlines() if line.startswith("questionnaire:")]
    assert lines[0] == "questionnaire: base: 10 questions"
    assert re.fullmatch(r"questionnaire: base: question 10/10 · [\d,]+ tokens/s · 0 s left", lines[-1])


@pytest.mark.slow
def test_other_texts_for_the_perplexity_are_another_run(tmp_path):
    arguments = ["model=tiny", f"run.root={tmp_path}", "benchmark.reading=likelihood", *QUICK]
    main(arguments)
    main([*arguments, "alignment.validation_fraction=0.5"])
    first, second = (json.loads(path.read_text())["rows"][0] for path in tmp_path.glob("*/summary.json"))
    assert first["scores"] == pytest.approx(second["scores"]) and first["perplexity"] != second["perplexity"]


@pytest.mark.slow
def test_people_of_a_survey_and_inverted_ones_are_never_in_one_table(tmp_path, capsys):
    folder = tmp_path / "runs"
    upright, inverted = folder / "upright", folder / "inverted"
    survey = ["value.coding=survey", "value.name=mine"]  # no name tells them apart
    train(folder, "power", *survey, f"run.dir={upright}")
    train(folder, "power", *survey, "released.raw_coding=true", f"run.dir={inverted}")
    line = refused(main, [f"adapters={folder}/*"], capsys)
    raw = f"{inverted / 'adapter'} has a target in raw survey codes (inverted people)"
    assert f"{raw} and {upright / 'adapter'} in reversed ones" in line
    given = ["+value=power", "value.coding=survey"]
    assert "and value.coding=survey in reversed ones" in refused(main, [f"adapter={inverted}", *given], capsys)
    main([f"adapter={upright}", *given, f"run.dir={tmp_path / 'run'}", "benchmark.reading=likelihood", *QUICK])
    for run in (upright, inverted):  # an exported adapter has no run beside it
        export([f"run={run}", "format=peft", f"out={tmp_path / 'exported' / run.name}"])
    assert "a target in raw survey codes" in refused(main, [f"adapters={tmp_path}/exported/*", "model=tiny"], capsys)


@pytest.mark.slow
def test_adapters_read_together_are_read_as_one_by_one(adapters, tmp_path):
    quick = [*QUICK, "benchmark.reading=likelihood"]
    main([f"adapters={adapters}/*", f"run.dir={tmp_path / 'both'}", *quick])
    both = {row["name"]: row for row in json.loads((tmp_path / "both" / "summary.json").read_text())["rows"]}
    for value in ("power", "security"):
        main([f"adapter={adapters / value}", f"run.dir={tmp_path / value}", *quick])
        alone = {row["name"]: row for row in json.loads((tmp_path / value / "summary.json").read_text())["rows"]}
        assert both[value]["scores"] == pytest.approx(alone[value]["scores"], abs=1e-4)
        assert both[value]["perplexity"] == pytest.approx(alone[value]["perplexity"], rel=1e-4)
    assert both["power"]["perplexity"] != pytest.approx(both["security"]["perplexity"], rel=1e-3)


def test_adapters_of_different_system_messages_are_named(adapters, tmp_path, capsys):
    folder = tmp_path / "runs"
    for name in ("power", "security"):
        shutil.copytree(adapters / name, folder / name)
    config = folder / "security" / "config.yaml"
    config.write_text(config.read_text().replace("system: null", "system: Be kind."))
    line = refused(main, [f"adapters={folder}/*"], capsys)
    assert f"{folder / 'security' / 'adapter'} was trained with another model.system than" in line


@pytest.mark.slow
def test_the_same_weights_with_another_architecture_are_asked_anew(tmp_path, capsys):
    arguments = ["model=tiny", f"run.dir={tmp_path / 'run'}", "benchmark.reading=parse", *QUICK]
    main(arguments)
    capsys.readouterr()
    assert "belongs to another configuration: model was" in refused(
        main, [*arguments, "++model.config.rope_theta=3.0"], capsys
    )


def test_bad_input_is_one_line(adapters, tmp_path, capsys):
    assert "needs one: add for example +value=power" in refused(main, ["alignment=roleplay"], capsys)
    assert "is no adapter" in refused(main, [f"adapter={tmp_path}"], capsys)
    assert "finds no finished run" in refused(main, [f"adapters={tmp_path}/none*"], capsys)
    both = [f"adapter={adapters / 'power'}", f"adapters={adapters}/*"]
    assert "adapter and adapters are both given" in refused(main, both, capsys)
    assert "benchmark.limit=3 is not allowed" in refused(main, ["benchmark.limit=3"], capsys)
    assert "another base" in refused(
        main, [f"adapter={adapters / 'power'}", "model=tiny", "model.config.hidden_size=64"], capsys
    )


@pytest.mark.slow
def test_an_adapter_that_gives_no_finite_logits_is_an_error_and_no_table_of_dashes(adapters, tmp_path, capsys):
    settings = [f"adapter={adapters / 'power'}", "adapter.scale=1e25", f"run.dir={tmp_path}/run", *QUICK]
    line = refused(main, [*settings, "benchmark.reading=likelihood"], capsys)
    assert line.startswith("the model's logits are NaN or infinite, so there is no answer")
    assert not (tmp_path / "run" / "table.csv").exists()
