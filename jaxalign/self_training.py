"""The crest job from its configuration to its report.

Each stage is a run of its own, named by what decides its numbers, so stages are shared between runs that differ in what
comes later, and every one resumes by itself.
"""

import dataclasses
import glob
import hashlib
import json
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
from rich.console import Console

from jaxalign.config import CrestConfig, plain
from jaxalign.data.datasets.puzzles import make_puzzles
from jaxalign.data.datasets.questions import Question, Questions, load_questions
from jaxalign.data.encoding import Encoded, Encoder
from jaxalign.errors import UserError
from jaxalign.inference.base import Base
from jaxalign.inference.generations import Asked, generate
from jaxalign.inference.reference import read_reference
from jaxalign.inference.sampler import Sampling
from jaxalign.learner import Learner, Point
from jaxalign.models.lora import Adapter
from jaxalign.models.sources import cache_folder, fetch, open_model, source_of
from jaxalign.progress import Progress
from jaxalign.reasoning import released, testing
from jaxalign.reasoning.followups import read_followups
from jaxalign.reasoning.preferences import Choice, draw, pools
from jaxalign.reasoning.rationales import Rationale, distinct, read_answers, relabel
from jaxalign.reasoning.selection import consistency, counts, passes
from jaxalign.reasoning.wording import Wording, make_wording
from jaxalign.runs import Run, append_record, open_run, read_records, write_atomic
from jaxalign.training.preference import Pair, PreferenceStage, Responses
from jaxalign.training.programs import Programs, use_compilation_cache
from jaxalign.training.supervised import StageData

STAGES = ("seed", "rationales", "evaluate", "sft", "preferences", "dpo", "test")
RATIONALES = "rationales.jsonl"
PAIRS = "pairs.jsonl"

AT_A_TIME = 32
"""Questions whose rationales are read before they are written down."""


def crest(config: CrestConfig) -> None:
    """Run the crest job as configured: all stages, or one of them.

    Raises:
        UserError: anything in the input that cannot be used, before the sampling; a stage whose input is missing;
            no rationale, or no pair, to learn from.
    """
    console = Console()
    if config.compare:
        from jaxalign.analysis.crest_report import compare

        compare(console, find_finished(config.compare))
        return
    wording = make_wording(config.reasoning, config.dataset.reply, config.dataset.examples)
    questions = read_questions(config, wording)
    source = source_of(dataclasses.asdict(config.model))
    if config.prefetch:
        path = fetch(source, offline=config.offline)
        what = "nothing but the program" if source.source == "random" else str(path)
        console.print(f"all that this command needs is here: {what}", highlight=False, soft_wrap=True)
        return
    check_method(config, questions)
    use_compilation_cache(cache_folder() / "xla")
    files = open_model(source, offline=config.offline, name=config.model.name)
    encoder = Encoder(files.tokenizer, config.model.prompt_format, config.model.system)
    check_lengths(config, questions, encoder, wording, files.architecture.context)
    dtype = jnp.bfloat16 if config.precision == "bfloat16" else jnp.float32
    model = files.load(dtype)
    programs = Programs(lambda name, seconds: console.print(f"compiled {name} in {seconds:.1f} s", style="dim"))
    job = Job(config, Base(model, dtype, programs), encoder, wording, questions, console)
    for note in questions.notes:
        console.print(f"{questions.name}: {note}", highlight=False, soft_wrap=True)
    run = job.open()
    console.print(f"run directory: {run.path}", soft_wrap=True)
    with run.locked():
        job.go()
    if run.finished:
        from jaxalign.analysis.crest_report import report

        report(console, run)


def find_finished(names: Sequence[str]) -> list[Path]:
    """Return the finished runs that names (folders, or patterns of them) lead to; UserError where there is none."""
    paths = []
    for name in names:
        found = sorted(glob.glob(name)) if glob.has_magic(name) else [name]
        finished = [Path(one) for one in found if (Path(one) / "summary.json").is_file()]
        finished = [one for one in finished if "models" in json.loads((one / "summary.json").read_text())]
        if not finished:
            raise UserError(f"compare={name} finds no finished run of jaxalign.crest")
        paths += finished
    return list(dict.fromkeys(paths))


