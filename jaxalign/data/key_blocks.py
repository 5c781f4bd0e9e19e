"""Which blocks of keys the blocks of queries of a packed row see (see `models.attention`)."""

import numpy as np
from jaxtyping import Int32

from jaxalign.models.attention import KEY_BLOCK, QUERY_BLOCK


def visible_blocks(ends: Int32[np.ndarray, "B T"]) -> Int32[np.ndarray, "B Q M"]:
    """Return for each block of queries the numbers of the blocks of keys in which it sees at least one token.

    The numbers ascend. Q is T / QUERY_BLOCK, rounded up, and M is the longest list; shorter ones are filled up with the
    number of blocks of keys, which is T / KEY_BLOCK, rounded up, and names no block.
    """
    rows, tokens = ends.shape
    first, count = np.arange(0, tokens, QUERY_BLOCK), -(-tokens // KEY_BLOCK)
    furthest = np.pad(ends, ((0, 0), (0, count * KEY_BLOCK - tokens))).reshape(rows, 1, count, KEY_BLOCK).max(3)
    seen = (np.arange(count) * KEY_BLOCK < first[:, None] + QUERY_BLOCK) & (furthest > first[:, None])
    order = np.argsort(~seen, axis=2, kind="stable")[:, :, : seen.sum(2).max()]
    return np.where(np.take_along_axis(seen, order, 2), order, count).astype(np.int32)


def most_blocks(longest: int, tokens: int) -> int:
    """Return how many blocks of keys a block of queries sees at most, in a row of texts of at most `longest` tokens.

    The first query of a block may be the last token of a text, whose tokens it all sees.

    >>> most_blocks(33, 256), most_blocks(33, 64)
    (3, 2)
    """
    return min(-(-tokens // KEY_BLOCK), -(-QUERY_BLOCK // KEY_BLOCK) + -(-(longest - 1) // KEY_BLOCK))
