"""The crest job, from its configuration to its report: read the input, open the model, then do stage after stage.

Each stage is a run of its own (see `runs.stages`). So runs that differ only in later stages share the earlier ones, and
each stage resumes by itself.
"""

import dataclasses
from collections.abc import Sequence
from functools import partial

from jaxalign.config.crest import STAGES, CrestConfig
from jaxalign.config.identity import as_dict
from jaxalign.errors import UserError
from jaxalign.jobs.crest.compare import compare
from jaxalign.jobs.crest.dpo import dpo_stage
from jaxalign.jobs.crest.evaluate import evaluate_stage
from jaxalign.jobs.crest.grade import base_without_weights, grade_stage
from jaxalign.jobs.crest.inputs import check_lengths, check_method, read_questions, reads_rationales, stages_of
from jaxalign.jobs.crest.preferences import preferences_stage
from jaxalign.jobs.crest.rationales import rationales_stage
from jaxalign.jobs.crest.report import report_crest
from jaxalign.jobs.crest.seed import seed_stage
from jaxalign.jobs.crest.session import CrestSession, clock, unused_examples
from jaxalign.jobs.crest.sft import sft_stage
from jaxalign.jobs.crest.test import CREST_FILES, do_test_stage
from jaxalign.jobs.harm.judges import JudgeModels, OpenedJudge, open_rubrics
from jaxalign.jobs.mirroring import mirror_of
from jaxalign.jobs.precision import settle_precision
from jaxalign.jobs.setup import open_base, open_job_run, working_together
from jaxalign.models.adapter import BASE
from jaxalign.parallel.distributed import by_first, check_alone, is_first, of_first, stopping_together
from jaxalign.reasoning.report import counts_in_words
from jaxalign.reasoning.summary import STAGE_SUMMARY
from jaxalign.reasoning.wording import make_wording
from jaxalign.runs.directory import Run
from jaxalign.runs.progress import plain_console, say
from jaxalign.runs.stages import Stages, missing_stage, next_stage
from jaxalign.safety.judges.rubrics import RATIONALE_RUBRICS


def crest(config: CrestConfig) -> None:
    """Run the crest job as configured: all stages, or one of them. Several processes work on it together.

    Raises:
        UserError: the input cannot be used (raised before the sampling), the input of a stage is missing, there is no
            rationale or no pair to learn from, or a loss is not a number.
    """
    if config.compare or (config.judge is not None and config.judge.name == "rubric_api"):
        check_alone()
    with working_together(config):
        _crest(config)


def _crest(config: CrestConfig) -> None:
    console = plain_console()
    if config.compare:
        compare(console, config.compare)
        return
    wording = make_wording(config.reasoning, config.questions.reply, config.questions.examples)
    questions = read_questions(config, wording)
    config = settle_precision(config, console)
    opened, judge_models = open_base(config, console), JudgeModels(config, console)
    if opened is None:
        open_graders(config, judge_models)
        return
    check_method(config, questions)
    there = stages_of(config, questions)
    check_lengths(config, questions, opened.encoder, wording, opened.context)
    stages = Stages(
        names=STAGES,
        wanted=config.stage,
        config=as_dict(config),
        dir=config.run.dir,
        root=config.run.root,
        label=f"{config.dataset.name}-{config.model.name}",
        overwrite=config.run.overwrite,
        mirror=mirror_of(config),
        say=partial(say, console),
        in_words=counts_in_words,
        expected=STAGE_SUMMARY,
    )
    by_first(lambda: stages.check_input(there))
    base = base_without_weights(opened) if config.stage == "grade" else opened.load()
    stages.clock = lambda: clock(base.programs)
    session = CrestSession(config, base, opened, wording, questions, stages, console)
    for note in questions.notes:
        stages.say(f"{questions.name}: {note}")
    run = open_crest_run(session)
    if config.stage == "grade" and not run.finished:
        raise UserError(missing_stage("grade", "test", run.path))
    graders = open_graders(config, judge_models)
    with of_first(run.locked()), stopping_together():
        do_stages(session, run, graders)
    if config.stage not in ("all", there[-1]) and config.crest.iterations < 2:  # else `Stages.do` prints it
        stages.say(next_stage(there[there.index(config.stage) + 1]))
    if run.finished and is_first():
        report_crest(console, run)


def open_crest_run(session: CrestSession) -> Run:
    """Make or find the directory of the whole run, and print where it is.

    `run.overwrite` deletes the results in it even if only one stage is done anew, because they depend on all stages;
    not with stage=grade, which reads them.

    Raises:
        UserError: the directory belongs to another run, or cannot be written.
    """
    c = session.config
    if c.stage == "grade":
        c = dataclasses.replace(c, run=dataclasses.replace(c.run, overwrite=False))
    return open_job_run(
        c,
        session.console,
        content=session.content(questions=session.questions_hash("solved", "train", "validation", "test")),
        name="-".join(["crest", c.dataset.name, c.model.name, f"seed{c.training.seed}"]),
        files=CREST_FILES,
        without=unused_examples(c.crest.few_shot or c.test.few_shot),
        more=True,
    )


def open_graders(config: CrestConfig, models: JudgeModels) -> list[OpenedJudge]:
    """Check and return the judge of stage=grade, once for each rubric of rationales; none for any other stage."""
    return [] if config.judge is None else open_rubrics(config.judge, RATIONALE_RUBRICS, models)


def do_stages(session: CrestSession, run: Run, graders: Sequence[OpenedJudge]) -> None:
    """Do the stages that were asked for, in order. A finished stage is read and not done again.

    The function of a stage returns None if the command stops before it. With several iterations, `stage=sft` means the
    first sft stage that is not done, and likewise for rationales and evaluate. So one can go through all iterations by
    asking for rationales, evaluate and sft in turn.
    """
    c = session.config
    if run.finished and c.stage in ("all", "test"):
        return
    start, models = BASE, [BASE]
    if session.questions.solved:
        start = seed_stage(session)
        if start is None or c.stage == "seed":
            return
        models.append(start)
    learnt, evaluated = start, None
    for number in range(1, c.crest.iterations + 1):
        suffix = "" if number == 1 else f"-{number}"
        last = number == c.crest.iterations
        if reads_rationales(c):
            drawn = rationales_stage(session, f"rationales{suffix}", learnt)
            if drawn is None or (last and c.stage == "rationales"):
                return
            evaluated = evaluate_stage(session, f"evaluate{suffix}", drawn, learnt)
            if evaluated is None or (last and c.stage == "evaluate"):
                return
        if c.sft.epochs:
            learnt = sft_stage(session, f"sft{suffix}", evaluated, start)
            if learnt is None or (last and c.stage == "sft"):
                return
            models.append(learnt)
    if evaluated is not None and c.dpo.rounds:
        pairs = preferences_stage(session, evaluated)
        if pairs is None or c.stage == "preferences":
            return
        rounds = dpo_stage(session, evaluated, pairs, learnt)
        if rounds is None or c.stage == "dpo":
            return
        models += rounds
    if c.stage == "grade":
        grade_stage(session, run, models, graders, evaluated)
    else:
        do_test_stage(session, run, models, start, evaluated)
