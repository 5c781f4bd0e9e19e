import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tiny_model import packed, random_tree

from jaxalign.data import key_blocks
from jaxalign.models import attention
from jaxalign.models.attention import rotary_angles, rotate, tree_attention

HEADS, GROUPS, SIZE = 2, 3, 8


def dense_attention(q, k, v, ends, positions, window, scale, softcap):
    """The rule as the design writes it, over all pairs of tokens at once."""
    i, j = np.arange(q.shape[3])[:, None], np.arange(q.shape[3])[None, :]
    seen = (j <= i) & (i < ends[:, None, :])
    if window:
        seen &= positions[:, :, None] - positions[:, None, :] < window
    scores = jnp.einsum("bkgid,bkjd->bkgij", q, k, precision="highest") * scale
    if softcap is not None:
        scores = softcap * jnp.tanh(scores / softcap)
    weights = jax.nn.softmax(jnp.where(seen[:, None, None], scores, -jnp.inf), -1)
    return jnp.einsum("bkgij,bkjd->bkgid", weights, v, precision="highest")


def a_case(tokens: int, trees: int, dtype=jnp.float32):
    """Return (q, k, v, upstream gradient) and the (ends, positions) of rows full of random trees."""
    random = np.random.default_rng(tokens)
    batch = packed([random_tree(random, 6, longest=tokens // 12) for _ in range(trees)], tokens)
    rows = batch.tokens.shape[0]
    shapes = [(rows, HEADS, GROUPS, tokens, SIZE), (rows, HEADS, tokens, SIZE), (rows, HEADS, tokens, SIZE)]
    arrays = [jnp.asarray(random.standard_normal(shape), dtype) for shape in (*shapes, shapes[0])]
    return arrays, (batch.ends, batch.positions, batch.blocks)


CASES = [
    pytest.param(40, 4, 0, None, id="one block"),
    pytest.param(64, 3, 0, None, id="just one block"),
    pytest.param(4 * 64 + 37, 12, 0, None, id="several blocks and rows"),
    pytest.param(40, 4, 5, None, id="window"),
    pytest.param(40, 4, 0, 1.3, id="soft cap"),
    pytest.param(3 * 64 + 9, 9, 17, 1.3, id="all"),
]


def output_and_gradients(attend, q, k, v, upstream, *others):
    """Return the output of an attention and its gradients in q, k and v, computed by one program."""

    @jax.jit
    def both(q, k, v, *others):
        output, pull = jax.vjp(lambda q, k, v: attend(q, k, v, *others), q, k, v)
        return output, *pull(upstream)

    return both(q, k, v, *others)


@pytest.mark.slow
@pytest.mark.parametrize(("tokens", "trees", "window", "softcap"), CASES)
def test_output_and_gradients_equal_those_of_dense_attention(tokens, trees, window, softcap):
    arrays, (ends, positions, blocks) = a_case(tokens, trees)

    def dense(q, k, v):
        return dense_attention(q, k, v, ends, positions, window, 0.4, softcap)

    expected, *references = output_and_gradients(dense, *arrays)
    for chosen in (blocks, None):  # the visible blocks, and all blocks

        def ours(*arrays):
            return tree_attention(*arrays, jnp.int32(window), 0.4, softcap)

        found, *gradients = output_and_gradients(ours, *arrays, ends, positions, chosen)
        np.testing.assert_allclose(found, expected, atol=2e-6)
        for gradient, reference in zip(gradients, references, strict=True):
            np.testing.assert_allclose(gradient, reference, atol=2e-5)


@pytest.mark.slow
@pytest.mark.parametrize("sparse", [True, False], ids=["visible blocks", "all blocks"])
def test_loops_over_blocks_give_what_blocks_written_out_do(monkeypatch, sparse):
    arrays, (ends, positions, blocks) = a_case(9 * 64 + 37, 12)
    found = []
    for backend, unrolled in (("cpu", 32), ("cpu", 0), ("tpu", 4)):
        monkeypatch.setattr(jax, "default_backend", lambda backend=backend: backend)
        monkeypatch.setattr(attention, "UNROLLED", unrolled)

        def ours(*arrays):
            return tree_attention(*arrays, jnp.int32(17), 0.4, 1.3)

        found.append(output_and_gradients(ours, *arrays, ends, positions, blocks if sparse else None))
    assert len(attention._spans(9 * 64 + 37, blocks)) <= 4
    for written, *looped in zip(*found, strict=True):
        np.testing.assert_allclose(looped, [written] * 2, atol=2e-5)


def test_the_program_of_a_long_row_does_not_grow_with_its_length():
    def size(tokens):
        shapes = [(1, 2, 3, tokens, 8), (1, 2, tokens, 8), (1, 2, tokens, 8)]
        q, k, v = (jax.ShapeDtypeStruct(shape, jnp.float32) for shape in shapes)
        whole, listed = jax.ShapeDtypeStruct((1, tokens), jnp.int32), np.zeros((1, tokens // 64, 20), np.int32)

        def loss(q, k, v, ends, positions):
            return tree_attention(q, k, v, ends, positions, listed, jnp.int32(0), 0.4, None).sum()

        return str(jax.make_jaxpr(jax.grad(loss, (0, 1, 2)))(q, k, v, whole, whole)).count(" = ")

    assert size(4096) == size(65536) < size(1024)  # a row of 1,024 tokens is still written out


@pytest.mark.slow
@pytest.mark.parametrize(
    ("tokens", "queries", "keys"), [(50, 8, 4), (50, 4, 8), (50, 7, 5), (50, 256, 256), (200, 48, 20), (200, 256, 256)]
)
def test_the_sizes_of_blocks_change_nothing(monkeypatch, tokens, queries, keys):
    (q, k, v, _), (ends, positions, blocks) = a_case(tokens, 4)

    def attend(blocks):
        return jax.jit(lambda q, k, v: tree_attention(q, k, v, ends, positions, blocks, jnp.int32(0), 0.4, None))(
            q, k, v
        )

    whole = attend(blocks)
    for module in (attention, key_blocks):
        monkeypatch.setattr(module, "QUERY_BLOCK", queries)
        monkeypatch.setattr(module, "KEY_BLOCK", keys)
    blocks = key_blocks.visible_blocks(ends)
    assert blocks.shape[1] == -(-tokens // queries)
    np.testing.assert_allclose(attend(blocks), whole, atol=1e-6)


def test_what_no_block_lists_is_not_read():
    (q, k, v, _), (ends, positions, blocks) = a_case(4 * 64, 3)
    read = {key for listed in blocks[0] for key in listed}
    assert blocks.shape[2] < 8 and read >= set(range(8))
    args = (ends[:1], positions[:1], blocks[:1], jnp.int32(0), 0.4, None)
    attend = jax.jit(lambda k, v: tree_attention(q[:1], k[:1], v[:1], *args))
    for number, listed in enumerate(blocks[0]):
        if blocks.shape[2] >= (number + 1) * 64 // 32:
            continue  # few keys stand before these queries: they are not gathered, but masked
        seen = np.isin(np.arange(4 * 64) // 32, listed)
        found, wanted = (
            np.asarray(attend(*arrays))[:, :, :, 64 * number : 64 * (number + 1)]
            for arrays in ((np.where(seen[:, None], x, np.nan) for x in (k, v)), (k, v))
        )
        np.testing.assert_allclose(found, wanted)


def test_a_window_counts_positions_on_the_path_and_not_places_in_the_row():
    # A prompt of two, a first answer of three, and a second of one: the second stands right behind the prompt.
    ends = jnp.array([[6, 6, 5, 5, 5, 6]])
    positions = jnp.array([[0, 1, 2, 3, 4, 2]])
    seen = attention.visible(jnp.arange(6), jnp.arange(6)[None], ends, positions, jnp.int32(2))
    assert np.flatnonzero(seen[0, 5]).tolist() == [1, 5]
    assert np.flatnonzero(seen[0, 4]).tolist() == [3, 4]


@pytest.mark.slow
def test_bfloat16_keeps_its_type_forwards_and_backwards():
    (q, k, v, upstream), (ends, positions, blocks) = a_case(40, 4)

    def run(dtype):
        def ours(*arrays):
            return tree_attention(*arrays, jnp.int32(0), 0.4, None)

        rounded = (array.astype(dtype) for array in (q, k, v, upstream))
        return output_and_gradients(ours, *rounded, ends, positions, blocks)

    for rough, exact in zip(run(jnp.bfloat16), run(jnp.float32), strict=True):
        assert rough.dtype == jnp.bfloat16
        np.testing.assert_allclose(rough.astype(jnp.float32), exact, atol=0.1)


@pytest.mark.slow
def test_rotation_keeps_lengths_and_depends_on_distance_alone():
    random = np.random.default_rng(0)
    x, y = (jnp.asarray(random.standard_normal((1, 1, 1, SIZE)), jnp.float32) for _ in range(2))
    frequencies = jnp.asarray([1.0, 0.3, 0.1, 0.03])

    def at(vector, position):
        return rotate(vector, *rotary_angles(jnp.asarray([[position]]), frequencies))

    np.testing.assert_allclose(jnp.linalg.norm(at(x, 9)), jnp.linalg.norm(x), rtol=1e-6)
    np.testing.assert_allclose((at(x, 12) * at(y, 7)).sum(), (at(x, 5) * at(y, 0)).sum(), rtol=1e-4)
    np.testing.assert_array_equal(at(x, 0), x)
