"""CREST from the command line, on the tiny random model."""

import csv
import json
import os
import signal
import subprocess
import sys
import time

import pytest

from jaxalign.crest import main

SMALL = [
    *("model=tiny", "precision=float32", "lora.rank=2"),
    *("dataset.solved=4", "dataset.train=12", "dataset.validation=3", "dataset.test=3", "dataset.links=[1]"),
    *("crest.samples=6", "crest.tolerance=null", "sampling.max_tokens=24", "test.max_tokens=8"),
    *("seed.epochs=1", "seed.learning_rate=0.05", "dpo.steps=2"),
]
"""A random model, taught just enough that it is right about some questions and wrong about others."""


@pytest.fixture(autouse=True, scope="module")
def cache(tmp_path_factory):
    before = os.environ.get("JAXALIGN_CACHE")
    os.environ["JAXALIGN_CACHE"] = str(tmp_path_factory.mktemp("cache"))
    yield
    if before is None:
        del os.environ["JAXALIGN_CACHE"]
    else:
        os.environ["JAXALIGN_CACHE"] = before


def refused(arguments, capsys) -> str:
    with pytest.raises(SystemExit) as stop:
        main(arguments)
    assert stop.value.code == 2
    lines = capsys.readouterr().err.strip().splitlines()
    assert len(lines) == 1 and lines[0].startswith("error: ")
    return lines[0]


