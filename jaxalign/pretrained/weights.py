"""From the tensors of a checkpoint to the model's parameters."""

import dataclasses
import hashlib
import os
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol

import jax
import jax.numpy as jnp
import numpy as np
from flax.traverse_util import unflatten_dict

from jaxalign.errors import UserError
from jaxalign.models.architecture import (
    ATTENTION_PROJECTIONS,
    PROJECTIONS,
    Architecture,
    parameter_axes,
    projection_shape,
)
from jaxalign.models.linear import to_stored
from jaxalign.parallel.placing import bytes_of_part, placed_in_parts
from jaxalign.parallel.rules import Placement

EMBEDDING, HEAD = "model.embed_tokens.weight", "lm_head.weight"
"""The Hugging Face names of the embedding and of the output table."""

LAST_NORM = ("norm", "scale")
"""The leaf that is multiplied by `Architecture.logit_scale` when it is loaded."""

_ROWS = 4096  # of these tables that are compared at a time


class TensorSource(Protocol):
    """The tensors of a checkpoint, by their Hugging Face names (`model.layers.0.self_attn.q_proj.weight`)."""

    def names(self) -> list[str]:
        """Return the names of all tensors."""
        ...

    def shape(self, name: str) -> tuple[int, ...]:
        """Return a tensor's shape, in the order of Hugging Face."""
        ...

    def dtype(self, name: str) -> str:
        """Return a tensor's stored type, in the format's own word; raises UserError if it cannot be read."""
        ...

    def read(self, name: str) -> np.ndarray:
        """Return a tensor's values, in a floating-point type."""
        ...

    def raw(self, name: str) -> memoryview:
        """Return a tensor's bytes as they are stored."""
        ...


@dataclass(frozen=True)
class Leaf:
    """One leaf of the parameters, and the tensors that it is made of.

    path        the keys of the leaf in the parameters
    name        the name of the tensor; it contains `{}` for the number of the layer if each layer has one
    shape       the shape of the tensor
    transposed  whether the tensor is [out, in], and the leaf [in, out]
    norm        whether it is the scale of a norm, which is always loaded as float32
    """

    path: tuple[str, ...]
    name: str
    shape: tuple[int, ...]
    transposed: bool = False
    norm: bool = False

    @property
    def stacked(self) -> bool:
        """Whether the leaf contains all layers, stacked."""
        return "{}" in self.name

    def stored_shape(self, layers: int) -> tuple[int, ...]:
        """Return the shape of the leaf."""
        shape = self.shape[::-1] if self.transposed else self.shape
        return (layers, *shape) if self.stacked else shape

    def names(self, layers: int) -> list[str]:
        """Return the names of the leaf's tensors, in the order of the layers."""
        return [self.name.format(layer) for layer in range(layers)] if self.stacked else [self.name]


def parameter_leaves(architecture: Architecture) -> list[Leaf]:
    """Return every leaf of the parameters of a model with this architecture."""
    width, head = architecture.width, (architecture.head_dim,)
    embedding = (architecture.vocab_size, width)

    def norm(ours: str, theirs: str, shape: tuple[int, ...] = (width,)) -> Leaf:
        return Leaf(("layers", ours, "scale"), f"model.layers.{{}}.{theirs}.weight", shape, norm=True)

    found = [Leaf(("embedding", "kernel"), EMBEDDING, embedding)]
    for name in PROJECTIONS:
        prefix = f"model.layers.{{}}.{module_of(name)}"
        inner, outer = projection_shape(architecture, name)
        found.append(Leaf(("layers", name, "kernel"), f"{prefix}.weight", (outer, inner), transposed=True))
        if name in ATTENTION_PROJECTIONS and (architecture.o_bias if name == "o_proj" else architecture.qkv_bias):
            found.append(Leaf(("layers", name, "bias"), f"{prefix}.bias", (outer,)))
    found.append(norm("input_norm", "input_layernorm"))
    found.append(norm("post_attention_norm", "post_attention_layernorm"))
    if architecture.post_norms:
        found.append(norm("pre_mlp_norm", "pre_feedforward_layernorm"))
        found.append(norm("post_mlp_norm", "post_feedforward_layernorm"))
    if architecture.qk_norm:
        found += [norm("q_norm", "self_attn.q_norm", head), norm("k_norm", "self_attn.k_norm", head)]
    found.append(Leaf(LAST_NORM, "model.norm.weight", (width,), norm=True))
    if not architecture.tied:
        found.append(Leaf(("head", "kernel"), HEAD, embedding))
    return found


