"""A multiple-choice question, and reading it from a row in the schema of the hub, of its authors, or of a user."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from jaxalign.data.columns import Columns
from jaxalign.data.files import Row, note_id, read_table
from jaxalign.errors import UserError

LETTERS = "ABCDEFGHIJ"
"""The labels of options in prompts, whatever their labels in the file."""


@dataclass(frozen=True)
class Question:
    """A question, its options, and the index `gold` of the right one.

    `passage` is a text that the question is about, and `solution` explains the answer; both may be "".
    """

    id: str
    text: str
    options: tuple[str, ...]
    gold: int
    passage: str = ""
    solution: str = ""

    @property
    def letters(self) -> str:
        """The labels of its options."""
        return LETTERS[: len(self.options)]


SKIP = "mend it, or give dataset.skip=true to leave such questions out"


class Flaw(NamedTuple):
    """Why a question cannot be used. `unlabelled` means: only because it has no answer."""

    words: str
    unlabelled: bool


class _Parts(NamedTuple):
    """The parts of a row, whatever its schema. `answer` is the name of the field with the right one of `labels`."""

    id: Any
    text: Any
    passage: Any
    options: Sequence[Any]
    labels: Sequence[Any]
    answer: str


def read_file(path: Path, places: dict[str, str], own: Columns | None) -> list[Question | Flaw]:
    """Return for each row of a file its question, or why it cannot be used.

    `places` gets the place of each id. `own` gives the names of the fields in a user's file; None for any other schema.

    Raises:
        UserError: the file cannot be read or has no question, a row has another schema, an id is missing or occurs
            twice, or the answers of a user's file can be read in more than one way.
    """
    rows = read_table(path) if own is None else own.read(path)
    if not rows:
        raise UserError(f"{path} holds no question: give a file with questions, or remove it")
    found = []
    way = None if own is None else _own_way(rows, own)
    for number, row in enumerate(rows, start=1):
        parts = _parts(row) if own is None else _own_parts(row, own, f"{path.stem}-{number}", way)
        id = note_id(places, parts.id, row.place)
        found.append(_checked(row, id, parts))
    return found


def _checked(row: Row, id: str, parts: _Parts) -> Question | Flaw:
    texts = ["" if option is None else str(option).strip() for option in parts.options]
    labels = [str(label) for label in parts.labels]
    answer = row.fields.get(parts.answer)
    unlabelled = False
    if not isinstance(parts.text, str) or not parts.text.strip():
        words = "has no text"
    elif len(texts) < 2:
        words = f"has {len(texts)} option{'' if texts else 's'}: it needs at least 2"
    elif len(texts) > len(LETTERS):
        words = f"has {len(texts)} options: at most {len(LETTERS)} can be named"
    elif not all(texts):
        words = "has an option without text"
    elif any(isinstance(option, list | Mapping) for option in parts.options):
        words = "has an option that is no text"
    elif parts.passage is not None and not isinstance(parts.passage, str):
        words = "has a passage that is no text"
    elif (text := _twice(texts)) is not None:
        words = f"has the option {text!r} twice"
    elif len(labels) != len(texts):
        words = f"has {len(texts)} options and {len(labels)} labels: give each option its own"
    elif (label := _twice(labels)) is not None:
        words = f"has the label {label!r} twice"
    elif answer in (None, ""):
        unlabelled, lacks = True, parts.answer not in row.fields
        words = f"has no label: its {parts.answer} is {f'missing (its {_named(row.fields)})' if lacks else 'empty'}"
    elif str(answer).strip() not in labels:
        words = f"has the answer {answer!r:.60}, which is none of its options {labels}"
    else:
        passage = str(parts.passage or "").strip()
        return Question(id, parts.text.strip(), tuple(texts), labels.index(str(answer).strip()), passage)
    return Flaw(f"{row.place}: question {id} {words}", unlabelled)


def _twice(texts: Sequence[str]) -> str | None:
    return next((one for number, one in enumerate(texts) if one in texts[:number]), None)


SCHEMAS: dict[str, tuple[str, ...]] = {
    "the hub's (ARC, CommonsenseQA)": ("id", "question", "choices", "answerKey"),
    "their authors'": ("id", "question.stem", "question.choices", "answerKey"),
    "ReClor's and CREST's": ("id_string", "question", "answers", "label"),
}
"""The fields of each schema; the last one is the answer, which a test split may lack. ReClor's may have a `context`."""


