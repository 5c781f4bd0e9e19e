"""The evaluate job from its configuration to its table: find who is asked, load, ask in two ways, compare."""

import dataclasses
import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np
from rich.console import Console

from jaxalign.config.evaluate import EvaluateConfig
from jaxalign.config.identity import plain
from jaxalign.config.values import ValueConfig
from jaxalign.data.encoding import Encoder
from jaxalign.errors import UserError
from jaxalign.inference.base_model import BaseModel
from jaxalign.inference.generations import PromptRequest
from jaxalign.inference.generations import sample_missing as draw
from jaxalign.inference.sampling_params import Request, SamplingParams, check_requests
from jaxalign.jobs.adapters import BASE, Subject, asked_model, check_base, find_adapters, read_subjects, stack
from jaxalign.jobs.train_data import PLAIN_TEXTS
from jaxalign.parallel.compilation import Programs, use_compilation_cache
from jaxalign.pretrained.sources import Model, cache_folder, open_model, prefetch, source_of
from jaxalign.runs.directory import Run, open_run
from jaxalign.runs.progress import Progress, compilations
from jaxalign.runs.records import append_record, read_records, write_atomic
from jaxalign.values.injection import Prompts, make_prompts, plain_text, split_arguments, survey_question
from jaxalign.values.parsing import read_texts
from jaxalign.values.portraits import ChoicePrompts, Portrait, load_portraits, make_choice_prompts, some_portraits
from jaxalign.values.profile import profile_fit
from jaxalign.values.questionnaire import check_questions, read_by_likelihood
from jaxalign.values.roleplay import make_role_prompts, preamble
from jaxalign.values.schwartz import VALUES
from jaxalign.values.starter import load_starter
from jaxalign.values.tables import TableRow, as_csv, as_markdown, baselines, table_of
from jaxalign.values.targets import Target

TOGETHER = 8
"""Adapters of one shape that answer in one program, at most."""


@dataclasses.dataclass(frozen=True)
class Asking:
    """One row of the comparison: who is asked, after which preamble, and which target it is held against."""

    subject: Subject
    method: str
    preamble: str = ""
    target: Target | None = None

    @property
    def name(self) -> str:
        """What the row is called."""
        return "role-play" if self.preamble else self.subject.name

    @property
    def key(self) -> str:
        """What its records are called: targets do not matter to what is asked."""
        said = hashlib.sha256(self.preamble.encode()).hexdigest()[:8] if self.preamble else "plain"
        return f"{self.subject.identity or 'base'}-{said}"


@dataclasses.dataclass(frozen=True)
class Questions:
    """What is asked: portraits, the wording, and texts for perplexity."""

    portraits: list[Portrait]
    prompts: Prompts
    choice: ChoicePrompts | None
    texts: list[str]


def evaluate(config: EvaluateConfig) -> None:
    """Run the evaluate job as configured.

    Raises:
        UserError: anything in the input that cannot be used, before anything is asked.
    """
    console = Console()
    names = [config.adapter.path] if config.adapter.path is not None else config.adapters
    folders = find_adapters("adapter" if config.adapter.path is not None else "adapters", names)
    questions = read_questions(config)
    target = None
    if config.value is not None:
        target = config.value.target()
    role = make_role_prompts(config.alignment.roleplay) if config.alignment.roleplay is not None else None
    keys = asked_model(config.model, folders)
    source = source_of(keys)
    if config.prefetch:
        console.print(prefetch(source, offline=config.offline), highlight=False, soft_wrap=True)
        return
    use_compilation_cache(cache_folder() / "xla")
    files = open_model(source, offline=config.offline, name=keys["name"])
    encoder = Encoder(files.tokenizer, keys["prompt_format"], keys["system"])
    subjects = read_subjects(folders, files.architecture, config.adapter.scale)
    check_codings(subjects, config.value)
    said = preamble(target, role, "question") if role is not None and target is not None else ""
    asking = who_is_asked(subjects, target, said)
    for words in dict.fromkeys(one.preamble for one in asking):
        led = dataclasses.replace(encoder, preamble=words)
        check_questions(questions.portraits, questions.prompts, led, files.architecture.context)
        if config.benchmark.reading != "likelihood":
            check_requests(parse_requests(questions, led), parse_sampling(config), files.architecture.context)
    model = files.load(jnp.dtype(config.precision))
    check_base(subjects, model.identity, model.name)
    run = open_run(
        run_identity(config, keys, model, asking, questions),
        plain(config),
        dir=config.run.dir,
        root=config.run.root,
        name="-".join(["portraits", *dict.fromkeys(one.name for one in asking[:4]), keys["name"]]),
        overwrite=config.run.overwrite,
    )
    if not run.finished:
        with run.locked():
            console.print(f"run directory: {run.path}", soft_wrap=True)
            base = BaseModel(model, jnp.dtype(config.precision), Programs(compilations(console)))
            rows = Job(config, base, questions, encoder, run, console).rows(asking)
            write_results(run, rows, keys["name"], model)
    report(console, run)


