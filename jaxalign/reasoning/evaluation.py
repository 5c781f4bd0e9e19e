"""Judging rationales: which answer each leads to, and whether its follow-up questions agree."""

import dataclasses
import json
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from jaxalign.config import CrestMethodConfig, ReleasedCrestConfig
from jaxalign.data.datasets.questions import Question
from jaxalign.progress import Progress
from jaxalign.reasoning import released
from jaxalign.reasoning.followups import read_followups
from jaxalign.reasoning.learner import Learner, Point
from jaxalign.reasoning.rationales import Rationale, distinct, read_answers, relabel
from jaxalign.runs import Run, append_record, read_records, write_atomic

RATIONALES = "rationales.jsonl"

AT_A_TIME = 32
"""Questions whose rationales are read before they are written down."""


@dataclasses.dataclass(frozen=True)
class Judge:
    """Who reads rationales, and how: the model, what counts as right, and the released code's ways."""

    learner: Learner
    model: Point
    method: CrestMethodConfig
    released: ReleasedCrestConfig
    rows: int

    def read(self, questions: Sequence[Question], given: list[list[Rationale]]) -> list[list[Rationale]]:
        """Return the rationales with answers and follow-ups, in this program's way or as released."""
        base, encoder, wording = self.learner.base, self.learner.encoder, self.learner.wording
        scorer = base.scorer(self.model.weights, self.learner.scale)
        read = read_answers(scorer, questions, given, encoder, wording)
        model = None
        if self.released.letters_in_words or self.released.followups_by_not:
            model = base.sampler(self.learner.stacked([self.model]), self.rows)
        if self.released.letters_in_words and model is not None:
            read = released.read_answers(model, questions, read, encoder, wording)
        labels: list[int | None] = [question.gold for question in questions]
        if self.method.label == "majority":
            judged = [relabel(mine) for mine in read]
            read, labels = [mine for mine, _ in judged], [label for _, label in judged]
        if self.released.followups_by_not and model is not None:
            model = base.sampler(self.learner.stacked([self.model]), self.rows)
            return released.read_followups(model, questions, read, labels, encoder, wording)
        scorer = base.scorer(self.model.weights, self.learner.scale)
        return read_followups(scorer, questions, read, labels, encoder, wording)

    def read_all(self, run: Run, questions: Sequence[Question], texts: Mapping[str, Sequence[str]]) -> int:
        """Read what rationales.jsonl does not hold yet; return the tokens that were read."""
        path = run.path / RATIONALES
        known = {record["question"] for record in _whole(path, self.method.samples)}
        waiting = [question for question in questions if question.id not in known]
        tokens = 0
        with Progress(self.learner.console) as progress:
            count = progress.samples("readings", "question")
            count(0, len(waiting), 0.0)
            since = time.perf_counter()
            for first in range(0, len(waiting), AT_A_TIME):
                part = waiting[first : first + AT_A_TIME]
                given = [distinct(question, texts[question.id], self.method.deduplicate) for question in part]
                read = self.read(part, given)
                letters = [(one, question.letters) for question, mine in zip(part, read, strict=True) for one in mine]
                append_record(path, *(one.record(names) for one, names in letters))
                tokens += sum(len(self.learner.encoder.text(one.text)) for one, _ in letters)
                speed = tokens / (time.perf_counter() - since)
                count(min(first + AT_A_TIME, len(waiting)), len(waiting), speed)
        return tokens

    def add_hinted(
        self, run: Run, questions: Sequence[Question], records: Sequence[Sequence[Mapping[str, Any]]]
    ) -> None:
        """Add of rationales that were sampled with the answer given those that lead to it (STaR)."""
        given = [
            distinct(question, [record["text"] for record in mine], True)
            for question, mine in zip(questions, records, strict=True)
        ]
        for question, mine in zip(questions, self.read(questions, given), strict=True):
            # Copies 0: it stands for no sample of the plain question.
            kept = [dataclasses.replace(one, copies=0) for one in mine if one.right]
            append_record(run.path / RATIONALES, *(one.record(question.letters) for one in kept))


def read_rationales(run: Run, questions: Sequence[Question]) -> dict[str, list[Rationale]]:
    """Return the rationales of an evaluated run by question."""
    letters = {question.id: question.letters for question in questions}
    found: dict[str, list[Rationale]] = {question.id: [] for question in questions}
    for record in read_records(run.path / RATIONALES):
        found[record["question"]].append(Rationale.of_record(record, letters[record["question"]]))
    return found


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
