"""Plain texts that hold a training near its base: which of them a step reads, packed into a row."""

import dataclasses
from collections.abc import Iterable, Sequence

import numpy as np

from jaxalign.data.order import Stream
from jaxalign.data.packing import PackedBatch, Shape, pack
from jaxalign.data.trees import Tokens, text_tree

HELD_OUT_ROWS = 4
"""The number of rows of held-out texts that a validation reads."""


@dataclasses.dataclass(frozen=True)
class PlainTexts:
    """Plain texts whose predictions a training compares with those of its base.

    train     the texts that steps draw from; each text has at least two tokens
    held_out  the texts of the validation
    tokens    the length of a row, which is also the number of its predictions
    """

    train: Sequence[Tokens]
    held_out: Sequence[Tokens]
    tokens: int

    def batch(self, seed: int, step: int) -> PackedBatch:
        """Return the row of a step: a pure function of the seed and the step's number.

        Texts in a random order fill the row, and the last one is cut.
        """
        random = np.random.Generator(np.random.PCG64([seed, Stream.PLAIN, step]))
        return self._packed((self.train[index] for index in random.permutation(len(self.train))), 1)

    def validation(self) -> PackedBatch:
        """Return rows of held-out texts, the same for each validation."""
        return self._packed(self.held_out, HELD_OUT_ROWS)

    def _packed(self, texts: Iterable[Tokens], most: int) -> PackedBatch:
        """Return texts packed into rows, at most `most` of them; what has no room is left out."""
        trees, rows, room = [], [], [self.tokens]
        for text in texts:
            if not room[-1]:
                if len(room) == most:
                    break
                room.append(self.tokens)
            # A text takes a place for each of its tokens but the last, which nothing reads.
            text = text[: room[-1] + 1]
            trees.append(text_tree(text))
            rows.append(len(room) - 1)
            room[-1] -= len(text) - 1
        return pack(trees, Shape(len(room), self.tokens, self.tokens), rows=rows)
