"""Rationales: what a model wrote about a question, and which option it leads to."""

import dataclasses
import itertools
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from jaxalign.data.datasets.question import Question
from jaxalign.data.encoding import Encoder
from jaxalign.data.trees import Segment, Tokens, Tree, shared_length
from jaxalign.inference.multiple_choice import best_option
from jaxalign.inference.scorer import Scorer
from jaxalign.reasoning.wording import Wording


@dataclasses.dataclass(frozen=True)
class Rationale:
    """A distinct rationale of a question, with what was read from it. Log-probabilities are in nats.

    Attributes:
        question: the question's id.
        text: the rationale.
        copies: the number of samples with this text.
        options: the log-probability of each option after the marker; empty if the text is empty.
        prediction: the option that the rationale leads to; None if it could not be read.
        right: z, whether the prediction is right; None if it could not be read.
        followups: the log-probabilities (affirming, denying) for each option; empty if the rationale was not judged.
        agreed: z~, the number of options that are judged correctly; None if the rationale was not judged.
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
        """Return the rationale as a record of rationales.jsonl."""
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
        """Return the rationale of a record of rationales.jsonl."""
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


def distinct(question: Question, texts: Iterable[str]) -> list[Rationale]:
    """Return a question's rationales in the order of their first sample.

    Texts that are equal, apart from the space around them, become one rationale with a count.
    """
    counts = Counter(text.strip() for text in texts)
    return [Rationale(question.id, text, copies) for text, copies in counts.items()]


def reading_tree(prompt: Tokens, read: Sequence[tuple[Tokens, Sequence[Tokens]]]) -> tuple[Tree, list[list[int]]]:
    """Return a tree prompt -> rationales -> endings, and the indices of the segments of each rationale's endings.

    Args:
        prompt: the tokens of the prompt.
        read: for each rationale the tokens of prompt and rationale together, and those of each of its endings.
    """
    size = shared_length([prompt, *(trunk for trunk, _ in read)])
    segments, places = [Segment(prompt[:size], -1)], []
    for trunk, endings in read:
        if len(trunk) > size:
            segments.append(Segment(trunk[size:], 0))
        here = len(segments) - 1 if len(trunk) > size else 0
        places.append(list(range(len(segments), len(segments) + len(endings))))
        segments += [Segment(ending, here, True) for ending in endings]
    return tuple(segments), places


def answer_tree(
    question: Question, rationales: Sequence[Rationale], encoder: Encoder, wording: Wording
) -> tuple[Tree, list[list[int]]]:
    """Return a tree question -> rationales and marker -> options, and the indices of each rationale's option segments.

    If one option's tokens are the beginning of another's, all options of the question get the end token. Otherwise
    "a dog" could never be less likely than "a dog and a cat".
    """
    prompt = wording.prompt(question)
    answers = [wording.answer(question, option) for option in range(len(question.options))]
    _, options = encoder.branches(prompt, answers, wording.marker)
    end = any(np.array_equal(one, other[: len(one)]) for one, other in itertools.permutations(options, 2))
    read = [encoder.branches(prompt, answers, f"{one.text}\n{wording.marker}", end=end) for one in rationales]
    return reading_tree(encoder.prompt(prompt), read)


def read_answers(
    scorer: Scorer,
    questions: Sequence[Question],
    rationales: Sequence[Sequence[Rationale]],
    encoder: Encoder,
    wording: Wording,
) -> list[list[Rationale]]:
    """Return the rationales with the log-probabilities of the options, the prediction and z, question by question.

    An empty rationale is not read: it has no prediction.
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
    prediction = best_option(log_probs)
    return dataclasses.replace(
        rationale,
        options=tuple(map(float, log_probs)),
        prediction=prediction,
        right=None if prediction is None else prediction == question.gold,
    )


def relabel(rationales: Sequence[Rationale]) -> tuple[list[Rationale], int | None]:
    """Return a question's rationales with z set by the majority of their own predictions (LMSI), and that majority.

    Each rationale votes once for each of its copies. Of options with equal votes, the first one wins. The majority is
    None if no rationale could be read.
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
    """Return (rationale, option, whether the response has the marker) for a whole response.

    The option is read from the first line after the last marker; it is None if that line names none.
    """
    rationale, found, answer = response.rpartition(wording.marker)
    if not found:
        return response.strip(), None, False
    return rationale.strip(), wording.read(answer, question), True


def majority(predictions: Sequence[int | None]) -> int | None:
    """Return the most frequent prediction (self-consistency), or None if none could be read.

    Of options that are equally frequent, the first one wins.
    """
    votes = Counter(one for one in predictions if one is not None)
    return max(votes, key=lambda option: (votes[option], -option)) if votes else None
