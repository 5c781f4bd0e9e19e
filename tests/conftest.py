"""What every test gets: the CPU, a cache of this session's own, and a tokenizer made once."""

import atexit
import gc
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

os.environ.setdefault("JAX_PLATFORMS", "cpu")

# Most of what the tests take is compilation. Programs are kept for one session, its subprocesses included, and then
# deleted: a program of yesterday's code must not answer for today's, and nothing of ours belongs in the user's cache.
CACHE = Path(tempfile.mkdtemp(prefix="jaxalign-tests-"))
atexit.register(shutil.rmtree, CACHE, ignore_errors=True)
os.environ["JAXALIGN_CACHE"] = str(CACHE)

import pytest  # noqa: E402 (the environment comes first)

from jaxalign.parallel.compilation import Programs, use_compilation_cache  # noqa: E402
from jaxalign.pretrained.tokenizer import Tokenizer, tiny_tokenizer  # noqa: E402

use_compilation_cache(CACHE / "xla")


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


@pytest.fixture(autouse=True, scope="module")
def programs_go_with_their_tests() -> Iterator[None]:
    """Every compiled program maps memory, and a process may hold 65,530 mappings: the whole suite's are more."""
    import jax

    yield
    jax.clear_caches()
    gc.collect()
