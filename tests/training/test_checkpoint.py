import json
import logging
import tempfile
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hostile import VALUES, damaged, few
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from jaxalign.errors import UserError
from jaxalign.runs.directory import Run
from jaxalign.training import checkpoint
from jaxalign.training.stage import Trainer

TREE = {
    "state": {"a": np.arange(6, dtype=np.float32).reshape(2, 3), "key": np.array([1, 2**32 - 1], np.uint32)},
    "step": np.int32(3) * np.ones((), np.int32),
}


def like(meta):
    return {"state": {"a": np.zeros((2, 3), np.float32), "key": np.zeros(2, np.uint32)}, "step": np.zeros((), np.int32)}


def save(folder, number, keep=5):
    tree = {"state": {"a": TREE["state"]["a"] + number, "key": TREE["state"]["key"]}, "step": TREE["step"]}
    checkpoint.save(folder, f"1-{number:07d}", tree, {"step": number}, keep)


def silent(line):
    raise AssertionError(line)


def test_a_checkpoint_comes_back_bit_by_bit_with_its_meta(tmp_path):
    meta = {"progress": {"stage": "first", "loss": 0.1 + 0.2}, "stages": []}
    checkpoint.save(tmp_path / "new", "1-0000003", TREE, meta, 1)
    tree, found = checkpoint.load_newest(tmp_path / "new", like, silent)
    assert found == meta
    np.testing.assert_array_equal(tree["state"]["a"], TREE["state"]["a"])
    np.testing.assert_array_equal(tree["state"]["key"], TREE["state"]["key"])
    assert tree["step"].dtype == np.int32
    assert int(tree["step"]) == 3


def test_the_newest_are_kept_and_the_newest_is_loaded(tmp_path):
    for number in (1, 2, 10):
        save(tmp_path, number, keep=2)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["1-0000002", "1-0000010"]
    tree, meta = checkpoint.load_newest(tmp_path, like, silent)
    assert meta == {"step": 10}
    assert tree["state"]["a"][0, 0] == 10


def test_saving_again_replaces_what_was_there(tmp_path):
    save(tmp_path, 4)
    checkpoint.save(tmp_path, "1-0000004", TREE, {"step": "again"}, 5)
    tree, meta = checkpoint.load_newest(tmp_path, like, silent)
    assert meta == {"step": "again"}
    assert tree["state"]["a"][0, 0] == 0


def flip_a_byte(path):
    files = (file for file in path.rglob("*") if file.is_file() and file.name != "manifest.json")
    largest = max(files, key=lambda file: file.stat().st_size)
    data = bytearray(largest.read_bytes())
    data[len(data) // 2] ^= 1
    largest.write_bytes(data)


def lose_a_file(path):
    max((f for f in path.rglob("*") if f.is_file() and f.name != "manifest.json"), key=lambda f: len(str(f))).unlink()


def tear_the_manifest(path):
    manifest = path / "manifest.json"
    manifest.write_text(manifest.read_text()[:-20])


def manifest_of(text):
    return lambda path: (path / "manifest.json").write_text(text)


def make_the_manifest_a_folder(path):
    (path / "manifest.json").unlink()
    (path / "manifest.json").mkdir()


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (flip_a_byte, "has changed"),
        (lose_a_file, "is missing"),
        (tear_the_manifest, "manifest.json cannot be read"),
        (make_the_manifest_a_folder, "manifest.json cannot be read"),
        (manifest_of("null"), "manifest.json cannot be read"),
        (manifest_of("[]"), "manifest.json cannot be read"),
        (manifest_of("{}"), "manifest.json does not list"),
    ],
)
def test_a_damaged_newest_checkpoint_falls_back_to_the_one_before_and_says_so(tmp_path, damage, reason):
    save(tmp_path, 1)
    save(tmp_path, 2)
    damage(tmp_path / "1-0000002")
    said = []
    tree, meta = checkpoint.load_newest(tmp_path, like, said.append)
    assert meta == {"step": 1}
    assert tree["state"]["a"][0, 0] == 1
    (line,) = said
    assert line.startswith("checkpoint 1-0000002 is damaged (")
    assert line.endswith("; trying the one before it")
    assert reason in line


def test_the_meta_is_read_without_the_arrays_and_of_the_same_checkpoint(tmp_path, monkeypatch):
    assert checkpoint.newest_meta(tmp_path / "none", silent) is None
    save(tmp_path, 1)
    save(tmp_path, 2)
    monkeypatch.setattr(checkpoint, "_load_arrays", lambda path, like: pytest.fail("the arrays were loaded"))
    assert checkpoint.newest_meta(tmp_path, silent) == {"step": 2}
    flip_a_byte(tmp_path / "1-0000002")
    said = []
    assert checkpoint.newest_meta(tmp_path, said.append) == {"step": 1} and len(said) == 1


