"""What a report reads from run directories is checked first: each fault is a line with the file and what mends it."""

import json
import operator
import os

import pytest
from command_line import refused, run
from synthetic_harm import Lab

from jaxalign.errors import without_home
from jaxalign.jobs.harm.labels import sample_of_responses, summary_of
from jaxalign.jobs.harm.reported import find_harm_runs, generated_texts, stage_folder
from jaxalign.jobs.harm.reported_trainings import perplexities
from jaxalign.jobs.harm.training_runs import measured_scores
from jaxalign.models.adapter import Adapter
from jaxalign.report import main
from jaxalign.runs.directory import Run
from jaxalign.safety.collection import collect
from jaxalign.values.targets import extreme_targets


@pytest.fixture
def two_models(tmp_path):
    """A folder with one finished run, of the base and of an adapter."""
    made = Lab(tmp_path / "runs", prompts=2)
    made.run([made.base(), made.adapter(extreme_targets()["power"])], "one")
    return made


def stage(two_models, name):
    return Run(next((two_models.root / "stages").glob(f"{name}-*-base-*")))


def change_line(path, change):
    """Change the first of a file's lines."""
    first, rest = path.read_text().split("\n", 1)
    path.write_text(change(first) + "\n" + rest)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda s: s.update(models=[1]), "'models 1' is missing or damaged"),
        (lambda s: s.update(rows={}), "'rows' is missing or damaged"),
        (lambda s: s["model"].pop("signature"), "model: 'signature' is missing or damaged"),
        (lambda s: s["models"][1].update(judge=None), "models 2: 'judge' is missing or damaged"),
        (lambda s: s["models"][1]["target"].update(power="6"), "models 2, target: 'power' is missing or damaged"),
        (lambda s: s["models"][1]["measured"].update(power="6"), "models 2, measured: 'power' is missing or damaged"),
        (lambda s: s["models"][1].update(perplexity="high"), "models 2: 'perplexity' is missing or damaged"),
        (lambda s: s["judges"][0].update(scale=[0.0]), "judges 1: 'scale' is missing or damaged"),
        (lambda s: s["judges"][0]["kappa"].pop("n"), "judges 1, kappa: 'n' is missing or damaged"),
        (lambda s: s["rows"][2].pop("estimate"), "rows 3: 'estimate' is missing or damaged"),
        (lambda s: s["drops"].append([]), "'drops 1' is missing or damaged"),
        (lambda s: s["rows"][2].update(estimate=float("nan")), "rows 3: 'estimate' is missing or damaged"),
        (lambda s: s["rows"][2].update(high=1e308), "rows 3: 'high' is missing or damaged"),
        (lambda s: s["rows"][2].update(n=10**300), "rows 3: 'n' is missing or damaged"),
        (lambda s: s["judges"][0].update(scale=[0, float("inf"), 1]), "judges 1: 'scale 2' is missing or damaged"),
        (lambda s: s["models"][1]["target"].update(power=True), "models 2, target: 'power' is missing or damaged"),
        (lambda s: s["models"][1].update(folder="a\0b"), "models 2: 'folder' is missing or damaged"),
        (lambda s: s.update(models=[]), "'models' is missing or damaged"),
        (lambda s: s["judges"].clear(), "'judges' is missing or damaged"),
        (lambda s: s["judges"][0]["kappa"].update(high=None), "judges 1, kappa: 'high' is missing or damaged"),
        (lambda s: s["judges"][0].update(scale=[1, 1, 1]), "judges 1: 'scale' is missing or damaged"),
        (lambda s: s["rows"][2].update(estimate=0.2, low=None, high=0.3), "rows 3: 'low' is missing or damaged"),
        (lambda s: s["rows"][2].update(estimate=0.2, low=0.4, high=0.1), "rows 3: 'high' is missing or damaged"),
        (lambda s: s["rows"][2].update(n=-5), "rows 3: 'n' is missing or damaged"),
        (lambda s: s["models"][1].update(states={"blank": "x"}), "models 2, states: 'blank' is missing or damaged"),
        (lambda s: s["benchmark"].update(name="a\nb"), "benchmark: 'name' is missing or damaged"),
    ],
)
def test_a_summary_whose_parts_are_damaged_is_named_with_the_part(two_models, capsys, change, said):
    path = two_models.root / "one" / "summary.json"
    summary = json.loads(path.read_text())
    change(summary)
    path.write_text(json.dumps(summary))
    line = refused(main, [f"runs={two_models.root}"], capsys)
    assert line.startswith(f"{path} is damaged ({said});") and "again, which writes it anew" in line


