"""The two layouts of a base's weights: stacked for training, layer by layer for decoding."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict

from jaxalign.models.linear import TRANSPOSED, to_stored


def by_layer(params: dict[str, Any]) -> dict[str, Any]:
    """Return a base whose stacked layers are a list of layers, as decoding wants it; `params` is emptied.

    Weights are bfloat16 itself here, not its bits, and kernels are kept as [out, in]: a product of few rows would spend
    its time on turning them. `head` [V, D] is always there; the embedding keeps its bits, because rows are taken from
    it. One leaf at most is in memory twice, and of a tied model the embedding.
    """

    def own(leaf) -> np.ndarray:
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
    """Return a base `by_layer` as training wants it, its layers stacked; `params` is emptied. Has no head if `tied`."""

    def bits(leaf) -> np.ndarray:
        return to_stored(np.asarray(leaf))

    layers = [flatten_dict(layer) for layer in params.pop("layers")]
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
