"""The wording of questions, answers and follow-up questions: one renderer for sampling, training, reading and testing.

A prompt ends in a newline, so that no token belongs to it and to the answer, and it has the same tokens everywhere.
"""

import dataclasses
import re
from collections.abc import Mapping, Sequence
from typing import Any

from jaxalign.data.datasets.question import LETTERS, Question
from jaxalign.data.templates import check_names, check_template, fill_lines
from jaxalign.errors import UserError

WORDING_FIELDS = {
    "question": ("passage", "question", "options"),
    "hint": ("letter", "option"),
    "followup": ("passage", "question", "options", "option"),
    "closing": ("option",),
}
"""The templates, and the fields that each of them must have."""

WORDING_KEYS = ("question", "option", "marker", "hint", "followup", "closing", "affirm", "deny")


@dataclasses.dataclass(frozen=True)
class Shot:
    """A worked example of a few-shot prompt.

    If the example is a question of the data set, `question.id` is the id of that question; otherwise it is "".
    """

    question: Question
    rationale: str


@dataclasses.dataclass(frozen=True)
class Wording:
    """The checked texts of `reasoning` in the configuration, the form of an answer (`reply`), and the few-shot examples
    of the data set."""

    question: str
    option: str
    marker: str
    reply: str
    hint: str
    followup: str
    closing: str
    affirm: str
    deny: str
    shots: tuple[Shot, ...] = ()

    def prompt(self, question: Question, *, hint: bool = False) -> str:
        """Return the prompt of a question, the same in sampling, both trainings and the test; it ends in a newline.

        `hint` adds the right answer (STaR).
        """
        text = fill_lines(self.question, **self._fields(question))
        if hint:
            text += self.hint.format(letter=question.letters[question.gold], option=question.options[question.gold])
        return text

    def _fields(self, question: Question) -> dict[str, str]:
        lines = (
            self.option.format(letter=letter, text=text)
            for letter, text in zip(question.letters, question.options, strict=True)
        )
        return {"passage": question.passage, "question": question.text, "options": "\n".join(lines)}

    def preamble(self) -> str:
        """Return the text of the worked examples that goes before a prompt; it ends in a newline, or is "" for none."""
        return "".join(
            f"{self.prompt(shot.question)}{self.response(shot.question, shot.rationale, shot.question.gold)}\n\n"
            for shot in self.shots
        )

    def answer(self, question: Question, option: int) -> str:
        """Return the text that follows the marker if an option is the answer."""
        return f" {self._reply(question, option)}"

    def _reply(self, question: Question, option: int) -> str:
        return self.reply.format(letter=question.letters[option], text=question.options[option])

    def read(self, text: str, question: Question) -> int | None:
        """Return the option that the first line of a text after the marker names, or None if it names none.

        The line may be the reply of an option, exactly or apart from case and a full stop at the end. If replies name
        letters, the line may also be free text in which `read_letter` finds an option.
        """
        line = text.strip().partition("\n")[0].strip()
        replies = [self._reply(question, option) for option in range(len(question.options))]
        if line in replies:  # the exact reply comes first: a question of ARC has the options "only Ss" and "only SS"
            return replies.index(line)
        for option, reply in enumerate(replies):
            if line.casefold().rstrip(".") == reply.casefold().rstrip("."):
                return option
        return read_letter(line, question.letters) if "{letter}" in self.reply else None

    def response(self, question: Question, rationale: str, option: int) -> str:
        """Return the response that is trained: the rationale (if any), the marker and the answer."""
        lead = f"{rationale}\n" if rationale else ""
        return f"{lead}{self.marker}{self.answer(question, option)}"

    def ask(self, question: Question, option: int) -> str:
        """Return the prompt of the follow-up question about one option, which it gives as text; ends in a newline."""
        return fill_lines(self.followup, **self._fields(question), option=question.options[option])

    def close(self, question: Question, option: int) -> str:
        """Return the beginning of the judgement about an option; `affirm` or `deny` completes the sentence."""
        return self.closing.format(option=question.options[option])


