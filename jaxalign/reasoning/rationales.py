"""Rationales: what a model wrote about a question, which answer it leads to, and what a free text answers."""

import dataclasses
import itertools
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from jaxalign.data.datasets.question import Question
from jaxalign.data.encoding import Encoder
from jaxalign.data.trees import Segment, Tree
from jaxalign.inference.multiple_choice import best_option
from jaxalign.inference.scorer import Scorer
from jaxalign.reasoning.wording import Wording


@dataclasses.dataclass(frozen=True)
class Rationale:
    """A distinct rationale of a question, with what was read of it.

    `copies`: how many samples it stands for. `options`: log-probability of each option behind the marker, none where it
    is empty. `prediction`: the option it leads to; None where nothing can be read. `right`: z, None where unread.
    `followups`: (affirming, denying) log-probability for each option; none where z is not 1. `agreed`: z~, how many
    of the follow-ups are judged right.
    """

    question: str
    text: str
    copies: int
    options: tuple[float, ...] = ()
    prediction: int | None = None
    right: bool | None = None
    followups: tuple[tuple[float, float], ...] = ()
    agreed: int | None = None

    def record(self, letters: str) -> dict[str, Any]:
        """Return the line of rationales.jsonl."""
        return {
            "question": self.question,
            "text": self.text,
            "copies": self.copies,
            "options": dict(zip(letters, self.options, strict=False)),
            "prediction": None if self.prediction is None else letters[self.prediction],
            "z": None if self.right is None else int(self.right),
            "followups": [{"affirm": a, "deny": d} for a, d in self.followups],
            "z_tilde": self.agreed,
        }

    @classmethod
    def of_record(cls, record: Mapping[str, Any], letters: str) -> "Rationale":
        """Return the rationale of a line of rationales.jsonl."""
        prediction = record["prediction"]
        return cls(
            record["question"],
            record["text"],
            record["copies"],
            tuple(record["options"].values()),
            None if prediction is None else letters.index(prediction),
            None if record["z"] is None else bool(record["z"]),
            tuple((pair["affirm"], pair["deny"]) for pair in record["followups"]),
            record["z_tilde"],
        )


def distinct(question: Question, texts: Iterable[str], deduplicate: bool) -> list[Rationale]:
    """Return a question's rationales in the order of their first sample; exact duplicates (but for the space around
    them) are merged and counted unless `deduplicate` is off."""
    stripped = [text.strip() for text in texts]
    if not deduplicate:
        return [Rationale(question.id, text, 1) for text in stripped]
    return [Rationale(question.id, text, copies) for text, copies in Counter(stripped).items()]


def answer_tree(
    question: Question, rationales: Sequence[Rationale], encoder: Encoder, wording: Wording
) -> tuple[Tree, list[list[int]]]:
    """Return question -> rationales -> options as a tree, and for each rationale the segments of its options.

    Where an option's tokens begin another's, all of that question's options are read with the end token: "a dog" is
    never less likely than "a dog and a cat", "a dog" and the end may be.
    """
    segments, places = [Segment(encoder.prompt(wording.prompt(question)), -1)], []
    marker = encoder.text(wording.marker)
    answers = [wording.answer(question, option) for option in range(len(question.options))]
    options = [encoder.text(answer) for answer in answers]
    if any(np.array_equal(one, other[: len(one)]) for one, other in itertools.permutations(options, 2)):
        options = [encoder.response(answer) for answer in answers]
    for rationale in rationales:
        segments.append(Segment(encoder.text(f"{rationale.text}\n"), 0))
        segments.append(Segment(marker, len(segments) - 1))
        here = len(segments) - 1
        places.append(list(range(len(segments), len(segments) + len(options))))
        segments += [Segment(option, here, True) for option in options]
    return tuple(segments), places


def read_answers(
    scorer: Scorer,
    questions: Sequence[Question],
    rationales: Sequence[Sequence[Rationale]],
    encoder: Encoder,
    wording: Wording,
) -> list[list[Rationale]]:
    """Return the rationales with the options' log-probabilities, the prediction and z, question by question.

    One that is empty leads nowhere: it is left unread.
    """
    asked = [[one for one in mine if one.text] for mine in rationales]
    members = [number for number, mine in enumerate(asked) if mine]
    trees = [answer_tree(questions[number], asked[number], encoder, wording) for number in members]
    scores = dict(zip(members, scorer.score([tree for tree, _ in trees]), strict=True))
    found = {number: iter(places) for number, (_, places) in zip(members, trees, strict=True)}
    read: list[list[Rationale]] = []
    for number, mine in enumerate(rationales):
        read.append([])
        for one in mine:
            if one.text:
                one = _answered(one, questions[number], scores[number][next(found[number])])
            read[-1].append(one)
    return read


def _answered(rationale: Rationale, question: Question, log_probs: np.ndarray) -> Rationale:
    prediction = best_option(log_probs.tolist(), [1] * len(log_probs), "sum")
    return dataclasses.replace(
        rationale,
        options=tuple(map(float, log_probs)),
        prediction=prediction,
        right=None if prediction is None else prediction == question.gold,
    )


def relabel(rationales: Sequence[Rationale]) -> tuple[list[Rationale], int | None]:
    """Return a question's rationales judged by the majority of their own predictions (LMSI), and that majority.

    Each counts for its copies; of options with equally many, the first.
    """
    votes: Counter[int] = Counter()
    for one in rationales:
        if one.prediction is not None:
            votes[one.prediction] += one.copies
    if not votes:
        return list(rationales), None
    label = min(votes, key=lambda option: (-votes[option], option))
    return [
        one if one.prediction is None else dataclasses.replace(one, right=one.prediction == label) for one in rationales
    ], label


def read_response(response: str, question: Question, wording: Wording) -> tuple[str, int | None, bool]:
    """Return (rationale, option, whether the marker stood there) of a whole response.

    The option is read in the line behind the last marker.
    """
    rationale, found, answer = response.rpartition(wording.marker)
    if not found:
        return response.strip(), None, False
    return rationale.strip(), wording.read(answer, question), True


def majority(predictions: Sequence[int | None]) -> int | None:
    """Return the commonest prediction (the first of equals), or None where nothing was read (self-consistency)."""
    votes = Counter(one for one in predictions if one is not None)
    return max(votes, key=lambda option: (votes[option], -option)) if votes else None
