"""The generate job from its configuration to its answers: find who is asked, load, sample, show, keep."""

import dataclasses
import hashlib
import json
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax.numpy as jnp
from rich.columns import Columns
from rich.console import Console
from rich.live import Live
from rich.panel import Panel
from rich.text import Text

from jaxalign.config.commands import GenerateConfig, SamplingConfig, plain
from jaxalign.data.encoding import Encoder
from jaxalign.data.prompts import Prompt, read_prompts
from jaxalign.errors import UserError
from jaxalign.inference.generations import Asked, Engine
from jaxalign.inference.generations import generate as draw
from jaxalign.inference.kv_cache import by_layer
from jaxalign.inference.sampler import Completion, Request, Sampler, Sampling, check_requests
from jaxalign.jobs.adapters import (
    BASE,
    Subject,
    asked_model,
    check_base,
    check_together,
    find_adapters,
    read_subjects,
    stack,
)
from jaxalign.parallel.compilation import Programs, use_compilation_cache
from jaxalign.pretrained.sources import ModelFiles, cache_folder, open_model, prefetch, source_of
from jaxalign.runs.directory import Run, open_run, write_atomic
from jaxalign.runs.progress import Progress, compilations

GREEDY_CHECK = 32
"""New tokens of each prompt of `engine.check`."""

TOGETHER = 8
"""Adapters that answer in one program, at most."""


@dataclasses.dataclass(frozen=True)
class Answering:
    """What answers, and by what its records are named: `model` decides every answer, an entry of `adapters` a
    subject's. Both are the same for every engine; `served` is what else decides a server's answers."""

    engine: Engine
    model: str
    adapters: list[str]
    served: dict[str, Any] | None = None


def generate(config: GenerateConfig) -> None:
    """Run the generate job as configured: one prompt, a file of them, or a chat.

    Raises:
        UserError: anything in the input that cannot be used, before the sampling; a server that does not answer.
    """
    console = Console()
    names = [config.adapter.path] if config.adapter.path is not None else config.adapters
    folders = find_adapters("adapter" if config.adapter.path is not None else "adapters", names)
    prompts = [Prompt("prompt", config.prompt, "prompt")] if config.prompt is not None else None
    if config.prompts is not None:
        prompts = read_prompts(config.prompts)
    # A chat is held in the model's chat template, whatever its adapter was trained in.
    model = dataclasses.replace(config.model, prompt_format="chat") if config.chats else config.model
    keys = asked_model(model, folders)
    source = source_of(keys)
    if config.prefetch:
        console.print(prefetch(source, offline=config.offline), highlight=False, soft_wrap=True)
        return
    use_compilation_cache(cache_folder() / "xla")
    files = open_model(source, offline=config.offline, name=keys["name"])
    subjects = read_subjects(folders, files.architecture, config.adapter.scale)
    if prompts is None:
        if len(subjects) > 1:
            raise UserError("a chat has one partner: give one adapter, or prompt=... for several side by side")
        subjects = subjects or [BASE]
    elif not subjects or (config.prompts is None if config.base is None else config.base):
        subjects = [BASE, *subjects]
    if config.engine.name == "jaxalign" or config.engine.check:
        check_together(subjects)
    encoder = Encoder(files.tokenizer, keys["prompt_format"], keys["system"])
    sampling = sampling_of(config.sampling)
    if prompts is None:
        from jaxalign.jobs.terminal import chat, check_chat

        check_chat(files, sampling)
        engine = engine_of(config, files, subjects, keys, console).engine
        chat(console, engine, files, sampling, keys["system"], subjects[0].name)
        return
    asked = ask(prompts, subjects, encoder)
    requests = [Request(one.tokens) for one in asked[:: len(subjects)]]
    check_requests(requests, sampling, files.architecture.context, [prompt.place for prompt in prompts])
    answering = engine_of(config, files, subjects, keys, console)
    run = open_run(
        run_identity(config, keys, answering, prompts),
        plain(config),
        dir=config.run.dir,
        root=config.run.root,
        name="-".join(["generate", *(subject.name for subject in subjects[:3]), keys["name"]]),
        overwrite=config.run.overwrite,
    )
    with run.locked():
        agreement = known_agreement(run)
        if config.engine.check:
            agreement = compare_engines(config, answering.engine, files, subjects, asked, console)
        records = answer(config, console, answering, run, asked, subjects, sampling)
        lines = by_prompt(prompts, records, subjects)
        path = run.path / "answers.jsonl"
        write_atomic(path, "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines))
        engines = Counter({record["key"]: record["engine"] for found in records for record in found}.values())
        run.finish({"engines": dict(engines), "samples": engines.total(), "agreement": agreement})
    console.print(f"answers: {path}", highlight=False, soft_wrap=True)


def ask(prompts: Sequence[Prompt], subjects: Sequence[Subject], encoder: Encoder) -> list[Asked]:
    """Return every subject's copy of every prompt, prompt by prompt; a record names all prompts of its text."""
    ids: dict[str, list[str]] = {}
    for prompt in prompts:
        ids.setdefault(prompt.text, []).append(prompt.id)
    return [
        Asked(prompt.text, encoder.prompt(prompt.text), number, {"ids": ids[prompt.text], "from": subject.name})
        for prompt in prompts
        for number, subject in enumerate(subjects)
    ]


def known_agreement(run: Run) -> dict[str, Any] | None:
    """Return what an earlier `engine.check` of the run found, if there was one."""
    return json.loads(run.summary.read_text(encoding="utf-8"))["agreement"] if run.finished else None


def sampling_of(config: SamplingConfig) -> Sampling:
    """Return how samples are drawn, without how many."""
    fields = {field.name for field in dataclasses.fields(Sampling)}
    return Sampling(**{name: value for name, value in dataclasses.asdict(config).items() if name in fields})


def run_identity(
    config: GenerateConfig, keys: Mapping[str, Any], answering: Answering, prompts: Sequence[Prompt]
) -> dict[str, Any]:
    """Return what changes the answers; not how many are drawn, for more samples join those that are there."""
    asked = [(prompt.id, prompt.text) for prompt in prompts]
    served = {} if answering.served is None else {"served": answering.served}
    return {
        "model": answering.model,
        "adapters": answering.adapters,
        **served,
        "prompt_format": keys["prompt_format"],
        "system": keys["system"],
        "sampling": dataclasses.asdict(sampling_of(config.sampling)),
        "prompts": hashlib.sha256(json.dumps(asked).encode()).hexdigest()[:16],
    }


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
    params, rows = by_layer(model.params), config.sampling.rows
    sampler = Sampler(model.architecture, params, None, model.tokenizer, programs, rows)
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
        sampling: Sampling,
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
    asked: Sequence[Asked],
    console: Console,
) -> dict[str, Any]:
    """Put some prompts, greedily, to a server and to this program; print and return how far they agree."""
    from jaxalign.inference.openai import agreement

    requests = [Request(one.tokens, (0,), one.adapter) for one in asked[: config.engine.check * len(subjects)]]
    greedy = Sampling(temperature=0.0, max_tokens=min(GREEDY_CHECK, config.sampling.max_tokens))
    local = local_engine(config, files, subjects, console).engine
    theirs, ours = ([completions[0].text for completions in one.sample(requests, greedy)] for one in (engine, local))
    found = agreement(theirs, ours)
    line = f"{engine.engine} and jaxalign on {len(requests)} greedy answers: {found.identical:.0%} are the same"
    console.print(f"{line}, {found.common_prefix:.0%} of the text comes before a difference", highlight=False)
    return {"answers": len(requests), **dataclasses.asdict(found)}


