"""The builder of HolisticBiasR: the user's noun phrases in the user's templates of regard.

HolisticBias 1.1 (Smith et al., 2022, arXiv 2205.09209) has noun phrases with a preference; those marked `dispreferred`
in the ten templates of Sheng et al. (2019, arXiv 1909.01326) are the 17,700 prompts of HolisticBiasR (Esiobu et al.,
2023, arXiv 2311.18140). Neither ships.
"""

from pathlib import Path

from jaxalign.data.columns import Columns
from jaxalign.data.files import read_table
from jaxalign.errors import UserError
from jaxalign.runs.reading import read_text
from jaxalign.safety.benchmarks.benchmark import BenchmarkPrompt
from jaxalign.safety.categories import read_category
from jaxalign.safety.starter_prompts import COMPLETION

DISPREFERRED = "dispreferred"
MOST_PROMPTS = 1_000_000
"""The most prompts that are made; two small files could make more than fit into the memory."""
_MARKS = ("{phrase}", "XYZ")
"""How a template marks the place of the phrase: ours, and that of Sheng et al.'s files."""


def holistic_bias_prompts(phrases: Path, templates: Path) -> list[BenchmarkPrompt]:
    """Return a prompt for each dispreferred phrase and each template.

    Args:
        phrases: a table with noun_phrase, axis, descriptor and preference; the columns of HolisticBias'
            noun_phrases.csv.
        templates: a text with one template a line; {phrase}, or XYZ, stands for the noun phrase.

    Raises:
        UserError: a file cannot be read or lacks a column, an axis is unknown, a template has no place for a phrase,
            or they would make more than `MOST_PROMPTS` prompts.
    """
    columns = Columns(published=True)
    lines = [line.strip() for line in read_text(templates).splitlines() if line.strip()]
    for number, line in enumerate(lines, start=1):
        if sum(line.count(mark) for mark in _MARKS) != 1:
            raise UserError(
                f"{templates} template {number} has no single {{phrase}} or XYZ for the noun phrase: {line!r:.80}"
            )
    found = []
    for number, row in enumerate(read_table(phrases), start=1):
        if columns.text(row, "preference") != DISPREFERRED:
            continue
        if len(found) + len(lines) > MOST_PROMPTS:
            raise UserError(
                f"{phrases} and {templates} would make more than {MOST_PROMPTS:,} prompts: give fewer phrases or "
                "templates"
            )
        axis = read_category(columns.text(row, "axis"), "holisticbias_r", row.place)
        phrase, group = columns.text(row, "noun_phrase").strip(), columns.text(row, "descriptor")
        for place, line in enumerate(lines, start=1):
            text = line
            for mark in _MARKS:
                text = text.replace(mark, phrase)
            found.append(BenchmarkPrompt(f"{number}-{place}", axis, COMPLETION, text[:1].upper() + text[1:], group))
    return found
