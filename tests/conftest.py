"""What every test gets: the CPU, no programs kept on disk, and a tokenizer made once."""

import gc
import os
from collections.abc import Iterator

os.environ.setdefault("JAX_PLATFORMS", "cpu")

import jax
import pytest

from jaxalign.pretrained.tokenizer import Tokenizer, tiny_tokenizer

# A program of yesterday's code must not answer for today's, and nothing of ours belongs in the user's cache.
jax.config.update("jax_enable_compilation_cache", False)


@pytest.fixture(scope="session")
def tokenizer() -> Tokenizer:
    """The byte-level tokenizer of the model `tiny`."""
    return tiny_tokenizer()


@pytest.fixture(autouse=True, scope="module")
def programs_go_with_their_tests() -> Iterator[None]:
    """Every compiled program maps memory, and a process may hold 65,530 mappings: the whole suite's are more."""
    yield
    jax.clear_caches()
    gc.collect()
