"""A base model that samples, scores and trains, with one copy of its weights for all three."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxalign.inference.sampler import Sampler
from jaxalign.inference.scorer import LARGE_PASS_TOKENS, PASS_TOKENS, Scorer
from jaxalign.models.layout import BaseWeights
from jaxalign.models.lora import NO_ADAPTER, LoraParams
from jaxalign.models.transformer import Transformer
from jaxalign.parallel.compilation import Programs
from jaxalign.parallel.placing import placed
from jaxalign.parallel.processor import on_cpu
from jaxalign.parallel.rules import Placement
from jaxalign.pretrained.sources import Model

ROW_LENGTH, READ_LENGTH = 2048, 3072
"""The largest number of tokens in a packed row, and in one that a CPU only reads; less where the model's context is
shorter."""


def signature_in(signature: str, precision: str) -> str:
    """Return the name of a base in records: a hash of all that decides its answers, and its compute type."""
    return f"{signature}-{precision}"


@dataclasses.dataclass(frozen=True)
class BaseModel:
    """A loaded base model. Samplers, scorers and training all use its weights.

    Sampling needs the weights layer by layer; scoring and training need them stacked (see `BaseWeights`). Any number of
    samplers and scorers can be used in any order, because each one asks for its own layout whenever it runs.
    """

    model: Model
    dtype: Any
    """The type of the activations: bfloat16 or float32."""
    programs: Programs
    """The compiled programs that all samplers and scorers share."""
    placement: Placement | None = None
    """How the weights are divided between devices; None for one device."""
    attention: str = "blocks"
    """What computes attention over packed rows (see `models.kernels`)."""

    @property
    def base_weights(self) -> BaseWeights:
        """The one copy of the weights."""
        return BaseWeights(self.model.params, self.model.architecture.tied, self.placement)

    def weights(self, layered: bool) -> dict[str, Any]:
        """Return the weights layer by layer or stacked, converted if need be (see `BaseWeights.get`)."""
        return self.base_weights.get(layered=layered)

    def network(self, rematerialisation: str = "none") -> Transformer:
        """Return the decoder; `rematerialisation` is a key of `transformer.REMATERIALISATION`."""
        return Transformer(self.model.architecture, self.dtype, rematerialisation, self.placement, self.attention)

    @property
    def signature(self) -> str:
        """The name of the base in records (see `signature_in`)."""
        return signature_in(self.model.signature, np.dtype(self.dtype).name)

    def row_length(self, configured: int | None = None) -> int:
        """Return the largest number of tokens in a packed row: the configured one, or else as `ROW_LENGTH` says."""
        return configured or min(self.model.architecture.context, ROW_LENGTH)

    def sampler(self, adapters: LoraParams | None, rows: int = 64) -> Sampler:
        """Return a sampler; for `adapters` and `rows` see `Sampler`."""
        model = self.model
        self.weights(layered=True)  # converted now, so that the first sample's time does not include it
        if self.placement is not None and adapters is not None:
            count = jax.tree.leaves(adapters)[0].shape[0]
            adapters = placed(self.placement.fitting(adapters=count), adapters, "adapters")
        return Sampler(model.architecture, self.base_weights, adapters, model.tokenizer, self.programs, rows)

    def scorer(self, adapter: LoraParams | None, scale: float | np.ndarray, row_length: int | None = None) -> Scorer:
        """Return a scorer.

        Args:
            adapter: one adapter without its scale, or a stack of them [A, ...]; None scores with the bare base.
            scale: the adapter's scale (alpha / rank), or the scales [A] of a stack.
            row_length: the largest number of tokens in a packed row; None takes what is fast for the model.
        """
        if adapter is None:
            adapter, scale = NO_ADAPTER, 0.0
        self.weights(layered=False)  # converted now, so that the first pass's time does not include it
        placement, network = self.placement, self.network()
        if placement is None:
            raw = jax.tree.map(jnp.asarray, adapter)
        else:
            placement = placement.fitting(adapters=np.size(scale))
            raw = placed(placement, adapter, *(["adapters"] if np.ndim(scale) else []))
            network = network.clone(placement=placement)
        parts = 1 if placement is None else placement.parts("rows") * placement.parts("adapters")
        length = row_length or min(self.model.architecture.context, READ_LENGTH if on_cpu() else ROW_LENGTH)
        tokens = (PASS_TOKENS if on_cpu() else LARGE_PASS_TOKENS) * parts
        return Scorer(network, self.base_weights, raw, scale, self.programs, length, tokens)