@pytest.mark.parametrize(
    "questionnaire",
    [7, {"after": [1]}, {"after": {"perplexity": "high", "scores": {"power": 1}}}, {"after": {"scores": [1]}}],
)
def test_a_damaged_summary_of_a_training_run_gives_no_figure_and_no_traceback(two_models, capsys, questionnaire):
    (path,) = (two_models.root / "training").glob("*/summary.json")
    path.write_text(json.dumps({"questionnaire": questionnaire}))
    run(main, [f"runs={two_models.root}"], capsys)
    runs, _ = find_harm_runs(two_models.root)
    assert set(perplexities(runs, two_models.root).values()) == {(None, None)}
    assert measured_scores(Adapter(folder=path.parent / "adapter")) is None


@pytest.mark.parametrize("name", ["judge", "generate"])
@pytest.mark.parametrize("damage", ["was changed", "is missing"])
def test_a_file_of_a_stage_that_is_not_as_it_was_written_is_named(two_models, capsys, name, damage):
    folder = stage(two_models, name)
    (file,) = folder.path.glob("*.jsonl")
    folder.finish({}, [file.name])
    run(main, [f"runs={two_models.root}", "texts=0"], capsys)
    file.unlink() if damage == "is missing" else change_line(file, lambda line: line.replace("base", "best") + " ")
    line = refused(main, [f"runs={two_models.root}", "texts=0"], capsys)
    mend = f"remove {folder.path}, and type the command of {two_models.root}/one again, which does that stage again"
    assert line == f"{file} {damage} since the run was finished; {mend}"


@pytest.mark.parametrize("name", ["judge", "generate"])
def test_a_stage_whose_summary_has_lost_the_hashes_of_its_files_is_named(two_models, capsys, name):
    folder = stage(two_models, name)
    folder.summary.write_text("{}")
    line = refused(main, [f"runs={two_models.root}", "texts=0"], capsys)
    assert line.startswith(f"{folder.summary} is damaged ('files' is missing or damaged); remove {folder.path}, and")
    (file,) = folder.path.glob("*.jsonl")
    folder.finish({}, ["config.yaml", "summary.json"])
    line = refused(main, [f"runs={two_models.root}", "texts=0"], capsys)
    assert line.startswith(f"{folder.summary} is damaged (files: '{file.name}' is missing or damaged);")


@pytest.mark.parametrize("name", ["judge", "generate"])
def test_a_stage_that_was_done_again_since_a_run_added_it_up_is_named(two_models, capsys, name):
    folder = stage(two_models, name)
    (file,) = folder.path.glob("*.jsonl")
    two_models.write_hashes_anew()
    run(main, [f"runs={two_models.root}", "texts=0"], capsys)
    change_line(file, lambda line: line.replace("base", "best") + " ")
    folder.finish({}, [file.name])  # as the stage does when it is done again
    line = refused(main, [f"runs={two_models.root}", "texts=0"], capsys)
    assert line.startswith(f"{two_models.root}/one added up other records than {file} holds now")
    assert line.endswith(f"type the command of {two_models.root}/one again, which adds them up anew")


@pytest.mark.parametrize(
    ("name", "change", "said"),
    [
        *[
            ("judge", operator.methodcaller("replace", f'"{key}": ', '"other": '), f"'{key}' is missing or damaged")
            for key in ("category", "sample", "judge", "score", "label", "missing", "state")
        ],
        ("judge", lambda line: line.replace('"state": "', '"state": "un'), "'state' is missing or damaged"),
        ("generate", lambda line: line.replace('"prompt"', '"question"'), "'prompt' is missing or damaged"),
        ("generate", lambda line: '{"key": ' + "[" * 100_000, "is JSON nested too deeply"),
        ("generate", lambda line: line[:60], "is not JSON"),
    ],
)
def test_a_record_that_lacks_something_is_named_with_its_line(two_models, capsys, monkeypatch, name, change, said):
    def too_early(*_):
        raise AssertionError("figures were drawn before the judged records were read")

    if name == "judge":
        monkeypatch.setattr("jaxalign.jobs.report.drawn_figures", too_early)
    folder = stage(two_models, name)
    (file,) = folder.path.glob("*.jsonl")
    change_line(file, change)
    two_models.write_hashes_anew()
    line = refused(main, [f"runs={two_models.root}"], capsys)
    assert line.startswith((f"{file}, line 1: {said}", f"{file} line 1 {said}"))
    assert f"remove {folder.path}, and type the run's own command" in line


