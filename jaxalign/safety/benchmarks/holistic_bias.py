"""The builder of HolisticBiasR: the user's noun phrases in the user's templates of regard.

HolisticBias 1.1 (Smith et al., 2022, arXiv 2205.09209) has noun phrases with a preference; the 1,770 marked
`dispreferred` in the ten templates of Sheng et al. (2019, arXiv 1909.01326) are the 17,700 prompts of HolisticBiasR
(Esiobu et al., 2023, arXiv 2311.18140). Neither ships.
"""

from pathlib import Path

from jaxalign.data.account import count, so_many
from jaxalign.data.columns import Columns
from jaxalign.data.files import read_table
from jaxalign.errors import UserError
from jaxalign.runs.reading import read_text
from jaxalign.safety.benchmarks.benchmark import BenchmarkPrompt, ReadPrompts
from jaxalign.safety.categories import read_category
from jaxalign.safety.starter_prompts import COMPLETION

DISPREFERRED = "dispreferred"
MOST_PROMPTS = 1_000_000
"""The most prompts that are made; two small files could make more than fit into the memory."""
DESCRIPTOR_ALONE = "descriptor"
"""The type of a row of HolisticBias that has no noun, such as "left-handed", and is no subject of a sentence."""
_ARTICLES = ("a ", "an ")
_MARKS = ("{phrase}", "{noun_phrase}", "XYZ")
"""How a template marks the place of the phrase: ours, and those of the files of Esiobu et al. and of Sheng et al."""


def holistic_bias_prompts(phrases: Path, templates: Path) -> ReadPrompts:
    """Return a prompt for each dispreferred phrase and each template.

    A phrase gets the definite article, as in the code of Esiobu et al. That code also removes hyphens and capitals of
    some phrases, at random and without a seed; here they stay.

    Args:
        phrases: HolisticBias' noun_phrases.csv, or a table with these columns of it: axis, descriptor,
            descriptor_preference, noun_phrase and noun_phrase_type.
        templates: a text with one template a line; {phrase}, {noun_phrase} or XYZ stands for the noun phrase.

    Raises:
        UserError: a file cannot be read or lacks a column, an axis is unknown, there is no template, one has no place
            for a phrase, or they would make more than `MOST_PROMPTS` prompts.
    """
    columns = Columns(published=True)
    lines = [line.strip() for line in read_text(templates).splitlines() if line.strip()]
    if not lines:
        raise UserError(f"{templates} is empty: write a template a line, with XYZ for the noun phrase")
    for number, line in enumerate(lines, start=1):
        if sum(line.count(mark) for mark in _MARKS) != 1:
            raise UserError(
                f"{templates} template {number} has no single {{phrase}} or XYZ for the noun phrase: {line!r:.80}"
            )
    rows, found, others, alone = read_table(phrases), [], 0, 0
    for number, row in enumerate(rows, start=1):
        preference, kind = (columns.text(row, name) for name in ("descriptor_preference", "noun_phrase_type"))
        if preference != DISPREFERRED or kind == DESCRIPTOR_ALONE:
            others, alone = others + (preference != DISPREFERRED), alone + (preference == DISPREFERRED)
            continue
        if len(found) + len(lines) > MOST_PROMPTS:
            raise UserError(
                f"{phrases} and {templates} would make more than {MOST_PROMPTS:,} prompts: give fewer phrases or "
                "templates"
            )
        axis = read_category(columns.text(row, "axis"), "holisticbias_r", row.place)
        phrase, group = _definite(columns.text(row, "noun_phrase").strip()), columns.text(row, "descriptor")
        for place, line in enumerate(lines, start=1):
            text = line
            for mark in _MARKS:
                text = text.replace(mark, phrase)
            found.append(BenchmarkPrompt(f"{number}-{place}", axis, COMPLETION, text[:1].upper() + text[1:], group))
    aside = [so_many(others, f"not {DISPREFERRED}"), so_many(alone, "without a noun")]
    return ReadPrompts(found, {phrases: len(rows), templates: count(len(lines), "template")}, aside)


def _definite(phrase: str) -> str:
    """Return a phrase with "the" in the place of its indefinite article.

    >>> _definite("an old plumber"), _definite("plumbers")
    ('the old plumber', 'plumbers')
    """
    article = next((one for one in _ARTICLES if phrase.startswith(one)), None)
    return phrase if article is None else f"the {phrase.removeprefix(article)}"
