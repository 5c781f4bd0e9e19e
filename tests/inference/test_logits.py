from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxalign.inference import logits as module
from jaxalign.inference.logits import BLOCK, sample_tokens

RANDOM = np.random.default_rng(0)
ROWS, SEVERAL = 2_000, 2 * BLOCK + 5
"""The rows of most programs, and the tokens of those with several blocks."""


@partial(jax.jit, static_argnames="filtered")
def draw(logits, uniform, temperature=1.0, top_k=0, top_p=1.0, filtered=True):
    """Choose with scalars as arrays, as the sampler passes them."""
    return sample_tokens(
        logits, uniform, jnp.float32(temperature), jnp.int32(top_k), jnp.float32(top_p), filtered=filtered
    )


def expected(logits, temperature, top_k, top_p):
    """The distribution that sampling is to have, by sorting."""
    logits = np.asarray(logits, np.float64) / temperature
    probabilities = np.exp(logits - logits.max())
    probabilities /= probabilities.sum()
    order = np.argsort(-probabilities)
    kept = order[: top_k or len(order)]
    mass = np.cumsum(probabilities[kept]) / probabilities[kept].sum()
    kept = kept[: np.searchsorted(mass, top_p - 1e-12) + 1]
    result = np.zeros_like(probabilities)
    result[kept] = probabilities[kept] / probabilities[kept].sum()
    return result


@pytest.mark.slow
@pytest.mark.parametrize("size", [7, BLOCK, SEVERAL])
@pytest.mark.parametrize(
    ("temperature", "top_k", "top_p"), [(1.0, 0, 1.0), (0.7, 0, 1.0), (1.0, 5, 1.0), (1.3, 0, 0.6), (0.9, 6, 0.8)]
)
def test_draws_follow_the_distribution(size, temperature, top_k, top_p):
    logits = 2 * np.random.default_rng(size).standard_normal(size).astype(np.float32)
    wanted = expected(logits, temperature, top_k, top_p)
    draws = 2 * ROWS
    uniform = np.random.default_rng(1).random(draws, np.float32)
    tokens = np.concatenate(
        [
            np.asarray(draw(np.tile(logits, (ROWS, 1)), part, temperature, top_k, top_p))
            for part in uniform.reshape(-1, ROWS)
        ]
    )
    counts = np.bincount(tokens, minlength=size)
    assert not counts[wanted == 0].any()
    likely = wanted * draws >= 5
    observed = np.append(counts[likely], counts[~likely].sum())
    awaited = np.append(wanted[likely], wanted[~likely].sum()) * draws
    keep = awaited > 0
    chi_square = ((observed[keep] - awaited[keep]) ** 2 / awaited[keep]).sum()
    freedom = keep.sum() - 1
    # The mean of a chi-square is its degrees of freedom, the variance twice that.
    assert chi_square < freedom + 4 * np.sqrt(2 * max(freedom, 1))


def chi_square_of(counts, wanted):
    """The statistic in units of its standard deviation above its mean."""
    keep = wanted > 0
    awaited = wanted[keep] / wanted[keep].sum() * counts.sum()
    chi_square = ((counts[keep] - awaited) ** 2 / awaited).sum()
    freedom = max(keep.sum() - 1, 1)
    return (chi_square - freedom) / np.sqrt(2 * freedom)


@pytest.mark.slow
def test_what_is_left_after_all_tries_follows_the_distribution_too(monkeypatch):
    monkeypatch.setattr(module, "TRIES", 1)  # half of the rows get there
    logits = np.random.default_rng(5).standard_normal(12).astype(np.float32)
    uniform = np.random.default_rng(1).random(20_000, np.float32)
    anew = jax.jit(partial(sample_tokens, filtered=True))
    tokens = anew(np.tile(logits, (len(uniform), 1)), uniform, jnp.float32(1), jnp.int32(0), jnp.float32(0.5))
    counts = np.bincount(np.asarray(tokens), minlength=12)
    wanted = expected(logits, 1.0, 0, 0.5)
    assert not counts[wanted == 0].any()
    assert chi_square_of(counts, wanted) < 4


@pytest.mark.parametrize("temperature", [1e-20, 1e-37, 1.2e-38, 1e-39, 1e-44])
@pytest.mark.parametrize("filtered", [True, False])
def test_the_smallest_temperatures_are_greedy(temperature, filtered):
    logits = 1e3 * RANDOM.standard_normal((5, 300)).astype(np.float32)
    uniform = RANDOM.random(5, np.float32)
    for top_k, top_p in ((0, 0.9), (7, 0.9)):
        found = draw(logits, uniform, temperature, top_k, top_p, filtered=filtered)
        np.testing.assert_array_equal(found, logits.argmax(-1))


def test_temperature_zero_takes_the_most_probable():
    logits = RANDOM.standard_normal((5, 300)).astype(np.float32)
    uniform = RANDOM.random(5, np.float32)
    np.testing.assert_array_equal(draw(logits, uniform, 0.0, 3, 0.5), logits.argmax(-1))


def test_one_candidate_is_always_taken():
    logits = RANDOM.standard_normal((5, 300)).astype(np.float32)
    uniform = RANDOM.random(5, np.float32)
    np.testing.assert_array_equal(draw(logits, uniform, 1.0, 1, 1.0), logits.argmax(-1))
    np.testing.assert_array_equal(draw(logits, uniform, 1.0, 0, 1e-6), logits.argmax(-1))


def test_ties_at_the_threshold_are_kept():
    logits = np.zeros((ROWS, 7), np.float32)
    uniform = np.linspace(0, 1, ROWS, endpoint=False, dtype=np.float32)
    assert set(np.asarray(draw(logits, uniform, 1.0, 2, 1.0)).tolist()) == set(range(7))


def test_the_ends_of_the_unit_interval_give_possible_tokens():
    logits = np.full((ROWS, SEVERAL), -np.inf, np.float32)
    logits[:, [BLOCK + 1, BLOCK + 2]] = 0.0
    ends = np.tile(np.array([0, np.nextafter(np.float32(1), np.float32(0))]), ROWS // 2)
    np.testing.assert_array_equal(draw(logits, ends, filtered=False), [BLOCK + 1, BLOCK + 2] * (ROWS // 2))


def test_unfiltered_and_filtered_agree_where_nothing_is_left_out():
    logits = RANDOM.standard_normal((ROWS, SEVERAL)).astype(np.float32)
    uniform = RANDOM.random(ROWS, np.float32)
    np.testing.assert_array_equal(draw(logits, uniform), draw(logits, uniform, filtered=False))


def test_swept_numbers_compile_nothing():
    traced = draw._cache_size()
    logits, uniform = np.zeros((3, 11), np.float32), np.zeros(3, np.float32)
    for temperature, top_k, top_p in ((0.0, 0, 1.0), (0.5, 3, 0.9), (2.0, 7, 0.1)):
        draw(logits, uniform, jnp.float32(temperature), jnp.int32(top_k), jnp.float32(top_p))
    assert draw._cache_size() == traced + 1
