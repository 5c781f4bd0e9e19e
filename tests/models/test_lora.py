import jax
import jax.numpy as jnp
import numpy as np
import pytest
from one_program import value_and_vjp
from tiny_model import ARCHITECTURE, random_adapter

from jaxalign.errors import UserError
from jaxalign.models.architecture import PROJECTIONS, projection_shape
from jaxalign.models.linear import frozen_product
from jaxalign.models.lora import adapter_hash, apply_dropout, effective, init_adapter

drop = jax.jit(apply_dropout)


@pytest.fixture
def operands():
    """(x, a, b, upstream gradient) of one low-rank product."""
    random = np.random.default_rng(1)
    return [jnp.asarray(random.standard_normal(s), jnp.float32) for s in ((2, 7, 12), (12, 3), (3, 9), (2, 7, 9))]


def lora_product(x, a, b):
    """(x a) b, beside a frozen kernel of zeros."""
    return frozen_product(x, jnp.zeros((x.shape[-1], b.shape[-1]), x.dtype), (a, b))


def test_the_product_and_its_gradients_are_those_of_two_plain_products(operands):
    *arguments, upstream = operands
    found, gradients = value_and_vjp(lora_product, upstream, *arguments)
    expected, references = value_and_vjp(lambda x, a, b: x @ a @ b, upstream, *arguments)
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)
    for gradient, reference in zip(gradients, references, strict=True):
        np.testing.assert_allclose(gradient, reference, rtol=1e-5, atol=1e-4)


def test_in_bfloat16_the_adapters_gradients_stay_float32(operands):
    x, a, b, upstream = operands
    y, gradients = value_and_vjp(lora_product, upstream.astype(jnp.bfloat16), x.astype(jnp.bfloat16), a, b)
    assert [y.dtype, *(g.dtype for g in gradients)] == [jnp.bfloat16, jnp.bfloat16, jnp.float32, jnp.float32]


def test_products_of_many_adapters_are_those_of_each(operands):
    x, a, b, upstream = operands
    many_a, many_b = jnp.stack([a, 2 * a, -a]), jnp.stack([b, b + 1, b])

    @jax.jit
    def gradients(a, b):
        return jax.vjp(lora_product, x, a, b)[1](upstream)

    mapped = jax.jit(jax.vmap(gradients))(many_a, many_b)
    for index in range(3):
        for one, all_of_them in zip(gradients(many_a[index], many_b[index]), mapped, strict=True):
            np.testing.assert_allclose(one, all_of_them[index], rtol=1e-5, atol=1e-4)


def test_a_new_adapter_has_the_shapes_of_its_targets_a_zero_b_and_a_bounded_a():
    adapter = init_adapter(jax.random.key(0), ARCHITECTURE, 5, PROJECTIONS)
    assert list(adapter["layers"]) == list(PROJECTIONS)
    for name, pair in adapter["layers"].items():
        width, features = projection_shape(ARCHITECTURE, name)
        assert pair["a"].shape == (ARCHITECTURE.layers, width, 5)
        assert pair["b"].shape == (ARCHITECTURE.layers, 5, features)
        assert not np.any(pair["b"])
        assert 0.9 * width**-0.5 < np.abs(pair["a"]).max() <= width**-0.5


def test_a_projection_starts_alike_whichever_others_are_adapted():
    key = jax.random.key(3)
    alone = init_adapter(key, ARCHITECTURE, 4, ["v_proj"])["layers"]["v_proj"]["a"]
    np.testing.assert_array_equal(alone, init_adapter(key, ARCHITECTURE, 4, PROJECTIONS)["layers"]["v_proj"]["a"])
    assert np.any(alone != init_adapter(jax.random.key(4), ARCHITECTURE, 4, ["v_proj"])["layers"]["v_proj"]["a"])


def test_the_scale_goes_into_b_alone():
    adapter = random_adapter(targets=["q_proj"])
    scaled = effective(adapter, 2.5)["layers"]["q_proj"]
    np.testing.assert_array_equal(scaled["a"], adapter["layers"]["q_proj"]["a"])
    np.testing.assert_array_equal(scaled["b"], 2.5 * adapter["layers"]["q_proj"]["b"])


@pytest.mark.parametrize("rate", [0.05, 0.25, 0.5])
def test_dropout_zeroes_its_share_and_keeps_the_mean(rate):
    x = jnp.ones((3, 101, 333))  # not a multiple of four elements
    dropped = np.asarray(drop(jax.random.key(0), jnp.float32(rate), x))
    quantised = round(rate * 256) / 256
    assert abs((dropped == 0).mean() - quantised) < 0.005
    np.testing.assert_allclose(dropped[dropped != 0], 1 / (1 - quantised), rtol=1e-6)


def test_dropout_follows_from_its_key_and_a_rate_of_zero_drops_nothing():
    x = jnp.arange(1.0, 201.0).reshape(2, 100)
    rate = jnp.float32(0.5)
    first = drop(jax.random.key(1), rate, x)
    np.testing.assert_array_equal(first, drop(jax.random.key(1), rate, x))
    assert np.any(first != drop(jax.random.key(2), rate, x))
    np.testing.assert_array_equal(drop(jax.random.key(1), jnp.float32(0), x), x)


def test_a_hash_is_of_the_weights_and_the_scale_wherever_they_lie():
    adapter = random_adapter()
    found = adapter_hash(adapter, 2.0)
    assert len(found) == 16
    assert found == adapter_hash(jax.tree.map(np.array, adapter), 2) == adapter_hash(adapter, np.float64(2))
    other = jax.tree.map(np.array, adapter)
    other["layers"]["q_proj"]["b"][-1, -1, -1] += 1
    assert len({found, adapter_hash(adapter), adapter_hash(adapter, 1.0), adapter_hash(other, 2.0)}) == 4


def test_a_rank_is_at_most_the_models_width():
    assert init_adapter(jax.random.key(0), ARCHITECTURE, 32, ("q_proj",))["layers"]["q_proj"]["a"].shape[-1] == 32
    with pytest.raises(UserError, match="a LoRA rank of 33 is above the model's width: give a rank of at most 32"):
        init_adapter(jax.random.key(0), ARCHITECTURE, 33, ("q_proj", "down_proj"))
