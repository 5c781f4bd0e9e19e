"""What every test gets: the CPU, a cache of this session's own, and a tokenizer made once."""

import atexit
import compileall
import gc
import os
import shutil
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any

os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ.setdefault("JAX_TRACEBACK_IN_LOCATIONS_LIMIT", "0")  # where a line of code stands takes a fifth of tracing
os.fsync = lambda fd: None  # what a test writes need not outlive a power cut, and a slow disk takes 5 ms each time

# Most of what the tests take is compilation. What is compiled here runs a few times on a few numbers, so it is compiled
# fast: a training step in an eighth of the time. It is also compiled in one part, as every core has a worker anyway.
FAST = ["--xla_backend_optimization_level=0", "--xla_llvm_disable_expensive_passes=true"]
FAST += ["--xla_cpu_parallel_codegen_split_count=1"]
if tuple(map(int, version("jaxlib").split(".")[:2])) < (0, 11):
    FAST.append("--xla_cpu_use_fusion_emitters=false")  # later versions have no other way to compile a fusion
# Workers and subprocesses inherit this. Programs are kept for one session, and then deleted: a program of
# yesterday's code must not answer for today's, and nothing of ours belongs in the user's cache.
if "PYTEST_XDIST_WORKER" not in os.environ:
    os.environ["XLA_FLAGS"] = " ".join([*FAST, os.environ.get("XLA_FLAGS", "")])  # of two the last one counts
    os.environ["JAXALIGN_CACHE"] = tempfile.mkdtemp(prefix="jaxalign-tests-")
    atexit.register(shutil.rmtree, os.environ["JAXALIGN_CACHE"], ignore_errors=True)
    if sys.dont_write_bytecode:  # then each of the many processes that tests start would compile the package anew
        compileall.compile_dir(Path(__file__).parents[1] / "jaxalign", quiet=2)
CACHE = Path(os.environ["JAXALIGN_CACHE"])

import hydra_once  # noqa: E402 (the environment comes first)
import jax  # noqa: E402
import jax_once  # noqa: E402
import pytest  # noqa: E402

from jaxalign.parallel.compilation import COMPILED, Programs, use_compilation_cache  # noqa: E402
from jaxalign.pretrained.tokenizer import Tokenizer, tiny_tokenizer  # noqa: E402

use_compilation_cache(CACHE / "xla")

hydra_once.install()
jax_once.install()


# Tracing makes millions of objects that stay; with Python's own settings a tenth of the suite is the search for
# reference cycles among them.
gc.set_threshold(50_000, 20, 20)


def pytest_collection_finish() -> None:
    """Pass over what was imported when reference cycles are looked for."""
    gc.collect()
    gc.freeze()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with the files that take long, so that at the end no worker waits for one of them."""
    slow = Counter(item.path for item in items if item.get_closest_marker("slow"))
    items.sort(key=lambda item: -slow[item.path])


@pytest.fixture(scope="session")
def tokenizer() -> Tokenizer:
    """The byte-level tokenizer of the model `tiny`."""
    return tiny_tokenizer()


@pytest.fixture(scope="module")
def params() -> dict[str, Any]:
    """The parameters of `tiny_model`."""
    from tiny_model import random_params  # not before pytest checks the shapes in what it imports

    return random_params()


@pytest.fixture(scope="module")
def programs() -> Programs:
    """The compiled programs of a file's tests."""
    return Programs()


@pytest.fixture
def optimised(monkeypatch: pytest.MonkeyPatch) -> None:
    """Compile with optimisation what `Programs` compiles: for a test that computes for longer than it compiles."""
    compiled = jax.stages.Lowered.compile
    options = {"xla_backend_optimization_level": 1}
    monkeypatch.setattr(jax.stages.Lowered, "compile", lambda lowered: compiled(lowered, compiler_options=options))


@pytest.fixture(autouse=True, scope="module")
def programs_go_before_they_are_too_many() -> Iterator[None]:
    """Every compiled program maps memory, and a process may hold 65,530 mappings: the whole suite's are more."""
    yield
    mappings = Path("/proc/self/maps")  # of Linux
    if not mappings.exists() or mappings.read_bytes().count(b"\n") > 30_000:
        COMPILED.clear()
        jax.clear_caches()
        gc.collect()
