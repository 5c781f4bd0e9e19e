"""Checks of an export: whether its keys fit the base, its adapter has an effect, and a merged model has the same."""

import json
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Float32, Int32

from jaxalign.models.adapter import Adapter
from jaxalign.models.architecture import PROJECTIONS, Architecture
from jaxalign.models.linear import compute_type
from jaxalign.models.precision import dot
from jaxalign.models.transformer import Transformer, head_kernel
from jaxalign.pretrained.peft import CONFIG, WEIGHTS
from jaxalign.pretrained.safetensors import SafetensorsFolder
from jaxalign.pretrained.sources import Model
from jaxalign.pretrained.weights import parameter_leaves

PROMPT = "Some people like to be in charge of others. What matters most to me in life is"
"""A text for the models to read; any other would do."""

TOLERANCE = 0.5
"""The largest difference between the logits of a merged model and those with the adapter, as a share of what the
adapter changes (means of absolute differences). Rounding to bfloat16 gives 0.05 to 0.15 with a trained adapter; a
merged model that lacks the adapter has 1."""


@dataclass(frozen=True)
class Check:
    """The result of one check; `finding` is a line for the user."""

    name: str
    passed: bool
    finding: str


def check_keys(folder: Path, architecture: Architecture) -> Check:
    """Check that an adapter's tensors fit the modules of the base: none missing, none too many, no other shape."""
    config = json.loads((folder / CONFIG).read_text(encoding="utf-8"))
    rank, targets = config["r"], config["target_modules"]
    modules = {
        name.removesuffix(".weight"): leaf.shape
        for leaf in parameter_leaves(architecture)
        if leaf.path[-1] == "kernel" and leaf.path[1] in targets
        for name in leaf.names(architecture.layers)
    }
    expected: dict[str, tuple[int, ...]] = {}
    for module, (outer, inner) in modules.items():
        expected[f"base_model.model.{module}.lora_A.weight"] = (rank, inner)
        expected[f"base_model.model.{module}.lora_B.weight"] = (outer, rank)
    stored = SafetensorsFolder(folder / WEIGHTS)
    found = {name: tuple(stored.shape(name)) for name in stored.names()}
    faults = {
        "unknown target": [name for name in targets if name not in PROJECTIONS],
        "missing": sorted(expected.keys() - found.keys()),
        "not in the base": sorted(found.keys() - expected.keys()),
        "misshapen": sorted(name for name in expected.keys() & found.keys() if expected[name] != found[name]),
    }
    wrong = [f"{len(names)} {what} ({names[0]})" for what, names in faults.items() if names]
    right = f"{len(found)} tensors for {len(modules)} modules of the base, rank {rank}, none missing or misshapen"
    return Check("keys", bool(found) and not wrong, ", ".join(wrong) or right)


def check_effect(base: Float[np.ndarray, "T V"], adapted: Float[np.ndarray, "T V"]) -> Check:
    """Check that the logits [T, V] with the adapter differ from those of the base."""
    difference = float(np.abs(adapted - base).max())
    passed = np.isfinite(difference) and difference > 0
    said = f"max |difference| {difference:.4g} with and without the adapter, max |logit| {np.abs(base).max():.4g}"
    return Check("logits", bool(passed), said)


def check_merged(
    base: Float[np.ndarray, "T V"], adapted: Float[np.ndarray, "T V"], merged: Float[np.ndarray, "T V"]
) -> Check:
    """Check that a merged model's logits [T, V] differ from those with the adapter by `TOLERANCE` at most."""
    effect, difference = (float(np.abs(other - adapted).mean()) for other in (base, merged))
    share = difference / effect if effect else float("inf")
    largest = float(np.abs(merged - adapted).max())
    finding = (
        f"max |difference| {largest:.4g} from the adapter's logits; "
        f"in the mean {share:.2g} of what the adapter changes, {TOLERANCE:g} is allowed"
    )
    return Check("merged", share <= TOLERANCE, finding)


def prompt_logits(model: Model, adapter: Adapter, tokens: Int32[np.ndarray, " T"]) -> Float32[np.ndarray, "T V"]:
    """Return the logits [T, V] of a model with an adapter (or of the base, `BASE`) after each of the tokens [T]."""
    network = Transformer(model.architecture, compute_type(model.params))
    return np.asarray(_logits(network, model.params, adapter.effective(), jnp.asarray(tokens)[None]))[0]


@partial(jax.jit, static_argnums=0)
def _logits(network: Transformer, params: Any, adapter: Any, tokens: Int32[Array, "1 T"]) -> Float32[Array, "1 T V"]:
    length = tokens.shape[1]
    positions, ends = jnp.arange(length)[None], jnp.full((1, length), length)
    variables = {"params": params} if adapter is None else {"params": params, "lora": adapter}
    states: Any = network.apply(variables, tokens, positions, ends)
    logits = dot(states, head_kernel(params, network.architecture), ((2,), (1,)))
    cap = network.architecture.logit_softcap
    return logits if cap is None else cap * jnp.tanh(logits / cap)
