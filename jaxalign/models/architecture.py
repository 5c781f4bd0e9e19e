"""The sizes and options of a decoder, read from a Hugging Face configuration."""

import dataclasses
from collections.abc import Mapping
from typing import Any

from jaxalign.errors import UserError

PROJECTIONS = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
ATTENTION_PROJECTIONS = PROJECTIONS[:4]

FAMILIES = {
    "LlamaForCausalLM": "llama",
    "MistralForCausalLM": "mistral",
    "Qwen2ForCausalLM": "qwen2",
    "Qwen3ForCausalLM": "qwen3",
    "Gemma2ForCausalLM": "gemma2",
}


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
    multiplies the products of queries and keys. A soft cap is `cap * tanh(x / cap)`.
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


def from_config(config: Mapping[str, Any]) -> Architecture:
    """Read a `config.json` (as a mapping) of one of the supported families.

    Raises:
        UserError: the architecture is not supported, the checkpoint is quantised, or a size is missing.
    """
    family = _family(config)
    if config.get("quantization_config"):
        raise UserError(
            "this checkpoint is quantised (quantization_config in config.json); give the full-precision one"
        )
    if config.get("mlp_bias"):
        raise UserError("config.json asks for biases in the MLP (mlp_bias), which no supported model has; give another")

    def need(key: str) -> Any:
        if config.get(key) is None:
            raise UserError(f"config.json has no '{key}', which a {family} model needs; get the model's files again")
        return config[key]

    width, heads, layers = need("hidden_size"), need("num_attention_heads"), need("num_hidden_layers")
    head_dim = config.get("head_dim") or width // heads
    gemma = family == "gemma2"
    score_width = (config.get("query_pre_attn_scalar") or head_dim) if gemma else head_dim
    activation = config.get("hidden_activation") or config.get("hidden_act") or "silu"
    if activation not in ("silu", "gelu_pytorch_tanh"):
        if not (gemma and activation == "gelu"):
            raise UserError(f"unsupported activation '{activation}' in config.json; use silu or gelu_pytorch_tanh")
        activation = "gelu_pytorch_tanh"
    theta, scaling = _rope(config)
    return Architecture(
        family=family,
        vocab_size=need("vocab_size"),
        width=width,
        layers=layers,
        heads=heads,
        kv_heads=config.get("num_key_value_heads") or heads,
        head_dim=head_dim,
        ff_width=need("intermediate_size"),
        context=config.get("max_position_embeddings") or 2048,
        rope_theta=theta,
        rope_scaling=scaling,
        norm_eps=config.get("rms_norm_eps") or 1e-6,
        tied=bool(config.get("tie_word_embeddings", gemma)),
        qkv_bias=family == "qwen2" or bool(config.get("attention_bias", False)),
        o_bias=family != "qwen2" and bool(config.get("attention_bias", False)),
        qk_norm=family == "qwen3",
        post_norms=gemma,
        norm_offset=gemma,
        embed_scale=float(width) ** 0.5 if gemma else 1.0,
        activation=activation,
        attention_scale=score_width**-0.5,
        attention_softcap=config.get("attn_logit_softcapping") if gemma else None,
        logit_softcap=config.get("final_logit_softcapping") if gemma else None,
        windows=_windows(config, family, layers),
    )


def _family(config: Mapping[str, Any]) -> str:
    names = config.get("architectures") or []
    for name in names:
        if name in FAMILIES:
            return FAMILIES[name]
    kind = config.get("model_type")
    if not names and kind in FAMILIES.values():
        return str(kind)
    what = ", ".join(names) or kind or "none named in config.json"
    raise UserError(f"unsupported architecture: {what}; supported are {', '.join(FAMILIES)}")


def _rope(config: Mapping[str, Any]) -> tuple[float, RopeScaling | None]:
    # transformers 5 writes rope_parameters; files from before hold rope_theta and rope_scaling.
    found = dict(config.get("rope_parameters") or config.get("rope_scaling") or {})
    theta = float(found.get("rope_theta") or config.get("rope_theta") or 10000.0)
    kind = found.get("rope_type") or found.get("type") or "default"
    if kind == "default":
        return theta, None
    if kind == "linear":
        return theta, RopeScaling("linear", float(found["factor"]))
    if kind == "llama3":
        return theta, RopeScaling(
            "llama3",
            float(found["factor"]),
            float(found["low_freq_factor"]),
            float(found["high_freq_factor"]),
            int(found["original_max_position_embeddings"]),
        )
    raise UserError(f"config.json asks for rope scaling '{kind}'; give a model with default, linear or llama3")


def _windows(config: Mapping[str, Any], family: str, layers: int) -> tuple[int, ...]:
    window = config.get("sliding_window") or 0
    kinds = config.get("layer_types")
    if kinds and family != "mistral":
        return tuple(window if kind == "sliding_attention" else 0 for kind in kinds)
    if family == "gemma2":
        return tuple(window if layer % 2 == 0 else 0 for layer in range(layers))
    if family == "mistral":
        return (window,) * layers
    if family in ("qwen2", "qwen3") and config.get("use_sliding_window"):
        first = config.get("max_window_layers", layers)
        return tuple(window if layer >= first else 0 for layer in range(layers))
    return (0,) * layers
