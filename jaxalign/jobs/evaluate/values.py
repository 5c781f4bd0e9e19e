"""The evaluate job, from its configuration to its table: it asks a base, a role and adapters the questionnaire."""

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np
from rich.console import Console

from jaxalign.config.evaluate import EvaluateConfig
from jaxalign.config.values import ValueConfig
from jaxalign.data.encoding import Encoder
from jaxalign.errors import UserError
from jaxalign.inference.base_model import BaseModel
from jaxalign.inference.generations import PromptRequest, sample_missing
from jaxalign.inference.sampling_params import Request, SamplingParams, check_requests
from jaxalign.jobs.adapters import TOGETHER, print_undivided
from jaxalign.jobs.asked import AskedModel, load_asked, models_to_ask, open_asked, role_of
from jaxalign.jobs.setup import OpenedModel, open_job_run, print_places, working_together
from jaxalign.jobs.train.data import configured_target, read_questionnaire_text
from jaxalign.models.adapter import BASE, Adapter, stack_adapters
from jaxalign.parallel.distributed import by_first, is_first, of_first, stoppable, stopping_together
from jaxalign.runs.directory import GENERATIONS, Run
from jaxalign.runs.progress import Progress, plain_console
from jaxalign.runs.records import append_record, read_records, write_atomic
from jaxalign.values.injection import survey_question
from jaxalign.values.parsing import read_texts
from jaxalign.values.profile import profile_fit
from jaxalign.values.questionnaire import Questionnaire, read_by_likelihood
from jaxalign.values.roleplay import ADAPTER_METHOD
from jaxalign.values.schwartz import VALUES
from jaxalign.values.tables import READING, ROW, TableRow, as_csv, as_markdown, baselines, fitting_table
from jaxalign.values.targets import Target

EVALUATE_FILES = ("questionnaire.jsonl", GENERATIONS, "figures", "table.csv", "table.md")


def evaluate_values(config: EvaluateConfig) -> None:
    """Run the evaluate job as configured. Several processes ask together.

    Raises:
        UserError: the input cannot be used; it is raised before anything is asked.
    """
    with working_together(config):
        _evaluate_values(config)


def _evaluate_values(config: EvaluateConfig) -> None:
    console = plain_console()
    questionnaire = read_questionnaire_text(config)
    target = None if config.value is None else configured_target(config.value)
    config, opened, adapters = open_asked(config, console)
    if opened is None:
        return
    check_codings(adapters, config.value, target)
    asked = models_to_ask(adapters, target, role_of(config, target))
    check_questions(config, questionnaire, asked, opened.encoder, opened.context)
    base = load_asked(opened, adapters)
    print_undivided(console, opened.placement, map(len, together(asked)))
    run = open_job_run(
        config,
        console,
        content=evaluation_content(opened, base, asked, questionnaire),
        name="-".join(["portraits", *dict.fromkeys(one.name for one in asked[:4]), opened.keys["name"]]),
        files=EVALUATE_FILES,
    )
    if not run.finished:
        with of_first(run.locked()), stopping_together():
            session = EvaluationSession(config, base, questionnaire, opened.encoder, run, console)
            rows = session.rows(asked)
            by_first(lambda: write_results(run, rows, base))
    if is_first():
        report_evaluation(console, run)


def check_codings(adapters: Sequence[Adapter], value: ValueConfig | None, target: Target | None) -> None:
    """Raise UserError if one table would hold targets in raw survey codes and targets in reversed ones."""
    who = [(adapter.notes.get("coding"), str(adapter.folder)) for adapter in adapters]
    if value is not None and target is not None:
        given = "value.coding=survey" if value.table is None else f"value.table={value.table}"
        who.append((target.coding, given))
    named = dict(reversed(who))  # the first of each coding
    if "raw" in named and "reversed" in named:
        raise UserError(
            f"{named['raw']} has a target in raw survey codes (inverted people) and {named['reversed']} in reversed "
            "ones: one table must not mix them, so evaluate them separately"
        )


def check_questions(
    config: EvaluateConfig,
    questionnaire: Questionnaire,
    asked: Sequence[AskedModel],
    encoder: Encoder,
    context: int,
) -> None:
    """Raise UserError for the first question that does not fit into the context with its preamble and answer."""
    for words in dict.fromkeys(one.preamble for one in asked):
        led = dataclasses.replace(encoder, preamble=words)
        questionnaire.check(led, context)
        if config.portraits.reading != "likelihood":
            check_requests(parse_requests(questionnaire, led), parse_sampling(config), context)


def evaluation_content(
    opened: OpenedModel, base: BaseModel, asked: Sequence[AskedModel], questionnaire: Questionnaire
) -> dict[str, Any]:
    """Return what the configuration leads to, for the identity of the run."""
    return {
        "model": base.signature,
        "prompt_format": opened.keys["prompt_format"],
        "system": opened.keys.get("system"),
        "asked": [[one.key, None if one.target is None else [one.target.name, *one.target.scores]] for one in asked],
        **questionnaire.content(),
        **opened.encoder.rendered(questionnaire.questions),
    }


def parse_sampling(config: EvaluateConfig) -> SamplingParams:
    """Return the settings of generated answers: greedy, with at most `benchmark.max_tokens` tokens."""
    return SamplingParams(temperature=0.0, max_tokens=config.portraits.max_tokens)


def parse_requests(questionnaire: Questionnaire, encoder: Encoder) -> list[Request]:
    """Return one request for a generated answer to each portrait."""
    return [
        Request(encoder.prompt(survey_question(questionnaire.prompts, portrait.text)))
        for portrait in questionnaire.portraits
    ]


