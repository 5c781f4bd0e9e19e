"""stage=evaluate: which answer each rationale leads to, and whether its follow-up questions agree."""

import dataclasses
import json
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from jaxalign.data.datasets.question import Question
from jaxalign.data.packing import Shape
from jaxalign.data.trees import tree_length
from jaxalign.inference.scorer import Scorer
from jaxalign.inference.shapes import SHAPES, keep_shapes, kept_shapes
from jaxalign.jobs.crest.rationales import draw_rationales, read_drawn
from jaxalign.jobs.crest.session import CrestSession, identity_hash
from jaxalign.models.adapter import Adapter
from jaxalign.reasoning import released
from jaxalign.reasoning.filtering import count_rationales
from jaxalign.reasoning.followups import followup_trees, read_followups
from jaxalign.reasoning.rationales import Rationale, answer_tree, distinct, read_answers, relabel
from jaxalign.runs.directory import Run
from jaxalign.runs.progress import Progress
from jaxalign.runs.records import append_record, read_records, write_atomic

RATIONALES = "rationales.jsonl"

FILES = (RATIONALES, SHAPES, "generations.jsonl")
RECORDS = (RATIONALES,)

WITHOUT = (
    *("seed", "sft", "dpo", "test", "lora", "optimizer", "training"),
    *("crest.tolerance", "crest.mixing", "crest.iterations", "crest.continue_adapter"),
    *("released.prompt_without_question", "released.no_end_token", "released.threshold", "released.examples_in_train"),
)
"""Keys that change no number of this stage."""

QUESTIONS_AT_A_TIME = 32
"""Questions whose rationales are read before they are written down."""


def evaluate_stage(session: CrestSession, name: str, drawn: Run, model: Adapter) -> Run | None:
    """Read every rationale's answer and follow-ups by the model that sampled them; None where what was asked for ends
    before it."""
    few_shot = session.config.crest.few_shot
    identity = session.identity(WITHOUT, few_shot=few_shot, input=identity_hash(drawn), judge=model.identity)

    def work(run: Run) -> dict[str, Any]:
        return evaluate_rationales(session, run, drawn, model)

    return session.stages.do(name, identity, work, files=FILES, records=RECORDS)


def evaluate_rationales(session: CrestSession, run: Run, drawn: Run, model: Adapter) -> dict[str, Any]:
    """Read all rationales, and with `crest.hint` those that were sampled with the answer given where none was right;
    return the stage's summary."""
    judge, train = Judge(session, model), session.questions.train
    judge.read_all(run, train, [[record["text"] for record in mine] for mine in read_drawn(session, drawn, model)])
    hinted = {}
    if session.config.crest.hint:
        found = read_rationales(run, train)
        missing = [question for question in train if not any(one.right for one in found[question.id])]
        given = draw_rationales(session, run, model, missing, hint=True, what="hinted rationales")
        hinted = judge.add_hinted(run, missing, given)
    found = read_rationales(run, train)
    options = {question.id: len(question.options) for question in train}
    tokens = sum(tokens_read(session, question, found[question.id]) for question in train)
    return {**count_rationales(found, options), **hinted, "tokens": tokens}


