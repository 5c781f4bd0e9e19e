"""The generate job from its configuration to its answers: find who is asked, load, sample, show, keep."""

import dataclasses
import hashlib
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Console

from jaxalign.config.generate import GenerateConfig, SamplingConfig
from jaxalign.config.identity import plain
from jaxalign.data.encoding import Encoder
from jaxalign.data.prompts import Prompt, read_prompts
from jaxalign.errors import UserError
from jaxalign.inference.generations import PromptRequest
from jaxalign.inference.generations import sample_missing as draw
from jaxalign.inference.sampling_params import Request, SamplingParams, check_requests
from jaxalign.jobs.adapters import (
    BASE,
    Subject,
    asked_model,
    check_together,
    find_adapters,
    read_subjects,
)
from jaxalign.jobs.engines import Answering, compare_engines, engine_of
from jaxalign.jobs.terminal import SideBySide
from jaxalign.parallel.compilation import use_compilation_cache
from jaxalign.pretrained.sources import cache_folder, open_model, prefetch, source_of
from jaxalign.runs.directory import Run, open_run
from jaxalign.runs.progress import Progress
from jaxalign.runs.records import write_atomic


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
    sampling = configured_sampling_params(config.sampling)
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


def ask(prompts: Sequence[Prompt], subjects: Sequence[Subject], encoder: Encoder) -> list[PromptRequest]:
    """Return every subject's copy of every prompt, prompt by prompt; a record names all prompts of its text."""
    ids: dict[str, list[str]] = {}
    for prompt in prompts:
        ids.setdefault(prompt.text, []).append(prompt.id)
    return [
        PromptRequest(prompt.text, encoder.prompt(prompt.text), number, {"ids": ids[prompt.text], "from": subject.name})
        for prompt in prompts
        for number, subject in enumerate(subjects)
    ]


def known_agreement(run: Run) -> dict[str, Any] | None:
    """Return what an earlier `engine.check` of the run found, if there was one."""
    return json.loads(run.summary.read_text(encoding="utf-8"))["agreement"] if run.finished else None


def configured_sampling_params(config: SamplingConfig) -> SamplingParams:
    """Return how samples are drawn, without how many."""
    fields = {field.name for field in dataclasses.fields(SamplingParams)}
    return SamplingParams(**{name: value for name, value in dataclasses.asdict(config).items() if name in fields})


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
        "sampling": dataclasses.asdict(configured_sampling_params(config.sampling)),
        "prompts": hashlib.sha256(json.dumps(asked).encode()).hexdigest()[:16],
    }


def answer(
    config: GenerateConfig,
    console: Console,
    answering: Answering,
    run: Run,
    asked: Sequence[PromptRequest],
    subjects: Sequence[Subject],
    sampling: SamplingParams,
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
