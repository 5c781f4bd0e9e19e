"""The engines that answer requests: this program's own sampler, or a server."""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

from rich.console import Console

from jaxalign.config.evaluate import EvaluateConfig
from jaxalign.config.generate import GenerateConfig
from jaxalign.errors import UserError
from jaxalign.inference.base_model import BaseModel
from jaxalign.inference.generations import Engine, PromptRequest
from jaxalign.inference.sampling_params import Completion, Request, SamplingParams
from jaxalign.jobs.adapters import TOGETHER, print_undivided
from jaxalign.jobs.asked import check_bases, load_asked
from jaxalign.jobs.setup import OpenedModel
from jaxalign.models.adapter import BASE, Adapter, stack_adapters

GREEDY_CHECK = 32
"""The largest number of new tokens for each prompt of `engine.check`."""


@dataclasses.dataclass(frozen=True)
class OpenedEngine:
    """An engine, and the identities that name its records.

    `model` is the identity of the base, and `adapters` holds the identity of each adapter; both are the same for every
    engine. `served` is the address of a server with its names of the models, or None for this program's engine.
    """

    engine: Engine
    model: str
    adapters: list[str]
    served: dict[str, Any] | None = None


def open_engine(
    config: GenerateConfig | EvaluateConfig, opened: OpenedModel, adapters: Sequence[Adapter]
) -> OpenedEngine:
    """Return the configured engine: this program, or a server. For a server, the base is not loaded.

    Raises:
        UserError: `engine.models` names another number of models than are asked, an adapter belongs to another base,
            or the model's files are damaged.
    """
    if config.engine.name == "jaxalign":
        return local_engine(config, opened, adapters)
    from jaxalign.inference.openai import OpenAIEngine

    e, files = config.engine, opened.files
    names = e.models or tuple(opened.load_name if one is BASE else one.name for one in adapters)
    if len(names) != len(adapters):
        asked = ", ".join(adapter.name for adapter in adapters)
        raise UserError(f"engine.models names {len(names)} models, and {len(adapters)} are asked: {asked}")
    check_bases(opened, adapters, opened.identity, here=False)
    engine = OpenAIEngine(
        url=str(e.url),
        models=names,
        tokenizer=files.tokenizer,
        context=opened.context,
        concurrency=e.concurrency,
        retries=e.retries,
        timeout=e.timeout,
        send=e.send,
        strict=e.strict,
    )
    return OpenedEngine(
        engine,
        opened.signature,
        [adapter.identity for adapter in adapters],
        {"url": engine.url.rstrip("/"), "models": list(names)},
    )


def local_engine(
    config: GenerateConfig | EvaluateConfig, opened: OpenedModel, adapters: Sequence[Adapter]
) -> OpenedEngine:
    """Load the model, and return it as the engine; UserError if an adapter belongs to another base."""
    base = load_asked(opened, adapters)
    engine = InTurns(base, adapters, config.sampling.rows)
    print_undivided(opened.console, opened.placement, map(len, engine.turns))
    return OpenedEngine(engine, base.signature, [adapter.identity for adapter in adapters])


@dataclasses.dataclass(frozen=True)
class InTurns:
    """A base that answers with any number of adapters, a few of them at a time in one program.

    So neither the rows nor the memory grow with the number of adapters. `rows` is the largest number of samples that
    are drawn together.
    """

    base: BaseModel
    adapters: Sequence[Adapter]
    rows: int
    engine: str = "jaxalign"

    @property
    def turns(self) -> list[range]:
        """The numbers of the adapters that answer together, turn by turn."""
        count = len(self.adapters)
        turns = -(-count // min(TOGETHER, self.rows))
        size = -(-count // turns)  # turns of nearly equal size, so that fewer shapes are compiled
        return [range(first, min(first + size, count)) for first in range(0, count, size)]

    def sample(
        self,
        requests: Sequence[Request],
        sampling: SamplingParams,
        *,
        on_done: Callable[[int, Completion], None] = lambda request, completion: None,
        on_text: Callable[[int, int, str], None] | None = None,
        progress: Callable[[int, int, float], None] = lambda done, total, speed: None,
    ) -> list[list[Completion]]:
        """Return each request's completions, in the order of its `samples` (see `Sampler.sample`)."""
        total, before = sum(len(request.samples) for request in requests), 0
        found: list[list[Completion]] = [[] for _ in requests]
        for turn in self.turns:
            first = turn.start
            numbers = [n for n, request in enumerate(requests) if request.adapter in turn]
            if not numbers:
                continue
            sampler = self.base.sampler(stack_adapters([self.adapters[n] for n in turn]), self.rows)
            completions = sampler.sample(
                [dataclasses.replace(requests[n], adapter=requests[n].adapter - first) for n in numbers],
                sampling,
                on_done=lambda n, one, numbers=numbers: on_done(numbers[n], one),
                on_text=on_text and (lambda n, index, text, numbers=numbers: on_text(numbers[n], index, text)),
                progress=lambda done, _, speed, before=before: progress(before + done, total, speed),
            )
            for n, mine in zip(numbers, completions, strict=True):
                found[n] = mine
            before += sum(map(len, completions))
        return found


def compare_engines(
    config: GenerateConfig,
    engine: Engine,
    opened: OpenedModel,
    adapters: Sequence[Adapter],
    requests: Sequence[PromptRequest],
    console: Console,
) -> dict[str, Any]:
    """Let a server and this program answer the first `engine.check` prompts greedily; print and return how far they
    agree."""
    from jaxalign.inference.openai import agreement

    asked = [Request(one.tokens, (0,), one.adapter) for one in requests[: config.engine.check * len(adapters)]]
    greedy = SamplingParams(temperature=0.0, max_tokens=min(GREEDY_CHECK, config.sampling.max_tokens))
    local = local_engine(config, opened, adapters).engine
    theirs, ours = ([completions[0].text for completions in one.sample(asked, greedy)] for one in (engine, local))
    found = agreement(theirs, ours)
    line = f"{engine.engine} and jaxalign on {len(asked)} greedy answers: {found.identical:.0%} are the same"
    console.print(f"{line}, {found.common_prefix:.0%} of the text comes before a difference", highlight=False)
    return {"answers": len(asked), **dataclasses.asdict(found)}
