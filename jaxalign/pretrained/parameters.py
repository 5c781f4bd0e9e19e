"""The table of a model's parameters: which tensors of a checkpoint each leaf is made of."""

from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from jaxalign.models.architecture import ATTENTION_PROJECTIONS, PROJECTIONS, Architecture, projection_shape

EMBEDDING, HEAD = "model.embed_tokens.weight", "lm_head.weight"
"""The Hugging Face names of the embedding and of the output table."""

LAST_NORM = ("norm", "scale")
"""The leaf that is multiplied by `Architecture.logit_scale` when it is loaded."""


class TensorParts(Protocol):
    """A tensor of which any part can be read without the rest."""

    def __getitem__(self, part: Any, /) -> Any:
        """Return the values of a part, indexed as an array is."""
        ...


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

    def parts(self, name: str) -> TensorParts:
        """Return a tensor to be read in parts: indexed, it gives what the array of `read` gives."""
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
    def projection(self) -> bool:
        """Whether it is the kernel of a projection, which `model.storage` is about."""
        return self.stacked and self.path[-1] == "kernel"

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