def read_questions(config: EvaluateConfig) -> Questions:
    """Read and check the portraits and the wording."""
    portraits = some_portraits(load_portraits(config.benchmark.portraits), config.benchmark.limit)
    choice = make_choice_prompts(config.benchmark.prompts) if config.benchmark.choice else None
    # The texts that a run on the starter arguments holds out, so that perplexities can be compared.
    _, held_out = split_arguments(load_starter(), 0, config.alignment.validation_fraction)
    texts = [plain_text(argument) for argument in held_out[:PLAIN_TEXTS]]
    return Questions(portraits, make_prompts(config.alignment.prompts), choice, texts)


def who_is_asked(subjects: Sequence[Subject], target: Target | None, said: str) -> list[Asking]:
    """Return the rows, target by target: the base, the base in a role, and the adapters that were trained towards it.

    An adapter that names no target is held against the configured one, if there is one.
    """
    theirs = [target_of(subject) or target for subject in subjects]
    targets: list[Target | None] = list(dict.fromkeys([*([] if target is None else [target]), *theirs])) or [None]
    asking = []
    for one in targets:
        asking.append(Asking(BASE, "base", target=one))
        if said and one == target:
            asking.append(Asking(BASE, "role-play", said, one))
        members = zip(subjects, theirs, strict=True)
        asking += [Asking(subject, "adapter", target=one) for subject, mine in members if mine == one]
    return asking


def target_of(subject: Subject) -> Target | None:
    """Return the target that an adapter says it was trained towards."""
    if subject.target is None or subject.value is None:
        return None
    return Target(subject.value, tuple(float(subject.target[value]) for value in VALUES))


def check_codings(subjects: Sequence[Subject], value: ValueConfig | None) -> None:
    """Raise UserError where one table would hold people of a survey as they are and inverted ones."""
    who = [(subject.coding, str(subject.folder)) for subject in subjects]
    if value is not None:
        given = "value.coding=survey" if value.table is None else f"value.table={value.table}"
        who.append((value.survey_coding(value.inverted), given))
    named = dict(reversed(who))  # the first of each coding
    if "raw" in named and "reversed" in named:
        raise UserError(
            f"{named['raw']} goes by raw survey codes (inverted people) and {named['reversed']} by reversed ones: "
            "one table must not mix them, so evaluate them apart"
        )


def run_identity(
    config: EvaluateConfig, keys: Mapping[str, Any], model: Model, asking: Sequence[Asking], questions: Questions
) -> dict[str, Any]:
    """Return what changes the numbers."""
    items = [(portrait.number, portrait.value, portrait.text) for portrait in questions.portraits]
    benchmark = plain(config.benchmark)
    benchmark["portraits"] = hashlib.sha256(json.dumps(items).encode()).hexdigest()[:16]
    return {
        "model": model.signature,
        "precision": config.precision,
        "prompt_format": keys["prompt_format"],
        "system": keys["system"],
        "asked": [[one.key, None if one.target is None else [one.target.name, *one.target.scores]] for one in asking],
        "benchmark": benchmark,
        "prompts": plain(config.alignment)["prompts"],
        "texts": hashlib.sha256(json.dumps(questions.texts).encode()).hexdigest()[:16],
    }


def parse_sampling(config: EvaluateConfig) -> SamplingParams:
    """Return how answers are generated: greedily."""
    return SamplingParams(temperature=0.0, max_tokens=config.benchmark.max_tokens)


def parse_requests(questions: Questions, encoder: Encoder, adapter: int = 0) -> list[Request]:
    """Return the portraits as requests for one generated answer each."""
    return [
        Request(encoder.prompt(survey_question(questions.prompts, portrait.text)), (0,), adapter)
        for portrait in questions.portraits
    ]


def together(asking: Sequence[Asking]) -> list[list[Asking]]:
    """Return groups that answer in one program: adapters of one shape, or the base after one preamble."""
    groups: dict[Any, list[Asking]] = {}
    for one in asking:
        file = one.subject.file
        shape = one.preamble if file is None else (file.rank, tuple(file.targets))
        groups.setdefault(shape, []).append(one)
    return [
        members[start : start + TOGETHER] for members in groups.values() for start in range(0, len(members), TOGETHER)
    ]


