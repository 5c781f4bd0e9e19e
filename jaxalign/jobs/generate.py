"""The generate job, from its configuration to its answers: find the models, sample, show the answers and keep them."""

import dataclasses
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Console

from jaxalign.config.generate import GenerateConfig
from jaxalign.data.encoding import Encoder
from jaxalign.data.prompts import Prompt, read_prompts
from jaxalign.errors import UserError
from jaxalign.inference.generations import PromptRequest, sample_missing
from jaxalign.inference.sampling_params import ENDS, Request, SamplingParams, check_requests
from jaxalign.jobs.adapters import check_together
from jaxalign.jobs.asked import open_asked
from jaxalign.jobs.engines import OpenedEngine, compare_engines, open_engine
from jaxalign.jobs.settings import sampling_params
from jaxalign.jobs.setup import OpenedModel, open_job_run, print_places, working_together
from jaxalign.jobs.terminal import SideBySide, chat, check_chat
from jaxalign.models.adapter import BASE, Adapter
from jaxalign.parallel.distributed import by_first, check_alone, of_first, stoppable, stopping_together
from jaxalign.runs.directory import GENERATIONS, Run
from jaxalign.runs.progress import Progress, plain_console, print_line, say
from jaxalign.runs.records import digest, write_records

GENERATE_FILES = (GENERATIONS, "answers.jsonl")


def generate(config: GenerateConfig) -> None:
    """Run the generate job as configured: answer one prompt or a file of prompts, or chat.

    Several processes answer prompts together; a chat, and a server, need one.

    Raises:
        UserError: the input cannot be used (raised before the sampling), or a server does not answer.
    """
    if config.chats or config.engine.name != "jaxalign":
        check_alone()
        _generate(config)
        return
    with working_together(config):
        _generate(config)


def _generate(config: GenerateConfig) -> None:
    console = plain_console()
    prompts = read_configured_prompts(config)
    # A chat needs the model's chat template, and a prompt goes through it unless told otherwise, whatever prompt format
    # the adapter was trained with: a bare prompt tells an assistant neither who speaks nor that an answer is wanted.
    model = dataclasses.replace(config.model, prompt_format="chat") if config.chats else config.model
    config, opened, adapters = open_asked(config, console, model=model, as_trained=False)
    if opened is None:
        return
    adapters = answering_adapters(config, adapters)
    sampling = sampling_params(config.sampling)
    if config.chats:
        check_chat(opened.files, sampling)
        engine = open_engine(config, opened, adapters).engine
        chat(console, engine, opened.files, sampling, opened.keys.get("system"), adapters[0].name)
        return
    if model.prompt_format is None and opened.keys["prompt_format"] == "chat":
        line = "prompts are put into the model's chat template (model.prompt_format=plain gives the bare text)"
        say(console, line)
    asked = prompt_requests(prompts, adapters, opened.encoder)
    requests = [Request(one.tokens) for one in asked[:: len(adapters)]]
    check_requests(requests, sampling, opened.context, [prompt.place for prompt in prompts])
    opened_engine = open_engine(config, opened, adapters)
    run = open_job_run(
        config,
        console,
        content=generation_content(opened, opened_engine, prompts),
        name="-".join(["generate", *(adapter.name for adapter in adapters[:3]), opened.keys["name"]]),
        files=GENERATE_FILES,
        more=True,
    )
    with of_first(run.locked()), stopping_together():
        agreement = run.results(engines=dict).get("agreement") if run.finished else None
        if config.engine.check:
            agreement = compare_engines(config, opened_engine.engine, opened, adapters, asked, console)
        records = answer(config, console, opened_engine, run, asked, adapters, sampling)
        by_first(lambda: write_answers(run, prompts, adapters, records, agreement))
    report_ends(console, records)
    print_places(console, answers=run.path / "answers.jsonl")


def read_configured_prompts(config: GenerateConfig) -> list[Prompt]:
    """Return the prompts to answer: the given one, or those of a file (a line says how many); none for a chat."""
    if config.prompt is not None:
        return [Prompt("prompt", config.prompt, "prompt")]
    return [] if config.prompts is None else read_prompts(config.prompts, log=print_line)


