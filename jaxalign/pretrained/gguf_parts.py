"""A tensor of a GGUF file, decoded part by part."""

import math
from dataclasses import dataclass

import gguf
import numpy as np
from gguf import GGMLQuantizationType

from jaxalign.errors import UserError


@dataclass(frozen=True)
class GgufParts:
    """A tensor in float32, whose parts are decoded when they are asked for: the rows and columns of a part alone.

    `order` has for each row the place where it is stored; None if the rows are stored in their order.
    """

    shown: str
    kind: GGMLQuantizationType
    shape: tuple[int, ...]
    data: memoryview
    order: np.ndarray | None

    def __getitem__(self, part: tuple[slice, ...]) -> np.ndarray:
        """Return the values of a part, or all for (); UserError if the package `gguf` cannot read the type."""
        *outer, length = self.shape
        if len(outer) != 1:
            whole = self._decoded(np.frombuffer(self.data, np.uint8).reshape(math.prod(outer), -1))
            whole = whole.reshape(self.shape)
            return (whole if self.order is None else whole[self.order])[part]
        rows, columns = part or (slice(None), slice(None))
        block, size = gguf.GGML_QUANT_SIZES[self.kind]
        start, stop, _ = columns.indices(length)
        first, last = start // block, -(-stop // block)  # columns are stored in blocks
        blocks = np.frombuffer(self.data, np.uint8).reshape(*outer, -1, size)
        chosen = blocks[rows if self.order is None else self.order[rows], first:last]
        values = self._decoded(chosen.reshape(len(chosen), -1))
        return values[:, start - first * block : stop - first * block]

    def _decoded(self, rows: np.ndarray) -> np.ndarray:
        try:
            return gguf.quants.dequantize(rows, self.kind)
        except NotImplementedError as error:
            raise UserError(
                f"{self.shown} is stored as {self.kind.name}, which cannot be read: get another file"
            ) from error