def read_questions(config: CrestConfig, wording: Wording) -> Questions:
    """Read or make the questions."""
    d = config.dataset
    if d.name == "puzzles":
        sizes = {name: getattr(d, name) or 1 for name in ("train", "validation", "test")}
        made = make_puzzles(**sizes, solved=d.solved, links=d.links, turned=d.turned, seed=config.training.seed)
        cut = {name: getattr(made, name)[: d.limit] for name in sizes}
        return dataclasses.replace(made, **cut)
    exclude = () if config.released.examples_in_train else [shot.question.id for shot in wording.shots]
    return load_questions(
        d.name,
        d.path,
        seed=config.training.seed,
        limit=d.limit,
        exclude=exclude,
        skip=d.skip,
        offline=config.offline,
    )


def check_method(config: CrestConfig, questions: Questions) -> None:
    """Raise UserError for settings that do not go with the questions."""
    most = max(len(question.options) for question in questions.train)
    t = config.crest.tolerance
    if t is not None and t > most:
        raise UserError(
            f"crest.tolerance={t} is above the {most} options that a question has: give 0 to {most}, or null for all"
        )
    if (config.crest.few_shot or config.test.few_shot) and not config.dataset.examples:
        raise UserError(
            f"dataset={config.dataset.name} has no worked examples: give dataset.examples, or few_shot=false"
        )
    if config.stage == "seed" and not questions.seed:
        raise UserError(f"stage=seed needs solved questions, and dataset={config.dataset.name} has none")


def check_lengths(config: CrestConfig, questions: Questions, encoder: Encoder, wording: Wording, context: int) -> None:
    """Raise UserError for the first question whose prompt does not fit into the context with what is written."""
    preamble = len(encoder.text(wording.preamble())) if config.crest.few_shot or config.test.few_shot else 0
    room = context - max(config.sampling.max_tokens, config.test.max_tokens) - preamble - 16
    for question in (*questions.seed, *questions.train, *questions.validation, *questions.test):
        length = len(encoder.prompt(wording.prompt(question)))
        if length > room:
            raise UserError(
                f"question {question.id} takes {length} tokens, and the context of {context} holds {max(room, 0)} "
                "beside the worked examples and sampling.max_tokens: lower that, or choose another model"
            )


