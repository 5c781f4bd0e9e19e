"""Texts that hold a training near its base: which of them a step reads, packed into rows."""

import dataclasses
from collections.abc import Iterable, Sequence

import numpy as np

from jaxalign.data.key_blocks import most_blocks
from jaxalign.data.order import Stream
from jaxalign.data.packing import PackedBatch, Shape, pack, rounded_up
from jaxalign.data.trees import Tokens, text_tree

HELD_OUT_ROWS = 4
"""The number of rows of held-out texts of each kind that a validation reads."""


@dataclasses.dataclass(frozen=True)
class RegularisingTexts:
    """Texts on which a training compares the model's predictions with the base's.

    train     one or more kinds of text, such as plain text and chats; steps draw a row from each kind in turn. Each
              text has at least two tokens
    held_out  the texts of the validation, of the same kinds
    tokens    the length of a row, which is also the number of its predictions
    """

    train: Sequence[Sequence[Tokens]]
    held_out: Sequence[Sequence[Tokens]]
    tokens: int

    def batch(self, seed: int, step: int) -> PackedBatch:
        """Return the row of a step, of the kind whose turn it is: a pure function of the seed and the step's number.

        Texts in a random order fill a row, and the last one is cut.
        """
        random = np.random.Generator(np.random.PCG64([seed, Stream.REGULARISING, step]))
        texts = self.train[step % len(self.train)]
        return self._packed([map(texts.__getitem__, random.permutation(len(texts)))], 1)

    def validation(self) -> PackedBatch:
        """Return rows of held-out texts, the same for each validation."""
        return self._packed(self.held_out, HELD_OUT_ROWS)

    def _packed(self, kinds: Iterable[Iterable[Tokens]], most: int) -> PackedBatch:
        """Return texts packed into rows, at most `most` of each kind; what has no room is left out."""
        trees, rows, room = [], [], []
        for texts in kinds:
            first = len(room)
            room.append(self.tokens)
            for text in texts:
                if not room[-1]:
                    if len(room) == first + most:
                        break
                    room.append(self.tokens)
                # A text takes a place for each of its tokens but the last, which nothing reads.
                text = text[: room[-1] + 1]
                trees.append(text_tree(text))
                rows.append(len(room) - 1)
                room[-1] -= len(text) - 1
        # Of one shape, however long the texts of a row are, so that all steps share a program.
        longest = max(len(text) for texts in (*self.train, *self.held_out) for text in texts)
        blocks = rounded_up(most_blocks(longest, self.tokens), 4)
        return pack(trees, Shape(len(room), self.tokens, self.tokens, blocks), rows=rows)
