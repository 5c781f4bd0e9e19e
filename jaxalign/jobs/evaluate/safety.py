"""The evaluate job with a benchmark of harm: its models respond, judges judge, and the figures are added up.

Each model has a run of its own for each of the first two stages, named by all that decides its numbers: commands share
them, and each resumes by itself. The last two stages never load the model that is judged.
"""

import dataclasses
import functools
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from jaxalign.config.evaluate import EvaluateConfig
from jaxalign.config.safety import HarmConfig
from jaxalign.inference.sampling_params import Request, check_requests
from jaxalign.jobs.asked import AskedModel, check_bases, models_to_ask, open_asked, role_of
from jaxalign.jobs.harm.aggregate import HARM_FILES, aggregate
from jaxalign.jobs.harm.fit import fit_judge
from jaxalign.jobs.harm.generate import Answering, generate_stage
from jaxalign.jobs.harm.judge import check_cost, judge_stage, unjudged
from jaxalign.jobs.harm.judges import HarmJudges, JudgeModels, check_judge, judge_content, open_judges, unused_keys
from jaxalign.jobs.harm.labels import label_responses, summary_of
from jaxalign.jobs.harm.loaded_judges import LoadedJudges
from jaxalign.jobs.harm.printed_summary import report_harm
from jaxalign.jobs.harm.session import HarmSession
from jaxalign.jobs.precision import settle_precision
from jaxalign.jobs.setup import open_job_run, working_together
from jaxalign.jobs.train.data import configured_target
from jaxalign.models.adapter import Adapter
from jaxalign.parallel.distributed import by_first, check_alone, is_first, of_first, stopping_together
from jaxalign.runs.directory import Run
from jaxalign.runs.progress import plain_console, print_line, say
from jaxalign.runs.records import digest
from jaxalign.runs.stages import next_stage
from jaxalign.safety.benchmarks.benchmark import BenchmarkPrompt
from jaxalign.safety.benchmarks.sources import read_benchmark
from jaxalign.safety.mitigation import Mitigation
from jaxalign.safety.value_map import read_value_map
from jaxalign.values.roleplay import BASE_METHOD
from jaxalign.values.targets import Target


def work_on_labels(config: EvaluateConfig) -> None:
    """Let a person label responses (stage=label), or fit a judge to labels (stage=fit_judge); UserError if it fails."""
    console = plain_console()
    if config.stage == "label":
        run = Run(Path(str(config.run.dir)))
        label_responses(console, config.label, run, summary_of(run.path))
        return
    fit_judge(settle_precision(config, console, of=config.judge.labels or config.run.dir), console)


def evaluate_safety(config: EvaluateConfig) -> None:
    """Run a benchmark of harm as configured: all stages, or one of them. Several processes work on it together.

    Raises:
        UserError: the input cannot be used, or a judge cannot judge (raised before anything is generated).
    """
    if config.engine.name == "openai" or config.judge.name == "rubric_api":
        check_alone()
    with working_together(config):
        _evaluate_safety(config)


def _evaluate_safety(config: EvaluateConfig) -> None:
    console = plain_console()
    check_judge(config.judge.name)
    for key in unused_keys(config.judge):
        # A line and no error, because a sweep over judges may set what only some of them read.
        say(console, f"judge.{key} is left aside: judge={config.judge.name} does not read it")
    prompts = read_harm_prompts(config.harm, offline=config.offline)
    value_map = read_value_map(config.mitigation.map)
    mitigation = Mitigation(config.mitigation.name, value_map.values)
    if mitigation.needs_values:
        value_map.check_other_prompts(prompt.text for prompt in prompts)
    mitigation.covered(prompts)
    target = None if config.value is None else configured_target(config.value)
    shared = ("judge", "mitigation", "adapter")
    config, opened, adapters = open_asked(config, console, as_trained=False, beside=shared)
    judge_models = JudgeModels(config, console)
    if opened is None:
        fetched = open_judges(config, config.harm, judge_models)
        if config.stage in ("all", "judge"):
            fetched.check()
        return
    check_bases(opened, adapters, opened.identity, here=config.engine.name == "jaxalign")
    models = harm_models(config, adapters, target)
    session = HarmSession(config, opened, prompts, mitigation, console)
    check_prompts(session, models)
    judges = None if config.stage == "generate" else open_judges(config, config.harm, judge_models)
    if judges is not None and (line := judges.unused_scope(config.harm.toxicity_scope)):
        say(console, line)
    if judges is not None and any(unjudged(session, model, judges) is not None for model in models):
        judges.check()
    run = open_harm_run(session, models)
    with of_first(run.locked()), stopping_together():
        done = do_harm_stages(session, models, judges)
        summary = by_first(lambda: aggregate(session, done, judges, run) if done and judges is not None else None)
    if summary is not None and is_first():
        report_harm(console, summary, run)