@dataclasses.dataclass(frozen=True)
class Judge:
    """The model that reads rationales, in this program's way or as the released code does."""

    session: CrestSession
    model: Adapter
    shapes: list[Shape] = dataclasses.field(default_factory=list)
    """Of the passes so far: a shape that does again saves a compilation."""

    def read(self, questions: Sequence[Question], given: list[list[Rationale]]) -> list[list[Rationale]]:
        """Return the rationales with answers and follow-ups, in this program's way or as released."""
        session, switches = self.session, self.session.config.released
        encoder, wording = session.encoder, session.wording
        read = read_answers(self._scorer(), questions, given, encoder, wording)
        if switches.letters_in_words:
            read = released.read_answers_in_words(session.sampler(self.model), questions, read, encoder, wording)
        labels: list[int | None] = [question.gold for question in questions]
        if session.config.crest.label == "majority":
            relabelled = [relabel(mine) for mine in read]
            read, labels = [mine for mine, _ in relabelled], [label for _, label in relabelled]
        if switches.followups_by_not:
            sampler = session.sampler(self.model)
            return released.read_followups_by_not(sampler, questions, read, labels, encoder, wording)
        return read_followups(self._scorer(), questions, read, labels, encoder, wording)

    def _scorer(self) -> Scorer:
        return dataclasses.replace(self.session.scorer(self.model), shapes=self.shapes)

    def read_all(self, run: Run, questions: Sequence[Question], texts: Sequence[Sequence[str]]) -> None:
        """Read what rationales.jsonl does not hold yet. Equal texts are read once, also where each is to count.

        Questions are read in parts whose borders never move, so that a resumption packs as an unbroken run does.
        """
        parts = [
            range(first, min(first + QUESTIONS_AT_A_TIME, len(questions)))
            for first in range(0, len(questions), QUESTIONS_AT_A_TIME)
        ]
        done = _whole_parts(run, [[questions[n].id for n in part] for part in parts], self.session.config.crest.samples)
        self.shapes[:] = kept_shapes(run.path / SHAPES, done - 1)
        waiting = sum(len(part) for part in parts[done:])
        read, tokens, since = 0, 0, time.perf_counter()
        with Progress(self.session.console) as progress:
            count = progress.samples("readings", "question")
            count(0, waiting, 0.0)
            for number, part in enumerate(parts[done:], start=done):
                mine = [questions[n] for n in part]
                found = self.read(mine, [distinct(questions[n], texts[n], True) for n in part])
                tokens += sum(tokens_read(self.session, *one) for one in zip(mine, found, strict=True))
                if not self.session.config.crest.deduplicate:
                    found = [_repeated(texts[n], one) for n, one in zip(part, found, strict=True)]
                keep_shapes(run.path / SHAPES, number, self.shapes)
                lines = [one.record(q.letters) for q, these in zip(mine, found, strict=True) for one in these]
                append_record(run.path / RATIONALES, *lines)
                read += len(part)
                count(read, waiting, tokens / (time.perf_counter() - since))

    def add_hinted(
        self, run: Run, questions: Sequence[Question], records: Sequence[Sequence[Mapping[str, Any]]]
    ) -> dict[str, int]:
        """Add of rationales that were sampled with the answer given those that lead to it (STaR); return how many were
        sampled and added, and the tokens of the samples."""
        given = [
            distinct(question, [record["text"] for record in mine], True)
            for question, mine in zip(questions, records, strict=True)
        ]
        kept = []
        for question, mine in zip(questions, self.read(questions, given), strict=True):
            # Copies 0: it stands for no sample of the plain question.
            kept += [dataclasses.replace(one, copies=0).record(question.letters) for one in mine if one.right]
        append_record(run.path / RATIONALES, *kept)
        sampled = [record["tokens"] for mine in records for record in mine]
        return {"hinted": len(sampled), "hinted_kept": len(kept), "hinted_tokens": sum(sampled)}


def read_rationales(run: Run, questions: Sequence[Question]) -> dict[str, list[Rationale]]:
    """Return the rationales of an evaluated run by question."""
    letters = {question.id: question.letters for question in questions}
    found: dict[str, list[Rationale]] = {question.id: [] for question in questions}
    for record in read_records(run.path / RATIONALES):
        found[record["question"]].append(Rationale.of_record(record, letters[record["question"]]))
    return found


def tokens_read(session: CrestSession, question: Question, rationales: Sequence[Rationale]) -> int:
    """Return the tokens of the trees that a question's rationales were read in (what the trees of its follow-ups begin
    with alike is counted for each, though it is computed once)."""
    trees = []
    texts = list({one.text: one for one in rationales if one.text}.values())
    if texts:
        trees.append(answer_tree(question, texts, session.encoder, session.wording)[0])
    judged = [one for one in texts if one.followups]
    if judged:
        trees += followup_trees(question, judged, session.encoder, session.wording)[0]
    return sum(map(tree_length, trees))


def _repeated(texts: Sequence[str], read: Sequence[Rationale]) -> list[Rationale]:
    """Return the reading of every sample, each standing for itself."""
    found = {one.text: dataclasses.replace(one, copies=1) for one in read}
    return [found[text.strip()] for text in texts]


def _whole_parts(run: Run, parts: Sequence[Sequence[str]], samples: int) -> int:
    """Return how many parts (ids of questions) are read whole; what a kill tore, and what comes after them (hinted
    rationales), leaves the file, and is read again."""
    path = run.path / RATIONALES
    records = read_records(path)
    copies: Counter[str] = Counter()
    for record in records:
        copies[record["question"]] += record["copies"]
    whole = [all(copies[id] == samples for id in part) for part in parts]
    done = whole.index(False) if False in whole else len(parts)
    ids = {id for part in parts[:done] for id in part}
    kept = [record for record in records if record["question"] in ids and record["copies"]]
    if len(kept) < len(records):
        write_atomic(path, "".join(json.dumps(record, ensure_ascii=False) + "\n" for record in kept))
    return done