def records(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A run of all stages at once."""
    folder = tmp_path_factory.mktemp("whole") / "run"
    main([f"run.dir={folder}", *SMALL])
    return folder


def test_the_whole_loop_leaves_what_a_person_would_read(whole, capsys):
    summary = json.loads((whole / "summary.json").read_text())
    assert [model["name"] for model in summary["models"]] == ["base", "seed", "sft", "round 1", "round 2"]
    assert list(summary["stages"]) == ["seed", "rationales", "evaluate", "sft", "preferences", "dpo", "test"]
    assert summary["stages"]["evaluate"]["sampled"] == 72
    pages = records(whole / "rationales.jsonl")
    assert sum(one["copies"] for one in pages) == 72
    for one in pages:
        assert (one["z"] is None) == (one["prediction"] is None) and bool(one["followups"]) == (one["z"] == 1)
    pairs = records(whole / "pairs.jsonl")
    assert {one["round"] for one in pairs} == {1, 2} and {one["kind"] for one in pairs} <= {"z", "z_tilde"}
    with (whole / "table.csv").open() as file:
        assert len(list(csv.DictReader(file))) == 5
    page = (whole / "report.md").read_text()
    assert "### Wrong" in page and "![accuracy](figures/accuracy.png)" in page
    for picture in ("accuracy.png", "z_tilde.png"):
        assert (whole / "figures" / picture).read_bytes().startswith(b"\x89PNG")
    assert (whole / "adapter" / "adapter_model.safetensors").exists()
    main([f"run.dir={whole}", *SMALL])
    shown = capsys.readouterr().out
    assert "test accuracy" in shown and "compiled" not in shown
    main([f"compare={whole}"])
    assert "round" in capsys.readouterr().out


def test_the_first_step_of_every_round_is_at_its_own_reference(whole):
    metrics = records(whole / "stages" / "dpo" / "metrics.jsonl")
    for name in ("round-1", "round-2"):
        first = next(record for record in metrics if record["stage"] == name)
        assert first["step"] <= 10 and first["loss"] == pytest.approx(0.6931, abs=0.02)


def test_one_prompt_serves_sampling_both_trainings_and_the_test(whole):
    stages = whole / "stages"
    sampled = {one["prompt"] for one in records(stages / "rationales" / "generations.jsonl")}
    tested = {one["prompt"] for one in records(stages / "sft" / "generations.jsonl")}
    assert len(sampled) == 12 and len(tested) == 3 and not sampled & tested


def test_stage_by_stage_is_the_whole_and_says_what_is_missing(whole, tmp_path, capsys):
    folder = tmp_path / "run"
    line = refused([f"run.dir={folder}", "stage=evaluate", *SMALL], capsys)
    assert "stage=evaluate needs what stage=seed writes" in line
    for stage in ("seed", "rationales", "evaluate", "sft", "preferences", "dpo", "test"):
        main([f"run.dir={folder}", f"stage={stage}", *SMALL])
    for name in ("rationales.jsonl", "pairs.jsonl", "table.csv"):
        assert (folder / name).read_bytes() == (whole / name).read_bytes()
    weights = "adapter/adapter_model.safetensors"
    assert (folder / weights).read_bytes() == (whole / weights).read_bytes()
    line = refused([f"run.dir={folder}", "stage=sft", *SMALL, "crest.samples=5"], capsys)
    assert "belongs to another configuration: crest.samples was 6 and is 5" in line


def test_a_sweep_shares_what_comes_before(whole, tmp_path, capsys):
    root = tmp_path / "outputs"
    main([f"run.root={root}", *SMALL, "dpo.rounds=0"])
    first = capsys.readouterr().out
    main([f"run.root={root}", *SMALL, "dpo.rounds=1"])
    second = capsys.readouterr().out
    assert "rationales: done before" in second and "done before" not in first
    assert len(list((root / "stages").glob("rationales-*"))) == 1
    assert len(list((root / "stages").glob("dpo-*"))) == 1
    main([f"compare={root}/crest-*"])
    assert capsys.readouterr().out.count("round 1") == 1


@pytest.mark.parametrize("stage", ["rationales", "evaluate", "dpo"])
def test_a_kill_at_any_moment_loses_nothing_that_changes_the_result(whole, tmp_path, stage):
    folder = tmp_path / "run"
    command = [sys.executable, "-m", "jaxalign.crest", f"run.dir={folder}", *SMALL]
    files = {"rationales": "generations.jsonl", "evaluate": "rationales.jsonl", "dpo": "metrics.jsonl"}
    watched = folder / "stages" / stage / files[stage]
    environment = {**os.environ, "JAX_PLATFORMS": "cpu"}
    process = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    while process.poll() is None and not watched.exists():
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert watched.exists()
    main([f"run.dir={folder}", *SMALL])
    assert (folder / "rationales.jsonl").read_bytes() == (whole / "rationales.jsonl").read_bytes()
    weights = "adapter/adapter_model.safetensors"
    assert (folder / weights).read_bytes() == (whole / weights).read_bytes()


@pytest.mark.parametrize(
    ("changes", "models"),
    [
        (["experiment=zero_shot"], ["base", "seed"]),
        (["experiment=few_shot"], ["base", "seed"]),
        (["experiment=self_consistency", "test.samples=3"], ["base", "seed"]),
        (["experiment=rft", "sft.epochs=1"], ["base", "seed", "sft"]),
        (["experiment=label_only", "sft.epochs=1"], ["base", "seed", "sft"]),
        (["experiment=lmsi", "sft.epochs=1"], ["base", "seed", "sft"]),
        (["experiment=dpo_only", "dpo.rounds=1"], ["base", "seed", "round 1"]),
    ],
)
def test_baselines_are_configurations(changes, models, tmp_path):
    main([f"run.dir={tmp_path / 'run'}", *SMALL, *changes])
    summary = json.loads((tmp_path / "run" / "summary.json").read_text())
    assert [model["name"] for model in summary["models"]] == models


def test_star_gives_hints_and_begins_anew_at_the_base(tmp_path):
    small = [one for one in SMALL if not one.startswith(("crest.samples", "crest.tolerance"))]
    changes = ["experiment=star", "crest.iterations=2", "sft.epochs=1"]
    main([f"run.dir={tmp_path / 'run'}", *small, *changes])
    summary = json.loads((tmp_path / "run" / "summary.json").read_text())
    assert [model["name"] for model in summary["models"]] == ["base", "seed", "sft", "sft-2"]
    hinted = [one for one in records(tmp_path / "run" / "rationales.jsonl") if one["copies"] == 0]
    assert all(one["z"] == 1 for one in hinted)


@pytest.mark.parametrize(
    "switches",
    [
        ["released.letters_in_words=true", "released.followups_by_not=true", "released.threshold=0", "dpo.rounds=0"],
        ["released.no_end_token=true", "released.prompt_without_question=true", "dpo.rounds=1"],
    ],
)
def test_released_behaviours_run(tmp_path, switches):
    main([f"run.dir={tmp_path / 'run'}", *SMALL, *switches, "sft.epochs=1"])
    pages = records(tmp_path / "run" / "rationales.jsonl")
    if "released.letters_in_words=true" in switches:
        assert all(one["z"] is not None for one in pages)
        said = [pair for one in pages for pair in one["followups"]]
        assert said and all({pair["affirm"], pair["deny"]} == {0.0, -1.0} for pair in said)


def test_bad_input_is_one_line(tmp_path, capsys):
    where = f"run.dir={tmp_path / 'run'}"
    for changes, words in (
        (["crest.samples=0"], "crest.samples=0 is not allowed"),
        (["crest.tolerance=-1"], "crest.tolerance=-1 is not allowed"),
        (["crest.tolerance=9"], "crest.tolerance=9 is above"),
        (["crest.mixing=1.5"], "crest.mixing=1.5 is not allowed"),
        (["dpo.beta=0"], "dpo.beta=0 is not allowed"),
        (["dataset=starter"], "crest needs questions"),
        (["dataset=arc", f"dataset.path={tmp_path}"], "holds no file for train"),
        (["dataset.examples=[]", "crest.few_shot=true"], "has no worked examples"),
        (["dataset.solved=0", "stage=seed"], "stage=seed needs solved questions"),
        ([f"compare={tmp_path}/none*"], "finds no finished run"),
        (["sampling.max_tokens=100000"], "takes"),
    ):
        assert words in refused([where, *SMALL, *changes], capsys)
    # A threshold that nothing reaches.
    line = refused([where, *SMALL, "released.threshold=9"], capsys)
    assert "none is kept" in line or "no rationale leads to the right answer" in line
