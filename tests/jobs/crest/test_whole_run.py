"""A run of the whole loop: what it leaves, and how it is done by stages, anew, or after a kill."""

import csv
import itertools
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import yaml
from command_line import refused
from jobs.crest.runs_of_crest import ADAPTER, SMALL
from runs_of_tiny import read_tiny

from jaxalign.crest import main
from jaxalign.data.encoding import Encoder
from jaxalign.data.preferences import Responses
from jaxalign.inference.base_model import BaseModel
from jaxalign.inference.reference import read_reference
from jaxalign.jobs.crest import evaluate as evaluation
from jaxalign.parallel.compilation import Programs
from jaxalign.pretrained.peft import read_adapter
from jaxalign.runs.records import read_records

pytestmark = pytest.mark.slow

TOOK = ("seconds", "compilation_seconds", "python_seconds")


@pytest.fixture(scope="module")
def run_and_base(tmp_path_factory):
    """A run of all stages at once, and the base that it went through them with."""
    folder, made = tmp_path_factory.mktemp("whole") / "run", []

    def make(*arguments):
        made.append(BaseModel(*arguments))
        return made[-1]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("jaxalign.jobs.setup.BaseModel", make)
        main([f"run.dir={folder}", *SMALL])
    return folder, *made


@pytest.fixture(scope="module")
def whole(run_and_base):
    """A run of all stages at once; not to be changed."""
    return run_and_base[0]


@pytest.fixture(scope="module")
def base(run_and_base):
    """The base of that run."""
    return run_and_base[1]


def test_the_whole_loop_leaves_what_a_person_would_read(whole, capsys):
    summary = json.loads((whole / "summary.json").read_text())
    assert [model["name"] for model in summary["models"]] == ["base", "seed", "sft", "round 1", "round 2"]
    assert list(summary["stages"]) == ["seed", "rationales", "evaluate", "sft", "preferences", "dpo", "test"]
    assert summary["stages"]["evaluate"]["sampled"] == 72
    assert summary["stages"]["evaluate"]["followups_alike"] < 1
    pages = read_records(whole / "rationales.jsonl")
    assert sum(one["copies"] for one in pages) == 72
    for one in pages:
        assert (one["z"] is None) == (one["prediction"] is None) and bool(one["followups"]) == (one["z"] == 1)
    pairs = read_records(whole / "pairs.jsonl")
    assert {(one["round"], one["kind"]) for one in pairs} == {(n, kind) for n in (1, 2) for kind in ("z", "z_tilde")}
    measured = [model[split] for model in summary["models"] for split in ("validation", "test") if split in model]
    assert any(one["accuracy"] > 0 for one in measured)
    assert any(one["consistency"] is not None for one in measured)
    with (whole / "table.csv").open() as file:
        assert len(list(csv.DictReader(file))) == 5
    page = (whole / "report.md").read_text()
    for name, stage in summary["stages"].items():
        assert (whole / stage["path"] / "sessions.jsonl").is_file() and not Path(stage["path"]).is_absolute()
        assert stage["path"] in page and stage["seconds"] > stage["python_seconds"] >= 0, name
    assert "### Wrong" in page and "![accuracy](figures/accuracy.png)" in page
    for picture in ("accuracy.png", "z_tilde.png"):
        assert (whole / "figures" / picture).read_bytes().startswith(b"\x89PNG")
    assert (whole / "adapter" / "adapter_model.safetensors").exists()
    card = (whole / "adapter" / "README.md").read_text()
    assert "(12 train, 4 validation, 4 test questions)" in card
    assert f"Accuracy of this model (`{summary['final']}`) on the test: " in card
    main([f"run.dir={whole}", *SMALL])
    shown = capsys.readouterr().out
    assert "test accuracy" in shown and "compiled" not in shown and "% of the time" in shown
    main([f"compare={whole}"])
    assert "round" in capsys.readouterr().out


