import json
import os
import struct

import ml_dtypes
import numpy as np
import pytest
from model_folder import CONFIGS, hf_random, write_model
from safetensors import SafetensorError, safe_open
from safetensors.numpy import load_file, save_file

from jaxalign.errors import UserError
from jaxalign.pretrained.safetensors import INDEX, SafetensorsFolder, write_safetensors

TENSORS = {
    "b.weight": np.arange(6, dtype=np.float32).reshape(2, 3),
    "a": np.array([1.5, -2.0], np.float16),
    "scalar": np.array(3.0, np.float64),
}


def test_the_librarys_files_are_read(tmp_path):
    save_file(TENSORS, tmp_path / "model.safetensors", {"format": "pt"})
    source = SafetensorsFolder(tmp_path)
    assert source.names() == ["a", "b.weight", "scalar"]
    for name, array in TENSORS.items():
        assert source.shape(name) == array.shape
        np.testing.assert_array_equal(source.read(name), array)
        assert bytes(source.raw(name)) == array.tobytes()
    assert [source.dtype(name) for name in source.names()] == ["F16", "F32", "F64"]


def test_the_library_reads_our_files(tmp_path):
    path = tmp_path / "deep" / "x.safetensors"
    write_safetensors(path, TENSORS, {"format": "pt"})
    for name, array in load_file(path).items():
        np.testing.assert_array_equal(array, TENSORS[name])
    with safe_open(path, "numpy") as file:
        assert file.metadata() == {"format": "pt"}
    assert os.listdir(path.parent) == ["x.safetensors"]


def test_bfloat16_and_transposed_arrays_round_trip(tmp_path):
    array = np.arange(12).reshape(3, 4).astype(ml_dtypes.bfloat16)
    write_safetensors(tmp_path / "model.safetensors", {"w": array.T, "v": array[:, ::2]}, {})
    source = SafetensorsFolder(tmp_path)
    assert source.dtype("w") == "BF16"
    np.testing.assert_array_equal(source.read("w"), array.T)
    np.testing.assert_array_equal(source.read("v"), array[:, ::2])


def test_several_files_with_an_index_are_one_checkpoint(tmp_path):
    tensors = hf_random(CONFIGS["llama"], ml_dtypes.bfloat16)
    source = SafetensorsFolder(write_model(tmp_path, CONFIGS["llama"], tensors, files=3))
    assert source.names() == sorted(tensors)
    for name, array in tensors.items():
        np.testing.assert_array_equal(source.read(name), array)


def test_a_single_file_of_any_name_will_do(tmp_path):
    save_file(TENSORS, tmp_path / "weights.safetensors")
    assert SafetensorsFolder(tmp_path).names() == sorted(TENSORS)
    assert SafetensorsFolder(tmp_path / "weights.safetensors").names() == sorted(TENSORS)


def _header(header: object) -> bytes:
    text = json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text


ENTRY = {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}
TWICE = json.dumps([{"w": ENTRY}, {"w": ENTRY}])[1:-1].replace("}, {", ",").encode()


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\x01\x02",
        struct.pack("<Q", 10**12) + b"{}",
        struct.pack("<Q", 4) + b"nope",
        _header([]),
        _header({"w": {"dtype": "F32"}}),
        _header({"w": ENTRY}) + bytes(7),
        _header({"w": ENTRY | {"shape": [3]}}) + bytes(8),
        _header({"w": ENTRY | {"data_offsets": [8, 0]}}) + bytes(8),
        _header({"w": ENTRY | {"data_offsets": [-8, 0]}}) + bytes(8),
        _header({"w": ENTRY | {"shape": ["2"]}}) + bytes(8),
        _header({"w": ENTRY | {"data_offsets": ["0", "8"]}}) + bytes(8),
        _header({"w": ENTRY | {"shape": [2.0]}}) + bytes(8),
        _header({"w": ENTRY | {"shape": [-1, -2]}}) + bytes(8),
        _header({"w": ENTRY | {"dtype": {"F32": 1}}}) + bytes(8),
        _header({"w": ENTRY | {"data_offsets": [0, 8, 8]}}) + bytes(8),
        _header({"w": [ENTRY]}) + bytes(8),
        struct.pack("<Q", 200_000) + b"[" * 200_000,
        struct.pack("<Q", len(TWICE)) + TWICE + bytes(8),
    ],
)
def test_a_damaged_file_is_named(tmp_path, data):
    path = tmp_path / "model.safetensors"
    path.write_bytes(data)
    with pytest.raises(UserError, match=r"model\.safetensors is damaged or truncated"):
        SafetensorsFolder(tmp_path)


