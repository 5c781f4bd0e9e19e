"""Models whose logits a golden file holds (tests/golden/make_families.py)."""

import json
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from golden.draw import draw
from tiny_model import Arrays

from jaxalign.models.architecture import from_config
from jaxalign.models.transformer import Transformer, head_kernel
from jaxalign.pretrained.weights import load_params

FAMILY_GOLDENS = Path(__file__).parent / "golden" / "families"


def golden_model(path: Path) -> tuple[dict[str, Any], Transformer, dict[str, Any]]:
    """Return the golden numbers of a family, its model and its parameters."""
    stored = json.loads(path.read_text())
    architecture = from_config(stored["config"])
    tensors = draw({name: tuple(shape) for name, shape in stored["shapes"].items()}, stored["norm_mean"])
    params, _ = load_params(architecture, Arrays(tensors), jnp.float32)
    return stored, Transformer(architecture, jnp.float32), params


def assert_logits_equal(stored: dict[str, Any], model: Transformer, params: dict[str, Any]) -> None:
    """Compare the logits of a model with those that Transformers computed."""
    tokens = jnp.asarray(stored["tokens"], jnp.int32)
    positions = jnp.broadcast_to(jnp.arange(tokens.shape[1]), tokens.shape)
    states = jax.jit(model.apply)({"params": params}, tokens, positions, jnp.full_like(tokens, tokens.shape[1]))
    logits = states @ head_kernel(params, model.architecture).T
    if cap := model.architecture.logit_softcap:
        logits = cap * jnp.tanh(logits / cap)
    np.testing.assert_allclose(logits[:, np.array(stored["positions"])], stored["logits"], atol=1e-4)
