"""Judging rationales: which answer each leads to, and whether its follow-up questions agree."""

import dataclasses
import json
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from jaxalign.config.crest import CrestMethodConfig, ReleasedCrestConfig
from jaxalign.data.datasets.questions import Question
from jaxalign.data.packing import Shape
from jaxalign.data.trees import tree_length
from jaxalign.inference.scorer import Scorer
from jaxalign.inference.shapes import SHAPES, keep_shapes, kept_shapes
from jaxalign.jobs.crest.learner import Learner, Point
from jaxalign.reasoning import released
from jaxalign.reasoning.followups import followup_trees, read_followups
from jaxalign.reasoning.rationales import Rationale, answer_tree, distinct, read_answers, relabel
from jaxalign.runs.directory import Run
from jaxalign.runs.progress import Progress
from jaxalign.runs.records import append_record, read_records, write_atomic

RATIONALES = "rationales.jsonl"

QUESTIONS_AT_A_TIME = 32
"""Questions whose rationales are read before they are written down."""


@dataclasses.dataclass(frozen=True)
class Judge:
    """Who reads rationales, and how: the model, what counts as right, and the released code's ways."""

    learner: Learner
    model: Point
    method: CrestMethodConfig
    released: ReleasedCrestConfig
    rows: int
    shapes: list[Shape] = dataclasses.field(default_factory=list)
    """Of the passes so far: a shape that does again saves a compilation."""

    def read(self, questions: Sequence[Question], given: list[list[Rationale]]) -> list[list[Rationale]]:
        """Return the rationales with answers and follow-ups, in this program's way or as released."""
        base, encoder, wording = self.learner.base, self.learner.encoder, self.learner.wording
        scorer = self._scorer()
        read = read_answers(scorer, questions, given, encoder, wording)
        model = None
        if self.released.letters_in_words or self.released.followups_by_not:
            model = base.sampler(self.learner.stacked([self.model]), self.rows)
        if self.released.letters_in_words and model is not None:
            read = released.read_answers_in_words(model, questions, read, encoder, wording)
        labels: list[int | None] = [question.gold for question in questions]
        if self.method.label == "majority":
            judged = [relabel(mine) for mine in read]
            read, labels = [mine for mine, _ in judged], [label for _, label in judged]
        if self.released.followups_by_not and model is not None:
            model = base.sampler(self.learner.stacked([self.model]), self.rows)
            return released.read_followups_by_not(model, questions, read, labels, encoder, wording)
        scorer = scorer if model is None else self._scorer()
        return read_followups(scorer, questions, read, labels, encoder, wording)

    def _scorer(self) -> Scorer:
        scorer = self.learner.base.scorer(self.model.weights, self.learner.scale)
        return dataclasses.replace(scorer, shapes=self.shapes)

    def read_all(self, run: Run, questions: Sequence[Question], texts: Sequence[Sequence[str]]) -> None:
        """Read what rationales.jsonl does not hold yet. Equal texts are read once, also where each is to count.

        Questions are read in parts whose borders never move, so that a resumption packs as an unbroken run does.
        """
        parts = [
            range(first, min(first + QUESTIONS_AT_A_TIME, len(questions)))
            for first in range(0, len(questions), QUESTIONS_AT_A_TIME)
        ]
        done = _whole_parts(run, [[questions[n].id for n in part] for part in parts], self.method.samples)
        self.shapes[:] = kept_shapes(run.path / SHAPES, done - 1)
        waiting = sum(len(part) for part in parts[done:])
        read, tokens, since = 0, 0, time.perf_counter()
        with Progress(self.learner.console) as progress:
            count = progress.samples("readings", "question")
            count(0, waiting, 0.0)
            for number, part in enumerate(parts[done:], start=done):
                mine = [questions[n] for n in part]
                found = self.read(mine, [distinct(questions[n], texts[n], True) for n in part])
                tokens += sum(tokens_read(self.learner, *one) for one in zip(mine, found, strict=True))
                if not self.method.deduplicate:
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


def tokens_read(learner: Learner, question: Question, rationales: Sequence[Rationale]) -> int:
    """Return the tokens of the trees that a question's rationales were read in (what the trees of its follow-ups begin
    with alike is counted for each, though it is computed once)."""
    trees = []
    texts = list({one.text: one for one in rationales if one.text}.values())
    if texts:
        trees.append(answer_tree(question, texts, learner.encoder, learner.wording)[0])
    judged = [one for one in texts if one.followups]
    if judged:
        trees += followup_trees(question, judged, learner.encoder, learner.wording)[0]
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