# A lower-case letter counts only in brackets or quotation marks, or before the end of the text or a punctuation mark:
# "the answer is a metal spoon" names no option.
_NAME = r"(?:[(\[\"']*[A-J]\b|[(\[\"'][a-j][)\]\"']|[a-j](?=\s*$|[.,;:!?](?!\w)))"
_ANSWER_IS = re.compile(rf"\b(?i:answer\s+is)\b[\s:]*((?i:option|choice)\s+)?(?P<name>{_NAME})")
_AND_MORE = re.compile(
    rf"[)\]\"']*(?:(?:\s*,\s*{_NAME}[)\]\"']*)+,?)?\s*(?:\band/or\b|\band\b|\bor\b|[&/+])"
    rf"\s*((?i:option|choice)\s+)?(?P<name>{_NAME})"
)
_STANDALONE = re.compile(
    r"(?<!\bnot )(?<![\w'’])([A-J])(?![\w'’])(?!\s+(?!is\b|was\b|and\b|or\b|because\b|since\b)[a-z])"
)


def read_letter(text: str, letters: str) -> int | None:
    """Return the option that a free text names, or None.

    The last "answer is X" decides; without one, a letter that stands alone. If a text names several options, as
    "answer is X and Y" does, the result is None.

    >>> read_letter(" Choice D", "ABCD"), read_letter("Both A and C", "ABCD"), read_letter("Albert", "ABCD")
    (3, None, None)
    """
    said = [match for match in _ANSWER_IS.finditer(text) if _letter(match) in letters]
    if said:
        letter, more = _letter(said[-1]), _AND_MORE.match(text, said[-1].end())
        several = more is not None and _letter(more) in letters.replace(letter, "")
        return None if several else letters.index(letter)
    found = {letter for letter in _STANDALONE.findall(text) if letter in letters}
    return letters.index(found.pop()) if len(found) == 1 else None


def _letter(match: re.Match[str]) -> str:
    return match["name"].strip("([\"')]").upper()


def make_wording(texts: Mapping[str, Any], reply: str, examples: Sequence[Mapping[str, Any]]) -> Wording:
    """Check `reasoning`, `dataset.reply` and `dataset.examples`, and return them as a wording.

    Raises:
        UserError: a text or an example cannot be used; the line names its key.
    """
    check_names("reasoning", texts, WORDING_KEYS)
    for name, fields in WORDING_FIELDS.items():
        check_template(f"reasoning.{name}", texts[name], fields, prompt=name != "closing")
    check_template("reasoning.option", texts["option"], ("letter", "text"), prompt=False)
    fields = [field for field in ("letter", "text") if f"{{{field}}}" in reply]
    check_template("dataset.reply", reply, fields or ("letter",), prompt=False)
    for name in ("marker", "affirm", "deny"):
        text = texts[name]
        if not isinstance(text, str) or not text.strip() or text != text.rstrip():
            raise UserError(f"reasoning.{name} must be a text that does not end in a space or a newline")
    for name in ("affirm", "deny"):
        if not texts[name].startswith(" "):
            raise UserError(f"reasoning.{name} must begin with a space, because it continues reasoning.closing")
    if texts["affirm"] == texts["deny"]:
        raise UserError("reasoning.affirm and reasoning.deny are the same: they must differ")
    return Wording(**texts, reply=reply, shots=tuple(_shot(number, example) for number, example in enumerate(examples)))


def _shot(number: int, example: Mapping[str, Any]) -> Shot:
    key = f"dataset.examples[{number}]"
    known = ("id", "passage", "question", "options", "answer", "rationale")
    given = {"id": "", "passage": "", **example}
    check_names(key, given, known)
    options = given["options"]
    if not isinstance(options, list | tuple) or not 2 <= len(options) <= len(LETTERS):
        raise UserError(f"{key}.options must be a list of at least 2 texts")
    letters = LETTERS[: len(options)]
    if given["answer"] not in tuple(letters):
        raise UserError(f"{key}.answer={given['answer']} must be one of {', '.join(letters)}")
    question = Question(
        str(given["id"]),
        _shot_text(f"{key}.question", given["question"]),
        tuple(_shot_text(f"{key}.options", option) for option in options),
        letters.index(given["answer"]),
        str(given["passage"] or ""),
    )
    return Shot(question, _shot_text(f"{key}.rationale", given["rationale"]).strip())


def _shot_text(key: str, value: Any) -> str:
    # YAML takes yes for true, and nothing for null.
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        raise UserError(f"{key} holds {value!r:.60}, which is no text: put the text in quotes")
    return str(value)