def module_of(projection: str) -> str:
    """Return the path of a projection in a Hugging Face layer, such as `self_attn.q_proj` or `mlp.up_proj`."""
    return f"{'self_attn' if projection in ATTENTION_PROJECTIONS else 'mlp'}.{projection}"


def with_own_head(architecture: Architecture, source: TensorSource) -> Architecture:
    """Return the architecture, untied if the checkpoint holds a head of other values than the embedding.

    A configuration that says tied may stand beside such a head. Then Transformers uses the head, and so does this
    program. An equal head changes nothing.

    Raises:
        UserError: one of the two is stored in an unknown type.
    """
    if not architecture.tied or not {HEAD, EMBEDDING} <= set(source.names()):
        return architecture
    shapes = {source.shape(HEAD), source.shape(EMBEDDING)}
    equal = shapes == {(architecture.vocab_size, architecture.width)}
    if equal:
        head, embedding = source.read(HEAD), source.read(EMBEDDING)
        blocks = (slice(start, start + _ROWS) for start in range(0, len(head), _ROWS))
        equal = all(np.array_equal(head[block], embedding[block]) for block in blocks)
    return architecture if equal else dataclasses.replace(architecture, tied=False)


def unread_tensors(architecture: Architecture, source: TensorSource) -> list[str]:
    """Return the names of the tensors that no parameter is made of, sorted. The equal head of a tied model is none."""
    read = {name for leaf in parameter_leaves(architecture) for name in leaf.names(architecture.layers)}
    return sorted(set(source.names()) - read - ({HEAD} if architecture.tied else set()))


def all_finite(values: np.ndarray) -> bool:
    """Return whether no value is NaN or infinite."""
    if values.dtype == jnp.bfloat16:
        # By its bits, because NumPy takes long to test this type: the exponent is full from 0x7F80 and from 0xFF80 on.
        return int(values.view(np.int16).max()) < 0x7F80 and int(values.view(np.uint16).max()) < 0xFF80
    return bool(np.isfinite(values).all())


def load_params(
    architecture: Architecture, source: TensorSource, dtype: Any, placement: Placement | None = None
) -> tuple[dict[str, Any], str]:
    """Read the parameters, leaf by leaf, so that at most one leaf is in memory twice.

    Tensors that are no part of the architecture are not read (see `unread_tensors`). On a mesh, each device gets its
    part of a leaf alone, and one such part at a time is on the host.

    Args:
        architecture: of the model.
        source: its tensors.
        dtype: the type of all parameters except the norms: bfloat16 or float32.
        placement: divides the parameters between devices; None for one device.

    Returns:
        The parameters as JAX arrays (bfloat16 as bits, see `linear.to_stored`), and the identity of the base: the
        SHA-256 of the names, stored types, shapes and SHA-256 of the stored bytes of all tensors that were read, in the
        order of their names. It depends neither on how the tensors are distributed over files nor on `dtype`.

    Raises:
        UserError: a tensor is missing, has another shape, is stored in an unknown type, or holds NaN or infinity.
    """
    table = parameter_leaves(architecture)
    _check(architecture, table, source)
    params: dict[Any, jax.Array] = {}
    lines: list[str] = []
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        for leaf in table:
            kind = np.dtype(np.float32 if leaf.norm else dtype)
            read = partial(_fill, architecture, leaf, source, kind, pool.map)
            if placement is None:
                # Wait, because otherwise the next leaf would be read while this one is in memory twice.
                params[leaf.path] = jax.device_put(read()).block_until_ready()
            else:
                shape, sharding = leaf.stored_shape(architecture.layers), placement.sharding(*parameter_axes(leaf.path))
                params[leaf.path] = placed_in_parts(shape, sharding, read)
            lines += pool.map(partial(_line, source, leaf), leaf.names(architecture.layers))
    return unflatten_dict(params), _joined(lines)


