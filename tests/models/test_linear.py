import jax
import jax.numpy as jnp
import numpy as np
from one_program import value_and_vjp

from jaxalign.models.linear import Projection, frozen_product


def a_case(dtype=jnp.float32):
    random = np.random.default_rng(0)
    return [jnp.asarray(random.standard_normal(shape), dtype) for shape in ((2, 5, 12), (12, 7), (2, 5, 7))]


def test_the_product_and_the_gradient_of_its_input_are_those_of_a_plain_product():
    x, kernel, upstream = a_case()
    found, (gradient, _) = value_and_vjp(frozen_product, upstream, x, kernel)
    x, kernel, upstream = map(np.asarray, (x, kernel, upstream))
    np.testing.assert_allclose(found, x @ kernel, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(gradient, upstream @ kernel.T, rtol=1e-5, atol=1e-5)


def test_a_frozen_kernel_has_no_gradient():
    x, kernel, _ = a_case()
    assert not np.any(jax.grad(lambda kernel: (frozen_product(x, kernel) ** 2).sum())(kernel))


def test_bfloat16_products_are_rounded_once():
    x, kernel, upstream = a_case(jnp.bfloat16)
    found, (gradient, _) = value_and_vjp(frozen_product, upstream, x, kernel)
    assert found.dtype == gradient.dtype == jnp.bfloat16
    found, gradient, x, kernel, upstream = (
        np.asarray(one, np.float32) for one in (found, gradient, x, kernel, upstream)
    )
    np.testing.assert_allclose(found, x @ kernel, rtol=2**-8)
    np.testing.assert_allclose(gradient, upstream @ kernel.T, rtol=2**-8)


def test_a_product_and_its_adapters_are_summed_before_they_are_rounded(monkeypatch):
    x, kernel, _ = a_case(jnp.bfloat16)
    random = np.random.default_rng(1)
    a, b = (jnp.asarray(random.standard_normal(shape), jnp.bfloat16) for shape in ((12, 3), (3, 7)))
    adapter = (a.astype(jnp.float32), b.astype(jnp.float32))
    inner = jnp.asarray(np.asarray(x, np.float64) @ np.asarray(a, np.float64), jnp.bfloat16)
    base = np.asarray(x, np.float64) @ np.asarray(kernel, np.float64)
    low_rank = np.asarray(inner, np.float64) @ np.asarray(b, np.float64)
    found = frozen_product(x, kernel, adapter)
    np.testing.assert_array_equal(found, jnp.asarray(base + low_rank, jnp.bfloat16))
    monkeypatch.setattr("jaxalign.models.precision.on_cpu", lambda: False)
    apart = jnp.asarray(base, jnp.bfloat16) + jnp.asarray(low_rank, jnp.bfloat16)
    np.testing.assert_array_equal(frozen_product(x, kernel, adapter), apart)
    assert np.any(apart != found)


def test_an_input_in_float32_is_rounded_for_the_products_and_its_gradient_is_not():
    x, kernel, upstream = a_case(jnp.bfloat16)
    random = np.random.default_rng(1)
    a, b, wide = (jnp.asarray(random.standard_normal(shape), jnp.float32) for shape in ((12, 3), (3, 7), x.shape))
    rounded = wide.astype(jnp.bfloat16)

    def product(x, dropped=None):
        return frozen_product(x, kernel, (a, b), dropped, jnp.bfloat16)

    (found, pull), (wanted, plain) = jax.vjp(product, wide), jax.vjp(product, rounded)
    np.testing.assert_array_equal(found, wanted)
    (gradient,), (other,) = pull(upstream), plain(upstream)
    assert (found.dtype, gradient.dtype, other.dtype) == (jnp.bfloat16, jnp.float32, jnp.bfloat16)
    np.testing.assert_array_equal(gradient.astype(jnp.bfloat16), other)
    assert np.any(gradient != other.astype(jnp.float32))
    both = jax.vjp(product, wide, wide)[1](upstream)
    np.testing.assert_allclose(both[0] + both[1], gradient, rtol=1e-6, atol=1e-6)


def test_a_projection_adds_its_bias_and_dropout_touches_the_adapter_alone():
    x, kernel, _ = a_case()
    random = np.random.default_rng(1)
    bias, a, b = (jnp.asarray(random.standard_normal(shape), jnp.float32) for shape in ((7,), (12, 3), (3, 7)))
    variables = {"params": {"kernel": kernel, "bias": bias}, "lora": {"a": a, "b": b}}
    layer = Projection(7, bias=True)
    np.testing.assert_allclose(layer.apply(variables, x), x @ kernel + bias + x @ a @ b, atol=1e-4)
    without = layer.apply(variables, x, jnp.zeros_like)
    np.testing.assert_array_equal(without, layer.apply({"params": variables["params"]}, x))
