"""Testing a model: one greedy response to each question (or the majority of several), read behind the marker."""

import dataclasses
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from jaxalign.data.datasets.questions import Question
from jaxalign.data.encoding import Encoder
from jaxalign.inference.generations import Asked, generate
from jaxalign.inference.sampler import Sampler, Sampling
from jaxalign.reasoning.rationales import majority, read_response
from jaxalign.reasoning.wording import Wording

ANSWER_TOKENS = 8
"""New tokens of a second reading, behind an added marker."""


@dataclasses.dataclass(frozen=True)
class Tested:
    """A model's answer to a question: the rationale, the option (None: never read), whether the marker was there."""

    question: Question
    rationale: str
    option: int | None
    first: bool

    @property
    def right(self) -> bool:
        """Whether it is the gold option; what was never read is wrong."""
        return self.option == self.question.gold


def ask(
    sampler: Sampler,
    questions: Sequence[Question],
    encoder: Encoder,
    wording: Wording,
    sampling: Sampling,
    path: Path,
    *,
    samples: int,
    model: str,
    adapters: Sequence[str],
    progress: Callable[[int, int, float], None],
) -> list[list[Tested]]:
    """Return for each adapter of the sampler its answers to the questions.

    A response without the marker gets it appended, and is read again. Records go to `path`, keyed as any samples are.

    Args:
        sampler: the models, in the order of `adapters`.
        questions: what is asked.
        encoder: with the few-shot examples as its preamble, or without.
        wording: the renderer.
        sampling: how responses are drawn.
        path: the JSON Lines file.
        samples: responses to each question; the majority of them is the answer.
        model: identity of the base.
        adapters: identities of the adapters.
        progress: told (done, all, tokens per second).
    """
    prompts = [encoder.prompt(wording.prompt(question)) for question in questions]
    asked = [
        Asked(question.text, prompt, adapter, {"id": question.id})
        for adapter in range(len(adapters))
        for question, prompt in zip(questions, prompts, strict=True)
    ]
    found = generate(sampler, asked, samples, sampling, path, model=model, adapters=adapters, progress=progress)
    read = [
        [read_response(record["text"], questions[n % len(questions)], wording) for record in records]
        for n, records in enumerate(found)
    ]
    again = []
    for number, answers in enumerate(read):
        for place, (rationale, _, first) in enumerate(answers):
            if not first:
                lead = encoder.text(f"{rationale}\n{wording.marker}" if rationale else wording.marker)
                tokens = np.concatenate([asked[number].tokens, lead])
                again.append((number, place, dataclasses.replace(asked[number], tokens=tokens)))
    if again:
        second = dataclasses.replace(sampling, max_tokens=ANSWER_TOKENS, temperature=0.0)
        texts = generate(sampler, [one for _, _, one in again], 1, second, path, model=model, adapters=adapters)
        for (number, place, _), (record,) in zip(again, texts, strict=True):
            option = wording.read(record["text"], questions[number % len(questions)])
            read[number][place] = (read[number][place][0], option, False)
    tested = []
    for number, answers in enumerate(read):
        option = majority([one for _, one, _ in answers])
        rationale, _, first = next((one for one in answers if one[1] == option), answers[0])
        tested.append(Tested(questions[number % len(questions)], rationale, option, first))
    size = len(questions)
    return [tested[number * size : (number + 1) * size] for number in range(len(adapters))]
