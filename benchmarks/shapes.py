"""The sizes of models whose weights need not be there, with the keys of Hugging Face's config.json."""

_LLAMA = {"architectures": ["LlamaForCausalLM"], "model_type": "llama", "rms_norm_eps": 1e-5}

SIZES = {
    "tiny": _LLAMA
    | {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "vocab_size": 512}
    | {"num_attention_heads": 4, "num_key_value_heads": 2, "tie_word_embeddings": True}
    | {"max_position_embeddings": 2048, "rope_theta": 1e4},
    "135M": _LLAMA
    | {"hidden_size": 576, "intermediate_size": 1536, "num_hidden_layers": 30, "vocab_size": 49152}
    | {"num_attention_heads": 9, "num_key_value_heads": 3, "tie_word_embeddings": True}
    | {"max_position_embeddings": 8192, "rope_theta": 1e5},
    "8B": _LLAMA
    | {"hidden_size": 4096, "intermediate_size": 14336, "num_hidden_layers": 32, "vocab_size": 128256}
    | {"num_attention_heads": 32, "num_key_value_heads": 8, "tie_word_embeddings": False}
    | {"max_position_embeddings": 8192, "rope_theta": 5e5},
}
"""`tiny` is for tests, 135M has the sizes of SmolLM2-135M, and 8B those of Llama 3.1 8B."""
