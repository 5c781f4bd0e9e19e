import errno
import json
import os
import shutil
import signal
import subprocess
import sys

import pytest
import yaml

from jaxalign.errors import UserError
from jaxalign.runs import config_file
from jaxalign.runs.config_file import older_runs, stored_config
from jaxalign.runs.directory import open_run
from jaxalign.runs.expected import Maybe
from jaxalign.runs.records import append_record, read_records, write_atomic

IDENTITY = {"lora": {"rank": 8, "targets": ["q_proj"]}, "seed": 0, "rate": 2e-5, "note": "naïve: #1", "limit": None}
CONFIG = {**IDENTITY, "log_every": 10}


def a_run(tmp_path, identity=IDENTITY, **options):
    return open_run(identity, CONFIG, root=tmp_path, name="power", **options)


def test_a_written_file_replaces_the_old_one_and_leaves_nothing_else(tmp_path):
    path = tmp_path / "folder" / "file.json"
    write_atomic(path, "old")
    write_atomic(path, b"new")
    assert path.read_text() == "new"
    assert os.listdir(path.parent) == ["file.json"]


def test_a_failed_write_keeps_the_old_file_and_names_the_path_in_one_line(tmp_path, monkeypatch):
    path = tmp_path / "file.json"
    write_atomic(path, "old")

    def full(_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(UserError, match=r"cannot write .*file\.json: No space left on device"):
        write_atomic(path, "new")
    assert path.read_text() == "old"
    assert os.listdir(tmp_path) == ["file.json"]


def test_records_come_back_in_order(tmp_path):
    path = tmp_path / "metrics.jsonl"
    assert read_records(path) == []
    append_record(path, {"step": 1, "text": "é"})
    append_record(path, {"step": 2})
    assert read_records(path) == [{"step": 1, "text": "é"}, {"step": 2}]


@pytest.mark.parametrize("torn", ['{"step": 2, "lo', '{"step": 2}', "x" * 70_000])
def test_a_torn_last_line_is_left_out_and_the_next_record_takes_its_place(tmp_path, torn):
    path = tmp_path / "metrics.jsonl"
    append_record(path, {"step": 1})
    with path.open("a") as file:
        file.write(torn)
    assert read_records(path) == [{"step": 1}]
    append_record(path, {"step": 3})
    assert read_records(path) == [{"step": 1}, {"step": 3}]


@pytest.mark.parametrize(
    ("line", "said"),
    [
        (b"nonsense", " line 2 is not JSON (Expecting value)"),
        (b"null", ", line 2: not a JSON object"),
        (b"[1]", ", line 2: not a JSON object"),
        (b"{}", ", line 2: 'step' is missing or damaged"),
        (b'{"step": null}', ", line 2: 'step' is missing or damaged"),
        (b'{"step": true}', ", line 2: 'step' is missing or damaged"),
        (b"[" * 100_000, " line 2 is JSON nested too deeply"),
        (b'["\\ud83d"]', r" line 2 holds \ud83d alone, which is half of a character: write the whole of it"),
        (b'{"step": 2, "step": 3}', " line 2 holds an object with the key 'step' twice"),
        ('{"step": "é"}'.encode("latin-1"), " line 2 is not UTF-8 text"),
    ],
)
def test_a_damaged_line_is_named_with_what_mends_it(tmp_path, line, said):
    path = tmp_path / "metrics.jsonl"
    path.write_bytes(b'{"step": 1, "loss": NaN}\n' + line + b'\n{"step": 3}\n')
    with pytest.raises(UserError) as caught:
        read_records(path, step=int)
    assert str(caught.value) == f"{path}{said}; remove the line, and type the command again"


def test_records_in_a_named_pipe_are_refused_and_never_opened(tmp_path):
    os.mkfifo(tmp_path / "metrics.jsonl")
    with pytest.raises(UserError, match=r"metrics\.jsonl cannot be read: it is a named pipe; remove it, or choose"):
        read_records(tmp_path / "metrics.jsonl")


def test_the_same_identity_finds_the_same_directory_and_another_one_its_own(tmp_path):
    first = a_run(tmp_path)
    assert first.path.parent == tmp_path
    assert first.path.name.startswith("power-")
    assert len(first.path.name) == len("power-") + 8
    reordered = dict(reversed(IDENTITY.items()))
    assert a_run(tmp_path, reordered).path == first.path
    assert a_run(tmp_path, {**IDENTITY, "seed": 1}).path != first.path


def test_config_yaml_holds_the_whole_configuration(tmp_path):
    written = yaml.safe_load(a_run(tmp_path).config.read_text())
    assert written.pop("identity") == IDENTITY
    assert (written.pop("run_format"), written.pop("run_files")) == (2, [])
    assert written == CONFIG
    assert stored_config(a_run(tmp_path).path)["lora"] == CONFIG["lora"]


def test_a_run_is_finished_once_its_summary_is_written(tmp_path):
    run = a_run(tmp_path)
    assert not run.finished
    run.log({"step": 1})
    run.finish({"value": "power"})
    again = a_run(tmp_path)
    assert again.finished
    assert json.loads(again.summary.read_text()) == {"value": "power"}
    assert read_records(again.metrics) == [{"step": 1}]


def test_another_configuration_is_refused_with_the_keys_that_differ(tmp_path):
    open_run(IDENTITY, CONFIG, dir=tmp_path / "mine")
    other = {**IDENTITY, "lora": {"rank": 4, "targets": ["v_proj"]}, "seed": 5, "limit": 7}
    with pytest.raises(UserError) as caught:
        open_run(other, CONFIG, dir=tmp_path / "mine")
    line = str(caught.value)
    assert "lora.rank was 8 and is 4" in line
    assert "seed was 0 and is 5 and 1 more" in line
    assert "run.overwrite=true or another run.dir" in line


def test_overwrite_deletes_what_the_run_wrote_and_nothing_else(tmp_path):
    run = open_run(IDENTITY, CONFIG, files=["checkpoints", "table.csv"], dir=tmp_path / "mine")
    run.checkpoints.mkdir()
    (run.checkpoints / "step").write_text("1")
    (run.path / "table.csv").write_text("a")
    run.finish({})
    (run.path / "notes.txt").write_text("my own")
    other = {**IDENTITY, "seed": 1}
    # What the earlier run declared goes, also where the later one declares less.
    fresh = open_run(other, CONFIG, dir=run.path, overwrite=True)
    assert not fresh.finished
    assert sorted(os.listdir(run.path)) == [".lock", "config.yaml", "notes.txt"]
    assert yaml.safe_load(run.config.read_text())["identity"] == other


@pytest.mark.parametrize("name", ["thesis.txt", "config.yaml"])
@pytest.mark.parametrize("overwrite", [True, False])
def test_a_directory_that_no_run_made_is_refused_and_not_touched(tmp_path, overwrite, name):
    (tmp_path / name).write_text("key: of someone else")
    (tmp_path / "checkpoints").mkdir()
    with pytest.raises(UserError, match="no run made it"):
        open_run(IDENTITY, CONFIG, dir=tmp_path, overwrite=overwrite)
    assert sorted(os.listdir(tmp_path)) == sorted([name, "checkpoints"])


def test_aliases_that_stand_for_billions_of_values_make_no_run(tmp_path):
    layers = "".join(f"l{n}: &l{n} [{', '.join([f'*l{n - 1}'] * 9)}]\n" for n in range(1, 12))
    (tmp_path / "config.yaml").write_text(f"l0: &l0 [a]\n{layers}identity: {{all: *l11}}\n")
    with pytest.raises(UserError, match="no run made it"):
        open_run(IDENTITY, CONFIG, dir=tmp_path)


@pytest.mark.parametrize("value", ["2026-01-01", "!!binary aGk=", "{1: 2}", "!!set {a}", "[[2026-01-01 10:00:00]]"])
def test_a_configuration_with_values_that_no_run_writes_is_none(tmp_path, value):
    (tmp_path / "config.yaml").write_text(f"identity: {{value: {value}}}\n")
    with pytest.raises(UserError, match="no run made it"):
        open_run(IDENTITY, CONFIG, dir=tmp_path)


KILLED = """
import os, signal, sys
from jaxalign.runs.directory import open_run
from jaxalign.runs.expected import Maybe
left = int(sys.argv[2])

def killed(_):
    global left
    left -= 1
    if not left:
        os.kill(os.getpid(), signal.SIGKILL)

os.fsync = killed
open_run({"seed": 0}, {"seed": 0}, dir=sys.argv[1])
"""
"""Begins a run, and is killed in one of its first writes to the disk."""


@pytest.mark.parametrize("write", [1, 2, 3])
def test_a_kill_in_any_of_the_first_writes_leaves_a_directory_for_the_same_command(tmp_path, write):
    process = subprocess.run([sys.executable, "-c", KILLED, str(tmp_path / "run"), str(write)])
    assert process.returncode == -signal.SIGKILL
    open_run({"seed": 0}, {"seed": 0}, dir=tmp_path / "run")
    assert sorted(os.listdir(tmp_path / "run")) == [".lock", "config.yaml"]


def test_of_two_commands_that_begin_together_one_is_told_of_the_other(tmp_path, monkeypatch):
    told = []

    def in_the_middle_of_a_write(_):
        with pytest.raises(UserError) as caught:
            open_run(IDENTITY, CONFIG, dir=tmp_path / "mine")
        told.append(str(caught.value))

    monkeypatch.setattr(os, "fsync", in_the_middle_of_a_write)
    assert open_run(IDENTITY, CONFIG, dir=tmp_path / "mine").config.exists()
    assert set(told) == {f"{tmp_path}/mine is in use by another process: wait for it, or choose a run.dir"}


def test_a_directory_may_be_a_symbolic_link_but_not_one_that_leads_nowhere(tmp_path):
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to("real")
    assert open_run(IDENTITY, CONFIG, dir=tmp_path / "link").config.exists()
    assert (tmp_path / "link").is_symlink() and (tmp_path / "real" / "config.yaml").exists()
    (tmp_path / "lost").symlink_to("nowhere")
    with pytest.raises(
        UserError, match=r"it is a symbolic link to nowhere, which does not exist; free space or choose"
    ):
        open_run(IDENTITY, CONFIG, dir=tmp_path / "lost")


def test_a_place_that_cannot_be_written_is_refused_before_any_work(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="Not a directory"):
        open_run(IDENTITY, CONFIG, dir=tmp_path / "file" / "run")
    with pytest.raises(UserError, match="Not a directory"):
        open_run(IDENTITY, CONFIG, dir=tmp_path / "file")

    def read_only(*_, **__):
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    monkeypatch.setattr("tempfile.mkstemp", read_only)
    with pytest.raises(UserError, match=r"Read-only file system; free space or choose another run\.dir"):
        a_run(tmp_path)


def test_a_run_in_progress_is_not_deleted_by_overwrite(tmp_path):
    run = open_run(IDENTITY, CONFIG, dir=tmp_path / "mine")
    run.log({"step": 1})
    with run.locked(), pytest.raises(UserError, match="in use by another process"):
        open_run(IDENTITY, CONFIG, dir=run.path, overwrite=True)
    assert run.metrics.exists()


def test_an_overwrite_that_is_stopped_leaves_no_run_that_seems_done(tmp_path, monkeypatch):
    run = open_run(IDENTITY, CONFIG, files=["adapter"], dir=tmp_path / "mine")
    run.adapter.mkdir()
    run.finish({})
    monkeypatch.setattr("shutil.rmtree", lambda path: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        open_run(IDENTITY, CONFIG, dir=run.path, overwrite=True)
    assert run.adapter.exists() and not run.finished


def test_what_goes_wrong_under_the_lock_is_not_called_a_lock(tmp_path):
    run = open_run(IDENTITY, CONFIG, dir=tmp_path / "mine")
    with pytest.raises(FileNotFoundError), run.locked():
        (tmp_path / "nowhere" / "file").read_text()


@pytest.fixture
def older(tmp_path):
    """A finished run as version 0.1 left it."""
    run = a_run(tmp_path)
    run.finish({"value": "power"})
    stored = yaml.safe_load(run.config.read_text())
    run.config.write_text(yaml.safe_dump({key: stored[key] for key in stored if not key.startswith("run_")}))
    return run


@pytest.mark.parametrize("overwrite", [True, False])
def test_a_run_of_an_older_version_is_named_as_such_and_not_touched(tmp_path, older, overwrite):
    before = {path.name: path.read_bytes() for path in older.path.iterdir()}
    with pytest.raises(UserError, match="was made by another version of jaxalign"):
        open_run(IDENTITY, CONFIG, dir=older.path, overwrite=overwrite)
    assert {path.name: path.read_bytes() for path in older.path.iterdir()} == before
    assert older_runs(tmp_path, "power") == [older.path]
    assert older_runs(tmp_path, "pow") == [] and older_runs(tmp_path, "other") == []
    assert stored_config(older.path)["identity"] == IDENTITY


def test_a_run_of_today_is_an_older_one_once_the_form_of_runs_has_changed(tmp_path, monkeypatch):
    run = a_run(tmp_path)
    assert older_runs(tmp_path, "power") == []
    monkeypatch.setattr(config_file, "FORMAT", config_file.FORMAT + 1)
    assert older_runs(tmp_path, "power") == [run.path]


def test_a_run_s_directory_cannot_make_an_overwrite_delete_what_is_not_in_it(tmp_path):
    (tmp_path / "mine").mkdir()
    outside = tmp_path / "outside.txt"
    outside.write_text("mine")
    run = open_run(IDENTITY, CONFIG, files=["../outside.txt", str(outside)], dir=tmp_path / "mine")
    open_run(IDENTITY, CONFIG, dir=run.path, overwrite=True)
    assert outside.read_text() == "mine"

    for name in ("..", ".", ""):
        run = open_run(IDENTITY, CONFIG, files=[name], dir=tmp_path / f"run{name}")
        open_run(IDENTITY, CONFIG, dir=run.path, overwrite=True)
        assert run.config.exists() and outside.exists()


@pytest.mark.parametrize("text", ["", '{"training"', "null", "[]", "{}", '{"training": null}', "[" * 100_000])
def test_a_damaged_summary_is_named_with_what_mends_it(tmp_path, text):
    run = a_run(tmp_path)
    run.finish({"training": {}})
    assert run.results(training=dict) == {"training": {}}
    run.summary.write_text(text)
    with pytest.raises(
        UserError, match=r"summary\.json .*[;:] remove .*summary\.json, and type the run's own command again"
    ):
        run.results(training=dict)


def test_a_result_that_was_changed_or_lost_since_the_end_of_the_run_is_named(tmp_path):
    run = a_run(tmp_path)
    (run.path / "adapter").mkdir()
    weights = run.path / "adapter" / "adapter_model.safetensors"
    weights.write_bytes(b"weights")
    for name in ("jaxalign.json", "README.md"):
        (run.path / "adapter" / name).write_text("{}")
    (run.path / "pairs.jsonl").write_text("1\n2\n")
    run.finish({"value": "power"}, ["pairs.jsonl", "none.jsonl"])
    assert set(run.results()["files"]) == {
        "pairs.jsonl",
        "adapter/adapter_model.safetensors",
        "adapter/jaxalign.json",
    }
    (run.path / "pairs.jsonl").write_text("2\n1\n")  # the order of records does not matter
    run.check_files()
    weights.write_bytes(b"weight")
    with pytest.raises(UserError, match=r"adapter_model\.safetensors was changed since the run was finished; remove"):
        run.check_files()
    weights.unlink()
    with pytest.raises(
        UserError, match=r"adapter_model\.safetensors is missing since the run was finished; do it again"
    ):
        run.check_files("do it again")


def test_the_parts_of_a_record_and_of_a_summary_are_checked(tmp_path):
    path, shape = tmp_path / "a.jsonl", {"scores": {"power": int | float | None}, "of": Maybe([str])}
    path.write_text('{"n": 1, "results": {"scores": {"power": null}}}\n{"n": 2, "results": {"scores": {"power": 2}}}\n')
    assert [one["n"] for one in read_records(path, n=int, results=shape)] == [1, 2]
    for wrong, place in (
        ('{"scores": {}}', "results, scores: 'power'"),
        ('{"scores": {"power": "2"}}', "results, scores: 'power'"),
        ('{"scores": {"power": 1}, "of": ["a", 3]}', "results: 'of 2'"),
        ("[]", "'results'"),
    ):
        path.write_text(f'{{"n": 1, "results": {{"scores": {{"power": 1}}}}}}\n{{"n": 2, "results": {wrong}}}\n')
        with pytest.raises(UserError, match=rf"a\.jsonl, line 2: {place} is missing or damaged; remove the line"):
            read_records(path, n=int, results=shape)
    for wrong in ("true", "NaN", "-Infinity"):
        path.write_text(f'{{"n": 1.5}}\n{{"n": {wrong}}}\n')
        with pytest.raises(UserError, match="line 2: 'n' is missing or damaged"):
            read_records(path, n=int | float)


@pytest.mark.parametrize("moved", [True, False])
def test_a_directory_that_goes_while_a_command_works_in_it_is_named_and_not_called_done(tmp_path, moved):
    run = a_run(tmp_path)

    def work():
        with run.locked():
            if moved:
                run.path.rename(tmp_path / "moved")
            else:
                shutil.rmtree(run.path)
            run.finish({})

    with pytest.raises(UserError, match=r"was deleted or moved while this command worked in it.*: remove it, and type"):
        work()
