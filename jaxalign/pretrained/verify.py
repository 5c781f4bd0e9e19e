"""Checks of an export: whether its keys fit the base, its adapter has an effect, and a merged model has the same.

A mistake in how this program reads a model would change the base and the merged model alike, so comparing their logits
cannot show it. `check_tensors` therefore goes through the base's files tensor by tensor, and merges by PEFT's formula.
`check_config` compares what this program and Transformers understand from the configuration.
"""

from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
from jaxtyping import Array, Float, Float32, Int32

from jaxalign.models.adapter import Adapter
from jaxalign.models.architecture import PROJECTIONS, Architecture
from jaxalign.models.claims import Claims
from jaxalign.models.linear import compute_type
from jaxalign.models.precision import dot
from jaxalign.models.transformer import Transformer, head_kernel
from jaxalign.pretrained.parameters import TensorSource, parameter_leaves
from jaxalign.pretrained.peft import AGAIN, CONFIG, WEIGHTS, first_layer_of
from jaxalign.pretrained.safetensors import SafetensorsFolder
from jaxalign.pretrained.sources import Model
from jaxalign.runs.records import read_json_object

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
    config = Claims(read_json_object(folder / CONFIG, AGAIN), str(folder / CONFIG), AGAIN)
    rank, targets = config.whole("r"), config.texts("target_modules")
    first = first_layer_of(folder, config, architecture.layers)
    modules = {
        name.removesuffix(".weight"): leaf.shape
        for leaf in parameter_leaves(architecture)
        if leaf.path[-1] == "kernel" and leaf.path[1] in targets
        for name in leaf.names(architecture.layers)[first:]
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


def check_tensors(folder: Path, base: TensorSource, adapter: Path) -> Check:
    """Check that a merged folder has every tensor of the base: W + s B A where adapted, and as it was elsewhere.

    Nothing is taken from the parameters that this program makes of the base. W, A and B are the matrices in the files,
    and s is alpha / r, or alpha / sqrt(r) for rank-stabilised LoRA, as PEFT defines them. A tensor whose type cannot be
    read may be missing. Values may differ by the rounding to the type that is written.

    Args:
        folder: the merged model.
        base: the base's tensors as they are stored.
        adapter: the adapter's PEFT folder.

    Raises:
        UserError: a file is damaged.
    """
    config = Claims(read_json_object(adapter / CONFIG, AGAIN), str(adapter / CONFIG), AGAIN)
    scale = config.number("lora_alpha") / config.whole("r") ** (0.5 if config.flag("use_rslora", False) else 1)
    lora, merged = SafetensorsFolder(adapter / WEIGHTS), SafetensorsFolder(folder)
    prefix, suffix = "base_model.model.", ".lora_A.weight"
    adapted = {name.removeprefix(prefix).removesuffix(suffix) for name in lora.names() if name.endswith(suffix)}
    theirs, ours = set(base.names()), set(merged.names())
    faults = {
        "adapted but not in the base": sorted(module for module in adapted if f"{module}.weight" not in theirs),
        "missing": sorted(name for name in theirs - ours if _readable(base, name)),
        "not in the base": sorted(ours - theirs),
        "of another shape": sorted(name for name in theirs & ours if base.shape(name) != merged.shape(name)),
    }
    if not any(faults.values()):
        faults["of other values"] = [
            name for name in sorted(ours) if not _as_expected(name, base, merged, lora, adapted, np.float32(scale))
        ]
    wrong = [f"{len(names)} {what} ({names[0]})" for what, names in faults.items() if names]
    right = f"{len(ours)} tensors of the base, {len(adapted)} of them W + s B A, the others as they were"
    return Check("tensors", not wrong, ", ".join(wrong) or right)


def _readable(base: TensorSource, name: str) -> bool:
    return not isinstance(base, SafetensorsFolder) or base.readable(name)


def _as_expected(
    name: str,
    base: TensorSource,
    merged: SafetensorsFolder,
    lora: SafetensorsFolder,
    adapted: set[str],
    scale: np.float32,
) -> bool:
    """Return whether a merged tensor is what `check_tensors` expects."""
    module = name.removesuffix(".weight")
    if module not in adapted and isinstance(base, SafetensorsFolder):
        before, after = (np.asarray(source.raw(name)) for source in (base, merged))
        return base.dtype(name) == merged.dtype(name) and np.array_equal(before, after)
    expected = base.read(name).astype(np.float32)
    if module in adapted:
        a, b = (lora.read(f"base_model.model.{module}.lora_{side}.weight").astype(np.float32) for side in "AB")
        expected = expected + scale * (b @ a)
    written = merged.read(name)
    step = float(ml_dtypes.finfo(written.dtype).eps)
    room = step * np.abs(expected) + 1e-6 * float(np.abs(expected).max())
    return bool((np.abs(written.astype(np.float32) - expected) <= room).all())


def check_config(folder: Path, architecture: Architecture) -> Check:
    """Check that Transformers reads the same sizes and settings from a folder's config.json as this program."""
    from transformers import AutoConfig

    try:
        theirs: Any = AutoConfig.from_pretrained(folder, trust_remote_code=False, local_files_only=True)
    except Exception as error:  # it checks a configuration by exceptions of many kinds
        return Check("config", False, f"Transformers cannot read it: {(str(error).splitlines() or ['no reason'])[0]}")
    rope = theirs.rope_parameters or {}
    pairs = {
        "vocab_size": (theirs.vocab_size, architecture.vocab_size),
        "hidden_size": (theirs.hidden_size, architecture.width),
        "num_hidden_layers": (theirs.num_hidden_layers, architecture.layers),
        "num_attention_heads": (theirs.num_attention_heads, architecture.heads),
        "num_key_value_heads": (theirs.num_key_value_heads, architecture.kv_heads),
        "head_dim": (
            getattr(theirs, "head_dim", None) or theirs.hidden_size // theirs.num_attention_heads,
            architecture.head_dim,
        ),
        "intermediate_size": (theirs.intermediate_size, architecture.ff_width),
        "max_position_embeddings": (theirs.max_position_embeddings, architecture.context),
        "rms_norm_eps": (theirs.rms_norm_eps, architecture.norm_eps),
        "rope_theta": (rope.get("rope_theta"), architecture.rope_theta),
        "rope factor": (rope.get("factor"), architecture.rope_scaling and architecture.rope_scaling.factor),
        "tie_word_embeddings": (theirs.tie_word_embeddings, architecture.tied),
    }
    wrong = [f"{key} is {said} in Transformers and {own} here" for key, (said, own) in pairs.items() if said != own]
    return Check("config", not wrong, ", ".join(wrong) or f"{len(pairs)} settings are the same in Transformers")


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
