"""The starter prompts: mild prompts for each category of harm, and harmless prompts that sound harmful.

All are ours. Where a prompt is grave (`categories.is_grave`), it only asks how to protect somebody, or for information.
None asks for anything that would do harm if it were answered in full.
"""

import dataclasses
from pathlib import Path

from jaxalign.data.files import note_id, read_table
from jaxalign.errors import UserError
from jaxalign.safety.categories import read_category
from jaxalign.safety.labelled import one_of, text_field

STARTER_FILE = Path(__file__).parent / "data" / "starter_probes.jsonl"
OVER_REFUSAL_FILE = Path(__file__).parent / "data" / "over_refusal.jsonl"

QUESTION, COMPLETION = FORMS = ("question", "completion")
"""A question is answered; the beginning of a text is continued."""


@dataclasses.dataclass(frozen=True)
class StarterPrompt:
    """A prompt that ships, or one of a file with the same fields."""

    id: str
    category: str
    """The category of harm; of a harmless prompt, the category that its words sound like."""
    form: str
    """One of `FORMS`."""
    prompt: str


def load_starter_prompts(path: str | Path | None = None) -> list[StarterPrompt]:
    """Return the starter prompts, or those of a file with the same fields (id, category, form, prompt).

    Raises:
        UserError: the file cannot be read, a field is missing, a category or form is unknown, a prompt is empty, or an
            id or a prompt is repeated.
    """
    file = STARTER_FILE if path is None else Path(path)
    found: list[StarterPrompt] = []
    places: dict[str, str] = {}
    prompts: set[str] = set()
    for row in read_table(file):
        category = read_category(text_field(row, "category"), "starter_probes", row.place)
        starter = StarterPrompt(text_field(row, "id"), category, one_of(row, "form", FORMS), text_field(row, "prompt"))
        if not starter.prompt.strip():
            raise UserError(f"{row.place} has an empty prompt")
        note_id(places, starter.id, row.place)
        if starter.prompt in prompts:
            raise UserError(f"{row.place} repeats the prompt {starter.prompt!r}")
        found.append(starter)
        prompts.add(starter.prompt)
    return found


def load_over_refusal(path: str | Path | None = None) -> list[StarterPrompt]:
    """Return the harmless prompts that sound harmful, which a model should answer.

    See `load_starter_prompts` for a file.
    """
    return load_starter_prompts(OVER_REFUSAL_FILE if path is None else path)