@dataclasses.dataclass
class Job:
    """What the parts of one evaluation share."""

    config: EvaluateConfig
    base: BaseModel
    questions: Questions
    encoder: Encoder
    run: Run
    console: Console

    def rows(self, asking: Sequence[Asking]) -> list[TableRow]:
        """Ask everyone, and return the rows of the table with their baselines; what the run has is not asked anew."""
        reading = self.config.benchmark.reading
        readings: dict[tuple[str, str], dict[str, Any]] = {}
        different = list({one.key: one for one in asking}.values())
        if reading != "parse":
            for key, found in self.by_likelihood(different).items():
                readings[key, "likelihood"] = found
        if reading != "likelihood":
            for key, found in self.by_parsing(different).items():
                readings[key, "parse"] = found
        rows = []
        for one in asking:
            scores = None if one.target is None else one.target.scores
            scale = self.config.adapter.scale if one.method == "adapter" else None
            for how in ("likelihood", "parse"):
                if (one.key, how) in readings:
                    found = readings[one.key, how]
                    fit = profile_fit([found["scores"][value] for value in VALUES], scores)
                    rows.append(TableRow(one.name, one.method, how, one.target, {**found, **fit}, scale))
        return [*rows, *baselines([one.target for one in asking])]

    def by_likelihood(self, asking: Sequence[Asking]) -> dict[str, dict[str, Any]]:
        """Return everyone's reading by log-probabilities, by key; adapters of one shape are read together."""
        path = self.run.questionnaire
        readings = {record["when"]: record["results"] for record in read_records(path)}
        for members in together([one for one in asking if one.key not in readings]):
            for one, results in zip(members, self._read_together(members), strict=True):
                append_record(path, {"when": one.key, "results": results})
                readings[one.key] = results
        return {one.key: readings[one.key] for one in asking}

    def _read_together(self, members: Sequence[Asking]) -> list[dict[str, Any]]:
        # The scales of the adapters are multiplied in.
        scorer = self.base.scorer(stack([one.subject for one in members]), np.ones(len(members)))
        with Progress(self.console) as progress:
            return read_by_likelihood(
                scorer,
                dataclasses.replace(self.encoder, preamble=members[0].preamble),
                self.questions.portraits,
                self.questions.prompts,
                self.questions.choice,
                self.questions.texts,
                self.base.model.architecture.context,
                None,
                progress.samples(f"questionnaire: {', '.join(one.name for one in members)}", "question"),
            )

    def by_parsing(self, asking: Sequence[Asking]) -> dict[str, dict[str, Any]]:
        """Return everyone's reading from generated answers, by key; adapters of one shape generate together."""
        readings = {}
        for members in together(asking):
            readings |= self._parse_together(members)
        return readings

    def _parse_together(self, members: Sequence[Asking]) -> dict[str, dict[str, Any]]:
        asked = []
        portraits = self.questions.portraits
        alone = members[0].subject.file is None
        for number, one in enumerate(members):
            encoder = dataclasses.replace(self.encoder, preamble=one.preamble)
            requests = parse_requests(self.questions, encoder)
            asked += [
                PromptRequest(
                    portrait.text, request.prompt, 0 if alone else number, {"id": portrait.number, "from": one.name}
                )
                for portrait, request in zip(portraits, requests, strict=True)
            ]
        subjects = [one.subject for one in members]
        sampler = self.base.sampler(None if alone else stack(subjects))
        with Progress(self.console) as progress:
            records = draw(
                sampler,
                asked,
                1,
                parse_sampling(self.config),
                self.run.generations,
                model=f"{self.base.model.signature}-{self.config.precision}",
                adapters=[""] if alone else [subject.identity for subject in subjects],
                progress=progress.samples("generated answers", "answer"),
            )
        texts = [record["text"] for (record,) in records]
        size = len(portraits)
        return {
            one.key: read_texts(portraits, texts[number * size : (number + 1) * size], self.questions.prompts, None)
            for number, one in enumerate(members)
        }


def write_results(run: Run, rows: Sequence[TableRow], model_name: str, model: Model) -> None:
    """Write the table, the figure, and last the summary, which marks the run as done."""
    from jaxalign.values.tables import comparison_figure  # half a second of matplotlib, at the end

    write_atomic(run.path / "table.csv", as_csv(rows))
    write_atomic(run.path / "table.md", as_markdown(rows, model_name))
    comparison_figure(run.figures / "portraits.png", rows, model_name)
    run.finish(
        {
            "model": {"name": model_name, "identity": model.identity},
            "rows": [row.as_dict() for row in rows],
        }
    )


def report(console: Console, run: Run) -> None:
    """Print a finished evaluation's table, and where its files are."""
    summary = json.loads(run.summary.read_text(encoding="utf-8"))
    console.print(table_of([TableRow.from_dict(row) for row in summary["rows"]], console.width))
    for name, path in (
        ("table", run.path / "table.csv"),
        ("", run.path / "table.md"),
        ("figure", run.figures / "portraits.png"),
        ("summary", run.summary),
    ):
        console.print(f"{name + ':' if name else '':9}{path}", highlight=False, soft_wrap=True)