def answering_adapters(config: GenerateConfig, adapters: Sequence[Adapter]) -> list[Adapter]:
    """Return the models that answer: the adapters, and the bare base if it is asked for or there is no adapter.

    Raises:
        UserError: a chat with several adapters, or adapters of different shapes, which cannot answer in one program.
    """
    if config.chats:
        if len(adapters) > 1:
            raise UserError("a chat is with one model: give one adapter, or prompt=... for several side by side")
        with_base = not adapters
    else:
        with_base = not adapters or (config.prompt is not None if config.base is None else config.base)
    everyone = [*([BASE] if with_base else []), *adapters]
    if config.engine.name == "jaxalign" or config.engine.check:
        check_together(everyone)
    return everyone


def prompt_requests(prompts: Sequence[Prompt], adapters: Sequence[Adapter], encoder: Encoder) -> list[PromptRequest]:
    """Return one request for each prompt and adapter, prompt by prompt.

    Prompts with the same text share their samples, so a record has the ids of all of them.
    """
    ids: dict[str, list[str]] = {}
    for prompt in prompts:
        ids.setdefault(prompt.text, []).append(prompt.id)
    return [
        PromptRequest(prompt.text, encoder.prompt(prompt.text), number, {"ids": ids[prompt.text], "from": adapter.name})
        for prompt in prompts
        for number, adapter in enumerate(adapters)
    ]


def generation_content(opened: OpenedModel, engine: OpenedEngine, prompts: Sequence[Prompt]) -> dict[str, Any]:
    """Return hashes of what the configuration's paths lead to, for the identity of the run."""
    return {
        "model": engine.model,
        "adapters": engine.adapters,
        "served": engine.served,
        "prompt_format": opened.keys["prompt_format"],
        "system": opened.keys.get("system"),
        "prompts": digest([(prompt.id, prompt.text) for prompt in prompts]),
        **opened.encoder.rendered((prompt.text for prompt in prompts), answers=False),
    }


def answer(
    config: GenerateConfig,
    console: Console,
    opened_engine: OpenedEngine,
    run: Run,
    asked: Sequence[PromptRequest],
    adapters: Sequence[Adapter],
    sampling: SamplingParams,
) -> list[list[dict[str, Any]]]:
    """Draw the samples that the run does not hold yet, and return the records of each request.

    The answers to a single prompt are shown as they come; for many prompts, the progress is shown.
    """
    n = config.sampling.n
    given = (opened_engine.engine, asked, n, sampling, run.generations)
    named = {"model": opened_engine.model, "adapters": opened_engine.adapters}
    if config.prompt is not None:
        with SideBySide(console, [adapter.name for adapter in adapters], n) as panels:
            records = sample_missing(*given, **named, on_text=panels.update, progress=stoppable())
            for number, mine in enumerate(records):
                for record in mine:
                    panels.update(number, record["index"], record["text"])
        return records
    with Progress(console) as progress:
        return sample_missing(*given, **named, progress=stoppable(progress.samples("answers")))


def write_answers(
    run: Run,
    prompts: Sequence[Prompt],
    adapters: Sequence[Adapter],
    records: Sequence[Sequence[Mapping[str, Any]]],
    agreement: Mapping[str, Any] | None,
) -> None:
    """Write answers.jsonl, one line for each prompt with the answers of all models, and then the summary.

    An answer that a server did not end as `ENDS` says is null there.
    """
    lines = []
    for number, prompt in enumerate(prompts):
        mine = records[number * len(adapters) : (number + 1) * len(adapters)]
        texts = [[record["text"] if record["end"] in ENDS else None for record in found] for found in mine]
        answers = {a.name: found for a, found in zip(adapters, texts, strict=True)}
        lines.append({"id": prompt.id, "prompt": prompt.text, "answers": answers})
    write_records(run.path / "answers.jsonl", lines)
    engines = Counter({record["key"]: record["engine"] for found in records for record in found}.values())
    run.finish({"engines": dict(engines), "samples": engines.total(), "agreement": agreement})


def report_ends(console: Console, records: Sequence[Sequence[Mapping[str, Any]]]) -> None:
    """Print how many answers are not whole, and why, if any are."""
    ends = {record["key"]: record["end"] for found in records for record in found if record["end"] not in ENDS}
    for end, count in Counter(ends.values()).items():
        line = f"answers cut by the server ({end}) and null in answers.jsonl: {count}; the same command asks again"
        say(console, line)
