"""A stage of training, broken off and gone on with. As a script, this file trains until it kills itself."""

import dataclasses
import os
import signal
import sys
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
from child_process import Child
from few_examples import SETTINGS, STAGE
from tiny_model import ARCHITECTURE, MODEL, random_params

from jaxalign.data.encoding import Encoded
from jaxalign.errors import UserError
from jaxalign.models.lora import init_adapter
from jaxalign.objectives.forward import reader
from jaxalign.parallel.compilation import Programs
from jaxalign.runs.directory import Run
from jaxalign.runs.records import read_records
from jaxalign.training.feed import StageSettings
from jaxalign.training.loop import fit, resume_point
from jaxalign.training.supervised import Packer, SupervisedStage, supervised_steps, validation_loss

TIMES = ("seconds", "tokens_per_second")


def new_adapter() -> Any:
    return init_adapter(jax.random.key(0), ARCHITECTURE, 3, ("q_proj", "down_proj"))


def train(
    folder: Path, programs: Programs, settings: StageSettings = SETTINGS, data: SupervisedStage = STAGE, **options: Any
):
    """Start a stage in a folder, or go on with it; return `fit`'s results."""
    run = Run(Path(folder))
    point = resume_point(run, new_adapter(), "adamw", print)
    return fit(
        MODEL,
        random_params(),
        new_adapter(),
        data,
        settings,
        run=run,
        prefix="1-survey",
        programs=programs,
        extra={"stages": []},
        resume=None if point is None else point[:2],
        **options,
    )


@pytest.fixture(scope="module")
def straight(tmp_path_factory, programs):
    """(folder, adapter, summary) of four steps without a break."""
    folder = tmp_path_factory.mktemp("straight")
    return folder, *train(folder, programs)


def records(folder: Path) -> list[dict[str, Any]]:
    """Return what was logged, times apart."""
    return [{k: v for k, v in record.items() if k not in TIMES} for record in read_records(Run(folder).metrics)]


def assert_same(folder, result, straight):
    """Compare two finished stages bit by bit: adapter, summary, metrics, and all that the last checkpoint holds."""
    other, adapter, summary = straight
    jax.tree.map(np.testing.assert_array_equal, result[0], adapter)
    assert {k: v for k, v in result[1].items() if k not in TIMES} == {
        k: v for k, v in summary.items() if k not in TIMES
    }
    assert records(folder) == records(other)
    assert read_records(Run(folder).validation) == read_records(Run(other).validation) != []
    (ours, progress, _), (theirs, their_progress, _) = (
        resume_point(Run(path), new_adapter(), "adamw", print) for path in (folder, other)
    )
    jax.tree.map(np.testing.assert_array_equal, ours, theirs)
    assert dataclasses.replace(progress, seconds=0.0) == dataclasses.replace(their_progress, seconds=0.0)
    assert int(ours["state"].step) == 4


@pytest.mark.slow
def test_a_stage_logs_every_step_and_sums_itself_up(straight):
    folder, _, summary = straight
    steps = [record for record in read_records(Run(folder).metrics) if "loss" in record]
    assert [record["step"] for record in steps] == [1, 2, 3, 4]
    assert [record["stage"] for record in steps] == ["survey"] * 4
    rates = [record["learning_rate"] for record in steps]
    np.testing.assert_allclose(rates, [0.005, 0.01, 0.01 * 2 / 3, 0.01 / 3], rtol=1e-6)
    assert steps[-1]["tokens"] == summary["tokens"] == 2 * sum(STAGE.train.tokens(i) for i in range(12))
    assert (summary["first_loss"], summary["last_loss"]) == (steps[0]["loss"], steps[-1]["loss"])
    assert summary["steps"] == 4
    assert (summary["examples"], summary["validation_examples"], summary["positives"]) == (12, 6, 5)
    assert 0 <= summary["padding_share"] < 1
    assert 0 < summary["shared_share"] < 1
    assert min(record[key] for record in steps for key in TIMES) > 0


@pytest.mark.slow
def test_terminated_after_two_steps_and_resumed_is_four_steps_bitwise(tmp_path, programs, straight):
    settings = dataclasses.replace(SETTINGS, checkpoint_every=100)

    def terminate(step, loss, speed):
        if step == 2:
            os.kill(os.getpid(), signal.SIGTERM)

    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(KeyboardInterrupt):
        train(tmp_path, programs, settings, on_step=terminate)
    assert signal.getsignal(signal.SIGTERM) is before
    assert [record["step"] for record in records(tmp_path) if "loss" in record] == [1, 2]
    started = []
    result = train(tmp_path, programs, settings, on_stage=lambda *told: started.append(told))
    assert started == [("survey", 4, 2)]
    assert_same(tmp_path, result, straight)


@pytest.mark.slow
def test_killed_after_three_steps_and_resumed_from_the_second_is_four_steps_bitwise(tmp_path, programs, straight):
    child = Child("training.test_loop", [tmp_path])
    assert child.wait(300) == -signal.SIGKILL, child.communicate()
    assert [record["step"] for record in records(tmp_path) if "loss" in record] == [1, 2, 3]
    started = []
    result = train(tmp_path, programs, on_stage=lambda *told: started.append(told))
    assert started == [("survey", 4, 2)]
    assert_same(tmp_path, result, straight)


@pytest.mark.slow
def test_a_finished_stage_trains_no_more_and_returns_the_same(tmp_path, programs, straight):
    first = train(tmp_path, programs)

    def refuse(step, loss, speed):
        raise AssertionError("a step was taken")

    again = train(tmp_path, programs, on_step=refuse)
    assert again[1] == first[1]
    assert_same(tmp_path, again, straight)


