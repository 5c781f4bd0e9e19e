"""A tiny GGUF file, as llama.cpp would write it."""

import gguf
import numpy as np
from model_folder import CONFIGS, hf_random

from jaxalign.pretrained.tokenizer import tiny_tokenizer

NAMES = {
    "model.embed_tokens": "token_embd",
    "model.norm": "output_norm",
    "lm_head": "output",
    "input_layernorm": "attn_norm",
    "post_attention_layernorm": "ffn_norm",
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "self_attn.q_norm": "attn_q_norm",
    "self_attn.k_norm": "attn_k_norm",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
}


def theirs(name):
    """Return llama.cpp's name of a tensor."""
    stem, kind = name.rsplit(".", 1)
    if stem.startswith("model.layers."):
        _, _, layer, part = stem.split(".", 3)
        return f"blk.{layer}.{NAMES[part]}.{kind}"
    return f"{NAMES[stem]}.{kind}"


def interleaved(rows, heads):
    """Return rows [H * Dh, ...] as rope on neighbouring pairs wants them: 0, Dh/2, 1, Dh/2 + 1, ..."""
    size = len(rows) // heads
    order = [half * size // 2 + i for i in range(size // 2) for half in (0, 1)]
    return np.concatenate([rows[head * size : (head + 1) * size][order] for head in range(heads)])


def write_gguf(path, family="llama", kind="F32", fields=(), leave_out=(), extra=()):
    """Write a tiny model; returns its tensors under Hugging Face's names."""
    config, tokens = CONFIGS[family], tiny_tokenizer().hf.to_transformers().convert_ids_to_tokens(range(259))
    tokens[0] = "Ġa"
    tensors = hf_random(config)
    writer = gguf.GGUFWriter(path, family)
    writer.add_embedding_length(config["hidden_size"])
    writer.add_block_count(config["num_hidden_layers"])
    writer.add_feed_forward_length(config["intermediate_size"])
    writer.add_head_count(config["num_attention_heads"])
    writer.add_head_count_kv(config["num_key_value_heads"])
    writer.add_key_length(config["head_dim"])
    writer.add_context_length(config["max_position_embeddings"])
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_rope_freq_base(10000.0)
    writer.add_tokenizer_model("gpt2")
    writer.add_token_list(tokens)
    writer.add_token_types([1, 3, 3] + [1] * 256)
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    for name, value in {"add_tokenizer_pre": "smollm", "add_token_merges": ["Ġ a"], **dict(fields)}.items():
        getattr(writer, name)(value)
    for name, array in tensors.items():
        if name in leave_out:
            continue
        if family == "llama" and (heads := {"q_proj": 4, "k_proj": 2}.get(name.split(".")[-2])):
            array = interleaved(array, heads)
        wide = array.ndim == 2 and array.shape[1] % 32 == 0
        chosen = gguf.GGMLQuantizationType[kind if wide else "F32"]
        writer.add_tensor(theirs(name), gguf.quants.quantize(array, chosen), raw_dtype=chosen)
    for name, array in extra:
        writer.add_tensor(name, array)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return tensors
