import itertools
import os
import struct

import gguf
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from gguf_file import write_gguf
from model_folder import CONFIGS
from tiny_model import Arrays

from jaxalign.errors import UserError
from jaxalign.models.architecture import from_config
from jaxalign.pretrained import leaves
from jaxalign.pretrained.gguf import GgufFile
from jaxalign.pretrained.tokenizer import from_hf
from jaxalign.pretrained.weights import load_params


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


@pytest.mark.parametrize("kind", ["F32", "Q4_1", "Q8_0"])
def test_a_part_of_a_tensor_is_what_it_is_in_the_whole(tmp_path, kind):
    write_gguf(tmp_path / "m.gguf", kind=kind)
    source = GgufFile(tmp_path / "m.gguf")
    for name in source.names():
        whole, parts = source.read(name), source.parts(name)
        cuts = [slice(None), slice(3, 21), slice(5, None), slice(8, 9)]
        for part in itertools.product(cuts, repeat=whole.ndim):
            np.testing.assert_array_equal(parts[part], whole[part], err_msg=f"{name} {part}")


@pytest.mark.parametrize("storage", [None, "int8", "int4"])
def test_a_thread_decodes_a_block_at_a_time_and_loads_the_same_numbers(tmp_path, monkeypatch, storage):
    larger = {"hidden_size": 64, "head_dim": 16, "intermediate_size": 128}
    monkeypatch.setitem(CONFIGS, "llama", CONFIGS["llama"] | larger)
    write_gguf(tmp_path / "m.gguf", kind="Q8_0")
    source, architecture = GgufFile(tmp_path / "m.gguf"), from_config(CONFIGS["llama"])
    wanted, identity = load_params(architecture, source, jnp.bfloat16, storage=storage)
    decode, sizes = gguf.quants.dequantize, []

    def counted(rows, kind):
        values = decode(rows, kind)
        sizes.append(values.size)
        return values

    monkeypatch.setattr(gguf.quants, "dequantize", counted)
    monkeypatch.setattr(leaves, "CONVERTED", 1024)
    found, again = load_params(architecture, source, jnp.bfloat16, storage=storage)
    assert max(sizes) == 1024  # a whole kernel has eight times as many
    assert again == identity
    jax.tree.map(np.testing.assert_array_equal, found, wanted)


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


def header(*fields, tensors=(), version=3):
    """Return the bytes of a GGUF file with raw metadata, (key, type, bytes), and raw tensor entries."""
    data = struct.pack("<4sIQQ", b"GGUF", version, len(tensors), len(fields))
    for key, kind, value in fields:
        data += struct.pack("<Q", len(key)) + key.encode() + struct.pack("<I", kind) + value
    return data + b"".join(tensors) + bytes(64)


def entry(name=b"w", shape=(2,), kind=0, offset=0):
    """Return a tensor's entry."""
    sizes = struct.pack(f"<I{len(shape)}Q", len(shape), *shape)
    return struct.pack("<Q", len(name)) + name + sizes + struct.pack("<IQ", kind, offset)


ARRAY, STRING, UINT8 = 9, 8, 0
NEST = struct.pack("<IQ", ARRAY, 1)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (header(("a", ARRAY, struct.pack("<IQ", UINT8, 2**60))), "an array of 1152921504606846976 items"),
        (header(("a", ARRAY, struct.pack("<IQ", STRING, 2**20))), "it ends inside its header"),
        (header(("a", ARRAY, NEST * 100_000)), "its arrays stand within arrays too deep"),
        (header(("a", UINT8, b"1"), ("a", UINT8, b"1")), "two values of 'a'"),
        (header(("general.alignment", UINT8, b"\0")), "its alignment is not a number of bytes"),
        (header(("general.alignment", STRING, struct.pack("<Q", 1) + b"8")), "its alignment is not a number of bytes"),
        (header(("a", 99, b"")), "99 is not a valid GGUFValueType"),
        (header(tensors=[entry(shape=(2,) * 40)]), "the tensor 'w' has 40 axes"),
        (header(tensors=[entry(shape=())]), "the tensor 'w' has no shape of its type"),
        (header(tensors=[entry(shape=(33,), kind=8)]), "the tensor 'w' has no shape of its type"),
        (header(tensors=[entry(), entry()]), "or is there twice"),
        (header(tensors=[entry(shape=(2**40, 2**40))]), "it ends before 'w' does"),
        (header(tensors=[entry(b"v", offset=4), entry()]), "the bytes of 'v' overlap those of 'w'"),
        (header(tensors=[entry(), entry(b"v")]), "the bytes of 'v' overlap those of 'w'"),
    ],
)
def test_a_header_that_claims_what_cannot_be_is_refused(tmp_path, data, message):
    (tmp_path / "m.gguf").write_bytes(data)
    with pytest.raises(UserError, match=f"is not a whole GGUF file .*{message}"):
        GgufFile(tmp_path / "m.gguf")


@pytest.mark.parametrize(
    ("field", "message"),
    [
        (("add_block_count", 10**9), "num_hidden_layers=1000000000 is not allowed"),
        (("add_head_count", [4, 2]), "llama.attention.head_count=a list is not allowed: it must be a whole number"),
        (("add_layer_norm_rms_eps", float("nan")), "layer_norm_rms_epsilon=nan is not allowed"),
        (("add_rope_freq_base", float("inf")), "rope.freq_base=inf is not allowed"),
        (("add_key_length", 0), "key_length=0 is not allowed"),
        (("add_eos_token_id", 259), "eos_token_id=259 is not allowed: it must be a whole number from 0 to 258"),
        (("add_eot_token_id", 259), "eot_token_id=259 is not allowed: it must be a whole number from 0 to 258"),
        (("add_token_merges", ["a b c"]), "merges=a list is not allowed: it must be two pieces with a space"),
        (("add_token_types", [1, 3]), "token_type=a list is not allowed: it must be one number for each token"),
    ],
)
def test_metadata_of_another_type_or_range_is_named(tmp_path, field, message):
    write_gguf(tmp_path / "m.gguf", fields=[field])
    file = GgufFile(tmp_path / "m.gguf")
    with pytest.raises(UserError, match=message):
        _ = from_config(file.config()), file.tokenizer()


@pytest.mark.parametrize("value", [True, "2", 2.0, [2]])
def test_an_end_of_a_turn_that_is_no_token_is_refused_with_the_tokenizer(tmp_path, value):
    write_gguf(tmp_path / "m.gguf")
    file = GgufFile(tmp_path / "m.gguf")
    file._fields["tokenizer.ggml.eom_token_id"] = value
    with pytest.raises(UserError, match=r"m\.gguf: tokenizer\.ggml\.eom_token_id=.* is not allowed: it must be a"):
        file.tokenizer()


def test_a_file_that_becomes_shorter_while_it_is_read_is_named(tmp_path):
    write_gguf(tmp_path / "m.gguf")
    file = GgufFile(tmp_path / "m.gguf")
    os.truncate(tmp_path / "m.gguf", 5000)
    with pytest.raises(UserError, match=r"m\.gguf has become shorter while this command read it"):
        [file.raw(name) for name in file.names()]
