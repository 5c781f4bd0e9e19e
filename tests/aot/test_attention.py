"""Attention, compiled for a TPU that is not here: its program does not grow with the length of a row."""

import time

import chips
import jax
import jax.numpy as jnp
import pytest

from jaxalign.models.attention import KEY_BLOCK, QUERY_BLOCK, tree_attention

pytestmark = pytest.mark.aot


def test_attention_over_2048_tokens_compiles_within_ten_seconds(monkeypatch):
    (chip,) = chips.chips("v5e:1x1")
    monkeypatch.setattr(jax, "default_backend", lambda: "tpu")
    rows, heads, groups, length, size = 4, 3, 3, 2048, 64
    k = jax.ShapeDtypeStruct((rows, heads, length, size), jnp.bfloat16)
    q = jax.ShapeDtypeStruct((rows, heads, groups, length, size), jnp.bfloat16)
    ends = jax.ShapeDtypeStruct((rows, length), jnp.int32)
    blocks = jax.ShapeDtypeStruct((rows, length // QUERY_BLOCK, 640 // KEY_BLOCK), jnp.int32)

    def attend(q, k, v, ends, positions, blocks):
        found = tree_attention(q, k, v, ends, positions, blocks, jnp.int32(0), 0.125, None)
        return found.astype(jnp.float32).sum()

    arguments = chips.on_chip((q, k, k, ends, ends, blocks), chip)
    program = jax.jit(jax.grad(attend, (0, 1, 2))).lower(*arguments)
    jax.jit(jnp.sin).lower(chips.on_chip(ends, chip)).compile()  # the first compilation also starts the compiler
    start = time.process_time()
    compiled = program.compile()
    assert time.process_time() - start < 10
    assert compiled.memory_analysis().temp_size_in_bytes < 200e6  # all scores at once would take 600 MB
