"""The sizes and options of a decoder, read from a Hugging Face configuration."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from jaxalign.errors import UserError
from jaxalign.models.claims import Claims, brief
from jaxalign.models.families import FAMILIES, Family

PROJECTIONS = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
ATTENTION_PROJECTIONS = PROJECTIONS[:4]

PROJECTION_AXES = {
    **dict.fromkeys(("q_proj", "k_proj", "v_proj"), ("width", "heads")),
    "o_proj": ("heads", "width"),
    **dict.fromkeys(("gate_proj", "up_proj"), ("width", "ff")),
    "down_proj": ("ff", "width"),
}
"""The logical axes (in, out) of each projection's kernel, as the table of `parallel.rules` names them."""


@dataclasses.dataclass(frozen=True)
class RopeScaling:
    """How rotary frequencies are divided by `factor`: `linear` (all), or `llama3` (Llama 3.1: the low ones alone)."""

    kind: str
    factor: float
    low_freq_factor: float = 1.0
    high_freq_factor: float = 4.0
    original_context: int = 8192


@dataclasses.dataclass(frozen=True)
class Architecture:
    """One decoder. It is hashable, so it can be a static argument of a program.

    `windows` gives the sliding window of each layer in tokens, 0 for none. `norm_offset` means that the family's files
    store the scale of a norm minus one; the parameters in memory always hold the scale itself. `attention_scale`
    multiplies the products of queries and keys, `residual_scale` what attention and MLP add to the residual stream, and
    `logit_scale` the logits: in memory, it is part of the last norm's scale. A soft cap is `cap * tanh(x / cap)`.
    """

    family: str
    vocab_size: int
    width: int
    layers: int
    heads: int
    kv_heads: int
    head_dim: int
    ff_width: int
    context: int
    rope_theta: float
    rope_scaling: RopeScaling | None
    norm_eps: float
    tied: bool
    qkv_bias: bool
    o_bias: bool
    qk_norm: bool
    post_norms: bool
    norm_offset: bool
    embed_scale: float
    residual_scale: float
    logit_scale: float
    activation: str
    attention_scale: float
    attention_softcap: float | None
    logit_softcap: float | None
    windows: tuple[int, ...]


def projection_shape(architecture: Architecture, name: str) -> tuple[int, int]:
    """Return the shape (in, out) of the kernel of one of the `PROJECTIONS`."""
    queries = architecture.heads * architecture.head_dim
    keys = architecture.kv_heads * architecture.head_dim
    width, ff = architecture.width, architecture.ff_width
    return {
        "q_proj": (width, queries),
        "k_proj": (width, keys),
        "v_proj": (width, keys),
        "o_proj": (queries, width),
        "gate_proj": (width, ff),
        "up_proj": (width, ff),
        "down_proj": (ff, width),
    }[name]


def parameter_axes(path: Sequence[str]) -> tuple[str | None, ...]:
    """Return the logical axes of the parameter with these keys, stacked over the layers; further axes are whole."""
    *_, owner, name = path
    if owner in ("embedding", "head"):
        return ("vocabulary",)
    if owner in PROJECTION_AXES and name == "kernel":
        return (None, *PROJECTION_AXES[owner])
    return ()


def axis_sizes(architecture: Architecture) -> dict[str, int]:
    """Return the size of each logical axis of a model's parameters; heads are counted by key/value heads."""
    a = architecture
    return {"width": a.width, "heads": a.kv_heads, "ff": a.ff_width, "vocabulary": a.vocab_size}


MOST_LAYERS, WIDEST = 10_000, 2**24
"""The most layers and the largest size of an axis that are believed: some fifty times those of the largest models."""