def test_the_stages_before_are_known_without_loading_arrays(tmp_path, monkeypatch):
    meta = {"stages": [{"name": "survey"}], "progress": {"stage": "arguments"}}
    checkpoint.save(tmp_path / "checkpoints", "002-arguments-0000003", TREE, meta, 1)
    monkeypatch.setattr(checkpoint, "_load_arrays", lambda path, like: pytest.fail("the arrays were loaded"))
    run: Any = SimpleNamespace(run=Run(tmp_path), console=Console())
    assert Trainer.finished(run) == [{"name": "survey"}]


def test_where_all_are_damaged_or_there_is_none_nothing_is_loaded(tmp_path):
    assert checkpoint.load_newest(tmp_path / "none", like, silent) is None
    save(tmp_path, 1)
    flip_a_byte(tmp_path / "1-0000001")
    said = []
    assert checkpoint.load_newest(tmp_path, like, said.append) is None
    assert len(said) == 1


def test_a_folder_that_was_never_finished_is_passed_over_in_silence(tmp_path):
    save(tmp_path, 1)
    save(tmp_path, 2)
    (tmp_path / "1-0000002" / "manifest.json").unlink()
    assert checkpoint.load_newest(tmp_path, like, silent)[1] == {"step": 1}
    assert checkpoint.names(tmp_path) == ["1-0000001"]
    save(tmp_path, 2, keep=1)
    assert checkpoint.load_newest(tmp_path, like, silent)[1] == {"step": 2}


def test_a_damaged_checkpoint_does_not_outlive_a_new_one(tmp_path):
    save(tmp_path, 9)
    flip_a_byte(tmp_path / "1-0000009")
    assert checkpoint.load_newest(tmp_path, like, print) is None
    save(tmp_path, 1, keep=1)
    assert checkpoint.load_newest(tmp_path, like, silent)[1] == {"step": 1}
    assert [path.name for path in tmp_path.iterdir()] == ["1-0000001"]


def test_what_orbax_logs_of_a_failure_is_not_shown(tmp_path, monkeypatch, capfd):
    def fails(path, tree):
        logging.getLogger("absl").error("pages of Orbax's own")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(checkpoint, "_save_arrays", fails)
    monkeypatch.setattr(logging.getLogger("absl"), "disabled", False)  # an earlier test may have disabled it
    with pytest.raises(UserError, match=r"cannot write the checkpoint .*: .*No space left on device; free space"):
        save(tmp_path, 1)
    assert capfd.readouterr() == ("", "")
    assert not logging.getLogger("absl").disabled


@few
@given(damaged(VALUES.map(json.dumps)) | st.binary(max_size=40))
def test_a_checkpoint_with_any_manifest_does_not_count(content):
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "1-0000001"
        path.mkdir()
        (path / checkpoint.META).write_text("{}")
        (path / checkpoint.MANIFEST).write_bytes(content)
        said = []
        assert checkpoint.newest_meta(Path(folder), said.append) is None and len(said) == 1


def test_a_disk_that_is_too_full_is_one_line_before_anything_is_written(tmp_path, monkeypatch, capfd):
    monkeypatch.setattr(checkpoint.shutil, "disk_usage", lambda folder: SimpleNamespace(free=3))
    with pytest.raises(
        UserError, match=r"cannot write .*: it takes 0\.0 MB, and the disk has 0\.0 MB left; free space"
    ):
        save(tmp_path, 1)
    assert capfd.readouterr() == ("", "") and checkpoint.names(tmp_path) == []


@pytest.mark.parametrize("name", ["run[1]", "a*b", "what?", "back\\slash", "{a}, b=ü"])
def test_a_folder_may_have_any_name(tmp_path, name):
    save(tmp_path / name, 1)
    found, meta = checkpoint.load_newest(tmp_path / name, like, silent)
    assert meta == {"step": 1} and found["state"]["a"][0, 0] == 1


def test_a_checkpoint_of_another_run_is_refused_and_one_of_an_older_version_is_read(tmp_path):
    checkpoint.save(tmp_path / "ours", "1-0000001", TREE, {"run": "mine"}, 1)
    checkpoint.save(tmp_path / "older", "1-0000001", TREE, {}, 1)
    assert checkpoint.newest_meta(tmp_path / "ours", silent, "mine") == {"run": "mine"}
    assert checkpoint.newest_meta(tmp_path / "older", silent, "mine") == {}
    with pytest.raises(UserError, match=r"1-0000001 was written by another run: remove .*ours, and type the command"):
        checkpoint.load_newest(tmp_path / "ours", like, silent, "theirs")
