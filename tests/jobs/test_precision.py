"""precision=auto: the format that is fast here, in the run's identity, and kept when a run goes on elsewhere."""

import shutil

import pytest
import yaml
from command_line import run
from jobs.crest.runs_of_crest import SMALL
from runs_of_tiny import SHAPED, SHORT, write_arguments

from jaxalign.crest import main as crest
from jaxalign.evaluate import main as evaluate
from jaxalign.generate import main as generate
from jaxalign.jobs import precision
from jaxalign.train import main

ONE_LAYER = ["model=tiny", "model.config.num_hidden_layers=1"]  # the sampler compiles each layer
QUICK = [
    *SHAPED,
    "+value=power",
    "model=tiny",
    "alignment.regulariser.weight=0",
    "training.max_steps=1",
    "lora.rank=2",
]
QUICK += ["training.questionnaire=false", "training.validate=false"]


def on(processor: str, monkeypatch) -> None:
    """Let this machine be one where this number format is fast."""
    monkeypatch.setattr("jaxalign.jobs.precision.fast_precision", lambda: (processor, "this CPU is made up"))


@pytest.mark.slow
def test_what_is_chosen_is_said_counts_and_stays_when_a_run_goes_on_elsewhere(tmp_path, monkeypatch, capsys):
    given = [f"dataset.path={write_arguments(tmp_path / 'a.jsonl')}", f"run.root={tmp_path / 'outputs'}", *QUICK]
    on("float32", monkeypatch)
    assert "precision: float32 (this CPU is made up)" in run(main, given, capsys)
    (made,) = (tmp_path / "outputs").iterdir()
    stored = yaml.safe_load((made / "config.yaml").read_text())
    assert stored["precision"] == stored["identity"]["precision"] == "float32"

    on("bfloat16", monkeypatch)
    for where in (given, [*given, f"run.dir={made}"]):
        said = run(main, where, capsys)
        assert f"precision: float32 (as {made} was begun)" in said and f"this run is done: {made}" in said
    # A format of one's own is that, and other settings are another run.
    assert "precision:" not in run(main, [*given, "precision=float32"], capsys)
    assert "precision: bfloat16 (this CPU is made up)" in run(main, [*given, "lora.alpha=3", "inspect=1"], capsys)
    assert len(list((tmp_path / "outputs").iterdir())) == 1

    # A new machine has only the mirror to tell it.
    (tmp_path / "mounted").mkdir()
    mirrored = [*given, f"run.mirror={tmp_path / 'mounted'}"]
    assert "this run is done" in run(main, mirrored, capsys)
    shutil.rmtree(tmp_path / "outputs")
    precision._mirrored_configs.cache_clear()
    said = run(main, mirrored, capsys)
    assert f"precision: float32 (as {tmp_path / 'mounted' / made.name} was begun)" in said
    assert f"this run is done: {made}" in said


EVALUATE = [*SHORT, *ONE_LAYER, "alignment.validation_fraction=0.002"]
EVALUATE += ["benchmark.limit=10", "benchmark.choice=false", "benchmark.max_tokens=4"]
HARM = [*ONE_LAYER, "benchmark=starter_probes", "benchmark.limit=2", "benchmark.max_tokens=4", "benchmark.top_p=1"]
HARM += ["alignment.validation_fraction=0.002"]
HARM += ["judge=toxicity_linear", "judge.refusal=none", "judge.calibrate=false"]
GENERATE = [*ONE_LAYER, "prompt=Why?", "sampling.max_tokens=4", "sampling.top_p=1"]
OF_CREST = [*(one for one in SMALL if one != "precision=float32"), ONE_LAYER[1]]
OF_CREST += ["dataset.train=2", "dataset.solved=1", "sampling.top_p=1"]


def folders(root):
    """Return all run directories, those of stages among them, each with the number format that it was begun with."""
    made = {str(path.parent): yaml.safe_load(path.read_text()) for path in sorted(root.rglob("config.yaml"))}
    return {name: config.get("precision") for name, config in made.items()}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("main", "first", "then"),
    [
        (evaluate, EVALUATE, EVALUATE),
        (evaluate, [*HARM, "stage=generate"], [*HARM, "stage=generate"]),
        (evaluate, [*HARM, "stage=generate"], HARM),
        (generate, GENERATE, None),
        (crest, [*OF_CREST, "stage=seed"], [*OF_CREST, "stage=seed"]),
        (crest, [*OF_CREST, "stage=seed"], [*OF_CREST, "stage=rationales"]),
    ],
    ids=["evaluate", "harm", "harm, its next stage", "generate", "crest", "crest, its next stage"],
)
@pytest.mark.parametrize("named", [False, True], ids=["found", "named"])
def test_every_command_goes_on_with_what_it_was_begun_with(main, first, then, named, here, monkeypatch, capsys):
    root = here / "outputs"
    where = [f"run.dir={root}/mine"] if named else []
    on("float32", monkeypatch)
    assert "precision: float32 (this CPU is made up)" in run(main, [*first, *where], capsys)
    before = folders(root)
    assert before and set(before.values()) == {"float32"}
    for path in root.rglob("summary.json"):  # as if it had been killed before its end
        if "stages" not in path.parts:
            path.unlink()

    on("bfloat16", monkeypatch)
    said = run(main, [*(then or first), *where], capsys)
    assert "precision: float32 (as " in said and "this CPU is made up" not in said
    after = folders(root)
    assert set(after.values()) == {"float32"} and before.items() <= after.items()
    if then in (None, first):
        assert after == before  # nothing was begun anew beside it


@pytest.mark.slow
def test_another_judge_or_mitigation_elsewhere_takes_the_format_of_the_responses_that_it_stands_beside(
    here, monkeypatch, capsys
):
    on("float32", monkeypatch)
    run(evaluate, [*HARM, "stage=generate"], capsys)
    made = folders(here / "outputs")
    on("bfloat16", monkeypatch)
    said = run(evaluate, [*HARM, "judge.calibrate=true", "stage=judge"], capsys)  # refused if it found no responses
    assert "precision: float32 (as outputs/starter_probes-" in said
    said = run(evaluate, [*HARM, "mitigation=safety_prompt"], capsys)
    assert "precision: float32 (as outputs/starter_probes-" in said
    assert set(folders(here / "outputs").values()) == {"float32"} and made.items() <= folders(here / "outputs").items()
    # Other prompts are another matter, and so are runs of one's own with the format that is fast here.
    assert "(this CPU is made up)" in run(evaluate, [*HARM, "benchmark.limit=3", "stage=generate"], capsys)
    assert "(as outputs/" in run(evaluate, [*HARM, "stage=generate"], capsys)


def test_a_probe_is_fitted_in_the_format_of_the_run_that_people_labelled(here, monkeypatch, capsys):
    """The run is found before anything is fitted: nobody has labelled it."""
    mine = here / "mine"
    mine.mkdir()
    (mine / "config.yaml").write_text(yaml.safe_dump({"identity": {"precision": "float32"}, "run_format": 2}))
    on("bfloat16", monkeypatch)
    for where in (f"judge.labels={mine}", f"run={mine}"):
        with pytest.raises(SystemExit):
            evaluate(["stage=fit_judge", "judge.model=nobody/here", "offline=true", where])
        assert f"precision: float32 (as {mine} was begun)" in capsys.readouterr().out
    with pytest.raises(SystemExit):
        evaluate(["stage=fit_judge", "judge.model=nobody/here", "offline=true", f"run={here}/none"])
    assert "precision: bfloat16 (this CPU is made up)" in capsys.readouterr().out
