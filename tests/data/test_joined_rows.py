import numpy as np
import pytest
from tiny_model import random_tokens

from jaxalign.data.joined_rows import joined
from jaxalign.data.key_blocks import visible_blocks
from jaxalign.data.packing import Shape, pack
from jaxalign.data.trees import text_tree


def a_row(seed, tokens, longest):
    """Return a row of texts, which is not quite full."""
    random, trees, used = np.random.default_rng(seed), [], 0
    while used + longest <= tokens:
        trees.append(text_tree(random_tokens(random, 2, longest)))
        used += len(trees[-1][0].tokens) + len(trees[-1][1].tokens) - 1
    return pack(trees, Shape(1, tokens, tokens), rows=[0] * len(trees))


@pytest.mark.parametrize(
    ("texts", "batch", "room"),
    [
        ((28, 12), (96, 40), 64),
        ((64, 20), (480, 300), 64),
        ((96, 90), (160, 20), 128),
        ((416, 40), (200, 150), 448),  # the lists of the texts' later blocks of queries are read
    ],
)
def test_tokens_keep_what_they_see_and_lists_name_what_is_needed(texts, batch, room):
    texts, batch = a_row(0, *texts), a_row(1, *batch)
    row = joined(texts, batch)
    before, after = texts.tokens.shape[1], room + batch.tokens.shape[1]
    none = -(-after // 32)
    for name, shift in (("tokens", 0), ("positions", 0), ("ends", room)):
        found = np.asarray(getattr(row, name))
        assert found.shape == (1, after)
        np.testing.assert_array_equal(found[:, :before], getattr(texts, name))
        np.testing.assert_array_equal(found[:, room:], getattr(batch, name) + shift)
    np.testing.assert_array_equal(row.ends[0, before:room], np.arange(before + 1, room + 1))  # sees itself alone
    np.testing.assert_array_equal(row.source, batch.source + room)
    np.testing.assert_array_equal(row.target, batch.target)
    ends = np.array(row.ends)
    ends[:, before:room] = 0  # nobody reads the padding between
    listed, needed = np.asarray(row.blocks)[0], visible_blocks(ends)[0]
    assert len(listed) == len(needed)
    for mine, wanted in zip(listed, needed, strict=True):
        assert set(wanted[wanted < none]) <= set(mine)
        assert set(mine) <= {*range(none + 1)}
        assert sorted(mine) == list(mine)