def together(asked: Sequence[AskedModel]) -> list[list[AskedModel]]:
    """Return groups that answer in one program: adapters of the same shape, or the base with the same preamble."""
    groups: dict[Any, list[AskedModel]] = {}
    for one in asked:
        groups.setdefault(one.preamble if one.adapter.shape is None else one.adapter.shape, []).append(one)
    return [
        members[start : start + TOGETHER] for members in groups.values() for start in range(0, len(members), TOGETHER)
    ]


@dataclasses.dataclass(frozen=True)
class EvaluationSession:
    """The model, the questionnaire and the run of one evaluation."""

    config: EvaluateConfig
    base: BaseModel
    questionnaire: Questionnaire
    encoder: Encoder
    run: Run
    console: Console

    def rows(self, asked: Sequence[AskedModel]) -> list[TableRow]:
        """Ask all models, and return the rows of the table and the baselines.

        Answers that the run already has are not asked again.
        """
        reading = self.config.portraits.reading
        readings: dict[tuple[str, str], dict[str, Any]] = {}
        different = list({one.key: one for one in asked}.values())
        if reading != "parse":
            for key, found in self.by_likelihood(different).items():
                readings[key, "likelihood"] = found
        if reading != "likelihood":
            for key, found in self.by_parsing(different).items():
                readings[key, "parse"] = found
        rows = []
        for one in asked:
            scores = None if one.target is None else one.target.scores
            scale = self.config.adapter.scale if one.method == ADAPTER_METHOD else None
            for how in ("likelihood", "parse"):
                if (one.key, how) in readings:
                    found = readings[one.key, how]
                    fit = profile_fit([found["scores"][value] for value in VALUES], scores)
                    rows.append(TableRow(one.name, one.method, how, one.target, {**found, **fit}, scale))
        return [*rows, *baselines([one.target for one in asked])]

    def by_likelihood(self, asked: Sequence[AskedModel]) -> dict[str, dict[str, Any]]:
        """Return each model's reading by log-probabilities, by key; adapters of one shape are read together."""
        path = self.run.questionnaire
        readings = {record["when"]: record["results"] for record in read_records(path, when=str, results=READING)}
        for members in together([one for one in asked if one.key not in readings]):
            for one, results in zip(members, self._read_together(members), strict=True):
                append_record(path, {"when": one.key, "results": results})
                readings[one.key] = results
        return {one.key: readings[one.key] for one in asked}

    def _read_together(self, members: Sequence[AskedModel]) -> list[dict[str, Any]]:
        # The scales are 1, because `stack_adapters` multiplies the adapters' own scales into their weights.
        scorer = self.base.scorer(stack_adapters([one.adapter for one in members]), np.ones(len(members)))
        names = ", ".join(one.name for one in members)
        with Progress(self.console) as progress:
            return read_by_likelihood(
                scorer,
                dataclasses.replace(self.encoder, preamble=members[0].preamble),
                self.questionnaire,
                self.base.model.architecture.context,
                None,
                stoppable(progress.samples(f"questionnaire: {names}", "question")),
            )

    def by_parsing(self, asked: Sequence[AskedModel]) -> dict[str, dict[str, Any]]:
        """Return each model's reading of generated answers, by key; adapters of one shape generate together."""
        readings = {}
        for members in together(asked):
            readings |= self._parse_together(members)
        return readings

    def _parse_together(self, members: Sequence[AskedModel]) -> dict[str, dict[str, Any]]:
        asked = []
        portraits = self.questionnaire.portraits
        alone = members[0].adapter.params is None
        for number, one in enumerate(members):
            encoder = dataclasses.replace(self.encoder, preamble=one.preamble)
            requests = parse_requests(self.questionnaire, encoder)
            about = [{"id": portrait.number, "from": one.name} for portrait in portraits]
            asked += [
                PromptRequest(portrait.text, request.prompt, 0 if alone else number, mine)
                for portrait, request, mine in zip(portraits, requests, about, strict=True)
            ]
        adapters = [BASE] if alone else [one.adapter for one in members]
        with Progress(self.console) as progress:
            records = sample_missing(
                self.base.sampler(stack_adapters(adapters)),
                asked,
                1,
                parse_sampling(self.config),
                self.run.generations,
                model=self.base.signature,
                adapters=[adapter.identity for adapter in adapters],
                progress=stoppable(progress.samples("generated answers", "answer")),
            )
        texts = [record["text"] for (record,) in records]
        size = len(portraits)
        return {
            one.key: read_texts(portraits, texts[number * size : (number + 1) * size], self.questionnaire.prompts, None)
            for number, one in enumerate(members)
        }


def write_results(run: Run, rows: Sequence[TableRow], base: BaseModel) -> None:
    """Write the table, the figure, and then the summary, which marks the run as finished."""
    from jaxalign.values.figures import comparison_figure  # matplotlib takes half a second, so it is imported late

    model = base.model
    write_atomic(run.path / "table.csv", as_csv(rows))
    write_atomic(run.path / "table.md", as_markdown(rows, model.name))
    comparison_figure(run.figures / "portraits.png", rows, model.name)
    named = {"name": model.name, "identity": model.identity}
    run.finish({"model": named, "attention": base.attention, "rows": [row.as_dict() for row in rows]})


def report_evaluation(console: Console, run: Run) -> None:
    """Print the table of a finished evaluation, and where its files are."""
    rows = [TableRow.from_dict(row) for row in run.results(rows=[ROW])["rows"]]
    console.print(fitting_table(rows, console.width))
    figure, table = run.figures / "portraits.png", run.path / "table.csv"
    print_places(console, table=table, markdown=run.path / "table.md", figure=figure, summary=run.summary)
