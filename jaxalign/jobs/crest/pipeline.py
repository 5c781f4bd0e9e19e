"""The crest job from its configuration to its report.

Each stage is a run of its own, named by what decides its numbers, so stages are shared between runs that differ in what
comes later, and every one resumes by itself.
"""

import dataclasses
import json
from collections.abc import Sequence
from typing import Any

import jax.numpy as jnp
from rich.console import Console

from jaxalign.config.crest import CrestConfig
from jaxalign.config.identity import plain
from jaxalign.data.datasets.questions import Question, Questions
from jaxalign.data.encoding import Encoder
from jaxalign.inference.base_model import BaseModel
from jaxalign.jobs.crest.dpo import learn_rounds, pairs_of, responses_of
from jaxalign.jobs.crest.evaluate import RATIONALES, Judge, read_rationales, tokens_read
from jaxalign.jobs.crest.identity import Identity
from jaxalign.jobs.crest.inputs import check_lengths, check_method, read_questions, reads_rationales, stages_of
from jaxalign.jobs.crest.learner import Learner, Point
from jaxalign.jobs.crest.preferences import PAIRS, read_pairs, write_pairs
from jaxalign.jobs.crest.rationales import read_samples, sample, sampled
from jaxalign.jobs.crest.seed import learn_seed
from jaxalign.jobs.crest.sft import fine_tune, kept_examples, label_examples
from jaxalign.jobs.crest.test import examine
from jaxalign.parallel.compilation import Programs, use_compilation_cache
from jaxalign.pretrained.sources import cache_folder, open_model, prefetch, source_of
from jaxalign.reasoning.filtering import count_rationales
from jaxalign.reasoning.wording import Wording, make_wording
from jaxalign.runs.directory import Run, open_run
from jaxalign.runs.progress import compilations
from jaxalign.runs.records import append_record, read_records, write_atomic
from jaxalign.runs.stages import Stages, check_input


def crest(config: CrestConfig) -> None:
    """Run the crest job as configured: all stages, or one of them.

    Raises:
        UserError: anything in the input that cannot be used, before the sampling; a stage whose input is missing;
            no rationale, or no pair, to learn from.
    """
    console = Console()
    if config.compare:
        from jaxalign.reasoning.comparison import compare

        compare(console, config.compare)
        return
    wording = make_wording(config.reasoning, config.dataset.reply, config.dataset.examples)
    questions = read_questions(config, wording)
    source = source_of(dataclasses.asdict(config.model))
    if config.prefetch:
        console.print(prefetch(source, offline=config.offline), highlight=False, soft_wrap=True)
        return
    check_method(config, questions)
    stages = stages_of(config, questions)
    check_input(config, stages)
    use_compilation_cache(cache_folder() / "xla")
    files = open_model(source, offline=config.offline, name=config.model.name)
    encoder = Encoder(files.tokenizer, config.model.prompt_format, config.model.system)
    check_lengths(config, questions, encoder, wording, files.architecture.context)
    dtype = jnp.dtype(config.precision)
    model = files.load(dtype)
    programs = Programs(compilations(console))
    job = Job(config, BaseModel(model, dtype, programs), encoder, wording, questions, console)
    for note in questions.notes:
        console.print(f"{questions.name}: {note}", highlight=False, soft_wrap=True)
    run = job.open()
    console.print(f"run directory: {run.path}", soft_wrap=True)
    with run.locked():
        job.go()
    if (
        config.stage not in ("all", "test") and config.crest.iterations < 2
    ):  # with more, `Stages.do` knows which is next
        following = stages[stages.index(config.stage) + 1]
        console.print(f"next: the same command with stage={following}", highlight=False)
    if run.finished:
        from jaxalign.reasoning.report import print_report

        print_report(console, run)