def abstract_params(architecture: Architecture, dtype: Any, placement: Placement | None) -> dict[str, Any]:
    """Return the parameters that `load_params` reads as shapes and types alone."""

    def abstract(leaf: Leaf) -> jax.ShapeDtypeStruct:
        kind = to_stored(np.empty(0, np.float32 if leaf.norm else dtype)).dtype
        sharding = None if placement is None else placement.sharding(*parameter_axes(leaf.path))
        return jax.ShapeDtypeStruct(leaf.stored_shape(architecture.layers), kind, sharding=sharding)

    return unflatten_dict({leaf.path: abstract(leaf) for leaf in parameter_leaves(architecture)})


def bytes_on_device(architecture: Architecture, dtype: Any, placement: Placement | None) -> int:
    """Return the bytes of the parameters that `load_params` puts on each device."""
    return bytes_of_part(abstract_params(architecture, dtype, placement))


def identity_of(architecture: Architecture, source: TensorSource) -> str:
    """Return the identity of a base as `load_params` does, and with the same errors, without keeping its weights."""
    table = parameter_leaves(architecture)
    _check(architecture, table, source)
    tensors = [(leaf, name) for leaf in table for name in leaf.names(architecture.layers)]
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        return _joined(pool.map(lambda one: _line(source, *one), tensors))


def _line(source: TensorSource, leaf: Leaf, name: str) -> str:
    """Return the line that stands for a tensor in the identity."""
    return f"{name} {source.dtype(name)} {list(leaf.shape)} {hashlib.sha256(source.raw(name)).hexdigest()}"


def _joined(lines: Iterable[str]) -> str:
    return hashlib.sha256("\n".join(sorted(lines)).encode()).hexdigest()


def _fill(
    architecture: Architecture,
    leaf: Leaf,
    source: TensorSource,
    dtype: np.dtype,
    each: Callable[..., Iterator[None]],
    part: tuple[slice, ...] = (),
) -> np.ndarray:
    """Return a leaf's values as they are stored, or a part of them; no part is cut along the layers."""
    inner = part[1:] if leaf.stacked else part
    shape = np.broadcast_to(0, leaf.stored_shape(architecture.layers))[part].shape
    values = np.empty(shape if leaf.stacked else (1, *shape), dtype)

    def tensor(row: np.ndarray, name: str) -> None:
        with np.errstate(over="ignore", invalid="ignore"):  # what does not fit becomes infinite, and is found below
            array = source.read(name)
            array = (array.T if leaf.transposed else array)[inner]
            if leaf.norm and architecture.norm_offset:
                array = array.astype(np.float32) + 1
            if leaf.path == LAST_NORM:
                array = array.astype(np.float32) * np.float32(architecture.logit_scale)
            array = array.astype(dtype, copy=False)
        if not all_finite(array):
            raise UserError(
                f"the tensor {name} of the checkpoint holds NaN or infinity (read as {dtype.name}); get the model again"
            )
        row[:] = array

    list(each(tensor, values, leaf.names(architecture.layers)))
    return to_stored(values if leaf.stacked else values[0])


def _check(architecture: Architecture, table: list[Leaf], source: TensorSource) -> None:
    present = set(source.names())
    faults = []
    for leaf in table:
        for name in leaf.names(architecture.layers):
            if name not in present:
                faults.append(f"{name} is missing")
            elif tuple(source.shape(name)) != leaf.shape:
                faults.append(f"{name} is {list(source.shape(name))} where {list(leaf.shape)} is needed")
            else:
                source.dtype(name)
    if faults:
        more = f" and {len(faults) - 3} more" if len(faults) > 3 else ""
        raise UserError(
            f"the checkpoint does not fit its {architecture.family} configuration: {'; '.join(faults[:3])}{more}; "
            "get it again, or give the config.json that belongs to it"
        )