def _parts(row: Row) -> _Parts:
    """Return the parts of a row in one of `SCHEMAS`; raises UserError for any other schema.

    `choices` are two lists, `text` and `label` (the hub), or a list with a text and a label for each option (the
    authors). A `label` of ReClor's is the place of the option, counted from 0, and one of CREST's is its letter.
    """
    fields = row.fields
    nested = fields["question"] if isinstance(fields.get("question"), Mapping) else {}
    there = {*fields, *(f"question.{name}" for name in nested)}
    hub, authors, reclor = SCHEMAS
    schema = authors if nested else reclor if "answers" in fields and "choices" not in fields else hub
    *needed, answer = SCHEMAS[schema]
    if missing := [name for name in needed if name not in there]:
        known = "; ".join(f"{name}: {', '.join(names)}" for name, names in SCHEMAS.items())
        raise UserError(
            f"{row.place} lacks {', '.join(missing)} of the schema that is nearest, {schema}; its "
            f"{_named(nested or fields)}. The schemas are {known}. Give a file in one of them, "
            "or dataset=jsonl with dataset.columns.question=FIELD and so on"
        )
    if schema != reclor:
        texts, labels = _choices(row.place, nested["choices"] if nested else fields["choices"])
        return _Parts(fields["id"], nested["stem"] if nested else fields["question"], "", texts, labels, answer)
    options = fields["answers"]
    if not isinstance(options, list):
        raise UserError(f"{row.place}: answers must be a list of texts, and is {options!r:.60}")
    return _Parts(
        fields["id_string"],
        fields["question"],
        fields.get("context"),
        options,
        _labels(fields.get("label"), options),
        answer,
    )


def _labels(answer: Any, options: Sequence[Any]) -> Sequence[Any]:
    """Return the labels of options without labels of their own: places from 0 if the answer is a number, or letters."""
    return range(len(options)) if str(answer).strip().isdigit() else LETTERS[: len(options)]


def _ways(row: Row, columns: Columns) -> dict[str, list[str]]:
    """Return the ways in which the answer of a row names one of its options, each with its labels of the options.

    A number is no text of an option that is a text: it is a place.
    """
    options, answer = columns.items(row, "options", "texts"), columns.get(row, "answer")
    texts = ["" if one is None else str(one).strip() for one in options]
    if answer in (None, "") or _twice(texts) is not None:
        return {}
    ways = {"letter": list(LETTERS[: len(options)]), "text": texts, "place": [str(n) for n in range(len(options))]}
    if type(answer) is int and all(isinstance(one, str) for one in options):
        del ways["text"]
    return {way: labels for way, labels in ways.items() if str(answer).strip() in labels}


def _own_way(rows: Sequence[Row], columns: Columns) -> str | None:
    """Return the one way in which the answers of a user's file name options; None if no answer names one.

    Raises:
        UserError: no way fits all of these rows, or two ways fit all and find different options.
    """
    hint = "give all answers of the file by letter, by text, or by place (counted from 0)"
    fitting: dict[str, list[str]] = {}
    found = [(row, ways) for row in rows if (ways := _ways(row, columns))]
    for row, ways in found:
        before, fitting = fitting, {way: ways[way] for way in fitting or ways if way in ways}
        if not fitting:
            raise UserError(
                f"{row.place} has its answer by {' or '.join(ways)}, and rows before it by "
                f"{' or '.join(before)}: {hint}"
            )
    for row, ways in found:
        word = str(columns.get(row, "answer")).strip()
        if len({ways[way].index(word) for way in fitting}) > 1:
            raise UserError(
                f"{row.place} has the answer {word!r:.60}, which names one option by "
                f"{' and another by '.join(fitting)}; the file does not say which is meant: {hint}"
            )
    return next(iter(fitting), None)


def _own_parts(row: Row, columns: Columns, id: str, way: str | None) -> _Parts:
    """Return the parts of a row of a user's file, whose answer names an option in one of `_ways`."""
    options, answer = columns.items(row, "options", "texts"), columns.get(row, "answer")
    labels: Sequence[Any] = _ways(row, columns).get(way or "", _labels(answer, options))
    fields = {"id": id, "passage": ""} | {
        name: columns.get(row, name) for name in ("id", "passage") if columns.there(row, name)
    }
    question = columns.get(row, "question")
    return _Parts(fields["id"], question, fields["passage"], options, labels, columns.names.get("answer", "answer"))


def _named(fields: Mapping[str, Any]) -> str:
    return f"fields are: {', '.join(map(str, fields)) or 'none'}"


def _choices(place: str, choices: Any) -> tuple[Sequence[Any], Sequence[Any]]:
    """Return the texts and the labels of options: from two lists (the hub), or from a list of pairs (the authors)."""
    names = ("text", "label")
    if isinstance(choices, Mapping) and all(isinstance(choices.get(name), list) for name in names):
        return choices["text"], choices["label"]
    if isinstance(choices, list) and all(isinstance(one, Mapping) and set(names) <= set(one) for one in choices):
        return [one["text"] for one in choices], [one["label"] for one in choices]
    raise UserError(
        f"{place}: choices must hold the lists text and label, or be a list with a text and a label for each option; "
        f"it is {choices!r:.60}"
    )
