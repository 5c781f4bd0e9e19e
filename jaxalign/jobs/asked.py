"""The models that a command asks, opened and checked together: the base, the base in a role, and adapters."""

import dataclasses
from collections.abc import Sequence
from typing import TypeVar

from rich.console import Console

from jaxalign.config.evaluate import EvaluateConfig
from jaxalign.config.generate import GenerateConfig
from jaxalign.config.model import AskedModelConfig
from jaxalign.inference.base_model import BaseModel
from jaxalign.jobs.adapters import find_adapters, keys_of_base, print_other_storages, read_adapters
from jaxalign.jobs.precision import settle_precision
from jaxalign.jobs.setup import OpenedModel, open_base
from jaxalign.models.adapter import BASE, Adapter
from jaxalign.models.claims import Claims
from jaxalign.pretrained.peft import AGAIN, OURS
from jaxalign.runs.records import digest
from jaxalign.values.roleplay import ADAPTER_METHOD, BASE_METHOD, ROLE_METHOD, make_role_prompts, preamble
from jaxalign.values.schwartz import VALUES
from jaxalign.values.targets import HIGHEST, Target

AskingConfig = TypeVar("AskingConfig", GenerateConfig, EvaluateConfig)


def open_asked(
    config: AskingConfig,
    console: Console,
    *,
    model: AskedModelConfig | None = None,
    as_trained: bool = True,
    beside: Sequence[str] = (),
) -> tuple[AskingConfig, OpenedModel | None, list[Adapter]]:
    """Find the adapters of a command, settle its precision, open their base, and read them.

    Args:
        config: the configuration of the command.
        console: prints the precision, and what `open_base` prints.
        model: the model that is asked; None takes `config.model`.
        as_trained: whether the adapters set a prompt format that is left open (see `keys_of_base`).
        beside: see `settle_precision`.

    Returns:
        The configuration with its precision, the base, and the adapters. With `prefetch` the base is None, and there
        are no adapters.

    Raises:
        UserError: as `find_adapters`, `keys_of_base`, `open_base` and `read_adapters`.
    """
    folders, here = find_adapters(*config.named), config.engine.name == "jaxalign"
    config = settle_precision(config, console, shown=here, beside=beside)
    keys = keys_of_base(model or config.model, folders, as_trained=as_trained, here=here)
    opened = open_base(config, console, keys)
    if opened is None:
        return config, None, []
    return config, opened, read_adapters(folders, opened.files.architecture, config.adapter.scale)


def load_asked(opened: OpenedModel, adapters: Sequence[Adapter]) -> BaseModel:
    """Load the base of adapters, and check them as `check_bases` does."""
    base = opened.load()
    check_bases(opened, adapters, base.model.identity)
    return base


def check_bases(opened: OpenedModel, adapters: Sequence[Adapter], identity: str, *, here: bool = True) -> None:
    """Check that adapters belong to their base, and print which were trained on a base stored otherwise.

    Args:
        opened: the base.
        adapters: the adapters.
        identity: the hash of the base's weights.
        here: whether this program runs the base; how a server stores it is not known.

    Raises:
        UserError: an adapter belongs to another base.
    """
    for adapter in adapters:
        adapter.check_base(identity, opened.files.name, "ask it by itself, or with its own model=...")
    if here:
        print_other_storages(opened.console, adapters, opened.storage)


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
