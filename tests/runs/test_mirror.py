"""The copy of a run in a bucket or a folder: how a run goes on elsewhere, and what a cut copy leaves."""

import json
import shutil

import fsspec
import pytest
from etils.epath import backend
from fsspec.implementations.memory import MemoryFileSystem

from jaxalign.errors import UserError
from jaxalign.runs import lease
from jaxalign.runs.bucket import Bucket
from jaxalign.runs.directory import Run, open_run
from jaxalign.runs.mirror import MIRRORED, Mirror, SharedPrograms
from jaxalign.runs.records import append_record, read_records


class FakeBuckets(MemoryFileSystem):
    """The buckets of Google's object store, in the memory."""

    protocol = ("gs", "gcs")
    store: dict = {}  # noqa: RUF012 (fsspec names it so)
    pseudo_dirs: list = [""]  # noqa: RUF012

    @classmethod
    def _strip_protocol(cls, path):
        return "/" + str(path).removeprefix("gs://").strip("/")


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    monkeypatch.setattr(lease, "SETTLE", {True: 0.0, False: 0.0})


@pytest.fixture(params=["folder", "gs"])
def url(request, tmp_path, monkeypatch):
    """The address of an empty mirror: a folder, and a bucket."""
    if request.param == "folder":
        (tmp_path / "mounted").mkdir()
        yield str(tmp_path / "mounted")
        return
    backend.fsspec_backend._get_filesystem.cache_clear()
    fsspec.register_implementation("gcs", FakeBuckets, clobber=True)
    yield "gs://bucket/runs"
    FakeBuckets.store.clear()
    fsspec.register_implementation("gcs", "gcsfs.GCSFileSystem", clobber=True)
    backend.fsspec_backend._get_filesystem.cache_clear()


FILES = ("records.jsonl", "checkpoints")


def opened(machine, url, said=None, **options) -> Run:
    """Open the run on a machine, which is a folder."""
    mirror = Mirror(url, machine, (lambda line: None) if said is None else said.append)
    return open_run({"seed": 0}, {"seed": 0}, root=machine, name="power", files=FILES, mirror=mirror, **options)


def step(run: Run, number: int) -> None:
    """Do a step: a record, and a checkpoint in the place of the one before."""
    append_record(run.path / "records.jsonl", {"step": number})
    shutil.rmtree(run.checkpoints, ignore_errors=True)
    (run.checkpoints / str(number)).mkdir(parents=True)
    (run.checkpoints / str(number) / "state").write_bytes(bytes([number]) * 100)


def state(run: Run) -> tuple[list[int], dict[str, bytes]]:
    steps = [record["step"] for record in read_records(run.path / "records.jsonl")]
    kept = {path.name: (path / "state").read_bytes() for path in run.checkpoints.iterdir()}
    return steps, kept


def test_a_run_goes_on_on_another_machine_and_the_first_one_learns_of_it(tmp_path, url):
    run = opened(tmp_path / "one", url)
    with run.locked():
        step(run, 1)
    said = []
    other = opened(tmp_path / "two", url, said)
    assert state(other) == ([1], {"1": b"\1" * 100}) and "fetched 3 files" in said[0]
    with other.locked():
        step(other, 2)
        other.finish({}, ["records.jsonl"])
    again = opened(tmp_path / "one", url)
    assert again.finished and state(again) == ([1, 2], {"2": b"\2" * 100})
    assert (again.path / "config.yaml").read_bytes() == (other.path / "config.yaml").read_bytes()
    again.check_files()


def test_what_is_here_stays_if_the_mirror_holds_nothing_newer(tmp_path, url):
    run = opened(tmp_path / "one", url)
    with run.locked():
        step(run, 1)
    step(run, 2)  # and killed before the next copy
    said = []
    assert state(opened(tmp_path / "one", url, said)) == ([1, 2], {"2": b"\2" * 100}) and not said


WRITES = {name: getattr(Bucket, name) for name in ("upload", "write", "delete")}


@pytest.fixture
def killed_after(monkeypatch):
    """A function: from then on, the process ends before its write number `count` to the mirror; None: it goes on."""

    def begin(count):
        left = None if count is None else iter(range(count))

        def counted(write):
            def call(self, *arguments):
                if left is not None and not str(arguments).count("lease.json") and next(left, None) is None:
                    raise SystemExit
                return write(self, *arguments)

            return call

        for name, write in WRITES.items():
            monkeypatch.setattr(Bucket, name, counted(write))

    return begin


def test_a_copy_that_is_cut_at_any_place_leaves_the_one_before_or_is_whole(tmp_path, url, killed_after):
    before, after = ([1], {"1": b"\1" * 100}), ([1, 2], {"2": b"\2" * 100})
    seen = []
    for count in range(6):  # two files, the listing, two files that are no longer in it, and no more
        killed_after(None)
        here = f"{url}/{count}"
        one = opened(tmp_path / f"one{count}", here)
        with one.locked():
            step(one, 1)
        with pytest.raises(SystemExit), one.locked():
            step(one, 2)
            killed_after(count)
            one.save_copy()
            raise SystemExit
        killed_after(None)
        seen.append(state(opened(tmp_path / f"two{count}", here)))
    assert seen == [before] * 3 + [after] * 3
    assert len(Bucket(here).names(f"{one.path.name}/files")) == 3
