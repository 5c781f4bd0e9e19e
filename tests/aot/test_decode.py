"""A decode step of an 8B model with two layers, compiled for a GPU that is not here."""

import re
from functools import partial

import chips
import jax
import jax.numpy as jnp
import pytest
from shapes import SIZES

from jaxalign.inference.decoding import DecodeState, SamplingMetadata, decode
from jaxalign.inference.kv_cache import empty_caches
from jaxalign.models.architecture import from_config
from jaxalign.models.layout import by_layer
from jaxalign.pretrained.weights import abstract_params

pytestmark = [pytest.mark.aot, pytest.mark.slow]

ARCHITECTURE = from_config(SIZES["8B"] | {"num_hidden_layers": 2})
SAMPLES, PROMPT, RING, STEPS = 64, 512, 128, 32


@pytest.mark.parametrize("layered", [True, False])
def test_only_stacked_layers_are_copied_before_a_product(layered, monkeypatch):
    (chip,) = chips.chips("h100")
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    params = abstract_params(ARCHITECTURE, jnp.bfloat16, None)
    if layered:
        params = jax.eval_shape(by_layer, params)
    heads = ARCHITECTURE.kv_heads
    caches = [
        jax.eval_shape(partial(empty_caches, ARCHITECTURE, jnp.bfloat16, shape, length, stacked=not layered))
        for shape, length in (((1, 1, heads), PROMPT), ((1, 1, heads, SAMPLES), RING))
    ]
    arguments = (params, None, [], *caches, state(), number(jnp.int32), metadata())
    program = jax.jit(partial(decode, ARCHITECTURE, STEPS, False, None), donate_argnums=4)
    text = program.lower(*chips.on_chip(arguments, chip)).compile().as_text()
    widths = f"{ARCHITECTURE.width},{ARCHITECTURE.ff_width}"
    made_by = set(re.findall(rf"= bf16\[(?:1,)?{widths}\]\S* ([\w-]+)\(", text))
    assert bool(made_by - {"parameter", "get-tuple-element", "bitcast"}) == (not layered)


def state() -> DecodeState:
    rows = (1, 1, SAMPLES)
    each = partial(jax.ShapeDtypeStruct, rows)
    key = jax.ShapeDtypeStruct((*rows, 2), jnp.uint32)
    lengths = jax.ShapeDtypeStruct((1, 1), jnp.int32)
    return DecodeState(
        each(jnp.int32), each(jnp.int32), each(jnp.bool), each(jnp.int32), key, lengths, number(jnp.int32)
    )


def metadata() -> SamplingMetadata:
    return SamplingMetadata(
        number(jnp.float32), number(jnp.int32), number(jnp.float32), jax.ShapeDtypeStruct((1,), jnp.int32)
    )


def number(dtype) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct((), dtype)
