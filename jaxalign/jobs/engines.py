"""What answers requests: this program's own sampler, or a server."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax.numpy as jnp
from rich.console import Console

from jaxalign.config.generate import GenerateConfig
from jaxalign.errors import UserError
from jaxalign.inference.base_model import BaseModel
from jaxalign.inference.generations import Engine, PromptRequest
from jaxalign.inference.sampler import Sampler
from jaxalign.inference.sampling_params import Completion, Request, SamplingParams
from jaxalign.jobs.adapters import BASE, TOGETHER, Subject, check_base, stack
from jaxalign.parallel.compilation import Programs
from jaxalign.pretrained.sources import ModelFiles
from jaxalign.runs.progress import compilations

GREEDY_CHECK = 32
"""New tokens of each prompt of `engine.check`."""


@dataclasses.dataclass(frozen=True)
class Answering:
    """What answers, and by what its records are named: `model` decides every answer, an entry of `adapters` a
    subject's. Both are the same for every engine; `served` is what else decides a server's answers."""

    engine: Engine
    model: str
    adapters: list[str]
    served: dict[str, Any] | None = None


def engine_of(
    config: GenerateConfig,
    files: ModelFiles,
    subjects: Sequence[Subject],
    keys: Mapping[str, Any],
    console: Console,
) -> Answering:
    """Return what answers: this program, or a server for the same model and adapters, which are not loaded then."""
    if config.engine.name == "jaxalign":
        return local_engine(config, files, subjects, console)
    from jaxalign.inference.openai import OpenAIEngine

    e = config.engine
    names = e.models or tuple(str(keys["path"] or keys["name"]) if s is BASE else s.name for s in subjects)
    if len(names) != len(subjects):
        asked = ", ".join(subject.name for subject in subjects)
        raise UserError(f"engine.models names {len(names)} models, and {len(subjects)} are asked: {asked}")
    identity, signature = files.identify()
    check_base(subjects, identity, files.name)
    engine = OpenAIEngine(
        url=str(e.url),
        models=names,
        tokenizer=files.tokenizer,
        context=files.architecture.context,
        concurrency=e.concurrency,
        retries=e.retries,
        timeout=e.timeout,
        send=e.send,
        strict=e.strict,
    )
    return Answering(
        engine,
        f"{signature}-{config.precision}",
        [subject.identity for subject in subjects],
        {"url": engine.url.rstrip("/"), "models": list(names), "send": e.send, "strict": e.strict},
    )


def local_engine(config: GenerateConfig, files: ModelFiles, subjects: Sequence[Subject], console: Console) -> Answering:
    """Load the model and return it as what answers."""
    model = files.load(jnp.dtype(config.precision))
    check_base(subjects, model.identity, model.name)
    programs = Programs(compilations(console))
    sampler = BaseModel(model, jnp.dtype(config.precision), programs).sampler(None, config.sampling.rows)
    signature = f"{model.signature}-{config.precision}"
    return Answering(InTurns(sampler, subjects), signature, [subject.identity for subject in subjects])


@dataclasses.dataclass(frozen=True)
class InTurns:
    """A sampler (of the bare base) for any number of subjects: a few at a time answer in one program, so that neither
    the rows nor the memory grow with their number."""

    sampler: Sampler
    subjects: Sequence[Subject]
    engine: str = "jaxalign"

    def sample(
        self,
        requests: Sequence[Request],
        sampling: SamplingParams,
        *,
        on_done: Callable[[int, Completion], None] = lambda request, completion: None,
        on_text: Callable[[int, int, str], None] | None = None,
        progress: Callable[[int, int, float], None] = lambda done, total, speed: None,
    ) -> list[list[Completion]]:
        """See `Sampler.sample`."""
        total, before = sum(len(request.samples) for request in requests), 0
        found: list[list[Completion]] = [[] for _ in requests]
        turns = -(-len(self.subjects) // min(TOGETHER, self.sampler.rows))
        size = -(-len(self.subjects) // turns)  # as even as can be: fewer shapes to compile for
        for first in range(0, len(self.subjects), size):
            numbers = [n for n, request in enumerate(requests) if first <= request.adapter < first + size]
            if not numbers:
                continue
            sampler = dataclasses.replace(self.sampler, adapters=stack(self.subjects[first : first + size]))
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
    files: ModelFiles,
    subjects: Sequence[Subject],
    asked: Sequence[PromptRequest],
    console: Console,
) -> dict[str, Any]:
    """Put some prompts, greedily, to a server and to this program; print and return how far they agree."""
    from jaxalign.inference.openai import agreement

    requests = [Request(one.tokens, (0,), one.adapter) for one in asked[: config.engine.check * len(subjects)]]
    greedy = SamplingParams(temperature=0.0, max_tokens=min(GREEDY_CHECK, config.sampling.max_tokens))
    local = local_engine(config, files, subjects, console).engine
    theirs, ours = ([completions[0].text for completions in one.sample(requests, greedy)] for one in (engine, local))
    found = agreement(theirs, ours)
    line = f"{engine.engine} and jaxalign on {len(requests)} greedy answers: {found.identical:.0%} are the same"
    console.print(f"{line}, {found.common_prefix:.0%} of the text comes before a difference", highlight=False)
    return {"answers": len(requests), **dataclasses.asdict(found)}