def digest(value: Any) -> str:
    """Return 16 hexadecimal digits of a SHA-256 over JSON."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:16]


@dataclasses.dataclass
class Job:
    """What the stages share."""

    config: CrestConfig
    base: Base
    encoder: Encoder
    wording: Wording
    questions: Questions
    console: Console

    def __post_init__(self):
        self.learner = Learner(self.config, self.base, self.encoder, self.wording, self.console)
        self.by_id = {question.id: question for question in self.questions.train}
        self.options = {
            question.id: len(question.options)
            for part in (self.questions.train, self.questions.validation, self.questions.test)
            for question in part
        }
        self.stages: dict[str, Run] = {}

    # What decides each stage's numbers

    def _common(self) -> dict[str, Any]:
        c = self.config
        shots = [dataclasses.asdict(shot) for shot in self.wording.shots]
        return {
            "model": self.base.model.identity,
            "precision": c.precision,
            "prompt_format": c.model.prompt_format,
            "system": c.model.system,
            "reasoning": {**plain(c)["reasoning"], "reply": c.dataset.reply},
            "examples": digest(shots) if c.crest.few_shot or c.test.few_shot else None,
        }

    def _learning(self) -> dict[str, Any]:
        c = plain(self.config)
        training = {key: c["training"][key] for key in ("seed", "row_length", "max_rows")}
        return {"lora": c["lora"], "optimizer": c["optimizer"], "training": training}

    def identity(self) -> dict[str, Any]:
        """Return what changes the numbers of the whole run."""
        c = plain(self.config)
        kept = {key: c[key] for key in ("crest", "sampling", "seed", "sft", "dpo", "test", "released")}
        kept["sampling"] = {key: value for key, value in c["sampling"].items() if key != "rows"}
        return {**self._common(), **self._learning(), **kept, "questions": digest(_texts(self.questions))}

    # Opening and finding

    def open(self) -> Run:
        """Open the run's own directory."""
        c = self.config
        experiment = "-".join(["crest", c.dataset.name, c.model.name, f"seed{c.training.seed}"])
        overwrite = c.run.overwrite and c.stage in ("all", "test")
        self.run = open_run(
            self.identity(), plain(c), dir=c.run.dir, root=c.run.root, name=experiment, overwrite=overwrite
        )
        return self.run

    def stage(self, name: str, identity: dict[str, Any]) -> Run:
        """Open a stage's directory: beside the run's own where that has a name, else where other runs find it too."""
        c = self.config
        base = name.partition("-")[0]
        path = None if c.run.dir is None else Path(c.run.dir) / "stages" / name
        run = open_run(
            {"stage": base, **identity},
            plain(c),
            dir=path,
            root=Path(c.run.root) / "stages",
            name=f"{base}-{c.dataset.name}-{c.model.name}",
            overwrite=c.run.overwrite and c.stage in ("all", base),
        )
        self.stages[name] = run
        return run

    def wanted(self, name: str, run: Run) -> bool:
        """Return whether a stage is to be done now; raise UserError where a later one needs it and it is not done."""
        base = name.partition("-")[0]
        if run.finished:
            self.console.print(f"{name}: done before, in {run.path}", highlight=False, soft_wrap=True)
            return False
        if self.config.stage in ("all", base):
            return True
        raise UserError(
            f"stage={self.config.stage} needs what stage={base} writes, and {run.path} has not got it: "
            f"run the same command with stage={base} first"
        )

    def go(self) -> None:
        """Do what is asked for, in order; what is finished is read, not done anew."""
        c = self.config
        last = STAGES.index("test" if c.stage == "all" else c.stage)
        if self.run.finished:
            return
        start = Point("base")
        points = [start]
        if self.questions.seed:
            start = self.seed()
            points.append(start)
        learnt, evaluated = start, None
        for number in range(1, c.crest.iterations + 1):
            suffix = "" if number == 1 else f"-{number}"
            if last < STAGES.index("rationales"):
                return
            sampled = self.rationales(f"rationales{suffix}", learnt)
            if last < STAGES.index("evaluate"):
                continue
            evaluated = self.evaluate(f"evaluate{suffix}", sampled, learnt if c.crest.iterations > 1 else start, learnt)
            if last < STAGES.index("sft"):
                continue
            if c.sft.epochs:
                learnt = self.sft(f"sft{suffix}", evaluated, start)
                points.append(learnt)
        if evaluated is not None and c.dpo.rounds:
            if last < STAGES.index("preferences"):
                return
            drawn = self.preferences(evaluated)
            if last < STAGES.index("dpo"):
                return
            points += self.dpo(evaluated, drawn, learnt)
        if last == STAGES.index("test"):
            self.test(points, start, evaluated)

    # The stages

    def seed(self) -> Point:
        """Fine-tune a starting adapter on solved questions, and on follow-up questions about them."""
        c = self.config
        identity = {
            **self._common(),
            **self._learning(),
            "seed": plain(c)["seed"],
            "questions": digest([_text(question) for question in self.questions.seed]),
        }
        run = self.stage("seed", identity)
        if self.wanted("seed", run):
            with run.locked(), self.learner.timed(run) as done:
                prompts, responses = [], []
                for number, question in enumerate(self.questions.seed):
                    prompts.append(self.encoder.prompt(self.wording.prompt(question)))
                    responses.append(self.learner.response(question, question.solution, question.gold))
                    # The right option and one wrong one, in turn: as many affirmations as denials.
                    wrong = [option for option in range(len(question.options)) if option != question.gold]
                    for option in (question.gold, wrong[number % len(wrong)]):
                        prompts.append(self.encoder.prompt(self.wording.ask(question, option)))
                        verdict = self.wording.affirm if option == question.gold else self.wording.deny
                        responses.append(self.learner.closed(question, question.solution, option, verdict))
                data = StageData("seed", _encoded(prompts, responses), _encoded([], []))
                settings = self.learner.settings(
                    epochs=c.seed.epochs, batch_size=c.seed.batch_size, learning_rate=c.seed.learning_rate
                )
                adapter, summary = self.learner.fit(run, data, settings, self.learner.fresh(), [])
                self.learner.write(run.adapter, adapter)
                done |= {"training": [summary], "tokens": summary["tokens"]}
        return self.learner.point("seed", run.adapter)

    def rationales(self, name: str, by: Point) -> Run:
        """Sample rationales for the training questions, by the model with an adapter."""
        c = self.config
        sampling = {key: value for key, value in plain(c)["sampling"].items() if key != "rows"}
        identity = {
            **self._common(),
            "adapter": by.identity,
            "sampling": sampling,
            "samples": c.crest.samples,
            "few_shot": c.crest.few_shot,
            "questions": digest([_text(question) for question in self.questions.train]),
        }
        run = self.stage(name, identity)
        if self.wanted(name, run):
            with run.locked(), self.learner.timed(run) as done:
                records = self.sample(run, by, self.questions.train, c.crest.samples, hint=False, what="rationales")
                everyone = [record for mine in records for record in mine]
                done |= {
                    "sampled": len(everyone),
                    "tokens": sum(record["tokens"] for record in everyone),
                    "ends": {end: sum(r["end"] == end for r in everyone) for end in ("stop", "eos", "length")},
                }
        return run

    def sample(
        self, run: Run, by: Point, questions: Sequence[Question], samples: int, *, hint: bool, what: str
    ) -> list[list[dict[str, Any]]]:
        """Draw what the run does not hold yet, and return the records of each question."""
        c = self.config
        encoder = self.learner.few if c.crest.few_shot else self.encoder
        asked = [
            Asked(question.text, encoder.prompt(self.wording.prompt(question, hint=hint)), 0, {"id": question.id})
            for question in questions
        ]
        s = c.sampling
        how = Sampling(s.temperature, s.top_k, s.top_p, s.max_tokens, s.stop, s.seed)
        sampler = self.base.sampler(self.learner.stacked([by]), s.rows)
        with Progress(self.console) as progress:
            return generate(
                sampler,
                asked,
                samples,
                how,
                run.generations,
                model=f"{self.base.model.identity}-{c.precision}",
                adapters=[by.identity],
                progress=progress.samples(what),
            )

    def evaluate(self, name: str, sampled: Run, judge: Point, by: Point) -> Run:
        """Read every rationale's answer and follow-ups, by the model that is the judge."""
        c = self.config
        identity = {
            "input": digest(_identity(sampled)),
            "judge": judge.identity,
            "deduplicate": c.crest.deduplicate,
            "label": c.crest.label,
            "hint": c.crest.hint,
            "released": [c.released.letters_in_words, c.released.followups_by_not],
        }
        run = self.stage(name, identity)
        if self.wanted(name, run):
            with run.locked(), self.learner.timed(run) as done:
                texts: dict[str, list[str]] = {}
                for record in sorted(read_records(sampled.generations), key=lambda one: one["index"]):
                    texts.setdefault(record["id"], []).append(record["text"])
                path = run.path / RATIONALES
                known = {record["question"] for record in _whole(path, c.crest.samples)}
                waiting = [question for question in self.questions.train if question.id not in known]
                tokens = 0
                with Progress(self.console) as progress:
                    count = progress.samples("readings", "question")
                    count(0, len(waiting), 0.0)
                    since = time.perf_counter()
                    for first in range(0, len(waiting), AT_A_TIME):
                        part = waiting[first : first + AT_A_TIME]
                        given = [distinct(question, texts[question.id], c.crest.deduplicate) for question in part]
                        read = self.read(part, given, judge)
                        letters = [
                            (one, question.letters) for question, mine in zip(part, read, strict=True) for one in mine
                        ]
                        append_record(path, *(one.record(names) for one, names in letters))
                        tokens += sum(len(self.encoder.text(one.text)) for one, _ in letters)
                        speed = tokens / (time.perf_counter() - since)
                        count(min(first + AT_A_TIME, len(waiting)), len(waiting), speed)
                if c.crest.hint:
                    self.hinted(run, by, judge)
                found = self.read_rationales(run)
                done |= {**counts(found, self.options), "tokens": tokens}
        return run

    def read(self, questions: Sequence[Question], given: list[list[Rationale]], judge: Point) -> list[list[Rationale]]:
        """Return the rationales with answers and follow-ups, in this program's way or as released."""
        c = self.config
        scorer = self.base.scorer(judge.weights, self.learner.scale)
        read = read_answers(scorer, questions, given, self.encoder, self.wording)
        model = None
        if c.released.letters_in_words or c.released.followups_by_not:
            model = self.base.sampler(self.learner.stacked([judge]), c.sampling.rows)
        if c.released.letters_in_words and model is not None:
            read = released.read_answers(model, questions, read, self.encoder, self.wording)
        labels: list[int | None] = [question.gold for question in questions]
        if c.crest.label == "majority":
            judged = [relabel(mine) for mine in read]
            read, labels = [mine for mine, _ in judged], [label for _, label in judged]
        if c.released.followups_by_not and model is not None:
            model = self.base.sampler(self.learner.stacked([judge]), c.sampling.rows)
            return released.read_followups(model, questions, read, labels, self.encoder, self.wording)
        scorer = self.base.scorer(judge.weights, self.learner.scale)
        return read_followups(scorer, questions, read, labels, self.encoder, self.wording)

    def hinted(self, run: Run, by: Point, judge: Point) -> None:
        """Add, to questions without a right rationale, those sampled with the answer given that lead to it (STaR)."""
        found = self.read_rationales(run)
        missing = [question for question in self.questions.train if not any(one.right for one in found[question.id])]
        records = self.sample(run, by, missing, self.config.crest.samples, hint=True, what="hinted rationales")
        given = [
            distinct(question, [record["text"] for record in mine], True)
            for question, mine in zip(missing, records, strict=True)
        ]
        for question, mine in zip(missing, self.read(missing, given, judge), strict=True):
            # Copies 0: it stands for no sample of the plain question.
            kept = [dataclasses.replace(one, copies=0) for one in mine if one.right]
            append_record(run.path / RATIONALES, *(one.record(question.letters) for one in kept))

    def read_rationales(self, run: Run) -> dict[str, list[Rationale]]:
        """Return the rationales of an evaluated run by question."""
        found: dict[str, list[Rationale]] = {question.id: [] for question in self.questions.train}
        for record in read_records(run.path / RATIONALES):
            letters = self.by_id[record["question"]].letters
            found[record["question"]].append(Rationale.of_record(record, letters))
        return found

    def sft(self, name: str, evaluated: Run, start: Point) -> Point:
        """Fine-tune on what is kept; the epoch that is best on validation counts."""
        c = self.config
        test = {**plain(c)["test"], "sampling_seed": c.sampling.seed}
        identity = {
            **self._common(),
            **self._learning(),
            "input": digest(_identity(evaluated)) if c.sft.rationale else digest(_texts(self.questions)),
            "start": start.identity if c.crest.continue_adapter else "",
            "tolerance": c.crest.tolerance,
            "sft": plain(c)["sft"],
            "test": test,
            "released": [c.released.threshold, c.released.no_end_token],
            "validation": digest([_text(question) for question in self.questions.validation]),
        }
        run = self.stage(name, identity)
        if self.wanted(name, run):
            with run.locked(), self.learner.timed(run) as done:
                prompts, responses = self.kept(evaluated)
                data = StageData("sft", _encoded(prompts, responses), _encoded([], []))
                settings = self.learner.settings(
                    epochs=float(c.sft.epochs),
                    batch_size=c.sft.batch_size,
                    learning_rate=c.sft.learning_rate,
                    schedule=c.sft.schedule,
                    warmup_steps=c.sft.warmup_steps,
                    max_steps=c.sft.max_steps,
                )
                first = (
                    start.weights if c.crest.continue_adapter and start.weights is not None else self.learner.fresh()
                )
                epochs = run.path / "epochs"

                def keep(epoch: int, adapter: Adapter) -> None:
                    self.learner.write(epochs / str(epoch + 1), adapter)

                _, summary = self.learner.fit(run, data, settings, first, [], on_epoch=keep)
                folders = sorted(epochs.iterdir(), key=lambda folder: int(folder.name))
                points = [self.learner.point(f"{name}, epoch {folder.name}", folder) for folder in folders]
                accuracy = [accuracy_of(tested) for tested in self.learner.ask(run, points, self.questions.validation)]
                best = int(np.argmax(accuracy))
                self.learner.write(run.adapter, points[best].weights)
                done |= {
                    "kept": len(prompts),
                    "training": [summary],
                    "tokens": summary["tokens"],
                    "validation": accuracy,
                    "best_epoch": best + 1,
                }
        return self.learner.point(name, run.adapter)

    def kept(self, evaluated: Run) -> tuple[list[np.ndarray], list[np.ndarray]]:
        """Return prompts and responses to fine-tune on; raises UserError where there is none."""
        c = self.config
        if not c.sft.rationale:
            everyone = self.questions.train
            prompts = [self.encoder.prompt(self.wording.prompt(question)) for question in everyone]
            return prompts, [self.learner.response(question, "", question.gold) for question in everyone]
        found = self.read_rationales(evaluated)
        right = sum(bool(one.right) for mine in found.values() for one in mine)
        prompts, responses = [], []
        for id, mine in found.items():
            question = self.by_id[id]
            for one in mine:
                if passes(one, len(question.options), c.crest.tolerance, c.released.threshold):
                    assert one.prediction is not None
                    prompts.append(self.encoder.prompt(self.wording.prompt(question)))
                    end = not c.released.no_end_token
                    responses.append(self.learner.response(question, one.text, one.prediction, end=end))
        if not right:
            raise UserError(
                "no rationale leads to the right answer (z = 1): sample more (crest.samples), choose a stronger model, "
                "or give it worked examples (crest.few_shot=true)"
            )
        if not prompts:
            raise UserError(
                f"of {right} rationales with z = 1 none is kept: raise crest.tolerance (now {c.crest.tolerance}), or "
                "give crest.tolerance=null"
            )
        return prompts, responses

    def preferences(self, evaluated: Run) -> Run:
        """Draw every round's pairs."""
        c = self.config
        identity = {
            "input": digest(_identity(evaluated)),
            "mixing": c.crest.mixing,
            "pairs": c.dpo.steps * c.dpo.batch_size,
            "rounds": c.dpo.rounds,
            "resample": c.dpo.resample,
            "seed": c.training.seed,
        }
        run = self.stage("preferences", identity)
        if self.wanted("preferences", run):
            with run.locked(), self.learner.timed(run) as done:
                found = self.read_rationales(evaluated)
                every = pools(found)
                sizes = {kind: every.size(kind) for kind in every.pairs}
                lines, reports = [], []
                for round in range(1, c.dpo.rounds + 1):
                    number = round if c.dpo.resample else 1
                    drawn, report = draw(every, c.dpo.steps * c.dpo.batch_size, c.crest.mixing, c.training.seed, number)
                    reports.append(report)
                    lines += [{"round": round, **dataclasses.asdict(one)} for one in drawn]
                if not lines:
                    raise UserError(
                        "there is no pair to learn from: every question's rationales are all right or all wrong, and "
                        "their follow-ups agree; sample more (crest.samples), or give harder or easier questions"
                    )
                for kind, one in reports[0].items():
                    if one["drawn"] < one["wanted"]:
                        short = f"{one['there']} pairs of kind {kind}, and {one['wanted']} were wanted"
                        self.console.print(f"preferences: there are only {short}", highlight=False)
                write_atomic(run.path / PAIRS, "".join(json.dumps(line) + "\n" for line in lines))
                distinct_responses = {(line["question"], line[side]) for line in lines for side in ("better", "other")}
                done |= {"there": sizes, "rounds": reports, "distinct_responses": len(distinct_responses)}
        return run

    def dpo(self, evaluated: Run, drawn: Run, start: Point) -> list[Point]:
        """Learn the preferences in rounds, each measured from the adapter that the round before ended with."""
        c = self.config
        identity = {
            **self._common(),
            **self._learning(),
            "input": [digest(_identity(evaluated)), digest(_identity(drawn)), start.identity],
            "dpo": plain(c)["dpo"],
            "test": {**plain(c)["test"], "sampling_seed": c.sampling.seed},
            "released": c.released.prompt_without_question,
            "validation": digest([_text(question) for question in self.questions.validation]),
        }
        run = self.stage("dpo", identity)
        names = [f"round {number}" for number in range(1, c.dpo.rounds + 1)]
        folders = [run.path / "rounds" / str(number) for number in range(1, c.dpo.rounds + 1)]
        if self.wanted("dpo", run):
            with run.locked(), self.learner.timed(run) as done:
                data, place = self.responses(evaluated)
                adapter = self.learner.fresh() if start.weights is None else start.weights
                summaries: list[dict[str, Any]] = []
                accuracy: list[float] = []
                for number, (name, folder) in enumerate(zip(names, folders, strict=True), start=1):
                    choices = [Choice(**record) for record in _round(drawn, number)]
                    pairs = [Pair(place[one.question, one.better], place[one.question, one.other]) for one in choices]
                    used = sorted({response for pair in pairs for response in pair})
                    since = time.perf_counter()
                    with Progress(self.console) as progress:
                        reference = read_reference(
                            self.base.scorer(adapter, self.learner.scale),
                            data,
                            used,
                            run.path / "reference.jsonl",
                            model=f"{self.base.model.identity}-{c.precision}",
                            progress=progress.counter(f"{name}: reference"),
                        )
                    seconds = time.perf_counter() - since
                    stage = PreferenceStage(
                        f"round-{number}",
                        dataclasses.replace(data, reference=reference),
                        pairs,
                        objective=c.dpo.loss,
                        grouped=c.dpo.batching == "grouped",
                    )
                    settings = self.learner.settings(
                        epochs=1.0,
                        batch_size=c.dpo.batch_size,
                        learning_rate=c.dpo.learning_rate,
                        schedule=c.dpo.schedule,
                        warmup_steps=c.dpo.warmup_steps,
                        dropout=0.0,
                    )
                    adapter, summary = self.learner.fit(run, stage, settings, adapter, summaries, prefix=number)
                    summaries.append({**summary, "reference_seconds": seconds})
                    self.learner.write(folder, adapter)
                    (tested,) = self.learner.ask(run, [self.learner.point(name, folder)], self.questions.validation)
                    accuracy.append(accuracy_of(tested))
                    self.console.print(f"{name}: accuracy on validation {accuracy[-1]:.3f}", highlight=False)
                best = int(np.argmax(accuracy))
                self.learner.write(run.adapter, self.learner.point("", folders[best]).weights)
                done |= {
                    "training": summaries,
                    "tokens": sum(one["tokens"] for one in summaries),
                    "validation": accuracy,
                    "best_round": best + 1,
                }
        return [self.learner.point(name, folder) for name, folder in zip(names, folders, strict=True)]

    def responses(self, evaluated: Run) -> tuple[Responses, dict[tuple[str, int], int]]:
        """Return the read rationales as responses with their own answers, and the number of each by question and
        place."""
        prompts, responses, prompt_of, place = [], [], [], {}
        for id, mine in self.read_rationales(evaluated).items():
            question = self.by_id[id]
            asked = question if not self.config.released.prompt_without_question else Question("", "", (), 0)
            prompts.append(self.encoder.prompt(self.wording.prompt(asked)))
            for number, one in enumerate(mine):
                if one.prediction is not None:
                    place[id, number] = len(responses)
                    responses.append(self.learner.response(question, one.text, one.prediction))
                    prompt_of.append(len(prompts) - 1)
        return Responses(prompts, responses, prompt_of, np.zeros(len(responses))), place

    def test(self, points: Sequence[Point], judge: Point, evaluated: Run | None) -> None:
        """Ask every model on the way, and write what a person would want to read."""
        from jaxalign.analysis.crest_report import write_report

        run = self.run
        since = time.perf_counter()
        for stage in self.stages.values():  # what was asked on the way is not asked again
            known = {record["key"] for record in read_records(run.generations)}
            fresh = [r for r in read_records(stage.generations) if r["key"] not in known]
            if fresh:
                append_record(run.generations, *fresh)
        stages = {name: json.loads(stage.summary.read_text()) for name, stage in self.stages.items() if stage.finished}
        models = []
        validation = self.learner.ask(run, points, self.questions.validation)
        rounds = stages.get("dpo", {}).get("best_round")
        reported = [p for p in points if not p.name.startswith("round") or p.name == f"round {rounds}"]
        test = dict(zip([p.name for p in reported], self.learner.ask(run, reported, self.questions.test), strict=True))
        splits = {"validation": dict(zip([p.name for p in points], validation, strict=True)), "test": test}
        judged = {split: self.judge(found, judge) for split, found in splits.items()}
        for point in points:
            entry: dict[str, Any] = {"name": point.name}
            for split, found in splits.items():
                if point.name in found:
                    entry[split] = {**measures(found[point.name]), **judged[split][point.name]}
            models.append(entry)
        stages["test"] = {"seconds": time.perf_counter() - since}
        final = next((p for p in reversed(reported) if p.weights is not None), None)
        if final is not None:
            self.learner.write(run.adapter, final.weights)
        for name, source in ((RATIONALES, evaluated), (PAIRS, self.stages.get("preferences"))):
            if source is not None and (source.path / name).exists():
                write_atomic(run.path / name, (source.path / name).read_bytes())
        summary = {
            "dataset": self.questions.name,
            "questions": {part: len(getattr(self.questions, part)) for part in ("train", "validation", "test")},
            "notes": list(self.questions.notes),
            "model": {"name": self.base.model.name, "identity": self.base.model.identity},
            "judge": judge.name,
            "models": models,
            "stages": stages,
            "compilation_seconds": self.base.programs.seconds,
            "final": None if final is None else final.name,
        }
        found = {} if evaluated is None else self.read_rationales(evaluated)
        write_report(run, summary, found, self.by_id)
        run.finish(summary)

    def judge(self, found: Mapping[str, Sequence[testing.Tested]], judge: Point) -> dict[str, dict[str, Any]]:
        """Return the consistency of the rationales that models wrote in the test, all judged by the same model."""
        names, questions, given = [], [], []
        for name, tested in found.items():
            for one in tested:
                names.append(name)
                questions.append(one.question)
                read = one.option is not None and bool(one.rationale)
                rationale = Rationale(one.question.id, one.rationale, 1, (), one.option, one.right if read else None)
                given.append([rationale if read else dataclasses.replace(rationale, prediction=None)])
        scorer = self.base.scorer(judge.weights, self.learner.scale)
        labels: list[int | None] = [question.gold for question in questions]
        read = read_followups(scorer, questions, given, labels, self.encoder, self.wording, everyone=True)
        return {
            name: consistency([mine[0] for one, mine in zip(names, read, strict=True) if one == name], self.options)
            for name in found
        }


