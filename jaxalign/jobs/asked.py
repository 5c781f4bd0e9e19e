"""The models that an evaluation asks: the base, the base in a role, and adapters."""

import dataclasses
from collections.abc import Sequence

from jaxalign.config.evaluate import EvaluateConfig
from jaxalign.models.adapter import BASE, Adapter
from jaxalign.models.claims import Claims
from jaxalign.pretrained.peft import AGAIN, OURS
from jaxalign.runs.records import digest
from jaxalign.values.roleplay import ADAPTER_METHOD, BASE_METHOD, ROLE_METHOD, make_role_prompts, preamble
from jaxalign.values.schwartz import VALUES
from jaxalign.values.targets import HIGHEST, Target


@dataclasses.dataclass(frozen=True)
class AskedModel:
    """A model that is asked: the base, the base in a role, or the base with an adapter.

    Attributes:
        adapter: its adapter; `BASE` for the base alone.
        method: `BASE_METHOD`, `ROLE_METHOD` or `ADAPTER_METHOD`.
        preamble: what stands before each question, for a role; "" for none.
        target: the target that it is compared with; None if there is none.
        number: its adapter's place among those that a server has, from 1. It is 0 for the base, and where no server is
            asked, as `models_to_ask` leaves it.
    """

    adapter: Adapter
    method: str
    preamble: str = ""
    target: Target | None = None
    number: int = 0

    @property
    def name(self) -> str:
        """The name in tables."""
        return ROLE_METHOD if self.preamble else self.adapter.name

    @property
    def key(self) -> str:
        """The key of its records. The target is not part of it, because it does not change the questions."""
        return f"{self.adapter.identity or 'base'}-{digest(self.preamble, 8) if self.preamble else 'plain'}"


def role_of(config: EvaluateConfig, target: Target | None) -> str:
    """Return the preamble of a role-play, or "" if none is configured."""
    if config.alignment.roleplay is None or target is None:
        return ""
    return preamble(target, make_role_prompts(config.alignment.roleplay))


def models_to_ask(adapters: Sequence[Adapter], target: Target | None, role: str) -> list[AskedModel]:
    """Return the models, target by target: the base, the base in a role, and the adapters trained towards it.

    An adapter without a target of its own is compared with the configured target, if there is one.
    """
    theirs = [trained_target(adapter) or target for adapter in adapters]
    targets: list[Target | None] = list(dict.fromkeys([*([] if target is None else [target]), *theirs])) or [None]
    asked = []
    for one in targets:
        asked.append(AskedModel(BASE, BASE_METHOD, target=one))
        if role and one == target:
            asked.append(AskedModel(BASE, ROLE_METHOD, role, one))
        members = zip(adapters, theirs, strict=True)
        asked += [AskedModel(adapter, ADAPTER_METHOD, target=one) for adapter, mine in members if mine == one]
    return asked


def trained_target(adapter: Adapter) -> Target | None:
    """Return the target that an adapter was trained towards, or None if its notes name none; UserError if damaged."""
    notes = Claims(adapter.notes, f"{adapter.folder}/{OURS}: extra", AGAIN, "a target")
    if notes.get("target") is None or notes.get("value") is None:
        return None
    scores = notes.part("target")
    return Target(notes.text("value"), tuple(scores.number(name, above=0.0, most=float(HIGHEST)) for name in VALUES))
