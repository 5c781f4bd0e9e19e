import gguf
import jax.numpy as jnp
import numpy as np
import pytest
from model_folder import CONFIGS, hf_random
from tiny_model import Arrays

from jaxalign.errors import UserError
from jaxalign.models.architecture import from_config
from jaxalign.pretrained.gguf import GgufFile
from jaxalign.pretrained.tokenizer import from_hf, tiny_tokenizer
from jaxalign.pretrained.weights import load_params

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
    config, tokens = CONFIGS[family], tiny_tokenizer().hf.convert_ids_to_tokens(range(259))
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


@pytest.mark.parametrize("family", ["llama", "qwen2", "qwen3"])
def test_the_tensors_are_hugging_faces_in_name_and_order_of_rows(tmp_path, family):
    tensors = write_gguf(tmp_path / "m.gguf", family)
    file = GgufFile(tmp_path / "m.gguf")
    assert file.names() == sorted(tensors)
    for name, array in tensors.items():
        assert file.shape(name) == array.shape
        np.testing.assert_array_equal(file.read(name), array, err_msg=name)


@pytest.mark.parametrize(("kind", "error"), [("F16", 1e-3), ("BF16", 1e-2), ("Q8_0", 1e-2), ("Q4_1", 0.1)])
def test_quantised_tensors_come_near_what_they_were(tmp_path, kind, error):
    tensors = write_gguf(tmp_path / "m.gguf", kind=kind)
    file = GgufFile(tmp_path / "m.gguf")
    name = "model.layers.1.self_attn.k_proj.weight"
    assert file.dtype(name) == kind
    assert 0 < np.abs(file.read(name) - tensors[name]).max() < error


@pytest.mark.parametrize("family", ["llama", "qwen2", "qwen3"])
def test_the_configuration_is_what_config_json_would_say(tmp_path, family):
    write_gguf(tmp_path / "m.gguf", family)
    found = GgufFile(tmp_path / "m.gguf").config()
    assert from_config(found) == from_config(CONFIGS[family] | {"rms_norm_eps": 1e-5})
    assert found["rms_norm_eps"] == 1e-5
    assert found["eos_token_id"] == 2


def test_a_file_loads_as_its_safetensors_would(tmp_path):
    tensors = write_gguf(tmp_path / "m.gguf")
    file = GgufFile(tmp_path / "m.gguf")
    architecture = from_config(file.config())
    params, identity = load_params(architecture, file, jnp.bfloat16)
    wanted, _ = load_params(architecture, Arrays(tensors), jnp.bfloat16)
    np.testing.assert_array_equal(params["layers"]["q_proj"]["kernel"], wanted["layers"]["q_proj"]["kernel"])
    assert len(identity) == 64


def test_without_an_output_tensor_the_model_is_tied(tmp_path):
    write_gguf(tmp_path / "m.gguf", leave_out=["lm_head.weight"])
    assert GgufFile(tmp_path / "m.gguf").config()["tie_word_embeddings"] is True


def test_the_tokenizer_merges_and_knows_its_special_tokens(tmp_path):
    write_gguf(tmp_path / "m.gguf")
    tokenizer = from_hf(GgufFile(tmp_path / "m.gguf").tokenizer())
    text = "Ünï 2024<|im_end|>\n"
    ids = tokenizer.encode(text)
    assert ids[-2] == tokenizer.eos_id == 2
    assert tokenizer.decode(ids) == text
    assert tokenizer.bos_id is None
    assert tokenizer.encode(" a a").tolist() == [0, 0]


def test_a_bos_is_prepended_where_the_file_says_so(tmp_path):
    write_gguf(tmp_path / "m.gguf", fields=[("add_add_bos_token", True)])
    tokenizer = from_hf(GgufFile(tmp_path / "m.gguf").tokenizer())
    assert tokenizer.bos_id == 1
    assert 1 not in tokenizer.encode("text")


def test_another_architecture_is_refused_and_the_supported_are_named(tmp_path):
    writer = gguf.GGUFWriter(tmp_path / "m.gguf", "mamba")
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    with pytest.raises(UserError, match="a 'mamba' model; supported in GGUF are llama, qwen2, qwen3"):
        GgufFile(tmp_path / "m.gguf")


def test_a_tokenizer_that_is_no_byte_level_bpe_is_refused(tmp_path):
    write_gguf(tmp_path / "m.gguf", fields=[("add_tokenizer_pre", "chameleon")])
    with pytest.raises(UserError, match=r"kind 'gpt2' \('chameleon'\); supported in GGUF is gpt2"):
        GgufFile(tmp_path / "m.gguf").tokenizer()


def test_a_damaged_tokenizer_is_refused(tmp_path):
    write_gguf(tmp_path / "m.gguf", fields=[("add_token_merges", ["x nowhere"])])
    with pytest.raises(UserError, match="tokenizer cannot be built"):
        GgufFile(tmp_path / "m.gguf").tokenizer()


def test_a_stretched_rope_is_refused(tmp_path):
    write_gguf(tmp_path / "m.gguf", extra=[("rope_freqs.weight", np.ones(4, np.float32))])
    with pytest.raises(UserError, match="rope scaling"):
        GgufFile(tmp_path / "m.gguf").config()


@pytest.mark.parametrize("kept", [0, 3, 20, 600, 3000, -1])
def test_a_truncated_file_is_named(tmp_path, kept):
    write_gguf(tmp_path / "m.gguf")
    data = (tmp_path / "m.gguf").read_bytes()
    (tmp_path / "m.gguf").write_bytes(data[:kept])
    with pytest.raises(UserError, match=r"m\.gguf is not a whole GGUF file"):
        GgufFile(tmp_path / "m.gguf")


def test_a_file_of_another_format_is_refused(tmp_path):
    (tmp_path / "m.gguf").write_bytes(b"PK" + bytes(range(256)) * 8)
    with pytest.raises(UserError, match="not a whole GGUF file"):
        GgufFile(tmp_path / "m.gguf")