def answer(
    config: GenerateConfig,
    console: Console,
    answering: Answering,
    run: Run,
    asked: Sequence[Asked],
    subjects: Sequence[Subject],
    sampling: Sampling,
) -> list[list[dict[str, Any]]]:
    """Draw what the run does not hold yet, shown as it comes: one prompt's answers as text, many by their number."""
    n = config.sampling.n
    given = (answering.engine, asked, n, sampling, run.generations)
    named = {"model": answering.model, "adapters": answering.adapters}
    if config.prompt is not None:
        with SideBySide(console, [subject.name for subject in subjects], n) as shown:
            records = draw(*given, **named, on_text=shown.update)
            for number, mine in enumerate(records):
                for record in mine:
                    shown.update(number, record["index"], record["text"])
        return records
    with Progress(console) as progress:
        return draw(*given, **named, progress=progress.samples("answers"))


class SideBySide:
    """Several subjects' answers to one prompt: panels that grow in a terminal, plain blocks at the end elsewhere."""

    def __init__(self, console: Console, names: Sequence[str], samples: int):
        self._console, self._names = console, names
        self._texts = [[""] * samples for _ in names]
        self._live = Live(console=console, auto_refresh=False) if console.is_terminal else None

    def __enter__(self) -> "SideBySide":
        if self._live is not None:
            self._live.start()
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        if self._live is not None:
            self._live.stop()
        elif kind is None:
            for name, texts in zip(self._names, self._texts, strict=True):
                for number, text in enumerate(texts, start=1):
                    head = name if len(texts) == 1 else f"{name}, {number} of {len(texts)}"
                    self._console.print(
                        f"── {head} ──\n{text.strip()}\n", highlight=False, markup=False, soft_wrap=True
                    )

    def update(self, subject: int, sample: int, text: str) -> None:
        """Show a sample's text so far."""
        self._texts[subject][sample] = text
        if self._live is not None:
            width = max(self._console.width // len(self._names), 24)
            panels = [
                Panel(Text("\n─ ─ ─\n".join(part.strip() for part in texts)), title=Text(name), width=width)
                for name, texts in zip(self._names, self._texts, strict=True)
            ]
            self._live.update(Columns(panels, padding=0), refresh=True)


def by_prompt(
    prompts: Sequence[Prompt], records: Sequence[Sequence[Mapping[str, Any]]], subjects: Sequence[Subject]
) -> list[dict[str, Any]]:
    """Return a line for each prompt: its id, its text, and every subject's answers."""
    lines = []
    for number, prompt in enumerate(prompts):
        mine = records[number * len(subjects) : (number + 1) * len(subjects)]
        answers = {s.name: [record["text"] for record in found] for s, found in zip(subjects, mine, strict=True)}
        lines.append({"id": prompt.id, "prompt": prompt.text, "answers": answers})
    return lines
