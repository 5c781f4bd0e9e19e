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
from jaxalign.parallel.processor import on_cpu
from jaxalign.parallel.rules import Placement


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
        """Whether the weights stay stacked for decoding, too: those on several devices, quantised ones, and all that
        are not on a CPU, which alone is faster layer by layer."""
        return self.placement is not None or is_quantised(self.params) or not on_cpu()

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

    In this layout kernels are kept as [out, in], because a product of few rows would spend its time on transposing
    them. Weights are bfloat16 itself, not its bits; only the embedding keeps its bits, because rows are taken from it.
    `head` [V, D] is always there. While this function runs, at most one stacked weight (and the embedding of a tied
    model) is in memory twice.
    """

    def own(leaf: Shaped[Array | np.ndarray, "*shape"]) -> Shaped[np.ndarray, "*shape"]:
        values = np.asarray(leaf)
        return values.view(jnp.bfloat16) if values.dtype == np.uint16 else values

    flat: dict[Any, Any] = dict(flatten_dict(params.pop("layers")))
    names = list(flat)
    layers: list[dict[Any, jax.Array]] = [{} for _ in range(len(flat[names[0]]))]
    for name in names:
        values = own(flat.pop(name))
        kernel = name[-1] == "kernel"
        for number, layer in enumerate(layers):
            one = np.ascontiguousarray(values[number].T) if kernel else values[number]
            layer[(*name[:-1], TRANSPOSED) if kernel else name] = jnp.asarray(one)
    embedding = params.pop("embedding")
    return {
        "embedding": embedding,
        "layers": [unflatten_dict(layer) for layer in layers],
        "norm": jax.tree.map(lambda leaf: jnp.asarray(own(leaf)), params.pop("norm")),
        "head": jnp.asarray(own(params.pop("head", embedding)["kernel"])),
    }


def stacked(params: dict[str, Any], tied: bool) -> dict[str, Any]:
    """Return weights that are `by_layer` with their layers stacked, as training and scoring need them.

    `params` is emptied. Where `tied`, the output table is the embedding, and the result has no head.
    """

    def bits(leaf: Shaped[Array | np.ndarray, "*shape"]) -> Shaped[np.ndarray, "*shape"]:
        return to_stored(np.asarray(leaf))

    layers: list[dict[Any, Any]] = [dict(flatten_dict(layer)) for layer in params.pop("layers")]
    joined = {}
    for name in list(layers[0]):
        kernel = name[-1] == TRANSPOSED
        values = np.stack([bits(layer.pop(name)) for layer in layers])
        joined[(*name[:-1], "kernel") if kernel else name] = jnp.asarray(
            np.ascontiguousarray(values.swapaxes(1, 2)) if kernel else values
        )
    whole = {
        "embedding": params.pop("embedding"),
        "layers": unflatten_dict(joined),
        "norm": jax.tree.map(lambda leaf: jnp.asarray(bits(leaf)), params.pop("norm")),
    }
    head = params.pop("head")
    return whole if tied else whole | {"head": {"kernel": jnp.asarray(bits(head))}}
