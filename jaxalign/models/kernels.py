"""Attention by the kernels of others: JAX's splash attention on TPUs, and tokamax's on NVIDIA GPUs.

Both are flash attention (Dao et al., 2022, arXiv 2205.14135) with a mask of any form, and skip what it hides: splash
each block of the mask that is empty, tokamax all after the diagonal. The masks are those of `attention.visible`, so the
results are those of `attention.tree_attention` but for rounding. They are made once for all layers of equal window.
"""

import logging
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from importlib.util import find_spec
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from jaxalign.errors import UserError
from jaxalign.models.architecture import Architecture
from jaxalign.models.attention import Keys, PerToken, Queries, Scalar, visible
from jaxalign.parallel.processor import compute_capability
from jaxalign.parallel.rules import Placement

LANE, LARGEST_BLOCK = 128, 512
"""The blocks of splash are multiples of LANE tokens. Larger ones are faster, up to what a TPU's memory near the
processor holds."""

Masks = Bool[Array, "windows B S S"]
"""For each of the windows, which of the S tokens of a row sees which; S is T, rounded up for the kernels."""


def _rounded(length: int) -> tuple[int, int]:
    """Return (length of a row as the kernels see it, tokens of its equal blocks) for a row of `length` tokens.

    >>> _rounded(100), _rounded(640), _rounded(2048)
    ((128, 128), (768, 384), (2048, 512))
    """
    count = -(-length // LARGEST_BLOCK)
    block = -(-length // (count * LANE)) * LANE
    return count * block, block


def _distinct(windows: Sequence[int], length: int) -> tuple[int, ...]:
    """Return the windows that differ in rows of `length` tokens; a window that holds the row is as none, 0."""
    return tuple(sorted({window if window < length else 0 for window in windows}))


def _masks(ends: PerToken, positions: PerToken, windows: Sequence[int], length: int) -> Masks:
    """Return for each window which of `length` tokens sees which; beyond the row, each token sees itself alone."""
    rows, more = ends.shape[0], jnp.arange(ends.shape[1], length)
    ends = jnp.concatenate([jnp.asarray(ends), jnp.broadcast_to(more + 1, (rows, more.size))], 1)
    positions = jnp.pad(jnp.asarray(positions), ((0, 0), (0, more.size)))
    at = jnp.arange(length)
    columns = jnp.broadcast_to(at, (rows, length))
    return jnp.stack([visible(at, columns, ends, positions, jnp.int32(window)) for window in windows])


class Splash(NamedTuple):
    """JAX's splash attention for TPUs. `interpret` runs it elsewhere, slowly, for tests."""

    interpret: bool = False

    def prepare(self, seen: Masks) -> Any:
        """Return what the kernel reads of the masks: for each window and row the kind of each block, and the blocks."""
        from jax.experimental.pallas.ops.tpu.splash_attention import make_splash_mha_single_device

        def one(seen: Bool[Array, "S S"]) -> list[Any]:
            kernel = make_splash_mha_single_device(seen[None], block_sizes=_block_sizes(seen.shape[0]))
            found: Any = (kernel.fwd_mask_info, kernel.dq_mask_info, kernel.dkv_mask_info)
            return [info._replace(is_dynamic_mask=None) for info in found]  # here, True has become an array

        return jax.vmap(jax.vmap(one))(seen)

    def attend(self, scale: float, softcap: float | None, infos: Any, q: Queries, k: Keys, v: Keys) -> Queries:
        """Return the attention of q [B, K, G, T, Dh] over k and v [B, K, T, Dh], one row after the other."""
        from jax.experimental.pallas.ops.tpu.splash_attention import splash_attention_kernel as splash

        def one(
            infos: Any, q: Float[Array, "K G T Dh"], k: Float[Array, "K T Dh"], v: Float[Array, "K T Dh"]
        ) -> Float[Array, "K G T Dh"]:
            kernel: Any = splash.SplashAttentionKernel(
                *(info._replace(is_dynamic_mask=True) for info in infos),
                is_mqa=False,
                block_sizes=_block_sizes(q.shape[2]),
                save_residuals=False,
                mask_value=splash.DEFAULT_MASK_VALUE,
                attn_logits_soft_cap=softcap,
                residual_checkpoint_name="attention",  # saved for the backward pass (`transformer.SAVED`)
                mask_function=None,
                interpret=self.interpret,
            )
            return kernel(q.reshape(-1, *q.shape[2:]), k, v).reshape(q.shape)

        return jax.vmap(one)(infos, (q.astype(jnp.float32) * scale).astype(q.dtype), k, v)


def _block_sizes(length: int) -> Any:
    from jax.experimental.pallas.ops.tpu.splash_attention import BlockSizes

    block = _rounded(length)[1]
    names = ("block_q", "block_kv", "block_kv_compute", "block_q_dkv", "block_kv_dkv", "block_kv_dkv_compute")
    return BlockSizes(**dict.fromkeys((*names, "block_q_dq", "block_kv_dq"), block))


class Tokamax(NamedTuple):
    """tokamax's attention for NVIDIA GPUs. On any other device XLA computes it over all pairs of tokens, for tests."""

    def prepare(self, seen: Masks) -> Any:
        """Return the masks as they are."""
        return seen

    def attend(
        self, scale: float, softcap: float | None, seen: Bool[Array, "B T T"], q: Queries, k: Keys, v: Keys
    ) -> Queries:
        """Return the attention of q [B, K, G, T, Dh] over k and v [B, K, T, Dh]."""
        rows, heads, groups, length, size = q.shape
        output = _tokamax().dot_product_attention(
            q.transpose(0, 3, 1, 2, 4).reshape(rows, length, heads * groups, size),
            k.transpose(0, 2, 1, 3),
            v.transpose(0, 2, 1, 3),
            mask=seen[:, None],
            is_causal=True,  # the mask says so too, but by this the kernels know what to skip
            scale=scale,
            logits_soft_cap=softcap,
            implementation=_implementation() or "xla",
        )
        return output.reshape(rows, length, heads, groups, size).transpose(0, 2, 3, 1, 4)


def _tokamax() -> Any:
    """Return the package tokamax, so that it reads nothing of our command line, and does not advise to tune kernels."""
    import tokamax  # type: ignore[import-not-found]
    from absl import flags

    if not flags.FLAGS.is_parsed():
        flags.FLAGS.mark_as_parsed()  # else tokamax parses sys.argv, and refuses `-m`
    logging.getLogger("absl").addFilter(_is_no_advice_to_tune)
    return tokamax


def _is_no_advice_to_tune(record: logging.LogRecord) -> bool:
    """Return False for the lines of the log, a page each, in which tokamax advises to tune a kernel."""
    return not str(record.msg).startswith("Autotuning cache miss")


def _implementation() -> Any:
    """Return the name of tokamax's kernel for the GPU at hand: Hopper and Blackwell, or A100; None for any other."""
    capability = compute_capability(jax.devices()[0])
    if capability is None or capability not in (8.0, 9.0, 10.0, 10.3):
        return None
    return "triton" if capability == 8.0 else "mosaic"


KERNELS: dict[str, Splash | Tokamax] = {"splash": Splash(), "tokamax": Tokamax()}
"""The kernels by the name that the key `attention` gives them. The name `blocks` is `attention.tree_attention`."""


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class KernelAttention:
    """The attention of a kernel with the masks of a batch: a `transformer.Attend`."""

    prepared: Any
    """What the kernel reads of the masks, [windows, B, ...]."""
    name: str = field(metadata={"static": True})
    windows: tuple[int, ...] = field(metadata={"static": True})
    placement: Placement | None = field(metadata={"static": True})

    def __call__(self, q: Queries, k: Keys, v: Keys, window: Scalar, scale: float, softcap: float | None) -> Queries:
        """Return the attention of q [B, K, G, T, Dh] over k and v [B, K, T, Dh] (see `attention.tree_attention`)."""
        length = q.shape[3]
        more = _rounded(length)[0] - length
        q, k, v = (jnp.pad(x, (*((0, 0),) * (x.ndim - 2), (0, more), (0, 0))) for x in (q, k, v))
        number = jnp.argmax(jnp.asarray(self.windows) == jnp.where(window < length, window, 0))
        prepared = jax.tree.map(lambda x: x[0 if len(self.windows) == 1 else number], self.prepared)
        attend = partial(KERNELS[self.name].attend, scale, softcap)
        if self.placement is not None:
            # XLA cannot divide a kernel between devices, and each takes its own rows and heads.
            rows, heads = self.placement.spec("rows"), self.placement.spec("rows", "heads")
            attend = jax.shard_map(
                attend,
                mesh=self.placement.mesh,
                in_specs=(rows, heads, heads, heads),
                out_specs=heads,
                check_vma=False,  # kernels do not say along which axes of the mesh their results differ
            )
        return attend(prepared, q, k, v)[:, :, :, :length]


def kernel_attention(
    name: str, ends: PerToken, positions: PerToken, windows: Sequence[int], placement: Placement | None
) -> KernelAttention:
    """Return the attention of a kernel, one of `KERNELS`, for all layers.

    `ends` and `positions` [B, T] describe the trees; `windows` has the window of each layer in tokens, 0 for none.
    """
    length = ends.shape[1]
    distinct = _distinct(windows, length)
    prepared = KERNELS[name].prepare(_masks(ends, positions, distinct, _rounded(length)[0]))
    return KernelAttention(prepared, name, distinct, placement)


def choose_attention(asked: str, architecture: Architecture, dtype: Any) -> tuple[str, str | None]:
    """Return the attention for the devices at hand, `blocks` or one of `KERNELS`, and why no kernel is taken, if so.

    A kernel is compiled for one row of the model, which takes seconds.

    Args:
        asked: one of these, or `auto`: the kernel for the device, unless it refuses the model.
        architecture: the model's.
        dtype: the type of the activations.

    Raises:
        UserError: a kernel was asked for that cannot run here.
    """
    platform = jax.devices()[0].platform
    name = {"tpu": "splash", "gpu": "tokamax"}.get(platform, "blocks") if asked == "auto" else asked
    refused = None if name == "blocks" else _missing(name, dtype) or _refusal(name, architecture, dtype)
    if refused is None:
        return name, None
    if asked != "auto":
        raise _cannot_run(asked, refused)
    return "blocks", refused


def check_attention(asked: str, dtype: Any) -> None:
    """Raise UserError if a kernel was asked for that cannot run here whatever the model is. Nothing is compiled."""
    if asked in KERNELS and (missing := _missing(asked, dtype)):
        raise _cannot_run(asked, missing)


def _cannot_run(asked: str, why: str) -> UserError:
    return UserError(f"attention={asked} cannot run here, because {why}: take attention=auto or blocks")


def _missing(name: str, dtype: Any) -> str | None:
    """Return what a kernel needs and does not have here; None if nothing is missing."""
    platform, device = jax.devices()[0].platform, jax.devices()[0].device_kind
    if name == "splash" and platform != "tpu":
        return f"splash is for TPUs, and this is {device}"
    if name == "tokamax" and _implementation() is None:
        return f"tokamax is for A100, H100, H200 and B200, and this is {device}"
    if name == "tokamax" and find_spec("tokamax") is None:
        return "tokamax is not installed (pip install 'jaxalign[cuda]')"
    if jnp.dtype(dtype) != jnp.bfloat16:
        return f"{name} multiplies in bfloat16, and this is precision={np.dtype(dtype).name}"
    return None


def _refusal(name: str, architecture: Architecture, dtype: Any) -> str | None:
    """Return why a kernel refuses this model's attention; None if it does not."""
    try:
        _compile_one_row(name, architecture, dtype)
    except Exception as error:  # a kernel refuses in many ways: shapes, soft caps, memory, versions of jax
        lines = [line.strip() for line in str(error).splitlines() if line.strip()]
        return f"{name} refuses this model ({lines[0] if lines else type(error).__name__})"
    return None


def _compile_one_row(name: str, architecture: Architecture, dtype: Any) -> None:
    """Compile a kernel, forwards and backwards, for one row of 1,024 tokens of the model; this takes a few seconds."""
    heads, groups, size = architecture.kv_heads, architecture.heads // architecture.kv_heads, architecture.head_dim
    length, window = 1024, jnp.int32(0)

    def total(q: Array, k: Array, v: Array, ends: Array) -> Array:
        attend = kernel_attention(name, ends, ends, (0,), None)
        output = attend(q, k, v, window, architecture.attention_scale, architecture.attention_softcap)
        return output.astype(jnp.float32).sum()

    q, k = (jax.ShapeDtypeStruct((1, heads, *more, length, size), dtype) for more in ((groups,), ()))
    ends = jax.ShapeDtypeStruct((1, length), jnp.int32)
    jax.jit(jax.grad(total, (0, 1, 2))).lower(q, k, k, ends).compile()
