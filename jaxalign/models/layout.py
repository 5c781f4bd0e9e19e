"""The two layouts of a base model's frozen weights: stacked for training and scoring, layer by layer for decoding."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict
from jaxtyping import Array, Shaped

from jaxalign.errors import UserError
from jaxalign.models.linear import TRANSPOSED, is_quantised, to_stored
from jaxalign.parallel.placing import bytes_of_part
from jaxalign.parallel.processor import on_cpu, on_tpu
from jaxalign.parallel.rules import Placement

COPIED_BYTES = 4e9
"""A loop over stacked layers copies the weights of each layer at each decode step of a GPU. Layers of fewer bytes stay
stacked all the same, because the copies take little of a step and the loop compiles in half the time: with 64 rows on
an H200, 135M (0.2 GB) took as long either way, and 8B (14 GB) 15.4 ms a step stacked and 8.4 layer by layer."""


@dataclasses.dataclass(frozen=True)
class BaseWeights:
    """The one copy of a base model's weights, which is in one of the two layouts at a time.

    `get` converts the copy to the layout that is asked for. So whoever needs the weights asks `get` before each use,
    and keeps nothing that an earlier call returned.
    """

    params: dict[str, Any]
    """The weights as they are now. The dictionary stays the same object; a conversion replaces what it holds."""
    tied: bool
    """Whether the output table is the embedding."""
    placement: Placement | None = None
    """How the weights are divided between devices; None for one device."""

    @property
    def always_stacked(self) -> bool:
        """Whether the weights stay stacked for decoding, too: on several devices, on a TPU, if they are quantised, and
        on a GPU if they are few (`COPIED_BYTES`)."""
        if self.placement is not None or is_quantised(self.params) or on_tpu():
            return True
        return not on_cpu() and bytes_of_part(self.params["layers"]) < COPIED_BYTES

    def get(self, *, layered: bool) -> dict[str, Any]:
        """Return the weights layer by layer (`by_layer`) or stacked (`stacked`).

        A conversion takes a moment, and frees the arrays of the old layout one by one. Some weights stay stacked
        (`always_stacked`).

        Raises:
            UserError: an earlier conversion was interrupted, so the weights are lost.
        """
        if "layers" not in self.params:
            raise UserError(
                "the weights of the model are gone, because changing their layout was interrupted: load the model again"
            )
        layered = layered and not self.always_stacked
        if isinstance(self.params["layers"], list) != layered:
            self.params.update(by_layer(self.params) if layered else stacked(self.params, self.tied))
        return self.params


def by_layer(params: dict[str, Any]) -> dict[str, Any]:
    """Return stacked weights with a list of layers instead, as decoding needs them; `params` is emptied.

    `head` [V, D] is always there. While this function runs, at most one stacked weight (and on a CPU the embedding of a
    tied model) is in memory twice.

    On a CPU, kernels of this layout are kept as [out, in], because a product of few rows would spend its time on
    transposing them. Weights are bfloat16 itself, not its bits; only the embedding keeps its bits, because rows are
    taken from it.
    """
    flat: dict[Any, Any] = dict(flatten_dict(params.pop("layers")))
    names = list(flat)
    layers: list[dict[Any, jax.Array]] = [{} for _ in range(len(flat[names[0]]))]
    for name in names:
        transposed = on_cpu() and name[-1] == "kernel"
        parts = _parts(flat.pop(name), transposed)
        for layer in layers:
            layer[(*name[:-1], TRANSPOSED) if transposed else name] = parts.pop(0)
    embedding = params.pop("embedding")
    return {
        "embedding": embedding,
        "layers": [unflatten_dict(layer) for layer in layers],
        "norm": jax.tree.map(lambda leaf: jnp.asarray(_own(leaf)), params.pop("norm")),
        "head": jnp.asarray(_own(params.pop("head", embedding)["kernel"])),
    }


def stacked(params: dict[str, Any], tied: bool) -> dict[str, Any]:
    """Return weights that are `by_layer` with their layers stacked, as training and scoring need them.

    `params` is emptied. Where `tied`, the output table is the embedding, and the result has no head.
    """
    layers: list[dict[Any, Any]] = [dict(flatten_dict(layer)) for layer in params.pop("layers")]
    joined = {}
    for name in list(layers[0]):
        parts, transposed = [layer.pop(name) for layer in layers], name[-1] == TRANSPOSED
        joined[(*name[:-1], "kernel") if transposed else name] = _joined(parts, transposed)
    whole = {
        "embedding": params.pop("embedding"),
        "layers": unflatten_dict(joined),
        "norm": jax.tree.map(lambda leaf: jnp.asarray(_stored(leaf)), params.pop("norm")),
    }
    head = params.pop("head")
    return whole if tied else whole | {"head": {"kernel": jnp.asarray(_stored(head))}}


def _parts(stack: Shaped[Array | np.ndarray, "*stack"], transposed: bool) -> list[jax.Array]:
    """Return the layers of a stacked weight."""
    if not on_cpu():
        return _unstack(stack)
    return [jnp.asarray(np.ascontiguousarray(part.T) if transposed else part) for part in _own(stack)]


def _joined(parts: list[jax.Array], transposed: bool) -> jax.Array:
    """Return a stacked weight of its layers."""
    if not on_cpu():
        return jnp.stack(parts)
    stack = np.stack([_stored(part) for part in parts])  # [L, out, in] where the parts are transposed
    return jnp.asarray(np.ascontiguousarray(stack.swapaxes(1, 2)) if transposed else stack)


@jax.jit
def _unstack(stack: Shaped[Array, "*stack"]) -> list[jax.Array]:
    return list(stack)


def _own(leaf: Shaped[Array | np.ndarray, "*shape"]) -> Shaped[Array | np.ndarray, "*shape"]:
    """Return a weight in its own type: bfloat16, where a CPU keeps its bits."""
    if not on_cpu():
        return leaf
    values = np.asarray(leaf)
    return values.view(jnp.bfloat16) if values.dtype == np.uint16 else values


def _stored(leaf: Shaped[Array, "*shape"]) -> Shaped[Array | np.ndarray, "*shape"]:
    """Return a weight as the stacked layout keeps it (`to_stored`)."""
    return to_stored(np.asarray(leaf)) if on_cpu() else leaf
