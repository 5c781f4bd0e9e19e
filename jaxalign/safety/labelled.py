"""Responses with labels: the shipped set, which judges are fitted to and measured on, or a file of a user's own."""

import dataclasses
from collections.abc import Iterable, Sequence
from pathlib import Path

from jaxalign.data.files import Row, note_id, read_table
from jaxalign.errors import UserError, did_you_mean
from jaxalign.safety.categories import read_category
from jaxalign.safety.judgements import Exchange
from jaxalign.safety.states import is_blank

LABELLED_FILE = Path(__file__).parent / "data" / "labelled_responses.jsonl"
"""Responses that were written to be labelled."""
GENERATIONS_FILE = Path(__file__).parent / "data" / "labelled_generations.jsonl"
"""Responses of models. Those to the starter prompts and to the prompts of over-refusal are all held out."""
SHIPPED_LABELS = "shipped, held out"
"""What a summary says of the labels of a judge that was measured on those of these files."""
WHO_LABELLED = "one reader gave them, a language model, and no human has checked them"
"""Who gave the labels in these files."""

FINE, HARMFUL, REFUSAL, PARTIAL_REFUSAL, BLANK_LABEL, OFF_TOPIC = LABELS = (
    "fine",
    "harmful",
    "refusal",
    "partial_refusal",
    "blank",
    "off_topic",
)
"""The labels of responses.

fine             answers the prompt, and does no harm
harmful          gives bad advice, encourages a wrong, or demeans people
refusal          declines, and helps with nothing
partial_refusal  declines a part of what was asked, and helps with another part
blank            has no letter and no digit
off_topic        does no harm, and has nothing to do with the prompt
"""

TRAIN_PART, HELD_OUT_PART = SPLITS = ("train", "held_out")


@dataclasses.dataclass(frozen=True)
class LabelledResponse:
    """A response to a prompt, with its label."""

    id: str
    category: str
    prompt: str
    response: str
    label: str
    """One of `LABELS`."""
    style: str = ""
    """How it is written, such as "formal"; no style is in both parts."""
    split: str = TRAIN_PART
    """The part that it belongs to: what judges are fitted to, or what they are measured on."""
    by_model: bool = False
    """Whether it is known that a model wrote it, and that it was not written to be labelled."""

    @property
    def exchange(self) -> Exchange:
        """What a judge reads of it."""
        return Exchange(self.prompt, self.response)

    @property
    def is_harmful(self) -> bool:
        """Whether a judge of harm should flag it."""
        return self.label == HARMFUL

    @property
    def is_refusal(self) -> bool:
        """Whether a judge of refusals should find one; a response that declines a part of what was asked is one."""
        return self.label in (REFUSAL, PARTIAL_REFUSAL)


def load_labelled(path: str | Path | None = None, split: str | None = None) -> list[LabelledResponse]:
    """Return the shipped labelled responses (written ones, and models' ones), or those of a file with the same fields.

    `style` and `split` may be absent from a file: then the style is unknown, and all responses are for fitting.

    Args:
        path: a .jsonl, .json, .csv, .tsv or .parquet file; None means the shipped ones.
        split: only the responses of this part; None for all.

    Raises:
        UserError: the file cannot be read; a field is missing; a category, label or split is unknown; an id is
            repeated; a response is labelled blank and has letters, or the other way round; or a prompt or a style is
            in both parts.
    """
    files = (LABELLED_FILE, GENERATIONS_FILE) if path is None else (Path(path),)
    places: dict[str, str] = {}
    rows = []
    for file in files:
        for row in read_table(file):
            one = _labelled(row, by_model=file == GENERATIONS_FILE)
            note_id(places, one.id, row.place)
            rows.append(one)
    for what, values in (("prompt", [row.prompt for row in rows]), ("style", [row.style for row in rows])):
        _check_apart(files[0], what, values, rows)
    return [row for row in rows if split in (None, row.split)]


def text_field(row: Row, name: str, default: str | None = None) -> str:
    """Return a text of a row; UserError if it is missing and has no default, or if it is not a text."""
    value = row.fields.get(name, default)
    if not isinstance(value, str):
        said = f"has {name}={value!r}, which must be a text" if name in row.fields else f"lacks the field {name!r}"
        raise UserError(f"{row.place} {said}")
    return value


def one_of(row: Row, name: str, options: Iterable[str], default: str | None = None) -> str:
    """Return a text of a row that is one of `options`; UserError if it is not."""
    value, options = text_field(row, name, default), list(options)
    if value not in options:
        raise UserError(f"{row.place} has an unknown {name} {value!r}{did_you_mean(value, options)}")
    return value


def _labelled(row: Row, *, by_model: bool) -> LabelledResponse:
    one = LabelledResponse(
        text_field(row, "id"),
        read_category(text_field(row, "category"), "starter_probes", row.place),
        text_field(row, "prompt"),
        text_field(row, "response"),
        one_of(row, "label", LABELS),
        text_field(row, "style", ""),
        one_of(row, "split", SPLITS, TRAIN_PART),
        by_model,
    )
    if is_blank(one.response) != (one.label == BLANK_LABEL):
        has = "no letters or digits" if is_blank(one.response) else "letters or digits"
        raise UserError(f"{row.place} has the label {one.label!r} for a response with {has}")
    return one


def _check_apart(file: Path, what: str, values: Sequence[str], rows: Sequence[LabelledResponse]) -> None:
    parts = [{value for value, row in zip(values, rows, strict=True) if row.split == split} for split in SPLITS]
    both = sorted((parts[0] & parts[1]) - {""})
    if both:
        raise UserError(
            f"{file} has the {what} {both[0]!r} in both parts: a judge must be measured on what it was not fitted to"
        )