def from_config(config: Mapping[str, Any], place: str = "config.json") -> Architecture:
    """Read a `config.json` (as a mapping) of one of the supported families.

    The vocabulary, the width, the width of the feed-forward layers, and the numbers of layers and heads must be there.
    For any other key that is missing, the value is the family's default in Transformers.

    Args:
        config: the configuration.
        place: the file or setting that it is from, for error lines.

    Raises:
        UserError: the architecture is not supported, the checkpoint is quantised, a size is missing, or a value has
            another type or range than it should.
    """
    found = Claims(config, place, "get the model's files again")
    family = _family(found)
    found = dataclasses.replace(found, owner=f"a {family.name} model")
    _check_supported(found)
    width, layers = found.whole("hidden_size", high=WIDEST), found.whole("num_hidden_layers", high=MOST_LAYERS)
    heads = found.whole("num_attention_heads", high=WIDEST)
    # In Transformers null stands for as many as there are query heads, which is not always the default.
    few = family.kv_heads if "num_key_value_heads" not in config else None
    kv_heads = found.whole("num_key_value_heads", few or heads, high=WIDEST)
    if heads % kv_heads:
        raise found.refused("num_key_value_heads", kv_heads, f"a divisor of num_attention_heads ({heads})")
    head_dim = found.whole("head_dim", family.head_dim or max(width // heads, 1), high=WIDEST)
    if head_dim % 2:
        raise found.refused("head_dim", head_dim, "even, because rotary embeddings turn pairs of numbers")
    activation = found.text("hidden_activation" if family.gemma == 2 else "hidden_act", family.activation)
    if family.gemma == 1 and activation == "gelu":
        activation = family.activation  # the files of the first Gemma say so, and mean the other one
    if activation not in ("silu", "gelu_pytorch_tanh"):
        raise UserError(
            f"unsupported activation '{brief(activation)}' in {place}; give a model with silu or gelu_pytorch_tanh"
        )
    context = found.whole("max_position_embeddings", family.context)
    theta, scaling = _rope(found, context)
    bias = family.biases == "configured" and found.flag("attention_bias", False)
    return Architecture(
        family=family.name,
        vocab_size=found.whole("vocab_size", high=WIDEST),
        width=width,
        layers=layers,
        heads=heads,
        kv_heads=kv_heads,
        head_dim=head_dim,
        ff_width=found.whole("intermediate_size", high=WIDEST),
        context=context,
        rope_theta=theta,
        rope_scaling=scaling,
        norm_eps=found.number("rms_norm_eps", 1e-6, above=0.0, most=1.0),
        tied=found.flag("tie_word_embeddings", family.tied),
        qkv_bias=family.biases == "qkv" or bias,
        o_bias=bias,
        qk_norm=family.qk_norm,
        post_norms=family.gemma == 2,
        norm_offset=family.gemma > 0,
        activation=activation,
        **_multipliers(found, family, width, head_dim),
        attention_softcap=_cap(found, "attn_logit_softcapping", 50.0) if family.gemma == 2 else None,
        logit_softcap=_cap(found, "final_logit_softcapping", 30.0) if family.gemma == 2 else None,
        windows=_windows(found, family, layers),
    )


def _multipliers(found: Claims, family: Family, width: int, head_dim: int) -> dict[str, float]:
    """Return the factors on attention scores, embeddings, residuals and logits, as fields of `Architecture`."""
    if family.granite:
        return {
            "attention_scale": found.number("attention_multiplier", 1.0, above=0.0),
            "embed_scale": found.number("embedding_multiplier", 1.0, above=0.0),
            "residual_scale": found.number("residual_multiplier", 1.0, above=0.0),
            "logit_scale": 1 / found.number("logits_scaling", 1.0, above=1e-6),
        }
    score_width = found.number("query_pre_attn_scalar", 256.0, above=0.0) if family.gemma == 2 else head_dim
    embed_scale = float(width) ** 0.5 if family.gemma else 1.0
    return {"attention_scale": score_width**-0.5, "embed_scale": embed_scale, "residual_scale": 1.0, "logit_scale": 1.0}


def _family(found: Claims) -> Family:
    names = found.texts("architectures", [])
    for name in names:
        if name in FAMILIES:
            return FAMILIES[name]
    kind = found.text("model_type", "")
    kinds = {family.name: family for family in FAMILIES.values()}
    if not names and kind in kinds:
        return kinds[kind]
    what = brief(", ".join(names) or kind or f"none named in {found.place}")
    raise UserError(f"unsupported architecture: {what}; supported are {', '.join(FAMILIES)}")


def _check_supported(found: Claims) -> None:
    """Raise UserError if the configuration asks for something that no supported model has."""
    if found.get("quantization_config"):
        raise UserError(
            f"this checkpoint is quantised (quantization_config in {found.place}); give the full-precision one"
        )
    for key, what in (
        ("mlp_bias", "biases in the MLP"),
        ("use_bidirectional_attention", "attention to later tokens"),
    ):
        if found.flag(key, False):
            raise UserError(f"{found.place} asks for {what} ({key}), which no supported model has; give another")


LEAST_THETA = 0.001
"""The limit of the base of rotary embeddings: no model has a smaller one, and a very small one overflows float32."""


def _rope(found: Claims, context: int) -> tuple[float, RopeScaling | None]:
    # Transformers 5 writes rope_parameters; files from before hold rope_theta and rope_scaling.
    rope = found.part("rope_scaling" if found.get("rope_scaling") else "rope_parameters")
    theta = rope.number("rope_theta", found.number("rope_theta", 10000.0, above=LEAST_THETA), above=LEAST_THETA)
    kind = rope.text("rope_type", rope.text("type", "default"))
    if any(one.number("partial_rotary_factor", 1.0) != 1.0 for one in (found, rope)):
        raise UserError(f"{rope.place} turns a part of each head alone (partial_rotary_factor); give another model")
    nested = [key for key, value in rope.values.items() if isinstance(value, Mapping)]
    if nested:
        raise UserError(f"{rope.place} has settings for '{brief(nested[0])}' alone; give a model with one rope for all")
    if kind == "default":
        return theta, None
    if kind == "linear":
        return theta, RopeScaling("linear", rope.number("factor", above=1e-4, most=1e6))
    if kind == "llama3":
        low = rope.number("low_freq_factor", above=0.0)
        return theta, RopeScaling(
            "llama3",
            rope.number("factor", above=1e-4, most=1e6),
            low,
            rope.number("high_freq_factor", above=low),
            rope.whole("original_max_position_embeddings", context),
        )
    raise UserError(f"{found.place} asks for rope scaling '{brief(kind)}'; give a model with default, linear or llama3")


def _cap(found: Claims, key: str, default: float) -> float | None:
    """Return a soft cap; null, unlike a missing key, means none."""
    return None if key in found.values and found.get(key) is None else found.number(key, default, above=0.0)


def _windows(found: Claims, family: Family, layers: int) -> tuple[int, ...]:
    """Return the window of each layer: where the family has windows at all, as Transformers distributes them."""
    configured = family.windows == "configured"
    if family.windows == "none" or (configured and not found.flag("use_sliding_window", False)):
        return (0,) * layers
    none = "sliding_window" in found.values and found.get("sliding_window") is None
    window = 0 if none else found.whole("sliding_window", family.window)
    kinds = found.texts("layer_types", []) if family.layer_types else []
    if kinds:
        known = ("sliding_attention", "full_attention")
        if len(kinds) != layers or not set(kinds) <= {*known}:
            raise found.refused("layer_types", kinds, f"for each of the {layers} layers one of {', '.join(known)}")
        sliding = [kind == known[0] for kind in kinds]
    elif configured:
        first = found.whole("max_window_layers", 28, low=0)
        sliding = [layer >= first for layer in range(layers)]
    else:
        sliding = [family.windows == "all" or layer % 2 == 0 for layer in range(layers)]
    return tuple(window if slides else 0 for slides in sliding)
