import jax.numpy as jnp
import numpy as np

from jaxalign.objectives.sft import sft_loss


def test_the_loss_is_the_weighted_mean_over_tokens_however_they_are_cut_into_micro_batches():
    random = np.random.default_rng(0)
    log_probs = jnp.asarray(-random.exponential(size=(6, 5)), jnp.float32)
    weight = jnp.asarray(random.integers(0, 4, (6, 5)), jnp.float32)
    expected = -np.average(log_probs, weights=weight)
    for cuts in ([], [2], [1, 5]):
        parts = zip(jnp.split(log_probs, cuts), jnp.split(weight, cuts), strict=True)
        sums, counts = zip(*(sft_loss(*part) for part in parts), strict=True)
        np.testing.assert_allclose(sum(sums) / sum(counts), expected, rtol=1e-6)


def test_padding_counts_neither_in_the_sum_nor_in_the_count():
    value, count = sft_loss(jnp.asarray([[-1.0, -100.0, -3.0]]), jnp.asarray([[1.0, 0.0, 2.0]]))
    assert (float(value), float(count)) == (7.0, 3.0)
