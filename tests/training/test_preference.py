import dataclasses

import few_examples
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from few_responses import PAIRS, RESPONSES
from tiny_model import ARCHITECTURE, MODEL, random_adapter

from jaxalign.data.preferences import PreferencePair, Responses
from jaxalign.errors import UserError
from jaxalign.inference.reference import read_reference
from jaxalign.inference.scorer import Scorer
from jaxalign.models.layout import BaseWeights
from jaxalign.models.lora import effective
from jaxalign.objectives.forward import batch_log_probs, reader
from jaxalign.runs.directory import Run
from jaxalign.runs.records import read_records
from jaxalign.training.loop import fit, resume_point
from jaxalign.training.optimizer import Hyperparameters
from jaxalign.training.preference import PreferenceStage
from jaxalign.training.step import objective

SETTINGS = dataclasses.replace(
    few_examples.SETTINGS,
    epochs=1,
    batch_size=4,
    validate=False,
    schedule="constant",
    warmup_steps=0,
    hyper=Hyperparameters(1e-2, scale=2.0, beta=0.5),
)


@jax.jit
def part_of_a_step(params, adapter, batch):
    """The loss of a micro-batch and its number of pairs, and the gradient."""
    hyper = jax.tree.map(np.float32, SETTINGS.hyper)

    def loss(adapter):
        log_probs = batch_log_probs(MODEL, params, effective(adapter, hyper.scale), batch)
        value, count, _ = objective("sigmoid", log_probs, batch, hyper)
        return value, count

    return jax.value_and_grad(loss, has_aux=True)(adapter)


def loss_and_gradient(params, feed, pairs):
    """The mean loss of a step, and its gradient, summed over its micro-batches."""
    batches, _ = feed._batch(pairs)
    total, count, gradient = 0.0, 0.0, None
    for micro in range(batches.tokens.shape[0]):
        batch = jax.tree.map(lambda x, micro=micro: x[micro], batches)
        (value, pairs_here), part = part_of_a_step(params, random_adapter(), batch)
        total, count = total + float(value), count + float(pairs_here)
        gradient = part if gradient is None else jax.tree.map(jnp.add, gradient, part)
    return total / count, jax.tree.map(lambda leaf: leaf / count, gradient)


@pytest.mark.slow
def test_by_question_by_pair_and_with_prompts_repeated_are_one_loss_and_gradient(params):
    pairs = PAIRS[:10]
    wide = dataclasses.replace(SETTINGS, batch_size=12)
    grouped = PreferenceStage("dpo", RESPONSES, PAIRS, grouped=True).feed(wide)
    together = loss_and_gradient(params, grouped, pairs)
    # Each response with a prompt of its own: two for every pair.
    flat = [response for pair in pairs for response in pair]
    repeated = Responses(
        [RESPONSES.prompts[RESPONSES.prompt_of[r]] for r in flat],
        [RESPONSES.responses[r] for r in flat],
        list(range(len(flat))),
        RESPONSES.reference[flat],
    )
    apart = [PreferencePair(2 * n, 2 * n + 1) for n in range(len(pairs))]
    alone = loss_and_gradient(params, PreferenceStage("dpo", repeated, apart).feed(wide), apart)
    narrow = dataclasses.replace(wide, row_length=40)
    split = loss_and_gradient(params, PreferenceStage("dpo", RESPONSES, PAIRS, grouped=True).feed(narrow), pairs)
    few = dataclasses.replace(wide, row_length=64, max_rows=1)
    accumulated = loss_and_gradient(params, PreferenceStage("dpo", RESPONSES, PAIRS, grouped=True).feed(few), pairs)
    values = [loss_and_gradient(params, grouped, [pair]) for pair in pairs]
    mean = (np.mean([value for value, _ in values]), jax.tree.map(lambda *x: sum(x) / 10, *[g for _, g in values]))
    for other in (alone, split, accumulated, mean):
        jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-4, atol=1e-5), together, other)