def test_terminated_at_the_last_step_a_stage_is_finished_and_the_next_is_not_begun(tmp_path, programs, straight):
    def terminate(step, loss, speed):
        if step == 4:
            os.kill(os.getpid(), signal.SIGTERM)

    with pytest.raises(KeyboardInterrupt):
        train(tmp_path, programs, on_step=terminate)
    assert_same(tmp_path, train(tmp_path, programs), straight)


def test_a_loss_that_is_no_number_names_the_step_and_the_learning_rate_and_keeps_the_checkpoint(tmp_path, programs):
    hyper = SETTINGS.hyper.replace(learning_rate=1e30)
    settings = dataclasses.replace(SETTINGS, hyper=hyper, schedule="constant", checkpoint_every=1, warmup_steps=0)
    with pytest.raises(UserError, match=r"stage survey, step 2: the loss is .* at learning rate 1e\+30; try a smaller"):
        train(tmp_path, programs, settings)
    assert resume_point(Run(tmp_path), new_adapter(), "adamw", print)[1].step == 1


def test_a_loss_that_is_no_number_before_the_first_step_is_the_model_s_and_not_the_learning_rate_s(
    tmp_path, programs, monkeypatch
):
    too_large = jax.tree.map(lambda x: x * np.float32(1e30), random_params())
    monkeypatch.setattr(sys.modules[__name__], "random_params", lambda: too_large)
    with pytest.raises(UserError, match="stage survey, step 1: the loss is nan before anything was learned") as told:
        train(tmp_path, programs)
    assert "learning_rate" not in str(told.value)


def read_validation(adapter, programs, **options) -> float:
    """Return the validation loss of an adapter, with the packer as given."""
    packer = Packer(STAGE.validation, **({"share": True, "alone": False, "limit": 96, "max_rows": None} | options))
    steps = [[0, 1, 2], [3, 4, 5]]
    packer.plan(steps)
    return validation_loss(packer, steps, reader(MODEL, random_params(), adapter, SETTINGS.hyper.scale, programs))


def test_the_adapter_of_the_best_validation_loss_is_kept(tmp_path, programs):
    hyper = SETTINGS.hyper.replace(learning_rate=0.1)
    settings = dataclasses.replace(SETTINGS, epochs=3, hyper=hyper, schedule="constant", warmup_steps=0)
    best, summary = train(tmp_path, programs, settings)
    losses = [record["validation_loss"] for record in read_records(Run(tmp_path).validation)]
    assert len(losses) == 3
    assert losses[-1] > min(losses) == summary["best_validation_loss"]
    assert read_validation(best, programs) == pytest.approx(min(losses), rel=1e-5)


def test_without_validation_the_last_adapter_is_kept(tmp_path, programs):
    best, summary = train(tmp_path, programs, dataclasses.replace(SETTINGS, validate=False, max_steps=3))
    assert summary["best_validation_loss"] is None
    assert summary["steps"] == 3
    assert not Run(tmp_path).validation.exists()
    state = resume_point(Run(tmp_path), new_adapter(), "adamw", print)[0]["state"]
    jax.tree.map(np.testing.assert_array_equal, best, state.adapter)


def test_the_validation_loss_does_not_depend_on_packing(programs, straight):
    adapter = straight[1]
    shared = read_validation(adapter, programs)
    for options in ({"share": False}, {"share": False, "alone": True}, {"max_rows": 1}):
        assert read_validation(adapter, programs, **options) == pytest.approx(shared, rel=1e-5)


@pytest.mark.slow
def test_training_does_not_depend_on_packing_and_accumulation_but_for_rounding(tmp_path, programs):
    def losses(name, **changed):
        hyper = SETTINGS.hyper.replace(dropout=0.0)
        train(tmp_path / name, programs, dataclasses.replace(SETTINGS, hyper=hyper, validate=False, **changed))
        return [record["loss"] for record in records(tmp_path / name)]

    packed = losses("packed")
    np.testing.assert_allclose(losses("alone", packing=False), packed, rtol=1e-4)
    np.testing.assert_allclose(losses("accumulated", max_rows=1, row_length=32), packed, rtol=1e-4)


def test_losses_between_two_records_are_averaged_over_their_tokens(tmp_path, programs, straight):
    train(tmp_path, programs, dataclasses.replace(SETTINGS, log_every=2))
    by_two = [record for record in records(tmp_path) if "loss" in record]
    by_one = [record["loss"] for record in records(straight[0]) if "loss" in record]
    counts = [
        sum(len(STAGE.train.responses[i]) * STAGE.train.weights[i] for i in step)
        for _, step in supervised_steps(STAGE.train, SETTINGS)
    ]
    assert [record["step"] for record in by_two] == [2, 4]
    expected = [np.average(by_one[n : n + 2], weights=counts[n : n + 2]) for n in (0, 2)]
    np.testing.assert_allclose([record["loss"] for record in by_two], expected, rtol=1e-5)


def test_a_stage_without_examples_is_refused(tmp_path, programs):
    with pytest.raises(UserError, match="stage survey has no examples"):
        train(tmp_path, programs, data=SupervisedStage("survey", Encoded([], [], [], []), STAGE.validation))


def kill_after_three(step: int, loss: float, speed: float) -> None:
    """Die as with `kill -9`, between the checkpoint of step 2 and that of step 4."""
    if step == 3:
        os.kill(os.getpid(), signal.SIGKILL)


if __name__ == "__main__":
    jax.config.update("jax_enable_compilation_cache", False)
    train(Path(sys.argv[1]), Programs(), on_step=kill_after_three)
