"""Choosing the next token from logits: greedy, temperature, top-k, top-p.

No sort over the vocabulary and no draw for each of its tokens, which would cost more than the model on a CPU:
a token is found by one uniform number and cumulative sums. Top-p alone rejects what is drawn outside its share and
draws again, which takes a pass or two over the vocabulary; with top-k the thresholds are found by bisection.
"""

import jax
import jax.numpy as jnp
from jax import lax

BLOCK = 256
"""Tokens of a block in the cumulative sum: blocks first, then tokens of one."""

FEWEST_ACCEPTED = 0.5
"""Top-p from which on drawing again is cheaper than bisection."""

TRIES = 8
"""Draws of a row before the rows that are left take the bisection."""

COLDEST = 1e-30
"""Temperature below which nothing changes: all but the most probable token weigh nothing long before."""

_ONE = 0x3F800000  # the bits of 1.0: those of non-negative floats are in the order of the floats


def sample_tokens(
    logits: jax.Array,
    uniform: jax.Array,
    temperature: jax.Array,
    top_k: jax.Array,
    top_p: jax.Array,
    *,
    filtered: bool,
) -> jax.Array:
    """Return int32 [R], a token for each row of logits, float32 [R, V].

    Args:
        logits: of the next token.
        uniform: float32 [R], at least 0 and below 1; what is drawn hangs on it alone.
        temperature: what the logits are divided by; 0 takes the most probable token.
        top_k: only so many of the most probable tokens (and any tied with the last of them); 0: all.
        top_p: of those only the most probable whose mass reaches this share (Holtzman et al., 2020, arXiv 1904.09751).
        filtered: static; False leaves top_k and top_p unread.
    """

    def weights():
        # The most probable token weighs 1, so bits up to those of 1.0 order all weights. The difference comes first,
        # and the temperature has a floor, so that the smallest one gives no infinity and no NaN.
        return jnp.exp((logits - logits.max(-1, keepdims=True)) / jnp.maximum(temperature, COLDEST))

    # One flat choice: inside nested ones XLA's CPU backend works on one core.
    ways = [lambda: logits.argmax(-1).astype(jnp.int32)]
    if filtered:
        ways.append(lambda: _draw_again(weights(), uniform, top_p))
        ways.append(lambda: _draw(_most(weights(), top_k, top_p), uniform).astype(jnp.int32))
        drawn = jnp.where((top_k == 0) & (top_p >= FEWEST_ACCEPTED), 1, 2)
    else:
        ways.append(lambda: _draw(weights(), uniform).astype(jnp.int32))
        drawn = jnp.int32(1)
    return lax.switch(jnp.where(temperature > 0, drawn, 0), ways)


def _draw_again(weights: jax.Array, uniform: jax.Array, top_p: jax.Array) -> jax.Array:
    """Return for each row a token of the smallest set whose mass reaches `top_p`, each by its weight.

    A token is in the set if what weighs more than it has less than that mass. Further draws derive from the first.
    """
    needed = top_p * weights.sum(-1)

    def inside(token):
        own = jnp.take_along_axis(weights, token[:, None], 1)
        return jnp.where(weights > own, weights, 0.0).sum(-1) < needed

    def fresh(number):
        """Another uniform number of each row."""
        bits = lax.bitcast_convert_type(uniform, jnp.int32)
        keys = jax.vmap(jax.random.fold_in, (None, 0))(jax.random.key(number), bits)
        return jax.vmap(jax.random.uniform)(keys)

    def once_more(state):
        number, token, done = state
        token = jnp.where(done, token, _draw(weights, fresh(number)))
        return number + 1, token, done | inside(token)

    first = _draw(weights, uniform)
    _, token, done = lax.while_loop(
        lambda state: ~state[2].all() & (state[0] < TRIES), once_more, (jnp.int32(1), first, inside(first))
    )

    def bisected():
        # A number that was rejected says something of itself: it would not be uniform here.
        return jnp.where(done, token, _draw(_most(weights, jnp.int32(0), top_p), fresh(TRIES)))

    return lax.cond(done.all(), lambda: token, bisected).astype(jnp.int32)


def _most(weights: jax.Array, top_k: jax.Array, top_p: jax.Array) -> jax.Array:
    count = jnp.where(top_k > 0, top_k, weights.shape[-1]).astype(jnp.float32)
    weights = _above(weights, jnp.ones_like(weights), jnp.broadcast_to(count, weights.shape[:1]))
    return _above(weights, weights, top_p * weights.sum(-1))


def _above(weights: jax.Array, mass: jax.Array, needed: jax.Array) -> jax.Array:
    """Return the weights [R, V] at least as large as the largest threshold above which `mass` [R, V] sums to `needed`
    [R]; the others as 0."""

    def halve(_, bounds):
        low, high = bounds
        middle = low + (high - low + 1) // 2
        threshold = lax.bitcast_convert_type(middle, jnp.float32)[:, None]
        enough = jnp.where(weights >= threshold, mass, 0.0).sum(-1) >= needed
        return jnp.where(enough, middle, low), jnp.where(enough, high, middle - 1)

    rows = weights.shape[0]
    low, _ = lax.fori_loop(0, 31, halve, (jnp.zeros(rows, jnp.int32), jnp.full(rows, _ONE, jnp.int32)))
    return jnp.where(weights >= lax.bitcast_convert_type(low, jnp.float32)[:, None], weights, 0.0)


def _draw(weights: jax.Array, uniform: jax.Array) -> jax.Array:
    """Return for each row the index at which the cumulative sum of its weights passes `uniform` of the whole."""
    rows, size = weights.shape
    blocks = jnp.pad(weights, ((0, 0), (0, -size % BLOCK))).reshape(rows, -1, BLOCK)
    sums = jnp.cumsum(blocks.sum(-1), -1)
    wanted = uniform * sums[:, -1]
    number = _first_above(sums, wanted)
    before = jnp.where(number > 0, jnp.take_along_axis(sums, jnp.maximum(number - 1, 0)[:, None], 1)[:, 0], 0.0)
    block = jnp.take_along_axis(blocks, number[:, None, None], 1)[:, 0]
    return number * BLOCK + _first_above(jnp.cumsum(block, -1), wanted - before)


def _first_above(sums: jax.Array, wanted: jax.Array) -> jax.Array:
    """Return the first index whose cumulative sum is above `wanted`; by rounding there may be none: then the last
    index that added anything."""
    above = sums > wanted[:, None]
    added = jnp.diff(sums, axis=-1, prepend=0.0) > 0
    last = sums.shape[-1] - 1 - added[:, ::-1].argmax(-1)
    return jnp.where(above.any(-1), above.argmax(-1), last)
