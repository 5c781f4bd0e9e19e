"""A batch on a mesh of devices: its rows are filled up so that they can be divided, and each device gets its own."""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from jaxtyping import Array

from jaxalign.data.packing import PackedBatch, Shape, pack, rounded_up
from jaxalign.parallel.placing import placed
from jaxalign.parallel.rules import Placement


def on_mesh(
    placement: Placement | None, batch: PackedBatch, *, adapters: bool = False, put: Callable[..., Any] = placed
) -> PackedBatch:
    """Return a batch [..., B, T] with its rows divided between devices; without a placement, the batch itself.

    Empty rows are added at the end until each device has equally many. They hold padding alone, so no number changes.
    With `adapters`, the first axis is that of stacked adapters, and divided as they are. With `put=described`, the
    result is shapes and types alone.
    """
    if placement is None:
        return batch
    filled = with_rows(batch, rounded_up(batch.tokens.shape[-2], placement.parts("rows")))
    before = batch.tokens.ndim - 2
    axes = [*(["adapters"] if adapters else []), *[None] * (before - adapters)]
    rows = dataclasses.replace(filled, preferences=None)
    return dataclasses.replace(
        put(placement, rows, *axes, "rows"), preferences=put(placement, filled.preferences, *axes)
    )


def with_rows(batch: PackedBatch, count: int) -> PackedBatch:
    """Return a batch [..., B, T] with empty rows added at the end, `count` in all."""
    *before, rows, tokens = batch.tokens.shape
    if rows == count:
        return batch
    empty = pack([], Shape(count - rows, tokens, batch.source.shape[-1], batch.blocks.shape[-1]))

    def added(leaf: Array | np.ndarray, more: np.ndarray) -> np.ndarray:
        more = more[..., : leaf.shape[-1]]
        return np.concatenate([leaf, np.broadcast_to(more, (*before, *more.shape))], len(before))

    found = jax.tree.map(added, dataclasses.replace(batch, preferences=None), empty)
    return dataclasses.replace(found, preferences=batch.preferences)
