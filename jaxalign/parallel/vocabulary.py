"""Reading a table [V, D] whose vocabulary is divided between devices, as Megatron does (Shoeybi et al., 2019, arXiv
1909.08053, section 3): each device reads its own tokens, and only small results travel, never the table.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from jaxalign.parallel.rules import Placement


@dataclass(frozen=True)
class VocabularyShare:
    """A device's share of a vocabulary, inside of a program that runs on each device (`on_each_device`).

    Without `axis` the device has all of it, and every method returns what it is given: no instruction is added.
    """

    axis: str | None = None
    """The axis of the mesh that divides the vocabulary."""
    spread: bool = False
    """Whether the same axis divides the rows. Then its devices read the rows of all of them together."""

    def gathered(self, rows: Any) -> Any:
        """Return the rows [B, ...] of all devices that read together."""
        return lax.all_gather(rows, self.axis, axis=0, tiled=True) if self.spread else rows

    def own(self, rows: jax.Array) -> jax.Array:
        """Return this device's rows out of gathered ones; the inverse of `gathered`."""
        if not self.spread:
            return rows
        size = rows.shape[0] // lax.axis_size(self.axis)
        return lax.dynamic_slice_in_dim(rows, lax.axis_index(self.axis) * size, size)

    def total(self, x: jax.Array) -> jax.Array:
        """Return the sum of a number over the shares."""
        return x if self.axis is None else lax.psum(x, self.axis)

    def most(self, x: jax.Array) -> jax.Array:
        """Return the largest of a number over the shares; it has no gradient."""
        return x if self.axis is None else lax.pmax(x, self.axis)

    def own_total(self, rows: jax.Array) -> jax.Array:
        """Return this device's rows out of gathered ones, summed over the shares."""
        if self.spread:
            return lax.psum_scatter(rows, self.axis, scatter_dimension=0, tiled=True)
        return self.total(rows)

    def taken(self, take: Callable[[jax.Array], jax.Array], tokens: jax.Array, size: int) -> jax.Array:
        """Return `take(tokens)`, with zeros for the tokens [...] of other shares.

        `take` reads the share's `size` tokens by their place in it. Its result may have more axes than `tokens`.
        """
        if self.axis is None:
            return take(tokens)
        place = tokens - lax.axis_index(self.axis) * size
        found = take(jnp.clip(place, 0, size - 1))
        inside = ((place >= 0) & (place < size)).reshape(*tokens.shape, *[1] * (found.ndim - tokens.ndim))
        return jnp.where(inside, found, jnp.zeros((), found.dtype))

    def log_softmax(self, logits: jax.Array) -> jax.Array:
        """Return the log-softmax over the whole vocabulary of a share's logits [..., V]."""
        if self.axis is None:
            return jax.nn.log_softmax(logits)
        shifted = logits - self.most(logits.max(-1, keepdims=True))
        return shifted - jnp.log(self.total(jnp.exp(shifted).sum(-1, keepdims=True)))

    def argmax(self, logits: jax.Array) -> jax.Array:
        """Return the most probable token [...] of a share's logits [..., V], the first one of equals."""
        best = logits.argmax(-1).astype(jnp.int32)
        if self.axis is None:
            return best
        top, size = logits.max(-1), logits.shape[-1]
        mine = jnp.where(top == self.most(top), best + lax.axis_index(self.axis) * size, jnp.iinfo(jnp.int32).max)
        return lax.pmin(mine, self.axis)


def on_each_device(placement: Placement | None, function: Callable[..., Any], table: jax.Array, *rows: Any) -> Any:
    """Return `function(share, table, *rows)`, run on each device with its share of a table [V, D] and its rows.

    `rows` are arrays [B, ...], and so are the results, a pytree. The rows of each device are its own, unless the same
    axis of the mesh divides rows and vocabulary (`VocabularyShare.spread`).
    """
    if placement is None:
        return function(VocabularyShare(), table, *rows)
    (axis,) = placement.over("vocabulary") or (None,)
    share = VocabularyShare(axis, axis in placement.over("rows"))
    row, held = placement.spec("rows"), placement.spec("vocabulary")
    run = partial(jax.shard_map, mesh=placement.mesh, out_specs=row, check_vma=False)
    return run(partial(function, share), in_specs=(held, *(row for _ in rows)))(table, *rows)


def take_divided_rows(
    placement: Placement | None, take: Callable[[jax.Array, jax.Array], jax.Array], table: jax.Array, tokens: jax.Array
) -> jax.Array:
    """Return `take(table, tokens)` [B, ..., D] for tokens [B, ...] and a table [V, D] that may be divided."""

    def own(share: VocabularyShare, table: jax.Array, tokens: jax.Array) -> jax.Array:
        return share.own_total(share.taken(partial(take, table), share.gathered(tokens), table.shape[0]))

    return on_each_device(placement, own, table, tokens)
