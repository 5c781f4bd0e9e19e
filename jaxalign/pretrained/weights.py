"""Parameters from a file's tensors, and back: which Hugging Face tensor fills which leaf."""

import hashlib
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Protocol

import jax
import numpy as np

from jaxalign.errors import UserError
from jaxalign.models.architecture import ATTENTION_PROJECTIONS, PROJECTIONS, Architecture, projection_shape
from jaxalign.models.linear import compute_type, to_stored


class TensorSource(Protocol):
    """The tensors of a checkpoint, under their Hugging Face names (`model.layers.0.self_attn.q_proj.weight`)."""

    def names(self) -> list[str]:
        """Return all names."""
        ...

    def shape(self, name: str) -> tuple[int, ...]:
        """Return a tensor's shape, as Hugging Face has it."""
        ...

    def dtype(self, name: str) -> str:
        """Return the type that is stored, in the format's own word; UserError for one that cannot be read."""
        ...

    def read(self, name: str) -> np.ndarray:
        """Return a tensor's values, of a floating type."""
        ...

    def raw(self, name: str) -> memoryview:
        """Return a tensor's bytes as they are stored."""
        ...


@dataclass(frozen=True)
class Leaf:
    """One leaf of the parameters, and the tensors that fill it.

    `name` is the tensor's name, with `{}` for the layer where there is one tensor a layer; `shape` is the tensor's.
    A `transposed` tensor is [out, in] in the file and [in, out] here. A `norm` is float32, whatever the load dtype.
    """

    path: tuple[str, ...]
    name: str
    shape: tuple[int, ...]
    transposed: bool = False
    norm: bool = False

    @property
    def stacked(self) -> bool:
        """Whether the leaf holds all layers."""
        return "{}" in self.name

    def names(self, layers: int) -> list[str]:
        """Return the names of its tensors, in the order of the layers."""
        return [self.name.format(layer) for layer in range(layers)] if self.stacked else [self.name]


def parameter_leaves(architecture: Architecture) -> list[Leaf]:
    """Return every leaf that a model of this architecture has."""
    width, head = architecture.width, (architecture.head_dim,)
    embedding = (architecture.vocab_size, width)

    def norm(ours: str, theirs: str, shape: tuple[int, ...] = (width,)) -> Leaf:
        return Leaf(("layers", ours, "scale"), f"model.layers.{{}}.{theirs}.weight", shape, norm=True)

    found = [Leaf(("embedding", "kernel"), "model.embed_tokens.weight", embedding)]
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
    found.append(Leaf(("norm", "scale"), "model.norm.weight", (width,), norm=True))
    if not architecture.tied:
        found.append(Leaf(("head", "kernel"), "lm_head.weight", embedding))
    return found


def module_of(projection: str) -> str:
    """Return the path of a projection inside a Hugging Face layer: `self_attn.q_proj`, `mlp.up_proj`."""
    return f"{'self_attn' if projection in ATTENTION_PROJECTIONS else 'mlp'}.{projection}"


def load_params(architecture: Architecture, source: TensorSource, dtype: Any) -> tuple[dict[str, Any], str]:
    """Read the parameters, one leaf at a time, so that one leaf at most is in memory twice.

    Tensors that the architecture has no place for (a tied model's head, rotary tables) are left where they are.

    Args:
        architecture: what the model is.
        source: where its tensors are.
        dtype: of all but the norms: bfloat16 or float32.

    Returns:
        The parameters as JAX arrays (as `linear.to_stored` keeps them), and the base's identity: the SHA-256 over name,
        stored type, shape and the SHA-256 of the stored bytes of each tensor used, in the order of the names. It
        depends neither on how the tensors are split over files nor on `dtype`.

    Raises:
        UserError: a tensor is missing, has another shape, or is stored in an unknown type.
    """
    table = parameter_leaves(architecture)
    _check(architecture, table, source)
    params: dict[str, Any] = {}
    lines: list[str] = []
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        for leaf in table:
            kind = np.dtype(np.float32 if leaf.norm else dtype)
            values, digests = _fill(architecture, leaf, source, kind, pool.map)
            *branch, last = leaf.path
            place = params
            for key in branch:
                place = place.setdefault(key, {})
            # Wait, or the next leaf would be filled while this one is still in both memories.
            place[last] = jax.device_put(to_stored(values)).block_until_ready()
            del values
            lines += digests
    return params, _joined(lines)


def identity_of(architecture: Architecture, source: TensorSource) -> str:
    """Return the identity that `load_params` finds, and keep nothing of the weights; raises what it raises."""
    table = parameter_leaves(architecture)
    _check(architecture, table, source)
    tensors = [(leaf, name) for leaf in table for name in leaf.names(architecture.layers)]
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        return _joined(pool.map(lambda one: _line(source, *one), tensors))


def _line(source: TensorSource, leaf: Leaf, name: str) -> str:
    """Return the line of a tensor that enters the identity."""
    return f"{name} {source.dtype(name)} {list(leaf.shape)} {hashlib.sha256(source.raw(name)).hexdigest()}"


def _joined(lines: Iterable[str]) -> str:
    return hashlib.sha256("\n".join(sorted(lines)).encode()).hexdigest()


def _fill(
    architecture: Architecture, leaf: Leaf, source: TensorSource, dtype: np.dtype, each: Callable[..., Iterator[str]]
) -> tuple[np.ndarray, list[str]]:
    """Return a leaf's values, and for each of its tensors the line that enters the identity."""
    shape = leaf.shape[::-1] if leaf.transposed else leaf.shape
    values = np.empty((architecture.layers, *shape) if leaf.stacked else (1, *shape), dtype)

    def tensor(row: np.ndarray, name: str) -> str:
        array = source.read(name)
        if leaf.norm and architecture.norm_offset:
            array = array.astype(np.float32) + 1
        array = array.astype(dtype, copy=False)
        row[:] = array.T if leaf.transposed else array
        return _line(source, leaf, name)

    digests = list(each(tensor, values, leaf.names(architecture.layers)))
    return values if leaf.stacked else values[0], digests


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


def hf_tensors(architecture: Architecture, params: Mapping[str, Any]) -> Iterator[tuple[str, np.ndarray]]:
    """Yield every tensor under its Hugging Face name and in its shape: the inverse of `load_params`.

    All come in the type of the embedding, the norms too, as Transformers writes them.
    """
    dtype = compute_type(params)
    for leaf in parameter_leaves(architecture):
        values: Any = params
        for key in leaf.path:
            values = values[key]
        values = np.asarray(values)
        values = values.view(dtype) if values.dtype == np.uint16 else values
        names = leaf.names(architecture.layers)
        offset = 1 if leaf.norm and architecture.norm_offset else 0
        for name, row in zip(names, values if leaf.stacked else values[None], strict=True):
            array = row.T if leaf.transposed else row - offset if offset else row
            yield name, np.ascontiguousarray(array, dtype)