def measures(tested: Sequence[testing.Tested]) -> dict[str, Any]:
    """Return accuracy over all questions with its interval, and the shares of second readings and of none."""
    from jaxalign.analysis.statistics import bootstrap_interval

    right = [float(one.right) for one in tested]
    return {
        "accuracy": float(np.mean(right)),
        "interval": bootstrap_interval(right),
        "second_reading": float(np.mean([not one.first for one in tested])),
        "never_read": float(np.mean([one.option is None for one in tested])),
        "questions": len(tested),
    }


def accuracy_of(tested: Sequence[testing.Tested]) -> float:
    """Return the share of right answers."""
    return float(np.mean([one.right for one in tested]))


def _text(question: Question) -> list[Any]:
    return [question.id, question.passage, question.text, list(question.options), question.gold, question.solution]


def _texts(questions: Questions) -> list[Any]:
    parts = (questions.seed, questions.train, questions.validation, questions.test)
    return [[_text(question) for question in part] for part in parts]


def _identity(run: Run) -> Any:
    import yaml

    return yaml.safe_load(run.config.read_text())["identity"]


def _encoded(prompts: list[np.ndarray], responses: list[np.ndarray]) -> Encoded:
    return Encoded(prompts, responses, [1.0] * len(prompts), [False] * len(prompts))


def _round(drawn: Run, number: int) -> list[dict[str, Any]]:
    records = [record for record in read_records(drawn.path / PAIRS) if record["round"] == number]
    return [{key: value for key, value in record.items() if key != "round"} for record in records]


def _whole(path: Path, samples: int) -> list[dict[str, Any]]:
    """Return the records of the questions whose rationales are all there; others, torn by a kill, leave the file."""
    records = read_records(path)
    copies: dict[str, int] = {}
    for record in records:
        copies[record["question"]] = copies.get(record["question"], 0) + record["copies"]
    kept = [record for record in records if copies[record["question"]] == samples]
    if len(kept) < len(records):
        write_atomic(path, "".join(json.dumps(record, ensure_ascii=False) + "\n" for record in kept))
    return kept
