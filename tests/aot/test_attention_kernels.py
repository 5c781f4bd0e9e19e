"""The kernel of TPUs, compiled for a TPU that is not here."""

import time

import chips
import jax
import jax.numpy as jnp
import pytest

from jaxalign.models.kernels import kernel_attention

pytestmark = pytest.mark.aot


@pytest.mark.parametrize(("heads", "groups", "size", "softcap"), [(3, 3, 64, None), (8, 2, 256, 50.0)])
def test_splash_over_2048_tokens_compiles_within_ten_seconds(heads, groups, size, softcap):
    (chip,) = chips.chips("v5e:1x1")
    k = jax.ShapeDtypeStruct((4, heads, 2048, size), jnp.bfloat16)
    q = jax.ShapeDtypeStruct((4, heads, groups, 2048, size), jnp.bfloat16)
    ends = jax.ShapeDtypeStruct((4, 2048), jnp.int32)

    def attend(q, k, v, ends, positions):
        attention = kernel_attention("splash", ends, positions, (0, 1024), None)
        return attention(q, k, v, jnp.int32(1024), 0.125, softcap).astype(jnp.float32).sum()

    program = jax.jit(jax.grad(attend, (0, 1, 2))).lower(*chips.on_chip((q, k, k, ends, ends), chip))
    jax.jit(jnp.sin).lower(chips.on_chip(ends, chip)).compile()  # the first compilation also starts the compiler
    start = time.process_time()
    compiled = program.compile()
    assert time.process_time() - start < 10
    assert compiled.as_text().count('custom_call_target="tpu_custom_call"') == 3  # forwards, and two backwards
    assert compiled.memory_analysis().temp_size_in_bytes < 300e6  # the scores of all heads would take 600 MB and more
