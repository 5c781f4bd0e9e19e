"""Writes families/*.json: logits of tiny random models of every family, as Transformers computes them on PyTorch.

Run it where torch and transformers are installed: python tests/golden/make_families.py
"""

import json
from pathlib import Path

import numpy as np
import torch
import transformers
from draw import draw

FOLDER = Path(__file__).parent / "families"
TOKENS = np.random.default_rng(7).integers(0, 97, (2, 24)).tolist()
KEPT = [0, 3, 7, 12, 18, 23]
NEW_TOKENS = 24
COMMON = dict(vocab_size=97, intermediate_size=80, num_hidden_layers=3, max_position_embeddings=64)
CONFIGS = {
    "llama": transformers.LlamaConfig(
        **COMMON, hidden_size=48, num_attention_heads=6, num_key_value_heads=2, tie_word_embeddings=False
    ),
    "llama3_rope": transformers.LlamaConfig(
        **COMMON,
        hidden_size=32,
        num_attention_heads=2,
        num_key_value_heads=1,
        tie_word_embeddings=True,
        rms_norm_eps=1e-5,
        rope_parameters={
            "rope_type": "llama3",
            "rope_theta": 500.0,
            "factor": 8.0,
            "low_freq_factor": 1.0,
            "high_freq_factor": 4.0,
            "original_max_position_embeddings": 48,
        },
    ),
    "linear_rope": transformers.LlamaConfig(
        **COMMON,
        hidden_size=32,
        num_attention_heads=2,
        num_key_value_heads=2,
        tie_word_embeddings=True,
        attention_bias=True,
        rope_parameters={"rope_type": "linear", "rope_theta": 10000.0, "factor": 4.0},
    ),
    "mistral": transformers.MistralConfig(
        **COMMON,
        hidden_size=32,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=16,
        sliding_window=7,
        tie_word_embeddings=False,
    ),
    "qwen2": transformers.Qwen2Config(
        **COMMON, hidden_size=32, num_attention_heads=4, num_key_value_heads=2, tie_word_embeddings=True
    ),
    "qwen3": transformers.Qwen3Config(
        **COMMON,
        hidden_size=32,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=16,
        tie_word_embeddings=False,
        use_sliding_window=True,
        sliding_window=9,
        max_window_layers=2,
    ),
    "gemma": transformers.GemmaConfig(
        **COMMON, hidden_size=32, num_attention_heads=4, num_key_value_heads=2, head_dim=16
    ),
    "granite": transformers.GraniteConfig(
        **COMMON,
        hidden_size=32,
        num_attention_heads=4,
        num_key_value_heads=2,
        tie_word_embeddings=True,
        attention_multiplier=0.2,
        embedding_multiplier=6.0,
        residual_multiplier=0.4,
        logits_scaling=5.0,
    ),
    "gemma2": transformers.Gemma2Config(
        **(COMMON | {"num_hidden_layers": 4}),
        hidden_size=32,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=16,
        query_pre_attn_scalar=24,
        sliding_window=6,
        attn_logit_softcapping=1.5,
        final_logit_softcapping=2.0,
    ),
}
"""Soft caps and windows are far below what real models have, so that leaving one out would show."""
ADDED = {
    "ministral": transformers.MinistralConfig(
        **COMMON,
        hidden_size=32,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=16,
        sliding_window=7,
        layer_types=["sliding_attention", "full_attention", "sliding_attention"],
    ),
}
"""A family that a test adds from outside the package, by the recipe in CONTRIBUTING.md."""


def golden(config: transformers.PreTrainedConfig) -> dict:
    """Return the configuration, tokens, some logits and the greedy continuation of a model with drawn weights."""
    config._attn_implementation = "eager"  # SDPA knows no soft cap
    model = transformers.AutoModelForCausalLM.from_config(config).float().eval()
    shapes = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
    if config.tie_word_embeddings:
        del shapes["lm_head.weight"]
    norm_mean = 0.0 if config.model_type.startswith("gemma") else 1.0
    drawn = {name: torch.from_numpy(tensor) for name, tensor in draw(shapes, norm_mean).items()}
    missing, unexpected = model.load_state_dict(drawn, strict=False)
    assert not unexpected
    assert set(missing) <= {"lm_head.weight"}
    model.tie_weights()
    with torch.no_grad():
        tokens = torch.tensor(TOKENS)
        logits = model(tokens).logits[:, KEPT].double().numpy()
        # Without an end token, so that all go on; every token is read from the start again, with no cache to err.
        greedy = model.generate(
            tokens,
            attention_mask=torch.ones_like(tokens),
            do_sample=False,
            max_new_tokens=NEW_TOKENS,
            eos_token_id=None,
            pad_token_id=0,
            use_cache=False,
        )[:, tokens.shape[1] :]
    stored = json.loads(config.to_json_string()) | {"architectures": [type(model).__name__]}
    return {
        "made_with": f"transformers {transformers.__version__}, torch {torch.__version__}",
        "config": stored,
        "norm_mean": norm_mean,
        "shapes": shapes,
        "tokens": TOKENS,
        "positions": KEPT,
        "logits": logits.round(6).tolist(),
        "greedy": greedy.tolist(),
    }


def main() -> None:
    """Write every golden."""
    for folder, configs in ((FOLDER, CONFIGS), (FOLDER / "added", ADDED)):
        folder.mkdir(exist_ok=True)
        for name, config in configs.items():
            text = json.dumps(golden(config), separators=(",", ":"))
            (folder / f"{name}.json").write_text(text + "\n")
            print(f"{name}: {len(text) / 1000:.0f} kB")


if __name__ == "__main__":
    main()
