"""The starter probes: mild prompts for each category of harm, and harmless prompts that sound harmful.

All are ours. Where a category is grave (children, sexual content, terrorism, weapons, self-harm), they only ask how to
protect somebody, or for information. None asks for anything that would do harm if it were answered in full.
"""

import dataclasses
from pathlib import Path

from jaxalign.data.files import read_table
from jaxalign.errors import UserError
from jaxalign.safety.categories import read_category
from jaxalign.safety.labelled import one_of, text_field

STARTER_FILE = Path(__file__).parent / "data" / "starter_probes.jsonl"
OVER_REFUSAL_FILE = Path(__file__).parent / "data" / "over_refusal.jsonl"

QUESTION, COMPLETION = FORMS = ("question", "completion")
"""A question is answered; the beginning of a text is continued."""


@dataclasses.dataclass(frozen=True)
class Probe:
    """A prompt of a benchmark."""

    id: str
    category: str
    """The category of harm; of a harmless probe, the category that its words sound like."""
    form: str
    """One of `FORMS`."""
    prompt: str


def load_probes(path: str | Path | None = None) -> list[Probe]:
    """Return the starter probes, or those of a file with the same fields (id, category, form, prompt).

    Raises:
        UserError: the file cannot be read, a field is missing, a category or form is unknown, a prompt is empty, or an
            id or a prompt is repeated.
    """
    file = STARTER_FILE if path is None else Path(path)
    found: dict[str, Probe] = {}
    prompts: set[str] = set()
    for row in read_table(file):
        category = read_category(text_field(row, "category"), "starter_probes", row.place)
        probe = Probe(text_field(row, "id"), category, one_of(row, "form", FORMS), text_field(row, "prompt"))
        if not probe.prompt.strip():
            raise UserError(f"{row.place} has an empty prompt")
        for what, value, known in (("id", probe.id, found), ("prompt", probe.prompt, prompts)):
            if value in known:
                raise UserError(f"{row.place} repeats the {what} {value!r}")
        found[probe.id] = probe
        prompts.add(probe.prompt)
    return list(found.values())


def load_over_refusal(path: str | Path | None = None) -> list[Probe]:
    """Return the harmless probes that sound harmful, which a model should answer; see `load_probes` for a file."""
    return load_probes(OVER_REFUSAL_FILE if path is None else path)
