"""Model folders as Hugging Face has them, of a few thousand random parameters."""

import json
from pathlib import Path
from typing import Any

import numpy as np
from golden.draw import draw

from jaxalign.models.architecture import from_config
from jaxalign.pretrained.safetensors import INDEX, write_safetensors
from jaxalign.pretrained.tokenizer import tiny_tokenizer
from jaxalign.pretrained.weights import parameter_leaves

SIZES = {
    "vocab_size": 259,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "max_position_embeddings": 64,
    "tie_word_embeddings": False,
}
CONFIGS: dict[str, dict[str, Any]] = {
    "llama": SIZES | {"architectures": ["LlamaForCausalLM"], "model_type": "llama"},
    "mistral": SIZES | {"architectures": ["MistralForCausalLM"], "model_type": "mistral", "sliding_window": 16},
    "qwen2": SIZES | {"architectures": ["Qwen2ForCausalLM"], "model_type": "qwen2"},
    "qwen3": SIZES | {"architectures": ["Qwen3ForCausalLM"], "model_type": "qwen3", "head_dim": 16},
    "gemma": SIZES | {"architectures": ["GemmaForCausalLM"], "model_type": "gemma", "tie_word_embeddings": True},
    "granite": SIZES
    | {
        "architectures": ["GraniteForCausalLM"],
        "model_type": "granite",
        "attention_multiplier": 0.125,
        "embedding_multiplier": 12.0,
        "residual_multiplier": 0.5,
        "logits_scaling": 8.0,
    },
    "gemma2": SIZES
    | {
        "architectures": ["Gemma2ForCausalLM"],
        "model_type": "gemma2",
        "tie_word_embeddings": True,
        "hidden_activation": "gelu_pytorch_tanh",
        "query_pre_attn_scalar": 8,
        "sliding_window": 16,
    },
}


def hf_random(config: dict[str, Any], dtype: Any = np.float32) -> dict[str, np.ndarray]:
    """Return tensors under Hugging Face's names."""
    architecture = from_config(config)
    shapes = {name: leaf.shape for leaf in parameter_leaves(architecture) for name in leaf.names(architecture.layers)}
    return {name: array.astype(dtype) for name, array in draw(shapes, 1.0).items()}


def write_model(folder: Path, config: dict[str, Any], tensors: dict[str, np.ndarray], files: int = 1) -> Path:
    """Write config.json, a tokenizer, and the tensors in one file or in several with an index."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(config))
    tiny_tokenizer().hf.save_pretrained(folder)
    if files == 1:
        write_safetensors(folder / "model.safetensors", tensors, {"format": "pt"})
        return folder
    weight_map = {}
    for number in range(files):
        part = dict(list(tensors.items())[number::files])
        name = f"model-{number + 1:05d}-of-{files:05d}.safetensors"
        write_safetensors(folder / name, part, {"format": "pt"})
        weight_map |= dict.fromkeys(part, name)
    (folder / INDEX).write_text(json.dumps({"metadata": {}, "weight_map": weight_map}))
    return folder
