"""The wording of questions, answers and follow-up questions: one renderer for sampling, training, reading and testing.

Texts are cut into segments after a newline or before a space, so a prompt is the same tokens wherever it stands.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from string import Formatter
from typing import Any

from jaxalign.data.datasets.questions import LETTERS, Question
from jaxalign.data.templates import check_names, check_template
from jaxalign.errors import UserError

FIELDS = {
    "question": ("passage", "question", "options"),
    "hint": ("letter", "option"),
    "followup": ("passage", "question", "option"),
    "closing": ("option",),
}
"""The templates, and the fields that each must have."""

NAMES = ("question", "option", "marker", "reply", "hint", "followup", "closing", "affirm", "deny")


@dataclasses.dataclass(frozen=True)
class Shot:
    """A worked example of a few-shot prompt; `id` names the training question that it is, if it is one."""

    question: Question
    rationale: str


@dataclasses.dataclass(frozen=True)
class Wording:
    """The texts of `reasoning` in the configuration, checked, and the few-shot examples of the data set."""

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
        """Return what every stage asks: the same text in sampling, both trainings and the test; ends in a newline."""
        options = "\n".join(
            self.option.format(letter=letter, text=text)
            for letter, text in zip(question.letters, question.options, strict=True)
        )
        text = _fill(self.question, passage=question.passage, question=question.text, options=options)
        if hint:
            text += self.hint.format(letter=question.letters[question.gold], option=question.options[question.gold])
        return text

    def preamble(self) -> str:
        """Return the worked examples that sampling begins with; "" where there are none, else ends in a newline."""
        return "".join(
            f"{self.prompt(shot.question)}{self.response(shot.question, shot.rationale, shot.question.gold)}\n\n"
            for shot in self.shots
        )

    def answer(self, question: Question, option: int) -> str:
        """Return the text of an option behind the marker."""
        return f" {self.reply.format(letter=question.letters[option])}"

    def response(self, question: Question, rationale: str, option: int) -> str:
        """Return what is learnt: the rationale (if any), the marker and the answer."""
        lead = f"{rationale}\n" if rationale else ""
        return f"{lead}{self.marker}{self.answer(question, option)}"

    def ask(self, question: Question, option: int) -> str:
        """Return the follow-up question about an option, by its text; ends in a newline."""
        text = question.options[option]
        return _fill(self.followup, passage=question.passage, question=question.text, option=text)

    def close(self, question: Question, option: int) -> str:
        """Return the sentence begun about an option; `affirm` or `deny` completes it."""
        return self.closing.format(option=question.options[option])


def make_wording(texts: Mapping[str, Any], examples: Sequence[Mapping[str, Any]]) -> Wording:
    """Check `reasoning` and `dataset.examples`; raises UserError naming the key that is wrong."""
    check_names("reasoning", texts, NAMES)
    for name, fields in FIELDS.items():
        check_template(f"reasoning.{name}", texts[name], fields, prompt=name != "closing")
    check_template("reasoning.option", texts["option"], ("letter", "text"), prompt=False)
    check_template("reasoning.reply", texts["reply"], ("letter",), prompt=False)
    for name in ("marker", "affirm", "deny"):
        text = texts[name]
        if not isinstance(text, str) or not text.strip() or text != text.rstrip():
            raise UserError(f"reasoning.{name} must be a text that does not end in a space")
    for name in ("affirm", "deny"):
        if not texts[name].startswith(" "):
            raise UserError(f"reasoning.{name} must begin with a space: it goes on with reasoning.closing")
    if texts["affirm"] == texts["deny"]:
        raise UserError("reasoning.affirm and reasoning.deny are the same: they must differ")
    return Wording(**texts, shots=tuple(_shot(number, example) for number, example in enumerate(examples)))


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
        str(given["question"]),
        tuple(map(str, options)),
        letters.index(given["answer"]),
        str(given["passage"]),
    )
    return Shot(question, str(given["rationale"]).strip())


def _fill(template: str, **fields: str) -> str:
    """Fill a template; a line whose fields are all empty is left out."""
    lines = []
    for line in template.splitlines(keepends=True):
        names = [name for _, name, _, _ in Formatter().parse(line) if name is not None]
        if not names or any(fields[name] for name in names):
            lines.append(line.format(**fields))
    return "".join(lines)
