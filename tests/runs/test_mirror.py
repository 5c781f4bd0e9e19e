"""The copy of a run in a bucket or a folder: how a run goes on elsewhere, and what a cut copy leaves."""

import contextlib
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
        step(one, 2)
        killed_after(count)
        with contextlib.suppress(SystemExit), one.locked():
            pass
        killed_after(None)
        seen.append(state(opened(tmp_path / f"two{count}", here)))
    assert seen == [before] * 3 + [after] * 3
    assert len(Bucket(here).names(f"{one.path.name}/files")) == 3


def names_of(url, run):
    return Bucket(url).names(f"{run.path.name}/files")


def test_a_damaged_or_missing_file_of_the_mirror_is_refused_and_nothing_looks_like_a_run(tmp_path, url):
    run = opened(tmp_path / "one", url)
    with run.locked():
        step(run, 1)
    (name,) = (name for name in names_of(url, run) if name.endswith("-state"))
    for harm, how in (
        (lambda: Bucket(url).write(f"{run.path.name}/files/{name}", b"other"), "checkpoints/1/state is damaged"),
        (lambda: Bucket(url).delete(f"{run.path.name}/files/{name}"), "checkpoints/1/state is missing"),
    ):
        harm()
        with pytest.raises(UserError, match=f"{how}; delete this folder"):
            opened(tmp_path / "two", url)
        assert not (tmp_path / "two" / run.path.name / "config.yaml").exists()
    Bucket(url).write(f"{run.path.name}/files/{name}", b"\1" * 100)
    assert state(opened(tmp_path / "two", url)) == ([1], {"1": b"\1" * 100})


@pytest.mark.parametrize("name", ["../../bashrc", "/etc/passwd", "a/../../b", ""])
def test_a_listing_that_names_files_outside_the_run_is_refused(tmp_path, name):
    (tmp_path / "mounted").mkdir()
    run = opened(tmp_path / "one", str(tmp_path / "mounted"))
    with run.locked():
        step(run, 1)
    listing = tmp_path / "mounted" / run.path.name / "listing.json"
    found = json.loads(listing.read_text())
    found["files"][name] = found["files"].pop("records.jsonl")
    listing.write_text(json.dumps(found))
    with pytest.raises(UserError, match=r"listing\.json is damaged"):
        opened(tmp_path / "two", str(tmp_path / "mounted"))


def test_two_states_of_unknown_age_are_refused_and_overwrite_chooses_the_new_one(tmp_path, url):
    run = opened(tmp_path / "one", url)
    with run.locked():
        step(run, 1)
    (run.path / MIRRORED).unlink()
    with pytest.raises(UserError, match="both hold this run, and it is not known which is newer"):
        opened(tmp_path / "one", url)
    anew = opened(tmp_path / "one", url, overwrite=True)
    with anew.locked():
        step(anew, 7)
    assert state(opened(tmp_path / "two", url)) == ([7], {"7": b"\7" * 100})


def test_a_mirror_that_fails_for_a_while_costs_a_line_and_at_the_end_an_error(tmp_path, url, monkeypatch):
    def fail(self, *arguments):
        raise UserError("no network")

    said = []
    run = opened(tmp_path / "one", url, said)
    with run.locked():
        step(run, 1)
        with monkeypatch.context() as broken:
            broken.setattr(Bucket, "upload", fail)
            run.save_copy()
        assert said == ["not copied, and tried again with the next copy: no network"]
    assert len(names_of(url, run)) == 3
    monkeypatch.setattr(Bucket, "upload", fail)
    step(run, 2)
    with pytest.raises(UserError, match="no network"), run.locked():
        pass


def test_a_finished_run_whose_last_copy_was_lost_is_copied_when_its_command_is_typed_again(tmp_path, url):
    run = opened(tmp_path / "one", url)
    with run.locked():
        step(run, 1)
    run.finish({})
    assert not opened(tmp_path / "two", url).finished
    assert opened(tmp_path / "one", url).finished
    assert opened(tmp_path / "three", url).finished


def test_compiled_programs_are_shared_by_machines(tmp_path, url):
    one, two = (SharedPrograms(Bucket(url), "programs/cpu", tmp_path / name) for name in ("one", "two"))
    (tmp_path / "one").mkdir()
    (tmp_path / "one" / "before").write_bytes(b"0")
    one.fetch()
    (tmp_path / "one" / "step-cache").write_bytes(b"1")
    one.share()
    two.fetch()
    assert [path.name for path in (tmp_path / "two").iterdir()] == ["step-cache"]
    assert (tmp_path / "two" / "step-cache").read_bytes() == b"1"


def test_a_mirror_that_cannot_be_used_is_refused_in_one_line(tmp_path, monkeypatch):
    with pytest.raises(UserError, match="is no folder: mount or make it first"):
        Bucket(str(tmp_path / "nowhere")).probe()

    def lacking(name, **options):
        raise ImportError("Please install gcsfs")

    backend.fsspec_backend._get_filesystem.cache_clear()
    monkeypatch.setattr(fsspec, "filesystem", lacking)
    with pytest.raises(UserError, match=r"run\.mirror=gs://b/x needs another package: pip install 'jaxalign\[gcs\]'"):
        Bucket("gs://b/x").probe()
    with pytest.raises(UserError, match=r"pip install 'jaxalign\[s3\]'"):
        Bucket("s3://b/x").probe()

    class Forbidden(FakeBuckets):
        def _open(self, path, *arguments, **options):
            raise self.error

    monkeypatch.setattr(fsspec, "filesystem", lambda name, **options: Forbidden(skip_instance_cache=True))
    for error, said in (
        (PermissionError("it lacks storage.objects.create\nmore"), "it lacks storage.objects.create"),
        (FileNotFoundError("The specified bucket does not exist"), "The specified bucket does not exist"),
    ):
        Forbidden.error = error
        with pytest.raises(UserError, match=f"cannot write gs://b/x/.*: {said}; check the address"):
            Bucket("gs://b/x").probe()
    backend.fsspec_backend._get_filesystem.cache_clear()
