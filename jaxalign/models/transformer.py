"""One decoder for all families, in Flax Linen: the collection `params` is the frozen base, `lora` the adapter.

The layers run in scans, so that the time to compile does not depend on their number. Each difference between the
families is a field of `Architecture`.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jax.ad_checkpoint import checkpoint_name
from jax.tree_util import Partial
from jax.typing import DTypeLike
from jaxtyping import Array, Float, Float32, Key

from jaxalign.models.architecture import PROJECTION_AXES, Architecture
from jaxalign.models.attention import KeyBlocks, Keys, PerToken, Queries, Scalar, rotary_angles, rotate, tree_attention
from jaxalign.models.kernels import kernel_attention
from jaxalign.models.linear import Projection
from jaxalign.models.lora import INNER, adapted_layers, apply_dropout
from jaxalign.models.precision import from_bits, saved, sum_type, take_rows
from jaxalign.parallel.rules import Placement, constrained
from jaxalign.parallel.vocabulary import take_divided_rows

INPUT, LAYER_WEIGHTS = "layer_input", "layer_weights"
SAVED = (INPUT, "q", "k", "v", "attention", "attention_lse", "attention_output", "gate", "up", "mlp_output", INNER)
REMATERIALISATION = {
    "none": jax.checkpoint_policies.save_anything_except_these_names(LAYER_WEIGHTS),
    "projections": jax.checkpoint_policies.save_only_these_names(*SAVED),
    "full": jax.checkpoint_policies.save_only_these_names(INPUT),
}
"""What the backward pass keeps: everything but weights; the results of the frozen products; the input of each layer."""

ACTIVATIONS = {"silu": jax.nn.silu, "gelu_pytorch_tanh": partial(jax.nn.gelu, approximate=True)}

Attend = Callable[..., Array]
"""Attention: from (q [B, K, G, T, Dh], k and v [B, K, T, Dh], window, scale, softcap) to [B, K, G, T, Dh]."""

Dropout = tuple[Key[Array, ""], Float32[Array, ""]]
"""(key of the step, rate) of the dropout on the input of every adapter."""


@partial(jax.custom_vjp, nondiff_argnums=(1,))
def normalised(x: Float32[Array, "*rows D"], eps: float) -> Float32[Array, "*rows D"]:
    """Return x [..., D] divided by the root of its mean square over the last axis, to which eps is added."""
    return _normalised(x, eps)[0]


def _normalised(x: Float32[Array, "*rows D"], eps: float) -> tuple[Float32[Array, "*rows D"], tuple[Array, Array]]:
    square = (x * x).mean(-1, keepdims=True)
    # Squares that overflow would give zeros, which look like an answer: NaN is found where the model is asked.
    factor = jax.lax.rsqrt(jnp.where(square < jnp.inf, square, jnp.nan) + eps)
    return x * factor, (x, factor)


def _normalised_backward(
    eps: float, residuals: tuple[Array, Array], gradient: Float32[Array, "*rows D"]
) -> tuple[Float32[Array, "*rows D"]]:
    x, factor = residuals
    y = x * factor
    # As a list of rows, because XLA's CPU backend needs ten times as long to add up products of arrays with three axes.
    products = y.reshape(-1, x.shape[-1]) * gradient.reshape(-1, x.shape[-1])
    return ((gradient - y * products.mean(-1).reshape(factor.shape)) * factor,)


normalised.defvjp(_normalised, _normalised_backward)


class Norm(nn.Module):
    """Root-mean-square normalisation over the last axis, in float32 (Zhang and Sennrich, 2019, arXiv 1910.07467)."""

    eps: float
    dtype: DTypeLike | None = None

    @nn.compact
    def __call__(self, x: Float[Array, "*rows D"]) -> Float[Array, "*rows D"]:
        """Return x [..., D] normalised, in the type `dtype`, or in its own."""
        scale = self.param("scale", nn.initializers.ones, (x.shape[-1],), jnp.float32)
        y: Any = normalised(x.astype(jnp.float32), self.eps)
        return (y * scale).astype(self.dtype or x.dtype)


class Layer(nn.Module):
    """One layer of the decoder: attention and a gated MLP, each added to the residual stream [B, T, D].

    The names of reshaped arrays end with their axes: B rows, T tokens, H heads, K key/value heads, G query heads of
    each, d width of a head.
    """

    architecture: Architecture
    placement: Placement | None = None

    @nn.compact
    def __call__(
        self,
        x: Float[Array, "B T D"],
        per_layer: tuple[int | Scalar, int | Scalar],
        attend: Attend,
        angles: tuple[Float32[Array, "B T half"], Float32[Array, "B T half"]],
        dropout: Dropout | None,
    ) -> tuple[Float[Array, "B T D"], None]:
        """Return (x after the layer, None), as the body of a scan does.

        `per_layer` is the layer's (index, window); `angles` is (cos, sin) of the positions (`rotary_angles`).
        """
        arch, (index, window), (cos, sin) = self.architecture, per_layer, angles
        heads, groups, size = arch.kv_heads, arch.heads // arch.kv_heads, arch.head_dim
        rows, length = x.shape[:2]
        by_rows = partial(constrained, self.placement)
        x = saved(x, INPUT)  # else it is saved all the same, but not as bits

        def projection(name: str, features: int, bias: bool = False) -> Projection:
            return Projection(features, bias, self.placement, PROJECTION_AXES[name], x.dtype, name=name)

        def dropout_of(number: int) -> Callable[[Array], Array] | None:
            if dropout is None:
                return None
            key, rate = dropout
            return partial(apply_dropout, jax.random.fold_in(key, 4 * index + number), rate)

        def added(x: Any, y: Any) -> Any:
            return x + y if arch.residual_scale == 1.0 else x + y * jnp.asarray(arch.residual_scale, x.dtype)

        with jax.named_scope("attention"):
            y = by_rows(Norm(arch.norm_eps, sum_type(x.dtype), name="input_norm")(x), "rows")
            q = projection("q_proj", arch.heads * size, arch.qkv_bias)(y, dropout_of(0))
            k = projection("k_proj", heads * size, arch.qkv_bias)(y, dropout_of(0))
            v = projection("v_proj", heads * size, arch.qkv_bias)(y, dropout_of(0))
            q_BTHd, k_BTKd = q.reshape(rows, length, -1, size), k.reshape(rows, length, -1, size)
            if arch.qk_norm:
                q_BTHd, k_BTKd = Norm(arch.norm_eps, name="q_norm")(q_BTHd), Norm(arch.norm_eps, name="k_norm")(k_BTKd)
            q_BTHd, k_BTKd = rotate(q_BTHd, cos, sin), rotate(k_BTKd, cos, sin)
            q_BTKGd = q_BTHd.reshape(rows, length, heads, groups, size)
            q_BKGTd = saved(q_BTKGd.transpose(0, 2, 3, 1, 4), "q")
            k_BKTd = saved(k_BTKd.transpose(0, 2, 1, 3), "k")
            v_BTKd = v.reshape(rows, length, heads, size)
            v_BKTd = saved(v_BTKd.transpose(0, 2, 1, 3), "v")
            y_BKGTd = attend(q_BKGTd, k_BKTd, v_BKTd, window, arch.attention_scale, arch.attention_softcap)
            y_BKGTd = by_rows(y_BKGTd, "rows", "heads")
            y_BTKGd = jnp.transpose(y_BKGTd, (0, 3, 1, 2, 4))  # type: ignore[arg-type]
            y = y_BTKGd.reshape(rows, length, -1)
            y = projection("o_proj", arch.width, arch.o_bias)(y, dropout_of(1))
            y = saved(y, "attention_output")
            if arch.post_norms:
                y = Norm(arch.norm_eps, name="post_attention_norm")(y)  # type: ignore[arg-type]
            x = added(x, y)
        with jax.named_scope("mlp"):
            name = "pre_mlp_norm" if arch.post_norms else "post_attention_norm"
            y = by_rows(Norm(arch.norm_eps, sum_type(x.dtype), name=name)(x), "rows")
            gate: Any = saved(projection("gate_proj", arch.ff_width)(y, dropout_of(2)), "gate")
            up: Any = saved(projection("up_proj", arch.ff_width)(y, dropout_of(2)), "up")
            y = ACTIVATIONS[arch.activation](gate.astype(jnp.float32)) * up.astype(jnp.float32)
            y = saved(projection("down_proj", arch.width)(y.astype(x.dtype), dropout_of(3)), "mlp_output")
            if arch.post_norms:
                y = Norm(arch.norm_eps, name="post_mlp_norm")(y)  # type: ignore[arg-type]
            return by_rows(added(x, y), "rows"), None


class Embedding(nn.Module):
    """A frozen table [V, D] of embeddings."""

    vocab_size: int
    width: int
    dtype: DTypeLike
    placement: Placement | None = None

    @nn.compact
    def __call__(self, tokens: PerToken) -> Float[Array, "B T {self.width}"]:
        """Return the embeddings [B, T, D] of tokens [B, T]."""
        shape = (self.vocab_size, self.width)
        table = self.param("kernel", nn.initializers.normal(0.02), shape, self.dtype)
        return take_divided_rows(self.placement, take_rows, table, jnp.asarray(tokens))


class Transformer(nn.Module):
    """The decoder from tokens to its last hidden states. The head is applied in `objectives.log_probs`."""

    architecture: Architecture
    dtype: DTypeLike = jnp.bfloat16
    rematerialisation: str = "projections"
    placement: Placement | None = None
    """How the base, and the rows of every batch, are laid out on several devices; None for one device."""
    attention: str = "blocks"
    """What computes attention: `blocks` (`attention.tree_attention`), or the name of one of `kernels.KERNELS`."""

    @nn.compact
    def __call__(
        self,
        tokens: PerToken,
        positions: PerToken,
        ends: PerToken,
        blocks: KeyBlocks = None,
        dropout: Dropout | None = None,
    ) -> Float[Array, "B T D"]:
        """Return the last hidden states [B, T, D], normalised, of a packed batch.

        `tokens`, `positions`, `ends` [B, T] and `blocks` [B, Q, M] are fields of `PackedBatch`. Without `blocks`,
        attention reads all keys up to a query, and masks those that it does not see: slower, with the same result.
        """
        arch = self.architecture
        x = Embedding(arch.vocab_size, arch.width, self.dtype, self.placement, name="embedding")(tokens)
        if arch.embed_scale != 1.0:
            x = x * jnp.asarray(arch.embed_scale, self.dtype)
        cos, sin = rotary_angles(positions, jnp.asarray(rotary_frequencies(arch)))
        attend: Attend = Partial(_attend_trees, ends, positions, blocks)
        if self.attention != "blocks":
            attend = kernel_attention(self.attention, ends, positions, arch.windows, self.placement)
        x = self._layers(x, attend, (cos, sin), dropout)
        return constrained(self.placement, Norm(arch.norm_eps, name="norm")(x), "rows")

    def _layers(
        self, x: Float[Array, "B T D"], attend: Attend, angles: Any, dropout: Dropout | None
    ) -> Float[Array, "B T D"]:
        """Return x after all layers: first those without an adapter, which need no backward pass, then the others."""
        arch, layer = self.architecture, Layer(self.architecture, self.placement, parent=None)
        windows = jnp.asarray(arch.windows, jnp.int32)

        def draw(key: Any) -> Any:
            return layer.init(key, x, (0, windows[0]), attend, angles, None)["params"]

        if self.is_initializing():
            self.param("layers", lambda key: jax.vmap(draw)(jax.random.split(key, arch.layers)))
        weights, lora = self.variables["params"]["layers"], self.variables.get("lora", {}).get("layers", {})
        first = arch.layers - adapted_layers(lora)

        def run(dropout: Dropout | None, x: Any, one: tuple[Any, Any]) -> Any:
            index, lora = one
            # A layer's weights are taken here, and not by the scan, which would have to be given a copy of a part of
            # them, and inside of what is rematerialised, so that they are not kept for the backward pass.
            own = checkpoint_name(jax.tree.map(lambda leaf: leaf[index], weights), LAYER_WEIGHTS)
            return layer.apply({"params": own, "lora": lora}, x, (index, windows[index]), attend, angles, dropout)

        indices = jnp.arange(arch.layers)
        if first:
            x, _ = jax.lax.scan(partial(run, None), x, (indices[:first], {}))
        if first < arch.layers:
            policy = REMATERIALISATION[self.rematerialisation]
            kept = jax.checkpoint(partial(run, dropout), policy=policy, prevent_cse=False)
            x, _ = jax.lax.scan(kept, x, (indices[first:], lora))
        return x


def _attend_trees(
    ends: PerToken,
    positions: PerToken,
    blocks: KeyBlocks,
    q: Queries,
    k: Keys,
    v: Keys,
    window: Scalar,
    scale: float,
    softcap: float | None,
) -> Queries:
    return tree_attention(q, k, v, ends, positions, blocks, window, scale, softcap)


def rotary_frequencies(architecture: Architecture) -> Float32[np.ndarray, " half"]:
    """Return the frequencies [Dh / 2] of the rotary embeddings, in radians a token, scaled as the architecture says.

    Source: Su et al., 2021, arXiv 2104.09864. The scaling `llama3` is that of the Llama 3.1 release: low frequencies
    are divided by the factor, high ones kept, and those between interpolated.
    """
    size, scaling = architecture.head_dim, architecture.rope_scaling
    frequencies = architecture.rope_theta ** (-np.arange(0, size, 2, dtype=np.float64) / size)
    if scaling is not None and scaling.kind == "linear":
        frequencies = frequencies / scaling.factor
    elif scaling is not None:
        turns = scaling.original_context * frequencies / (2 * np.pi)
        low, high = scaling.low_freq_factor, scaling.high_freq_factor
        keep = np.clip((turns - low) / (high - low), 0.0, 1.0)
        frequencies = keep * frequencies + (1 - keep) * frequencies / scaling.factor
    return frequencies.astype(np.float32)


def head_kernel(params: Any, architecture: Architecture) -> Float[Array, "V D"]:
    """Return the output table [V, D], which is the embedding where the two are tied."""
    return from_bits(params["embedding" if architecture.tied else "head"]["kernel"])