@pytest.mark.parametrize("kind", ["as an older version wrote them", "relative and from the home"])
def test_stages_and_adapters_are_found_by_their_names_in_a_summary(two_models, capsys, monkeypatch, kind):
    monkeypatch.setenv("HOME", str(two_models.root.parent))
    path = two_models.root / "one"
    summary = json.loads((path / "summary.json").read_text())
    for about in summary["models"] if kind.startswith("relative") else ():
        about.update({stage: os.path.relpath(about[stage], path) for stage in ("generate", "judge")})
        about["folder"] = about["folder"] and without_home(about["folder"])
    (path / "summary.json").write_text(json.dumps(summary))
    runs, _ = find_harm_runs(two_models.root)
    (found,) = collect(runs)
    places = {stage_folder(model, stage).name for model in found.models for stage in ("generate", "judge")}
    assert places == {folder.name for folder in (two_models.root / "stages").iterdir()}
    assert perplexities(runs, two_models.root / "elsewhere") == {
        ("base-float32", summary["models"][1]["adapter"]): (120.0, 100.0)
    }
    assert len(sample_of_responses(summary_of(path), 5, 0)) == 5
    two_models.run([], "half", finished=False)
    assert "~/runs/half is unfinished, and left aside" in run(main, [f"runs={two_models.root}"], capsys)
    assert str(two_models.root) not in (two_models.root / "report" / "index.html").read_text()


def test_a_response_that_was_asked_for_again_is_shown_whole_and_not_as_it_was_cut(two_models):
    file = stage(two_models, "generate").generations
    lines = file.read_text().splitlines()
    whole = next(record for record in map(json.loads, lines) if record["text"])
    cut = json.dumps({**whole, "text": "A mi", "end": "content_filter"})
    alone = json.dumps({**whole, "key": "0" * 32, "text": "A m", "end": "content_filter"})
    file.write_text("\n".join([cut, *lines, cut, alone, ""]))
    texts = generated_texts(file, {whole["key"], "0" * 32})
    assert texts == {whole["key"]: (whole["prompt"], whole["text"]), "0" * 32: (whole["prompt"], "A m")}
    found = sample_of_responses(summary_of(two_models.root / "one"), 1000, 0)
    assert [one["text"] for one in found if one["key"] == whole["key"]] == [whole["text"]]


def test_the_summary_of_a_run_is_parsed_once(two_models, monkeypatch):
    parsed, results = [], Run.results
    monkeypatch.setattr(
        Run, "results", lambda run, *mend, **fields: parsed.append(run.path) or results(run, *mend, **fields)
    )
    find_harm_runs(two_models.root)
    summary_of(two_models.root / "one")
    assert parsed.count(two_models.root / "one") == 2


@pytest.mark.parametrize("wrong", [0, -3.5, float("inf")])
def test_a_perplexity_that_is_none_is_as_if_it_had_not_been_measured(two_models, capsys, wrong):
    training = next((two_models.root / "training").glob("*/summary.json"))
    training.write_text(json.dumps({"questionnaire": {"before": {"perplexity": wrong}, "after": {"perplexity": 9.0}}}))
    run(main, [f"runs={two_models.root}", "texts=0"], capsys)
    assert {one["perplexity"] for one in two_models.table("beavertails-ability")} == {"", "9.0"}


def test_a_home_that_nobody_has_and_letters_that_no_font_has_make_no_noise(two_models, capsys):
    path = two_models.root / "one" / "summary.json"
    summary = json.loads(path.read_text())
    for part in (summary["models"][1], *(row for row in summary["rows"] if row["model"] == "power")):
        part |= {"model": "\u65e5\u672c", "folder": "~nobody-at-all/adapter"}
    path.write_text(json.dumps(summary))
    main([f"runs={two_models.root}", "texts=0"])
    assert capsys.readouterr().err == "" and "\u65e5\u672c" in two_models.page()
