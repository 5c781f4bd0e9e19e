"""The questionnaire from the command line, on the tiny random model and adapters that one step made."""

import csv
import itertools
import json

import pytest
from runs_of_tiny import train

from jaxalign.evaluate import main
from jaxalign.values.schwartz import VALUES

QUICK = ["benchmark.limit=10", "benchmark.choice=false", "benchmark.max_tokens=4", "precision=float32"]


@pytest.fixture(scope="module")
def adapters(tmp_path_factory):
    """A folder of two finished runs, power and security, and of one that is no adapter."""
    folder = tmp_path_factory.mktemp("adapters")
    for value in ("power", "security"):
        train(folder, value)
    return folder


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("JAXALIGN_CACHE", str(tmp_path / "cache"))


def refused(arguments, capsys) -> str:
    with pytest.raises(SystemExit) as stop:
        main(arguments)
    assert stop.value.code == 2
    lines = capsys.readouterr().err.strip().splitlines()
    assert len(lines) == 1 and lines[0].startswith("error: ")
    return lines[0]


def table(folder):
    with (folder / "table.csv").open() as file:
        return list(csv.DictReader(file))


def test_one_table_holds_all_adapters_beside_the_base_a_role_and_the_best_constant(adapters, tmp_path, capsys):
    run = tmp_path / "run"
    arguments = [f"adapters={adapters}/*", "+value=power", "alignment=roleplay", f"run.dir={run}", *QUICK]
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
    assert "power" in again and "passes" not in again  # nothing is asked twice


def test_a_scale_of_zero_is_the_base_and_an_interrupted_evaluation_asks_only_what_is_missing(
    adapters, tmp_path, capsys
):
    run = tmp_path / "run"
    arguments = [f"adapter={adapters / 'power'}", "adapter.scale=0", f"run.dir={run}", *QUICK]
    main([*arguments, "benchmark.reading=likelihood"])
    first, second, _ = table(run)
    assert (first["name"], second["name"]) == ("base", "power")
    assert {first[value] == second[value] for value in VALUES} == {True}
    (run / "summary.json").unlink()
    before = (run / "questionnaire.jsonl").read_bytes()
    capsys.readouterr()
    main([*arguments, "benchmark.reading=likelihood"])
    assert (run / "questionnaire.jsonl").read_bytes() == before
    assert "passes" not in capsys.readouterr().out


def test_a_model_alone_has_no_target(tmp_path, capsys):
    main(["model=tiny", f"run.dir={tmp_path / 'run'}", "benchmark.reading=parse", *QUICK])
    (row,) = table(tmp_path / "run")
    assert (row["name"], row["value"], row["nmse"]) == ("base", "", "")


def test_the_same_weights_with_another_architecture_are_asked_anew(tmp_path, capsys):
    arguments = ["model=tiny", f"run.dir={tmp_path / 'run'}", "benchmark.reading=parse", *QUICK]
    main(arguments)
    capsys.readouterr()
    assert "belongs to another configuration: model was" in refused(
        [*arguments, "++model.config.rope_theta=3.0"], capsys
    )


def test_bad_input_is_one_line(adapters, tmp_path, capsys):
    assert "needs one: add for example +value=power" in refused(["alignment=roleplay"], capsys)
    assert "is no adapter" in refused([f"adapter={tmp_path}"], capsys)
    assert "finds no finished run" in refused([f"adapters={tmp_path}/none*"], capsys)
    both = [f"adapter={adapters / 'power'}", f"adapters={adapters}/*"]
    assert "adapter and adapters are both given" in refused(both, capsys)
    assert "benchmark.limit=3 is not allowed" in refused(["benchmark.limit=3"], capsys)
    assert "another base" in refused(
        [f"adapter={adapters / 'power'}", "model=tiny", "model.config.hidden_size=64"], capsys
    )
