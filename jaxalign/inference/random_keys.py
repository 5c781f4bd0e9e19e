"""The random keys of samples, which the device draws with."""

import hashlib
from collections.abc import Sequence

import jax
import numpy as np
from jaxtyping import Array, UInt32

from jaxalign.data.bucketing import bucket
from jaxalign.inference.sampling_params import Request
from jaxalign.parallel.compilation import Programs


def derive_keys(seed: UInt32[Array, ""], words: UInt32[Array, "n 3"]) -> UInt32[Array, "n 2"]:
    """Return the data of a random key for each row of words: the seed's key, with the words folded in."""

    def fold(row):
        key = jax.random.key(seed)
        for word in row:
            key = jax.random.fold_in(key, word)
        return jax.random.key_data(key)

    return jax.vmap(fold)(words)


keys_program = jax.jit(derive_keys)


def sample_keys(
    requests: Sequence[Request], seed: int, programs: Programs
) -> list[dict[int, UInt32[np.ndarray, " 2"]]]:
    """Return for each request the random key of each of its samples, by the sample's index.

    A key derives from the seed, the first eight bytes of a SHA-256 over the prompt's tokens, and the index.
    """
    words = []
    for request in requests:
        digest = hashlib.sha256(np.asarray(request.prompt, np.int32).tobytes()).digest()
        words += [(*np.frombuffer(digest[:8], np.uint32), index) for index in request.samples]
    padded = np.zeros((bucket(len(words)), 3), np.uint32)
    padded[: len(words)] = words
    arguments = (np.uint32(seed), padded)
    keys = iter(np.asarray(programs.get("sample keys", keys_program, (), arguments)(*arguments)))
    return [{index: next(keys) for index in request.samples} for request in requests]
