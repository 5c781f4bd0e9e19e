"""Run as a script, this file trains until it kills itself: python test_loop.py FOLDER"""

import dataclasses
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
from tiny_model import ARCHITECTURE, MODEL, random_params, random_tokens

from jaxalign.data.encoding import Encoded
from jaxalign.errors import UserError
from jaxalign.models.lora import init_adapter
from jaxalign.objectives.forward import reader
from jaxalign.parallel.compilation import Programs
from jaxalign.runs.directory import Run
from jaxalign.runs.records import read_records
from jaxalign.training.feed import StageSettings
from jaxalign.training.loop import fit, resume_point
from jaxalign.training.optimizer import Hyperparameters
from jaxalign.training.supervised import Packer, SupervisedStage, supervised_steps, validation_loss

SETTINGS = StageSettings(
    epochs=2,
    max_steps=None,
    max_tokens=None,
    batch_size=6,
    seed=3,
    log_every=1,
    checkpoint_every=2,
    keep_checkpoints=2,
    row_length=96,
    max_rows=None,
    packing=True,
    share_prompts=True,
    validate=True,
    optimizer="adamw",
    schedule="linear",
    warmup_steps=1,
    hyper=Hyperparameters(1e-2, scale=2.0, dropout=0.1),
)
TIMES = ("seconds", "tokens_per_second")


def some_examples(seed: int, count: int) -> Encoded:
    """Return examples of a few prompts, three responses to each."""
    random = np.random.default_rng(seed)
    prompts = [random_tokens(random, 5, 12) for _ in range(count // 3)]
    responses = [random_tokens(random, 2, 8) for _ in range(count)]
    weights = [float(random.integers(1, 3)) for _ in range(count)]
    return Encoded([prompts[i // 3] for i in range(count)], responses, weights, [False] * count)


STAGE = SupervisedStage("survey", some_examples(0, 12), some_examples(1, 6), positives=5)
"""Two steps an epoch, so four in all."""


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
def programs():
    """Compiled once for all tests here."""
    return Programs()


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
    (ours, course, _), (theirs, their_course, _) = (
        resume_point(Run(path), new_adapter(), "adamw", print) for path in (folder, other)
    )
    jax.tree.map(np.testing.assert_array_equal, ours, theirs)
    assert dataclasses.replace(course, seconds=0.0) == dataclasses.replace(their_course, seconds=0.0)
    assert int(ours["state"].step) == 4


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


def test_killed_after_three_steps_and_resumed_from_the_second_is_four_steps_bitwise(tmp_path, programs, straight):
    paths = [str(Path(__file__).parents[1]), str(Path(__file__).parents[2])]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(paths)}
    command = [sys.executable, __file__, str(tmp_path)]
    child = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300)
    assert child.returncode == -signal.SIGKILL, child.stderr
    assert [record["step"] for record in records(tmp_path) if "loss" in record] == [1, 2, 3]
    started = []
    result = train(tmp_path, programs, on_stage=lambda *told: started.append(told))
    assert started == [("survey", 4, 2)]
    assert_same(tmp_path, result, straight)


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


def test_epochs_take_every_example_once_each_and_differ(straight):
    steps = supervised_steps(STAGE.train, dataclasses.replace(SETTINGS, epochs=3, batch_size=5))
    assert [epoch for epoch, _ in steps] == [0, 0, 0, 1, 1, 1, 2, 2, 2]
    orders = [[index for e, step in steps if e == epoch for index in step] for epoch in range(3)]
    assert all(sorted(order) == list(range(12)) for order in orders)
    assert orders[0] != orders[1] != orders[2]


def test_a_number_of_steps_ends_a_stage_early():
    everything = supervised_steps(STAGE.train, SETTINGS)
    assert supervised_steps(STAGE.train, dataclasses.replace(SETTINGS, max_steps=3)) == everything[:3]
    assert supervised_steps(STAGE.train, dataclasses.replace(SETTINGS, max_steps=100)) == everything


@pytest.mark.parametrize(("epochs", "count"), [(0.01, 1), (0.7, 2), (1, 3), (1.5, 4), (1.7, 5)])
def test_epochs_may_be_a_fraction(epochs, count):
    steps = [supervised_steps(STAGE.train, dataclasses.replace(SETTINGS, epochs=e, batch_size=5)) for e in (epochs, 2)]
    assert steps[0] == steps[1][:count]


@pytest.mark.parametrize("budget", [1, 100, 1000])
def test_a_budget_of_tokens_ends_a_stage_as_soon_as_it_is_spent_whatever_the_epochs(budget):
    settings = dataclasses.replace(SETTINGS, max_tokens=budget)
    steps = supervised_steps(STAGE.train, settings)
    spent = [sum(STAGE.train.tokens(index) for index in step) for _, step in steps]
    assert sum(spent[:-1]) < budget <= sum(spent)
    assert len(steps) > 4 or budget < 1000  # the largest takes more than two epochs


@pytest.mark.parametrize("share", [True, False])
@pytest.mark.parametrize("max_rows", [None, 1, 2])
def test_every_batch_of_a_step_holds_its_examples_and_nothing_else(share, max_rows):
    packer = Packer(STAGE.train, share=share, alone=False, limit=64, max_rows=max_rows)
    steps = [step for _, step in supervised_steps(STAGE.train, SETTINGS)]
    packer.plan(steps[:2])
    for step in [*steps, list(range(12))]:  # the last fits no planned shape
        batch, stored = packer.batch(step)
        assert max_rows is None or batch.tokens.shape[1] <= max_rows
        expected = sorted(token for index in step for token in STAGE.train.responses[index].tolist())
        assert sorted(batch.target[batch.weight > 0].tolist()) == expected
        assert batch.weight.sum() == sum(len(STAGE.train.responses[i]) * STAGE.train.weights[i] for i in step)
        assert stored <= batch.tokens.size
        assert share or stored == sum(STAGE.train.tokens(index) - 1 for index in step)  # the last is read by nothing


def kill_after_three(step: int, loss: float, speed: float) -> None:
    """Die as with `kill -9`, between the checkpoint of step 2 and that of step 4."""
    if step == 3:
        os.kill(os.getpid(), signal.SIGKILL)


if __name__ == "__main__":
    jax.config.update("jax_enable_compilation_cache", False)
    train(Path(sys.argv[1]), Programs(), on_step=kill_after_three)
