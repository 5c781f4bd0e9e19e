"""Testing a model: one greedy response to each question, or the majority of several, read after the marker."""

import dataclasses
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from jaxalign.analysis.statistics import bootstrap_interval
from jaxalign.data.datasets.question import Question
from jaxalign.data.encoding import Encoder
from jaxalign.inference.generations import Engine, PromptRequest, sample_missing
from jaxalign.inference.sampling_params import SamplingParams
from jaxalign.reasoning.rationales import majority, read_response
from jaxalign.reasoning.wording import Wording

ANSWER_TOKENS = 8
"""The smallest number of new tokens of a second reading: a few words may stand around a letter."""


@dataclasses.dataclass(frozen=True)
class Answered:
    """A model's answer to a question.

    `option` is None if neither reading found one. `first` says that the first reading found it.
    """

    question: Question
    rationale: str
    option: int | None
    first: bool

    @property
    def right(self) -> bool:
        """Whether the option is the gold one; an answer that could not be read is wrong."""
        return self.option == self.question.gold


def answer_tokens(questions: Sequence[Question], encoder: Encoder, wording: Wording) -> int:
    """Return the number of new tokens of a second reading: the longest reply and two more, at least `ANSWER_TOKENS`."""
    replies = {wording.answer(question, option) for question in questions for option in range(len(question.options))}
    return max(ANSWER_TOKENS, max((len(encoder.text(reply)) for reply in replies), default=0) + 2)


def ask_questions(
    sampler: Engine,
    questions: Sequence[Question],
    encoder: Encoder,
    wording: Wording,
    sampling: SamplingParams,
    path: Path,
    *,
    samples: int,
    model: str,
    adapters: Sequence[str],
    progress: Callable[[int, int, float], None],
    again: Callable[[int, int, float], None] = lambda done, total, speed: None,
) -> list[list[Answered]]:
    """Return the answers of each adapter to all questions, one list for each adapter.

    If no option can be read from a response, the response is cut before its last marker, the marker is appended, and
    the model continues it greedily for a second reading. All samples are recorded in `path`.

    Args:
        sampler: draws the responses, with the adapters in the order of `adapters`.
        questions: the questions.
        encoder: the encoder, with the few-shot examples as its preamble if they are used.
        wording: makes the prompts and reads the responses.
        sampling: the settings of the responses.
        path: the JSON Lines file of the samples.
        samples: the number of responses to each question; the majority of them is the answer.
        model: the identity of the base.
        adapters: the identities of the adapters.
        progress: is called with (done, all, tokens per second) for the responses.
        again: is called in the same way for the second readings.
    """
    prompts = [encoder.prompt(wording.prompt(question)) for question in questions]
    asked = [
        PromptRequest(question.text, prompt, adapter, {"id": question.id})
        for adapter in range(len(adapters))
        for question, prompt in zip(questions, prompts, strict=True)
    ]
    found = sample_missing(sampler, asked, samples, sampling, path, model=model, adapters=adapters, progress=progress)
    read = [
        [read_response(record["text"], questions[n % len(questions)], wording) for record in records]
        for n, records in enumerate(found)
    ]
    unread = []
    for number, answers in enumerate(read):
        for place, (rationale, option, _) in enumerate(answers):
            if option is None:
                lead = f"{rationale}\n" if rationale else ""
                prompt = wording.prompt(questions[number % len(questions)])
                tokens = encoder.prompt(prompt, f"{lead}{wording.marker}")
                unread.append((number, place, dataclasses.replace(asked[number], tokens=tokens)))
    if unread:
        most = answer_tokens(questions, encoder, wording)
        second = dataclasses.replace(sampling, max_tokens=most, temperature=0.0)
        cut = [one for _, _, one in unread]
        texts = sample_missing(sampler, cut, 1, second, path, model=model, adapters=adapters, progress=again)
        for (number, place, _), (record,) in zip(unread, texts, strict=True):
            option = wording.read(record["text"], questions[number % len(questions)])
            read[number][place] = (read[number][place][0], option, False)
    tested = []
    for number, answers in enumerate(read):
        option = majority([one for _, one, _ in answers])
        rationale, _, first = next((one for one in answers if one[1] == option), answers[0])
        tested.append(Answered(questions[number % len(questions)], rationale, option, first))
    size = len(questions)
    return [tested[number * size : (number + 1) * size] for number in range(len(adapters))]


def accuracy_of(tested: Sequence[Answered]) -> float:
    """Return the share of right answers, 0..1."""
    return float(np.mean([one.right for one in tested]))


def measures(tested: Sequence[Answered]) -> dict[str, Any]:
    """Return the accuracy over all questions with its interval, and the shares of answers that needed a second reading
    (`second_reading`) and that could not be read (`never_read`)."""
    right = [float(one.right) for one in tested]
    return {
        "accuracy": float(np.mean(right)),
        "interval": bootstrap_interval(right),
        "second_reading": float(np.mean([not one.first for one in tested])),
        "never_read": float(np.mean([one.option is None for one in tested])),
        "questions": len(tested),
    }
