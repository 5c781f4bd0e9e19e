"""What every test gets: the CPU, no programs kept on disk, and a tokenizer made once."""

import os

os.environ.setdefault("JAX_PLATFORMS", "cpu")

import jax
import pytest

from jaxalign.models.tokenizer import Tokenizer, tiny_tokenizer

# A program of yesterday's code must not answer for today's, and nothing of ours belongs in the user's cache.
jax.config.update("jax_enable_compilation_cache", False)


@pytest.fixture(scope="session")
def tokenizer() -> Tokenizer:
    """The byte-level tokenizer of the model `tiny`."""
    return tiny_tokenizer()