def test_grouped_steps_take_whole_questions_until_they_have_their_pairs():
    steps = PreferenceStage("dpo", RESPONSES, PAIRS, grouped=True).feed(SETTINGS).steps
    assert sorted(number for _, step in steps for number in step) == list(range(len(PAIRS)))
    for _, step in steps:
        assert len({RESPONSES.prompt_of[PAIRS[number].chosen] for number in step}) == 1 and len(step) == 6
    paired = PreferenceStage("dpo", RESPONSES, PAIRS).feed(SETTINGS).steps
    assert [len(step) for _, step in paired] == [4] * 6
    assert paired != PreferenceStage("dpo", RESPONSES, PAIRS).feed(dataclasses.replace(SETTINGS, seed=4)).steps


def scorer(params, programs, adapter):
    return Scorer(MODEL, BaseWeights(params, ARCHITECTURE.tied), adapter, 2.0, programs, 96)


def train(folder, params, programs, settings=SETTINGS, **changes):
    adapter = random_adapter()
    reference = read_reference(scorer(params, programs, adapter), RESPONSES, range(16))
    stage = PreferenceStage("dpo", dataclasses.replace(RESPONSES, reference=reference), PAIRS, grouped=True, **changes)
    run = Run(folder)
    point = resume_point(run, adapter, "adamw", print)
    found, summary = fit(
        MODEL,
        params,
        adapter,
        stage,
        settings,
        run=run,
        prefix="1-dpo",
        programs=programs,
        extra={"stages": []},
        resume=None if point is None else point[:2],
    )
    return found, summary, read_records(run.metrics)


@pytest.mark.slow
def test_a_stage_begins_at_log_2_learns_and_leaves_the_base_untouched(params, programs, tmp_path):
    before = jax.tree.map(np.array, params)
    longer = dataclasses.replace(SETTINGS, epochs=3)
    _, summary, records = train(tmp_path, params, programs, longer, validation=PAIRS[:2])
    assert records[0]["loss"] == pytest.approx(np.log(2), abs=1e-4)
    assert records[0]["rewards/margins"] == pytest.approx(0, abs=1e-3)
    assert (
        records[-1]["loss"] < 0.9 * np.log(2) and records[-1]["rewards/accuracies"] > records[0]["rewards/accuracies"]
    )
    assert records[-1]["rewards/margins"] == pytest.approx(
        records[-1]["rewards/chosen"] - records[-1]["rewards/rejected"], abs=1e-3
    )
    assert summary["pairs"] == 24 and summary["distinct_responses"] == 16
    jax.tree.map(np.testing.assert_array_equal, params, before)


@pytest.mark.slow
def test_a_stage_that_was_stopped_ends_as_an_unbroken_one(params, programs, tmp_path, monkeypatch):
    whole, _, records = train(tmp_path / "whole", params, programs)
    from jaxalign.training import loop

    class StopError(Exception):
        pass

    def stop(*_args):
        raise StopError

    real = loop.checkpoint.save

    def save(*arguments):
        real(*arguments)
        stop()

    with monkeypatch.context() as patch:
        patch.setattr(loop.checkpoint, "save", save)
        with pytest.raises(StopError):
            train(tmp_path / "broken", params, programs)
    again, _, resumed = train(tmp_path / "broken", params, programs)
    jax.tree.map(np.testing.assert_array_equal, again, whole)
    assert [record["loss"] for record in resumed] == [record["loss"] for record in records]


@pytest.mark.slow
def test_the_validation_loss_is_that_of_the_held_out_pairs(params, programs):
    settings = dataclasses.replace(SETTINGS, validate=True)
    feed = PreferenceStage("dpo", RESPONSES, PAIRS[6:], PAIRS[:6]).feed(settings)
    read = reader(MODEL, params, random_adapter(), 2.0, programs)
    value, _ = loss_and_gradient(params, feed, PAIRS[:6])
    assert feed.validation_loss(read) == pytest.approx(value, rel=1e-4)
    assert PreferenceStage("dpo", RESPONSES, PAIRS).feed(settings).validation_loss(read) is None


def test_without_pairs_there_is_nothing_to_train():
    with pytest.raises(UserError, match="no pairs"):
        PreferenceStage("dpo", RESPONSES, []).feed(SETTINGS)
