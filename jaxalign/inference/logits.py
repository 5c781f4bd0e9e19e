"""Choosing the next token from logits: greedy, temperature, top-k, top-p.

On a CPU, sorting the vocabulary or drawing a number for each of its tokens would take longer than the model. So a token
is found by one uniform number and cumulative sums. Top-p without top-k draws again if the token is not among those that
it keeps, which takes one or two passes over the vocabulary. With top-k, the thresholds are found by bisection.

R rows, V vocabulary.
"""

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Bool, Float32, Int32

BLOCK = 256
"""The number of tokens in a block of the cumulative sums. First the block is found, then the token in it."""

FEWEST_ACCEPTED = 0.5
"""If top_p is at least this number, drawing again is faster than bisection."""

TRIES = 8
"""The number of draws; rows that then have no token use bisection."""

COLDEST = 1e-30
"""The lowest temperature that is used, except 0; lower ones become this one. At it, only the most probable token has
any weight."""

_ONE = 0x3F800000  # the bits of 1.0; the bits of floats that are not negative have the order of the floats


def sample_tokens(
    logits: Float32[Array, "R V"],
    uniform: Float32[Array, " R"],
    temperature: Float32[Array, ""],
    top_k: Int32[Array, ""],
    top_p: Float32[Array, ""],
    *,
    filtered: bool,
) -> Int32[Array, " R"]:
    """Return a token for each row of logits.

    Args:
        logits: the logits of the next token.
        uniform: for each row a number of at least 0 and below 1, which alone decides which token is drawn.
        temperature: the number by which the logits are divided; 0 takes the most probable token.
        top_k: keep only this many of the most probable tokens (and those tied with the last of them); 0 keeps all.
        top_p: of those, keep only the most probable ones, until their share of the probability reaches this number
            (Holtzman et al., 2020, arXiv 1904.09751); 1 keeps all.
        filtered: whether top_k and top_p are used at all; static.
    """

    def weights():
        # The most probable token weighs 1, so no weight has more bits than 1.0. The maximum is subtracted first, and
        # the temperature has a floor, so that the smallest temperature gives neither infinity nor NaN.
        return jnp.exp((logits - logits.max(-1, keepdims=True)) / jnp.maximum(temperature, COLDEST))

    # One flat switch, because XLA's CPU backend uses only one core in nested ones.
    ways = [lambda: logits.argmax(-1).astype(jnp.int32)]
    if filtered:
        ways.append(lambda: _draw_again(weights(), uniform, top_p))
        ways.append(lambda: _draw(_most(weights(), top_k, top_p), uniform).astype(jnp.int32))
        drawn = jnp.where((top_k == 0) & (top_p >= FEWEST_ACCEPTED), 1, 2)
    else:
        ways.append(lambda: _draw(weights(), uniform).astype(jnp.int32))
        drawn = jnp.int32(1)
    return lax.switch(jnp.where(temperature > 0, drawn, 0), ways)


def _draw_again(
    weights: Float32[Array, "R V"], uniform: Float32[Array, " R"], top_p: Float32[Array, ""]
) -> Int32[Array, " R"]:
    """Return for each row a token of the smallest set whose share reaches `top_p`, drawn by its weight.

    A token is in the set if the tokens that weigh more have less than that share. The uniform numbers of further draws
    derive from the first one.
    """
    needed = top_p * weights.sum(-1)

    def inside(token: Int32[Array, " R"]) -> Bool[Array, " R"]:
        own = jnp.take_along_axis(weights, token[:, None], 1)
        return jnp.where(weights > own, weights, 0.0).sum(-1) < needed

    def fresh(number: int | Int32[Array, ""]) -> Float32[Array, " R"]:
        """Return a new uniform number for each row; another `number` gives other ones."""
        bits = lax.bitcast_convert_type(uniform, jnp.int32)
        keys = jax.vmap(jax.random.fold_in, (None, 0))(jax.random.key(number), bits)
        return jax.vmap(jax.random.uniform)(keys)

    def once_more(
        state: tuple[Int32[Array, ""], Int32[Array, " R"], Bool[Array, " R"]],
    ) -> tuple[Int32[Array, ""], Int32[Array, " R"], Bool[Array, " R"]]:
        number, token, done = state
        token = jnp.where(done, token, _draw(weights, fresh(number)))
        return number + 1, token, done | inside(token)

    first = _draw(weights, uniform)
    _, token, done = lax.while_loop(
        lambda state: ~state[2].all() & (state[0] < TRIES), once_more, (jnp.int32(1), first, inside(first))
    )

    def bisected():
        # A new number, because a number whose token was rejected is no longer uniform.
        return jnp.where(done, token, _draw(_most(weights, jnp.int32(0), top_p), fresh(TRIES)))

    return lax.cond(done.all(), lambda: token, bisected).astype(jnp.int32)


