"""A model as it is asked: the base with an adapter at some strength, or the bare base."""

import dataclasses
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

from jaxalign.models.lora import LoraParams, adapter_hash, effective, stack_lora


@dataclasses.dataclass(frozen=True)
class Adapter:
    """A LoRA adapter with its scale, its name in results, and what is known of where it comes from.

    `BASE`, the adapter without weights, is the bare base.

    Attributes:
        name: what results call it.
        params: raw float32 weights (see `lora.LoraParams`); None for the bare base.
        rank: r.
        alpha: the scale as trained, times r.
        factor: what the user multiplies the adapter's effect by.
        folder: where it was read, if it was.
        base_identity: hash of the base's weights that it was trained on, where that is known.
        base_name: what that base is loaded by, where that is known.
        prompt_format: `plain` or `chat`, as it was trained, where that is known.
        notes: whatever else was written beside it, as JSON: `value`, `target` and `coding` of value injection.
    """

    name: str = "base"
    params: LoraParams | None = None
    rank: int = 1
    alpha: float = 1.0
    factor: float = 1.0
    folder: Path | None = None
    base_identity: str | None = None
    base_name: str | None = None
    prompt_format: str | None = None
    notes: Mapping[str, Any] = dataclasses.field(default_factory=dict)

    @property
    def scale(self) -> float:
        """What x A B is multiplied by: the factor times alpha / rank; 0 for the bare base."""
        return 0.0 if self.params is None else self.factor * self.alpha / self.rank

    @property
    def targets(self) -> tuple[str, ...]:
        """The adapted projections."""
        return () if self.params is None else tuple(self.params["layers"])

    @property
    def shape(self) -> tuple[int, frozenset[str]] | None:
        """Rank and projections: adapters of one shape can answer in one program. None for the bare base."""
        return None if self.params is None else (self.rank, frozenset(self.targets))

    @cached_property
    def identity(self) -> str:
        """A hash of the weights and the scale; empty for the bare base, and for an adapter scaled to nothing."""
        return "" if self.params is None or self.scale == 0 else adapter_hash(self.params, self.scale)

    def effective(self) -> LoraParams | None:
        """Return the weights as the model applies them, with the scale multiplied in; None for the bare base."""
        return None if self.params is None else effective(self.params, self.scale)

    def times(self, factor: float) -> "Adapter":
        """Return the adapter with `factor` times its effect."""
        return dataclasses.replace(self, factor=self.factor * factor)

    def trained(self, params: LoraParams, name: str | None = None) -> "Adapter":
        """Return an adapter of the same shape and scale with other weights; notes and folder were those of the old."""
        return dataclasses.replace(self, name=name or self.name, params=params, folder=None, notes={})


BASE = Adapter()
"""The bare base."""


def stack_adapters(adapters: Sequence[Adapter]) -> LoraParams | None:
    """Return adapters of one shape as the sampler takes them: effective, in one stack [A, ...].

    The bare base among them is zeros; where it is alone, None.
    """
    return stack_lora([adapter.effective() for adapter in adapters])