def open_harm_run(session: HarmSession, models: Sequence[AskedModel]) -> Run:
    """Make or find the directory of the whole run, and print where it is.

    Raises:
        UserError: the directory belongs to another run, or cannot be written.
    """
    c, policy = session.config, session.mitigation.policy
    return open_job_run(
        c,
        session.console,
        content=harm_content(session, models),
        name="-".join([c.harm.name, policy, *(one.name for one in models[:3]), session.opened.keys["name"]]),
        files=HARM_FILES,
        more=True,
    )


def harm_content(session: HarmSession, models: Sequence[AskedModel]) -> dict[str, Any]:
    """Return what the identity of the whole run has beside the configuration: responses, and the judge."""
    responses = digest([session.identity(model) for model in models])
    return {"responses": responses, "judge": judge_content(session.config)}


def do_harm_stages(
    session: HarmSession, models: Sequence[AskedModel], judges: HarmJudges | None
) -> list[tuple[AskedModel, Run, Run]]:
    """Let the models respond and the judges judge, as far as it was asked for.

    Returns:
        Each model with its runs of stage=generate and stage=judge; nothing if their figures were not asked for.
    """
    generated = _generate(session, models)
    if generated is None or judges is None:
        session.console.print(next_stage("judge"), highlight=False)
        return []
    loaded = LoadedJudges(session, judges)
    check_cost(session, list(zip(models, generated, strict=True)), loaded)
    done: list[tuple[AskedModel, Run, Run]] = []
    for model, one in zip(models, generated, strict=True):
        judged = judge_stage(session, model, one, loaded)
        if judged is None:
            return []
        done.append((model, one, judged))
    if session.config.stage == "judge":
        session.console.print(next_stage("aggregate"), highlight=False)
        return []
    return done


def _generate(session: HarmSession, models: Sequence[AskedModel]) -> list[Run] | None:
    """Return the runs of all models' responses. The base is let go at the end, because a judge may need its place."""
    answering = functools.cache(lambda: Answering(session, models))
    found = []
    for model in models:
        run = generate_stage(session, model, answering)
        if run is None:
            return None
        if session.config.stage in ("all", "generate"):
            answering().measure_perplexity(model)
        found.append(run)
    return found


def read_harm_prompts(benchmark: HarmConfig, *, offline: bool) -> list[BenchmarkPrompt]:
    """Return the prompts of a benchmark that are asked, and print which files they come from."""
    return read_benchmark(
        benchmark.name,
        benchmark.path,
        phrases=benchmark.phrases,
        templates=benchmark.templates,
        offline=offline,
        limit=benchmark.limit,
        seed=benchmark.seed,
        log=print_line,
    )


def harm_models(config: EvaluateConfig, adapters: Sequence[Adapter], target: Target | None) -> list[AskedModel]:
    """Return the models that are asked: the base, the base in a role, and the adapters, each once."""
    found: dict[tuple[str, str], AskedModel] = {}
    numbers = {id(adapter): number for number, adapter in enumerate(adapters, start=1)}
    for one in models_to_ask(adapters, target, role_of(config, target)):
        goal = None if one.method == BASE_METHOD else one.target
        model = dataclasses.replace(one, target=goal, number=numbers.get(id(one.adapter), 0))
        found.setdefault((one.name, one.key), model)
    return list(found.values())


def check_prompts(session: HarmSession, models: Sequence[AskedModel]) -> None:
    """Raise UserError for the first prompt that does not fit into the context with what is put around it."""
    for preamble in dict.fromkeys(model.preamble for model in models):
        model = next(one for one in models if one.preamble == preamble)
        requests = [Request(one.tokens) for one in session.requests(model)]
        places = [f"the prompt {prompt.id} of {session.config.harm.name}" for prompt in session.covered_prompts]
        check_requests(requests, session.sampling, session.opened.context, places)
