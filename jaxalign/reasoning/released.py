"""How the released code reads answers, for reproduction: it generates texts and looks for letters and "not" in them."""

import dataclasses
from collections.abc import Sequence

from jaxalign.data.datasets.question import Question
from jaxalign.data.encoding import Encoder
from jaxalign.inference.sampler import Sampler
from jaxalign.inference.sampling_params import Request, SamplingParams
from jaxalign.reasoning.rationales import Rationale
from jaxalign.reasoning.wording import Wording

SAID = SamplingParams(temperature=0.0, max_tokens=16, stop=("\n",))


def letter_anywhere(text: str, letters: str) -> int:
    """Return the option whose letter comes first in a text, even inside a word; the first option if no letter does.

    >>> letter_anywhere(" Choice D", "ABCD"), letter_anywhere("", "ABCD")
    (2, 0)
    """
    return next((letters.index(character) for character in text if character in letters), 0)


class LettersInWords(Wording):
    """A wording that reads answers in free text as the released code does."""

    @classmethod
    def of(cls, wording: Wording) -> "LettersInWords":
        """Return a wording with the same texts."""
        return cls(**{field.name: getattr(wording, field.name) for field in dataclasses.fields(wording)})

    def read(self, text: str, question: Question) -> int | None:
        """Return the option whose letter comes first in the text's first line, or the first option if none does."""
        return letter_anywhere(text.strip().partition("\n")[0], question.letters)


def read_answers_in_words(
    sampler: Sampler,
    questions: Sequence[Question],
    rationales: Sequence[Sequence[Rationale]],
    encoder: Encoder,
    wording: Wording,
) -> list[list[Rationale]]:
    """Return the rationales with prediction and z as the released code reads them from a generated answer."""
    requests = [
        Request(encoder.prompt(wording.prompt(question), f"{one.text}\n{wording.marker}"))
        for question, mine in zip(questions, rationales, strict=True)
        for one in mine
    ]
    texts = iter(completions[0].text for completions in sampler.sample(requests, SAID))
    read = []
    for question, mine in zip(questions, rationales, strict=True):
        options = [letter_anywhere(next(texts), question.letters) for _ in mine]
        read.append(
            [
                dataclasses.replace(one, prediction=option, right=option == question.gold)
                for one, option in zip(mine, options, strict=True)
            ]
        )
    return read


def read_followups_by_not(
    sampler: Sampler,
    questions: Sequence[Question],
    rationales: Sequence[Sequence[Rationale]],
    labels: Sequence[int | None],
    encoder: Encoder,
    wording: Wording,
) -> list[list[Rationale]]:
    """Return the rationales with z~ as the released code counts it: a generated text with "not" in it denies the
    option, any other text affirms it.

    Nothing is scored, so `followups` holds 0 for the completion that was generated and -1 for the other one.
    """
    requests = []
    for question, mine in zip(questions, rationales, strict=True):
        for one in (one for one in mine if one.right):
            for option in range(len(question.options)):
                after = f"{one.text}\n{wording.close(question, option)}"
                requests.append(Request(encoder.prompt(wording.ask(question, option), after)))
    texts = iter(completions[0].text for completions in sampler.sample(requests, SAID)) if requests else iter(())
    read = []
    for question, mine, label in zip(questions, rationales, labels, strict=True):
        done = []
        for one in mine:
            if one.right:
                denied = ["not" in next(texts) for _ in question.options]
                agreed = sum(no != (option == label) for option, no in enumerate(denied))
                pairs = tuple((-1.0, 0.0) if no else (0.0, -1.0) for no in denied)
                one = dataclasses.replace(one, followups=pairs, agreed=agreed)
            done.append(one)
        read.append(done)
    return read
