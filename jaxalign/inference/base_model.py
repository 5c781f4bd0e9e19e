"""A base model that samples, scores and trains: its weights exist once, in one layout at a time."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxalign.inference.sampler import Sampler
from jaxalign.inference.scorer import Scorer
from jaxalign.models.layout import by_layer, stacked
from jaxalign.models.lora import LoraParams, init_adapter
from jaxalign.models.transformer import Transformer
from jaxalign.parallel.compilation import Programs
from jaxalign.pretrained.sources import Model

ROW_LENGTH = 2048
"""Tokens of a packed row at most, where the context allows as many."""


@dataclasses.dataclass
class BaseModel:
    """A loaded model. Sampling wants its weights layer by layer, scoring and training want them stacked; going from the
    one to the other takes a moment, and what was made for the other layout is not to be used any more.
    """

    model: Model
    dtype: Any
    programs: Programs
    layered: bool = False

    def weights(self, layered: bool) -> dict[str, Any]:
        """Return the parameters in a layout, the other one being used up."""
        if layered != self.layered:
            params = self.model.params
            changed = by_layer(params) if layered else stacked(params, self.model.architecture.tied)
            self.model = dataclasses.replace(self.model, params=changed)
            self.layered = layered
        return self.model.params

    def network(self, rematerialisation: str = "none") -> Transformer:
        """Return the decoder."""
        return Transformer(self.model.architecture, self.dtype, rematerialisation)

    @property
    def signature(self) -> str:
        """What names the base in records: a hash of all that decides what it says, and the type it computes in."""
        return f"{self.model.signature}-{np.dtype(self.dtype).name}"

    @property
    def row_length(self) -> int:
        """Tokens of a packed row at most."""
        return min(self.model.architecture.context, ROW_LENGTH)

    def sampler(self, adapters: LoraParams | None, rows: int = 64) -> Sampler:
        """Return what samples; `adapters` is stacked [A, ...] and effective, None for the bare base."""
        model = self.model
        return Sampler(model.architecture, self.weights(True), adapters, model.tokenizer, self.programs, rows)

    def scorer(self, adapter: LoraParams | None, scale: float | np.ndarray, row_length: int | None = None) -> Scorer:
        """Return what reads log-probabilities; `adapter` is raw, or a stack with its scales, None for the bare base."""
        if adapter is None:
            adapter, scale = init_adapter(jax.random.key(0), self.model.architecture, 1, ("q_proj",)), 0.0
        weights = jax.tree.map(jnp.asarray, adapter)
        rows = row_length or self.row_length
        return Scorer(self.network(), self.weights(False), weights, scale, self.programs, rows)
