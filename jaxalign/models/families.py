"""The families of models: what sets one apart from the others and is not in a configuration."""

import dataclasses
from typing import Literal


@dataclasses.dataclass(frozen=True)
class Family:
    """A family of models, as Transformers builds it.

    name        its `model_type` in `config.json`
    context, kv_heads, head_dim, window, activation, tied
                the values that are taken for keys that a configuration lacks; None where they follow from other keys
    windows     the layers with a sliding window, where `layer_types` does not name them: none, all, all with even
                numbers, or from layer `max_window_layers` on, if `use_sliding_window` says so
    layer_types whether the key `layer_types` is read
    biases      the attention projections with biases: those of queries, keys and values, none of them, or all, if
                `attention_bias` says so
    qk_norm     whether queries and keys are normalised
    gemma       whose norms and embeddings the family has: 1 for those of Gemma, 2 for those of Gemma 2, which also has
                norms behind each part, soft caps, and a scale of attention of its own; 0 for neither
    granite     whether the configuration has the four multipliers of Granite
    """

    name: str
    context: int
    kv_heads: int | None = None
    head_dim: int | None = None
    window: int = 4096
    activation: str = "silu"
    tied: bool = False
    windows: Literal["none", "all", "even", "configured"] = "none"
    layer_types: bool = True
    biases: Literal["none", "qkv", "configured"] = "configured"
    qk_norm: bool = False
    gemma: Literal[0, 1, 2] = 0
    granite: bool = False


FAMILIES = {
    "LlamaForCausalLM": Family("llama", 2048),
    "MistralForCausalLM": Family("mistral", 131072, kv_heads=8, windows="all", layer_types=False, biases="none"),
    "Qwen2ForCausalLM": Family("qwen2", 32768, kv_heads=32, windows="configured", biases="qkv"),
    "Qwen3ForCausalLM": Family("qwen3", 32768, kv_heads=32, head_dim=128, windows="configured", qk_norm=True),
    "GemmaForCausalLM": Family(
        "gemma", 8192, kv_heads=16, head_dim=256, activation="gelu_pytorch_tanh", tied=True, gemma=1
    ),
    "Gemma2ForCausalLM": Family(
        "gemma2", 8192, kv_heads=4, head_dim=256, activation="gelu_pytorch_tanh", tied=True, windows="even", gemma=2
    ),
    "GraniteForCausalLM": Family("granite", 2048, granite=True),
}
"""The family of each class in Transformers; a family may be added from outside the package."""