@dataclasses.dataclass
class Job:
    """What the stages share."""

    config: CrestConfig
    base: BaseModel
    encoder: Encoder
    wording: Wording
    questions: Questions
    console: Console

    def __post_init__(self):
        self.learner = Learner(self.config, self.base, self.encoder, self.wording, self.console)
        self.by_id = {question.id: question for question in self.questions.train}
        self.identity = Identity(self.config, self.base.model.signature, self.wording, self.questions)
        self.stages = Stages(self.config, self.base.programs, self.console)

    def open(self) -> Run:
        """Open the run's own directory. To do a stage anew is to do the results anew."""
        c = self.config
        name = "-".join(["crest", c.dataset.name, c.model.name, f"seed{c.training.seed}"])
        self.run = open_run(
            self.identity.whole(), plain(c), dir=c.run.dir, root=c.run.root, name=name, overwrite=c.run.overwrite
        )
        return self.run

    def go(self) -> None:
        """Do what is asked for, in order; what is finished is read, not done anew.

        A stage returns None where what was asked for ends before it. With several iterations a stage's name means the
        first that is not done, so that rationales, evaluate, sft in turn go through all of them.
        """
        c = self.config
        if self.run.finished and c.stage in ("all", "test"):
            return
        start = Point("base")
        points = [start]
        if self.questions.seed:
            start = self.seed()
            if start is None or c.stage == "seed":
                return
            points.append(start)
        learnt, evaluated = start, None
        for number in range(1, c.crest.iterations + 1):
            suffix = "" if number == 1 else f"-{number}"
            last = number == c.crest.iterations
            if reads_rationales(c):
                drawn = self.rationales(f"rationales{suffix}", learnt)
                if drawn is None or (last and c.stage == "rationales"):
                    return
                evaluated = self.evaluate(f"evaluate{suffix}", drawn, learnt)
                if evaluated is None or (last and c.stage == "evaluate"):
                    return
            if c.sft.epochs:
                learnt = self.sft(f"sft{suffix}", evaluated, start)
                if learnt is None or (last and c.stage == "sft"):
                    return
                points.append(learnt)
        if evaluated is not None and c.dpo.rounds:
            pairs = self.preferences(evaluated)
            if pairs is None or c.stage == "preferences":
                return
            rounds = self.dpo(evaluated, pairs, learnt)
            if rounds is None or c.stage == "dpo":
                return
            points += rounds
        self.test(points, start, evaluated)

    # The stages

    def seed(self) -> Point | None:
        """Fine-tune a starting adapter on solved questions."""
        seed = self.config.seed

        def work(run: Run) -> dict[str, Any]:
            return learn_seed(
                self.learner,
                run,
                self.questions.seed,
                epochs=seed.epochs,
                batch_size=seed.batch_size,
                learning_rate=seed.learning_rate,
            )

        run = self.stages.do("seed", self.identity.seed(), work)
        return run and self.learner.point("seed", run.adapter)

    def rationales(self, name: str, by: Point) -> Run | None:
        """Sample rationales for the training questions, by the model with an adapter."""
        return self.stages.do(
            name, self.identity.rationales(by), lambda run: sampled(self._sample(run, by, self.questions.train))
        )

    def _sample(self, run: Run, by: Point, questions: Sequence[Question], **options: Any) -> list[list[dict[str, Any]]]:
        c = self.config
        return sample(
            self.learner, run, by, questions, c.crest.samples, c.sampling, few_shot=c.crest.few_shot, **options
        )

    def evaluate(self, name: str, drawn: Run, by: Point) -> Run | None:
        """Read every rationale's answer and follow-ups, by the model that sampled them."""
        c = self.config

        def work(run: Run) -> dict[str, Any]:
            reader = Judge(self.learner, by, c.crest, c.released, c.sampling.rows)
            train = self.questions.train
            records = read_samples(
                self.learner, drawn, by, train, c.crest.samples, c.sampling, few_shot=c.crest.few_shot
            )
            reader.read_all(run, train, [[record["text"] for record in mine] for mine in records])
            hinted = {}
            if c.crest.hint:
                found = read_rationales(run, train)
                missing = [question for question in train if not any(one.right for one in found[question.id])]
                given = self._sample(run, by, missing, hint=True, what="hinted rationales")
                hinted = reader.add_hinted(run, missing, given)
            found = read_rationales(run, train)
            options = {question.id: len(question.options) for question in train}
            tokens = sum(tokens_read(self.learner, question, found[question.id]) for question in train)
            return {**count_rationales(found, options), **hinted, "tokens": tokens}

        return self.stages.do(name, self.identity.evaluate(drawn, by), work)

    def sft(self, name: str, evaluated: Run | None, start: Point) -> Point | None:
        """Fine-tune on what is kept; the epoch that is best on validation counts."""
        c = self.config
        q = self.questions

        def work(run: Run) -> dict[str, Any]:
            if evaluated is not None and c.sft.rationale:
                examples = kept_examples(
                    self.learner,
                    self.by_id,
                    read_rationales(evaluated, q.train),
                    tolerance=c.crest.tolerance,
                    threshold=c.released.threshold,
                    end=not c.released.no_end_token,
                )
            else:
                examples = label_examples(self.learner, q.train)
            first = start.weights if c.crest.continue_adapter and start.weights is not None else self.learner.fresh()
            return fine_tune(self.learner, run, name, examples, first, q.validation, c.sft)

        run = self.stages.do(name, self.identity.sft(evaluated, start), work)
        return run and self.learner.point(name, run.adapter)

    def preferences(self, evaluated: Run) -> Run | None:
        """Draw every round's pairs."""
        c = self.config

        def work(run: Run) -> dict[str, Any]:
            return write_pairs(
                run,
                self.console,
                self.wording,
                self.by_id,
                read_rationales(evaluated, self.questions.train),
                rounds=c.dpo.rounds,
                count=c.dpo.steps * c.dpo.batch_size,
                mixing=c.crest.mixing,
                resample=c.dpo.resample,
                seed=c.training.seed,
            )

        return self.stages.do("preferences", self.identity.preferences(evaluated), work)

    def dpo(self, evaluated: Run, drawn: Run, start: Point) -> list[Point] | None:
        """Learn the preferences in rounds, each measured from the adapter that the round before ended with."""
        c = self.config

        def work(run: Run) -> dict[str, Any]:
            data, place = responses_of(
                self.learner,
                self.by_id,
                read_rationales(evaluated, self.questions.train),
                without_question=c.released.prompt_without_question,
            )
            rounds = [pairs_of(choices, place) for choices in read_pairs(drawn, c.dpo.rounds)]
            first = start if start.weights is not None else self.learner.named("new adapter", self.learner.fresh())
            return learn_rounds(self.learner, run, first, data, rounds, self.questions.validation, c.dpo)

        run = self.stages.do("dpo", self.identity.dpo(evaluated, drawn, start), work)
        if run is None:
            return None
        numbers = range(1, c.dpo.rounds + 1)
        return [self.learner.point(f"round {number}", run.path / "rounds" / str(number)) for number in numbers]

    def test(self, points: Sequence[Point], judge: Point, evaluated: Run | None) -> None:
        """Ask every model on the way, and write what a person would want to read."""
        from jaxalign.reasoning.report import write_report

        run = self.run
        found = {name: stage for name, stage in self.stages.found.items() if stage.finished}
        stages = {
            name: {"path": str(stage.path), **json.loads(stage.summary.read_text())} for name, stage in found.items()
        }
        best = stages.get("dpo", {}).get("best_round")
        reported = [p for p in points if not p.name.startswith("round") or p.name == f"round {best}"]
        with self.stages.timed(run) as took:
            # What sft and dpo asked on the way is not asked again.
            before = {
                record["key"]: record
                for name, stage in found.items()
                if name.partition("-")[0] in ("sft", "dpo")
                for record in read_records(stage.generations)
            }
            known = {record["key"] for record in read_records(run.generations)}
            append_record(run.generations, *(record for key, record in before.items() if key not in known))
            models = examine(self.learner, run, points, reported, self.questions, judge)
        tokens = sum(record["tokens"] for record in read_records(run.generations) if record["key"] not in before)
        stages["test"] = {"path": str(run.path), "tokens": tokens, **took}
        final = next((p for p in reversed(reported) if p.weights is not None), None)
        for name, source in ((RATIONALES, evaluated), (PAIRS, self.stages.found.get("preferences"))):
            if source is not None and (source.path / name).exists():
                write_atomic(run.path / name, (source.path / name).read_bytes())
        summary = {
            "dataset": self.questions.name,
            "questions": {part: len(getattr(self.questions, part)) for part in ("train", "validation", "test")},
            "notes": list(self.questions.notes),
            "model": {"name": self.base.model.name, "identity": self.base.model.identity},
            "asked": self.identity.asked(),
            "judge": judge.name,
            "judge_identity": judge.identity,
            "models": models,
            "stages": stages,
            "compilation_seconds": sum(stage["compilation_seconds"] for stage in stages.values()),
            "final": None if final is None else final.name,
        }
        if final is not None:
            self.learner.write(run.adapter, final.weights, summary)
        rationales = {} if evaluated is None else read_rationales(evaluated, self.questions.train)
        write_report(run, summary, rationales, self.by_id)
        run.finish(summary)
