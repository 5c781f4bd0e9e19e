"""The generate job from its configuration to its answers: find who is asked, load, sample, show, keep."""

import dataclasses
import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import Any

import jax.numpy as jnp
from rich.columns import Columns
from rich.console import Console
from rich.live import Live
from rich.panel import Panel
from rich.text import Text

from jaxalign.config import GenerateConfig, SamplingConfig, plain
from jaxalign.data.encoding import Encoder
from jaxalign.data.prompts import Prompt, read_prompts
from jaxalign.errors import UserError
from jaxalign.inference.cache import by_layer
from jaxalign.inference.generations import Asked, Engine
from jaxalign.inference.generations import generate as draw
from jaxalign.inference.sampler import Request, Sampler, Sampling, check_requests
from jaxalign.models.sources import ModelFiles, cache_folder, fetch, open_model, source_of
from jaxalign.progress import Progress
from jaxalign.runs import Run, open_run, write_atomic
from jaxalign.subjects import BASE, Subject, asked_model, check_base, find_adapters, read_subjects, stack
from jaxalign.training.programs import Programs, use_compilation_cache

GREEDY_CHECK = 32
"""New tokens of each prompt of `engine.check`."""


def generate(config: GenerateConfig) -> None:
    """Run the generate job as configured: one prompt, a file of them, or a chat.

    Raises:
        UserError: anything in the input that cannot be used, before the sampling; a server that does not answer.
    """
    console = Console()
    names = [config.adapter.path] if config.adapter.path is not None else config.adapters
    folders = find_adapters("adapter" if config.adapter.path is not None else "adapters", names)
    prompts = [Prompt("prompt", config.prompt)] if config.prompt is not None else None
    if config.prompts is not None:
        prompts = read_prompts(config.prompts)
    keys = asked_model(config.model, folders)
    source = source_of(keys)
    if config.prefetch:
        path = fetch(source, offline=config.offline)
        what = "nothing but the program" if source.source == "random" else str(path)
        console.print(f"all that this command needs is here: {what}", highlight=False, soft_wrap=True)
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
    stack(subjects)  # refuses adapters that cannot answer together, before the weights are read
    encoder = Encoder(files.tokenizer, keys["prompt_format"], keys["system"])
    sampling = sampling_of(config.sampling)
    if prompts is None:
        from jaxalign.chat import chat

        engine, _ = engine_of(config, files, subjects, keys, console)
        chat(console, engine, files, sampling, keys["system"], subjects[0].name)
        return
    asked = [
        Asked(prompt.text, encoder.prompt(prompt.text), number, {"id": prompt.id, "from": subject.name})
        for prompt in prompts
        for number, subject in enumerate(subjects)
    ]
    check_requests([Request(one.tokens) for one in asked[:: len(subjects)]], sampling, files.architecture.context)
    engine, identity = engine_of(config, files, subjects, keys, console)
    digest = hashlib.sha256(json.dumps([prompt.text for prompt in prompts]).encode()).hexdigest()[:16]
    run = open_run(
        run_identity(config, keys, identity, subjects, digest),
        plain(config),
        dir=config.run.dir,
        root=config.run.root,
        name="-".join(["generate", *(subject.name for subject in subjects[:3]), keys["name"]]),
        overwrite=config.run.overwrite,
    )
    with run.locked():
        if config.engine.check:
            compare_engines(config, engine, files, subjects, asked, console)
        records = answer(config, console, engine, run, asked, subjects, sampling, identity)
        lines = by_prompt(prompts, records, subjects)
        path = run.path / "answers.jsonl"
        write_atomic(path, "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines))
    console.print(f"answers: {path}", highlight=False, soft_wrap=True)


def sampling_of(config: SamplingConfig) -> Sampling:
    """Return how samples are drawn, without how many."""
    fields = {field.name for field in dataclasses.fields(Sampling)}
    return Sampling(**{name: value for name, value in dataclasses.asdict(config).items() if name in fields})


def run_identity(
    config: GenerateConfig, keys: Mapping[str, Any], identity: str, subjects: Sequence[Subject], prompts: str
) -> dict[str, Any]:
    """Return what changes the answers; not how many are drawn, for more samples join those that are there."""
    return {
        "model": identity,
        "adapters": [subject.identity for subject in subjects],
        "prompt_format": keys["prompt_format"],
        "system": keys["system"],
        "sampling": dataclasses.asdict(sampling_of(config.sampling)),
        "prompts": prompts,
    }


def engine_of(
    config: GenerateConfig,
    files: ModelFiles,
    subjects: Sequence[Subject],
    keys: Mapping[str, Any],
    console: Console,
) -> tuple[Engine, str]:
    """Return what answers, and the identity of its base: the weights' hash and precision, or a served name."""
    if config.engine.name == "jaxalign":
        return local_engine(config, files, subjects, console)
    from jaxalign.inference.openai import OpenAIEngine

    e = config.engine
    names = e.models or tuple(str(keys["path"] or keys["name"]) if s is BASE else s.name for s in subjects)
    if len(names) != len(subjects):
        asked = ", ".join(subject.name for subject in subjects)
        raise UserError(f"engine.models names {len(names)} models, and {len(subjects)} are asked: {asked}")
    engine = OpenAIEngine(
        url=str(e.url),
        models=names,
        tokenizer=files.tokenizer,
        context=files.architecture.context,
        concurrency=e.concurrency,
        retries=e.retries,
        timeout=e.timeout,
        send=e.send,
    )
    return engine, f"served as {names[0]}"


def local_engine(
    config: GenerateConfig, files: ModelFiles, subjects: Sequence[Subject], console: Console
) -> tuple[Sampler, str]:
    """Load the model and return it as a sampler, with the identity of its base."""
    model = files.load(jnp.bfloat16 if config.precision == "bfloat16" else jnp.float32)
    check_base(subjects, model)
    programs = Programs(lambda name, seconds: console.print(f"compiled {name} in {seconds:.1f} s", style="dim"))
    sampler = Sampler(
        model.architecture, by_layer(model.params), stack(subjects), model.tokenizer, programs, config.sampling.rows
    )
    return sampler, f"{model.signature}-{config.precision}"


def compare_engines(
    config: GenerateConfig,
    engine: Engine,
    files: ModelFiles,
    subjects: Sequence[Subject],
    asked: Sequence[Asked],
    console: Console,
) -> None:
    """Put some prompts, greedily, to a server and to this program, and print how far they agree."""
    if config.engine.name == "jaxalign":
        raise UserError("engine.check compares a server with this program: it needs engine=openai")
    from jaxalign.inference.openai import agreement

    requests = [Request(one.tokens, (0,), one.adapter) for one in asked[: config.engine.check * len(subjects)]]
    greedy = Sampling(temperature=0.0, max_tokens=min(GREEDY_CHECK, config.sampling.max_tokens))
    local, _ = local_engine(config, files, subjects, console)
    theirs, ours = ([completions[0].text for completions in one.sample(requests, greedy)] for one in (engine, local))
    found = agreement(theirs, ours)
    line = f"{engine.engine} and jaxalign on {len(requests)} greedy answers: {found.identical:.0%} are the same"
    console.print(f"{line}, {found.common_prefix:.0%} of the text comes before a difference", highlight=False)


def answer(
    config: GenerateConfig,
    console: Console,
    engine: Engine,
    run: Run,
    asked: Sequence[Asked],
    subjects: Sequence[Subject],
    sampling: Sampling,
    identity: str,
) -> list[list[dict[str, Any]]]:
    """Draw what the run does not hold yet, shown as it comes: one prompt's answers as text, many by their number."""
    n, path, single = config.sampling.n, run.generations, config.prompt is not None
    adapters = [subject.identity for subject in subjects]
    if single:
        with SideBySide(console, [subject.name for subject in subjects], n) as shown:
            records = draw(engine, asked, n, sampling, path, model=identity, adapters=adapters, on_text=shown.update)
            for number, mine in enumerate(records):
                for record in mine:
                    shown.update(number, record["index"], record["text"])
        return records
    with Progress(console) as progress:
        count = progress.samples("answers")
        return draw(engine, asked, n, sampling, path, model=identity, adapters=adapters, progress=count)


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