def _most(weights: Float32[Array, "R V"], top_k: Int32[Array, ""], top_p: Float32[Array, ""]) -> Float32[Array, "R V"]:
    """Return the weights that top-k and then top-p keep, and 0 for all others."""
    count = jnp.where(top_k > 0, top_k, weights.shape[-1]).astype(jnp.float32)
    weights = _above(weights, jnp.ones_like(weights), jnp.broadcast_to(count, weights.shape[:1]))
    return _above(weights, weights, top_p * weights.sum(-1))


def _above(
    weights: Float32[Array, "R V"], mass: Float32[Array, "R V"], needed: Float32[Array, " R"]
) -> Float32[Array, "R V"]:
    """Return the weights that are at least a row's threshold, and 0 for all others.

    The threshold is the largest one for which the `mass` of the weights that are at least as large sums to `needed`.
    """

    def halve(_, bounds):
        low, high = bounds
        middle = low + (high - low + 1) // 2
        threshold = lax.bitcast_convert_type(middle, jnp.float32)[:, None]
        enough = jnp.where(weights >= threshold, mass, 0.0).sum(-1) >= needed
        return jnp.where(enough, middle, low), jnp.where(enough, high, middle - 1)

    rows = weights.shape[0]
    low, _ = lax.fori_loop(0, 31, halve, (jnp.zeros(rows, jnp.int32), jnp.full(rows, _ONE, jnp.int32)))
    return jnp.where(weights >= lax.bitcast_convert_type(low, jnp.float32)[:, None], weights, 0.0)


def _draw(weights: Float32[Array, "R V"], uniform: Float32[Array, " R"]) -> Int32[Array, " R"]:
    """Return for each row the index where the cumulative sum of its weights passes the share `uniform` of the whole."""
    rows, size = weights.shape
    blocks = jnp.pad(weights, ((0, 0), (0, -size % BLOCK))).reshape(rows, -1, BLOCK)
    sums = jnp.cumsum(blocks.sum(-1), -1)
    wanted = uniform * sums[:, -1]
    number = _first_above(sums, wanted)
    before = jnp.where(number > 0, jnp.take_along_axis(sums, jnp.maximum(number - 1, 0)[:, None], 1)[:, 0], 0.0)
    block = jnp.take_along_axis(blocks, number[:, None, None], 1)[:, 0]
    return number * BLOCK + _first_above(jnp.cumsum(block, -1), wanted - before)


def _first_above(sums: Float32[Array, "R n"], wanted: Float32[Array, " R"]) -> Int32[Array, " R"]:
    """Return for each row the first index whose cumulative sum is above `wanted`.

    If rounding leaves no such index, return the last one at which the sum grew.
    """
    above = sums > wanted[:, None]
    added = jnp.diff(sums, axis=-1, prepend=0.0) > 0
    last = sums.shape[-1] - 1 - added[:, ::-1].argmax(-1)
    return jnp.where(above.any(-1), above.argmax(-1), last)