def test_every_round_begins_at_the_adapter_that_the_one_before_ended_with(whole, tmp_path):
    stage = whole / "stages" / "dpo"
    metrics = read_records(stage / "metrics.jsonl")
    summary = json.loads((stage / "summary.json").read_text())
    assert [one["reference"]["name"] for one in summary["training"]] == ["sft", "round 1"]
    for name in ("round-1", "round-2"):
        first, *_, last = [record for record in metrics if record["stage"] == name]
        assert first["step"] == 1 and first["loss"] == pytest.approx(np.log(2), abs=1e-4)
        assert last["loss"] != pytest.approx(np.log(2), abs=1e-3)
        assert {"rewards/margins", "rewards/accuracies", "logps/chosen"} <= set(first)
    # The reference's numbers are those of the adapters on the disk, read anew.
    model = read_tiny(max_position_embeddings=384)
    base, encoder = BaseModel(model, jnp.float32, Programs()), Encoder(model.tokenizer)
    pairs = read_records(whole / "pairs.jsonl")
    written = {record["key"]: record["log_prob"] for record in read_records(stage / "reference.jsonl")}
    for number, folder in ((1, whole / "stages" / "sft" / "adapter"), (2, stage / "rounds" / "1")):
        mine = [one for one in pairs if one["round"] == number]
        texts = list(dict.fromkeys((one["prompt"], one[side]) for one in mine for side in ("chosen", "rejected")))
        data = Responses(
            [encoder.prompt(prompt) for prompt, _ in texts],
            [encoder.branches(prompt, [text], end=True)[1][0] for prompt, text in texts],
            list(range(len(texts))),
            np.zeros(len(texts)),
        )
        scorer = base.scorer(read_adapter(folder, model.architecture).params, 2.0)
        path = tmp_path / f"{number}.jsonl"
        found = read_reference(scorer, data, range(len(texts)), path, model=f"{model.signature}-float32")
        np.testing.assert_allclose([written[record["key"]] for record in read_records(path)], found, atol=1e-4)


def test_the_base_is_what_it_was_after_all_rounds_and_changes_of_layout(whole, base):
    jax.tree.map(np.testing.assert_array_equal, base.weights(False), read_tiny().params)


def test_stage_by_stage_is_the_whole_and_says_what_is_missing(whole, tmp_path, capsys):
    folder = tmp_path / "run"
    line = refused(main, [f"run.dir={folder}", "stage=evaluate", *SMALL], capsys)
    assert "stage=evaluate needs the results of stage=seed" in line
    stages = ("seed", "rationales", "evaluate", "sft", "preferences", "dpo", "test")
    for stage, following in itertools.zip_longest(stages, stages[1:]):
        main([f"run.dir={folder}", f"stage={stage}", *SMALL])
        shown = capsys.readouterr().out
        assert following is None or shown.endswith(f"next: the same command with stage={following}\n")
    for name in ("rationales.jsonl", "pairs.jsonl", "table.csv"):
        assert (folder / name).read_bytes() == (whole / name).read_bytes()
    weights = "adapter/adapter_model.safetensors"
    assert (folder / weights).read_bytes() == (whole / weights).read_bytes()
    line = refused(main, [f"run.dir={folder}", "stage=sft", *SMALL, "crest.samples=5"], capsys)
    assert "belongs to another configuration: crest.samples was 6 and is 5" in line


def test_a_stage_is_done_anew_where_that_is_asked_for(whole, tmp_path, capsys):
    folder = tmp_path / "run"
    shutil.copytree(whole, folder)
    stage = folder / "stages" / "sft"
    for changes, tolerance in ((["crest.tolerance=2"], 2), (["crest.tolerance=2"], 2)):
        main([f"run.dir={folder}", *SMALL, "stage=sft", *changes, "run.overwrite=true"])
        assert len(read_records(stage / "sessions.jsonl")) == 1 and not (folder / "summary.json").exists()
        assert yaml.safe_load((stage / "config.yaml").read_text())["identity"]["crest"]["tolerance"] == tolerance
    command = [f"run.dir={folder}", *SMALL, "stage=sft", "crest.samples=5", "run.overwrite=true"]
    assert "give stage=rationales run.overwrite=true first, or another run.dir" in refused(main, command, capsys)


def without(folder: Path, target: Path, *stages: str) -> Path:
    """Copy a run, but for some of its stages and its results."""
    shutil.copytree(folder, target, ignore=lambda where, _: stages if where.endswith("stages") else ())
    (target / "summary.json").unlink()
    return target