def _entries(*places):
    return {name: {"dtype": "F32", "shape": [(e - s) // 4], "data_offsets": [s, e]} for name, (s, e) in places}


@pytest.mark.parametrize(
    ("places", "words"),
    [
        ([("a", (0, 8)), ("b", (4, 16))], "the bytes of 'b' overlap those of 'a'"),
        ([("a", (0, 16)), ("b", (0, 16))], "the bytes of 'b' overlap those of 'a'"),
        ([("b", (0, 16)), ("a", (4, 8))], "the bytes of 'a' overlap those of 'b'"),
        ([("a", (4, 16))], "4 bytes between the header and 'a' are of no tensor"),
        ([("a", (0, 4)), ("b", (8, 16))], "4 bytes between 'a' and 'b' are of no tensor"),
        ([("a", (0, 4)), ("b", (4, 12))], "4 bytes behind 'b' are of no tensor"),
    ],
)
def test_tensors_that_overlap_or_leave_bytes_between_them_are_refused_as_the_library_does(tmp_path, places, words):
    path = tmp_path / "model.safetensors"
    path.write_bytes(_header(_entries(*places)) + bytes(16))
    with pytest.raises(UserError, match=f"model.safetensors is damaged or truncated: {words}; get the file again"):
        SafetensorsFolder(tmp_path)
    with pytest.raises(SafetensorError):
        load_file(path)


def test_tensors_may_stand_in_any_order_and_be_empty(tmp_path):
    places = [("b", (4, 16)), ("empty", (4, 4)), ("a", (0, 4)), ("last", (16, 16))]
    (tmp_path / "model.safetensors").write_bytes(_header(_entries(*places)) + bytes(16))
    assert SafetensorsFolder(tmp_path).names() == sorted(load_file(tmp_path / "model.safetensors"))


@pytest.mark.parametrize("name", ["model.safetensors", "other.safetensors"])
def test_a_named_pipe_is_refused_and_never_opened(tmp_path, name):
    os.mkfifo(tmp_path / name)
    with pytest.raises(UserError, match=rf"{name} cannot be read: it is a named pipe"):
        SafetensorsFolder(tmp_path)


def test_a_truncated_file_says_which_tensor_is_cut(tmp_path):
    path = write_model(tmp_path, CONFIGS["llama"], hf_random(CONFIGS["llama"])) / "model.safetensors"
    os.truncate(path, path.stat().st_size - 10)
    with pytest.raises(UserError, match=r"the bytes of 'model\.norm\.weight' are not all there"):
        SafetensorsFolder(tmp_path)


def test_integers_are_refused_only_where_they_are_asked_for(tmp_path):
    save_file({"w": np.ones(2, np.float32), "ids": np.arange(3)}, tmp_path / "model.safetensors")
    source = SafetensorsFolder(tmp_path)
    np.testing.assert_array_equal(source.read("w"), [1, 1])
    with pytest.raises(UserError, match="'ids' is stored as I64"):
        source.read("ids")


def test_a_folder_without_safetensors_says_so_and_why_pickles_do_not_count(tmp_path):
    with pytest.raises(UserError, match=r"holds no \*\.safetensors;"):
        SafetensorsFolder(tmp_path)
    (tmp_path / "pytorch_model.bin").write_bytes(b"")
    with pytest.raises(UserError, match="pickles, which are never loaded"):
        SafetensorsFolder(tmp_path)


def test_a_file_that_the_index_names_must_be_there(tmp_path):
    write_model(tmp_path, CONFIGS["llama"], hf_random(CONFIGS["llama"]), files=3)
    (tmp_path / "model-00002-of-00003.safetensors").unlink()
    with pytest.raises(UserError, match=r"lacks model-00002-of-00003\.safetensors \(1 of 3 files\)"):
        SafetensorsFolder(tmp_path)


def test_a_tensor_of_a_shard_counts_also_if_the_index_does_not_name_it(tmp_path):
    tensors = hf_random(CONFIGS["llama"])
    write_model(tmp_path, CONFIGS["llama"], tensors, files=2)
    index = json.loads((tmp_path / INDEX).read_text())
    del index["weight_map"]["lm_head.weight"]
    (tmp_path / INDEX).write_text(json.dumps(index))
    source = SafetensorsFolder(tmp_path)
    assert source.names() == sorted(tensors) and source.left_aside == []
    np.testing.assert_array_equal(source.read("lm_head.weight"), tensors["lm_head.weight"])
    second = tmp_path / "model-00002-of-00002.safetensors"
    twice = {"model.norm.weight": tensors["model.norm.weight"], "lm_head.weight": tensors["lm_head.weight"]}
    write_safetensors(second, load_file(second) | twice, {})
    both = r"00002\.safetensors has a tensor '(lm_head|model\.norm)\.weight', and so has model-00001-of-00002"
    with pytest.raises(UserError, match=both):
        SafetensorsFolder(tmp_path)


def test_files_of_weights_that_are_not_read_are_named(tmp_path):
    write_model(tmp_path, CONFIGS["llama"], hf_random(CONFIGS["llama"]), files=2)
    shards = [f"model-0000{number}-of-00002.safetensors" for number in (1, 2)]
    save_file(TENSORS, tmp_path / "other.safetensors")
    assert SafetensorsFolder(tmp_path).left_aside == ["other.safetensors"]
    save_file(TENSORS, tmp_path / "model.safetensors")  # it goes first, as in Transformers
    source = SafetensorsFolder(tmp_path)
    assert source.names() == sorted(TENSORS) and source.left_aside == [*shards, "other.safetensors", INDEX]
    (tmp_path / INDEX).write_text(json.dumps({"weight_map": dict.fromkeys(TENSORS, "model.safetensors")}))
    assert SafetensorsFolder(tmp_path).left_aside == [*shards, "other.safetensors"]
    assert SafetensorsFolder(tmp_path / "other.safetensors").left_aside == []


@pytest.mark.parametrize(
    ("index", "message"),
    [
        ("{", "line 1 is not JSON"),
        ("[]", "not a JSON object"),
        ('{"weight_map": []}', "damaged"),
        ("[" * 100_000, "is JSON nested too deeply"),
        ('{"weight_map": {"w": "../x.safetensors"}}', "not a file name"),
        ('{"weight_map": {"w": 3}}', "not a file name"),
    ],
)
def test_a_bad_index_is_named(tmp_path, index, message):
    (tmp_path / INDEX).write_text(index)
    with pytest.raises(UserError, match=message):
        SafetensorsFolder(tmp_path)


def test_a_place_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=r"cannot write .*file/x\.safetensors"):
        write_safetensors(tmp_path / "file" / "x.safetensors", TENSORS, {})


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda file: os.truncate(file, 120), "has become shorter while this command read it"),
        (lambda file: file.unlink(), "cannot read .*No such file.*it was there when this command began"),
    ],
)
def test_a_file_that_changes_while_it_is_read_is_named(tmp_path, change, message):
    write_safetensors(tmp_path / "model.safetensors", {"big": np.zeros(5000, np.float32)}, {})
    source = SafetensorsFolder(tmp_path)
    change(tmp_path / "model.safetensors")
    with pytest.raises(UserError, match=message):
        source.read("big")
