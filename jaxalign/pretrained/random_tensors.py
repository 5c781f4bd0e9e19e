"""Random weights, for tests and for sizes that no file has."""

import math
import os
import zlib

import numpy as np

from jaxalign.errors import UserError
from jaxalign.models.architecture import Architecture
from jaxalign.pretrained.parameters import parameter_leaves


class RandomTensors:
    """Random weights as a `TensorSource`: normal with variance 1 / (number of inputs), and norms of one.

    Each tensor is drawn from the seed and its own name, so it does not depend on the others.
    """

    def __init__(self, architecture: Architecture, seed: int):
        self._seed = seed
        _check_memory(architecture)
        self._one = 0.0 if architecture.norm_offset else 1.0
        self._leaves = {
            name: leaf for leaf in parameter_leaves(architecture) for name in leaf.names(architecture.layers)
        }

    def names(self) -> list[str]:
        """Return the names of all tensors, sorted."""
        return sorted(self._leaves)

    def shape(self, name: str) -> tuple[int, ...]:
        """Return a tensor's shape."""
        return self._leaves[name].shape

    def dtype(self, name: str) -> str:
        """Return F32, the type of every tensor."""
        return "F32"

    def read(self, name: str) -> np.ndarray:
        """Return a tensor in float32."""
        leaf = self._leaves[name]
        if leaf.norm:
            return np.full(leaf.shape, self._one, np.float32)
        generator = np.random.default_rng([self._seed, zlib.crc32(name.encode())])
        return generator.standard_normal(leaf.shape, np.float32) / np.float32(np.sqrt(leaf.shape[-1]))

    def parts(self, name: str) -> np.ndarray:
        """Return the same as `read`, because a tensor is drawn whole."""
        return self.read(name)

    def raw(self, name: str) -> memoryview:
        """Return a tensor's bytes."""
        return self.read(name).reshape(-1).view(np.uint8).data


def _check_memory(architecture: Architecture) -> None:
    """Raise UserError if the weights of a random model, in float32, are more than the memory of this machine."""
    needed = 4 * sum(
        math.prod(leaf.shape) * (architecture.layers if leaf.stacked else 1) for leaf in parameter_leaves(architecture)
    )
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    if needed > memory:
        raise UserError(
            f"model.config asks for weights of {needed / 1e9:,.0f} GB, and this machine has {memory / 1e9:,.0f} GB of "
            "memory: give smaller sizes"
        )
