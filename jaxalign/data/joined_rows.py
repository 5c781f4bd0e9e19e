"""Two packed rows as one."""

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Int32

from jaxalign.data.packing import PackedBatch, rounded_up
from jaxalign.models.attention import KEY_BLOCK, QUERY_BLOCK


def joined(texts: PackedBatch, batch: PackedBatch) -> PackedBatch:
    """Return a batch of one row [1, T] with the row of texts [1, t] in front: [1, room + T].

    `room` is t rounded up to whole blocks of queries, so that the lists of blocks need only be shifted. The padding
    between is read by nobody. The predictions are those of `batch`; the sources of `texts` hold for the new row, too.
    It is for use inside of a program.
    """
    own, length = texts.tokens.shape[1], batch.tokens.shape[1]
    room = rounded_up(own, QUERY_BLOCK)
    none = -(-(room + length) // KEY_BLOCK)
    width = max(texts.blocks.shape[2], batch.blocks.shape[2])

    def filled(x: Int32[Array | np.ndarray, "1 t"]) -> Int32[Array, "1 room"]:
        return jnp.pad(x, ((0, 0), (0, room - own)))

    def listed(blocks: Int32[Array | np.ndarray, "1 Q M"], count: int, before: int) -> Int32[Array, "1 Q width"]:
        moved = jnp.where(blocks < -(-count // KEY_BLOCK), blocks + before // KEY_BLOCK, none)
        return jnp.pad(moved, ((0, 0), (0, 0), (0, width - blocks.shape[2])), constant_values=none)

    padding = jnp.arange(own + 1, room + 1, dtype=jnp.int32)[None]
    return batch.replace(  # type: ignore[attr-defined]
        tokens=jnp.concatenate([filled(texts.tokens), batch.tokens], 1),
        positions=jnp.concatenate([filled(texts.positions), batch.positions], 1),
        ends=jnp.concatenate([texts.ends, padding, batch.ends + room], 1),
        blocks=jnp.concatenate([listed(texts.blocks, own, 0), listed(batch.blocks, length, room)], 1),
        source=batch.source + room,
    )
