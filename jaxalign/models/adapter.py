"""An adapter with its scale and its origin, or the bare base."""

import dataclasses
import math
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import jax
import numpy as np

from jaxalign.errors import UserError
from jaxalign.models.claims import brief
from jaxalign.models.lora import LoraParams, adapted_layers, adapter_hash, effective, stack_lora

_LARGEST = float(np.finfo(np.float32).max)


@dataclasses.dataclass(frozen=True)
class Adapter:
    """A LoRA adapter with its scale, its name in results, and its origin.

    `BASE`, an adapter without weights, stands for the bare base.

    Attributes:
        name: its name in results.
        params: its weights, float32 (see `lora.LoraParams`); None for the bare base.
        rank: r.
        first_layer: the index of the first layer that has it; all layers from there on have it.
        alpha: the scale with which it was trained, times r.
        factor: a number by which the user multiplies the adapter's effect.
        folder: the folder that it was read from; None if it was not read.
        base_identity: the hash of the weights of the base that it was trained on; None if it is not known.
        base_name: the name or path of that base; None if it is not known.
        prompt_format: `plain` or `chat`, the format that it was trained with; None if it is not known.
        storage: how the base was kept that it was trained on: bfloat16, float32, int8 or int4; None if it is not known.
        notes: further JSON that was written with it: `value`, `target` and `coding` of value injection.
    """

    name: str = "base"
    params: LoraParams | None = None
    rank: int = 1
    first_layer: int = dataclasses.field(default=0, kw_only=True)
    alpha: int | float = 1.0
    factor: int | float = 1.0
    folder: Path | None = None
    base_identity: str | None = None
    base_name: str | None = None
    prompt_format: str | None = None
    storage: str | None = None
    notes: Mapping[str, Any] = dataclasses.field(default_factory=dict)

    @property
    def scale(self) -> float:
        """The number that multiplies x a b: the factor times alpha / rank, or 0 for the bare base."""
        return 0.0 if self.params is None else self.factor * self.alpha / self.rank

    @property
    def targets(self) -> tuple[str, ...]:
        """The adapted projections."""
        return () if self.params is None else tuple(self.params["layers"])

    @property
    def layers(self) -> int:
        """The number of layers that have an adapter: the last ones of the model, or all."""
        return 0 if self.params is None else adapted_layers(self.params["layers"])

    @property
    def shape(self) -> tuple[int, int, frozenset[str]] | None:
        """Its rank, layers and projections; None for the bare base. Adapters of one shape can share a program."""
        return None if self.params is None else (self.rank, self.layers, frozenset(self.targets))

    @cached_property
    def identity(self) -> str:
        """The hash of the weights and the scale; "" for the bare base, and for an adapter with scale 0."""
        return "" if self.params is None or self.scale == 0 else adapter_hash(self.params, self.scale)

    def check_base(self, identity: str | None, name: str, hint: str = "give the model that it was trained on") -> None:
        """Raise UserError if the adapter was trained on another base. An unknown base is not checked.

        Args:
            identity: the hash of the weights of the base that it is used with; None if it is not known.
            name: the name of that base.
            hint: what to do, for the error line.
        """
        if None not in (identity, self.base_identity) and identity != self.base_identity:
            was = "another base" if self.base_name is None else f"another base ({self.base_name})"
            raise UserError(f"{self.folder or self.name} was trained on {was}, not on {name}: {hint}")

    def effective(self) -> LoraParams | None:
        """Return the weights with the scale multiplied in (see `lora.effective`); None for the bare base."""
        return None if self.params is None else effective(self.params, self.scale)

    def times(self, factor: Any) -> "Adapter":
        """Return the adapter with its effect multiplied by the number `factor`.

        Raises:
            UserError: the factor is not a finite number, or too large to compute with.
        """
        number = factor.tolist() if hasattr(factor, "tolist") else factor
        known = isinstance(number, int | float) and not isinstance(number, bool) and abs(number) < math.inf
        if not known:
            raise UserError(f"factor={brief(number)} is not allowed: give a number")
        if abs(number) > _LARGEST or abs(self.factor * number) > _LARGEST:
            raise UserError("factor is not allowed: its number is too large to compute with")
        return dataclasses.replace(self, factor=self.factor * number)

    def to_write(self, base_name: str, base_identity: str, prompt_format: str, storage: str, **notes: Any) -> "Adapter":
        """Return the adapter as it is written to files: with arrays of NumPy, what its base is called, and `notes`."""
        return dataclasses.replace(
            self,
            params=jax.device_get(self.params),
            base_name=base_name,
            base_identity=base_identity,
            prompt_format=prompt_format,
            storage=storage,
            notes=notes,
        )

    def trained(self, params: LoraParams, name: str | None = None) -> "Adapter":
        """Return an adapter of the same shape and scale with other weights, and without notes and folder."""
        return dataclasses.replace(self, name=name or self.name, params=params, folder=None, notes={})


BASE = Adapter()
"""The bare base."""


def stack_adapters(adapters: Sequence[Adapter]) -> LoraParams | None:
    """Return effective adapters of one shape stacked to [A, ...], as the sampler takes them (see `lora.stack_lora`)."""
    return stack_lora([adapter.effective() for adapter in adapters])