@pytest.mark.parametrize(
    ("stage", "name", "asked"),
    [
        ("rationales", "generations.jsonl", "evaluate"),
        ("evaluate", "rationales.jsonl", "dpo"),
        ("preferences", "pairs.jsonl", "dpo"),
    ],
)
def test_a_finished_stages_file_that_was_changed_is_named(whole, tmp_path, capsys, stage, name, asked):
    after = ("evaluate", "sft", "preferences", "dpo") if asked == "evaluate" else ("dpo",)
    folder = without(whole, tmp_path / "run", *after)
    path = folder / "stages" / stage / name
    path.write_text("".join(path.read_text().splitlines(keepends=True)[:-1]))
    command = [f"run.dir={folder}", *SMALL, f"stage={asked}"]
    assert f"{path} was changed since the run was finished; do it again with stage={stage}" in refused(
        main, command, capsys
    )
    path.unlink()
    assert f"{path} is missing since" in refused(main, command, capsys)


@pytest.mark.parametrize("torn_at", [0.4, 0.95])
def test_readings_that_a_kill_tore_are_those_of_an_unbroken_run(whole, tmp_path, monkeypatch, torn_at):
    monkeypatch.setattr(evaluation, "QUESTIONS_AT_A_TIME", 5)
    after = ("evaluate", "sft", "preferences", "dpo")
    stage = without(whole, tmp_path / "run", *after) / "stages" / "evaluate"
    command = [f"run.dir={tmp_path / 'run'}", *SMALL, "stage=evaluate", "crest.hint=true", "run.overwrite=true"]
    main(command)
    unbroken, summary = (stage / "rationales.jsonl").read_bytes(), json.loads((stage / "summary.json").read_text())
    (stage / "summary.json").unlink()
    (stage / "rationales.jsonl").write_bytes(unbroken[: int(torn_at * len(unbroken))])
    main(command[:-1])
    assert (stage / "rationales.jsonl").read_bytes() == unbroken
    resumed = json.loads((stage / "summary.json").read_text())
    assert resumed | dict.fromkeys(TOOK) == summary | dict.fromkeys(TOOK)


def killed(folder: Path, watched: str) -> None:
    """Run all stages in a process of its own, and kill it as soon as a file is there (a pattern, in the folder)."""
    command = [sys.executable, "-m", "jaxalign.crest", f"run.dir={folder}", *SMALL, "training.checkpoint_every=1"]
    environment = {**os.environ, "JAX_PLATFORMS": "cpu"}
    process = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    while process.poll() is None and not any(folder.glob(watched)):
        time.sleep(0.005)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert any(folder.glob(watched))


@pytest.mark.parametrize(
    ("watched", "missing"),
    [
        ("stages/seed/checkpoints/*/manifest.json", ("seed", "rationales", "evaluate", "sft", "preferences", "dpo")),
        ("stages/rationales/generations.jsonl", ("rationales", "evaluate", "sft", "preferences", "dpo")),
        ("stages/sft/epochs/2", ("sft", "preferences", "dpo")),
        ("stages/preferences/pairs.jsonl", ("preferences", "dpo")),
        ("stages/dpo/checkpoints/*round-2*/manifest.json", ("dpo",)),
        ("generations.jsonl", ()),
    ],
)
def test_a_kill_at_any_moment_loses_nothing_that_changes_the_result(whole, tmp_path, watched, missing):
    folder = without(whole, tmp_path / "run", *missing)
    for name in ("generations.jsonl", "judged.jsonl", "shapes.jsonl", "rationales.jsonl", "pairs.jsonl", "table.csv"):
        (folder / name).unlink()
    killed(folder, watched)
    main([f"run.dir={folder}", *SMALL])
    for name in ("rationales.jsonl", "pairs.jsonl", "table.csv", ADAPTER):
        assert (folder / name).read_bytes() == (whole / name).read_bytes()
    steps = [
        [(one["stage"], one["step"], one["loss"]) for one in read_records(run / "stages" / "dpo" / "metrics.jsonl")]
        for run in (folder, whole)
    ]
    assert steps[0] == steps[1]
    # What is counted is counted over all processes.
    stages = [json.loads((run / "summary.json").read_text())["stages"] for run in (folder, whole)]
    assert [one.get("tokens") for one in stages[0].values()] == [one.get("tokens") for one in stages[1].values()]


def test_what_a_kill_left_of_an_adapter_half_written_is_passed_over(whole, tmp_path):
    stage = without(whole, tmp_path / "run", "preferences", "dpo") / "stages" / "sft"
    (stage / "summary.json").unlink()
    (stage / "epochs" / ".2.k7x_e1").mkdir()
    main([f"run.dir={tmp_path / 'run'}", *SMALL, "stage=sft"])
    assert (stage / ADAPTER).read_bytes() == (whole / "stages" / "sft" / ADAPTER).read_bytes()
