"""The page of a report: its sections, its filters, and the responses that it shows."""

import re
from collections.abc import Sequence
from typing import Any

from jaxalign.analysis.html import PageSection, html_page, script_json
from jaxalign.data.account import count
from jaxalign.jobs.harm.report_parts import ReportPart
from jaxalign.jobs.harm.reported import judged_places, shown_responses
from jaxalign.safety import report_tables as tables
from jaxalign.safety.benchmarks.benchmark import balanced_subset
from jaxalign.safety.collection import Collection, HarmRun, ReportedModel
from jaxalign.safety.mitigation import NO_MITIGATION
from jaxalign.safety.shown_responses import shown_set
from jaxalign.values.schwartz import CIRCLE, label

LARGEST_PAGE = 4_900_000
"""The most bytes of a page. If it would be larger, tables of all figures are left to their files, and then fewer
prompts are shown."""


def report_page(
    runs: Sequence[HarmRun], parts: Sequence[ReportPart], aside: Sequence[str], texts: int
) -> tuple[str, int]:
    """Return the page, of at most `LARGEST_PAGE` bytes as far as leaving out rows and responses can make it so.

    The number is the most prompts of a benchmark that it has room for: at most `texts`.
    """

    def made(most: int, shown: Sequence[Any]) -> str:
        sections = [_section(part, most) for part in parts]
        lines = _page_lines(runs, parts, aside)
        return html_page("Values and harm", lines, sections, _filters(parts), shown, _text_lines(shown))

    most = max(len(table.rows) for part in parts for table in part.tables)
    without_texts = made(most, [])
    while len(without_texts.encode()) > (LARGEST_PAGE if not texts else LARGEST_PAGE // 2) and most > 100:
        most //= 2
        without_texts = made(most, [])
    sets, room = shown_sets(parts, texts, LARGEST_PAGE - len(without_texts.encode()))
    return (made(most, sets) if sets else without_texts), room


def shown_sets(parts: Sequence[ReportPart], most: int, largest: int) -> tuple[list[dict[str, Any]], int]:
    """Return the responses of at most `most` prompts of each part, of fewer if they would take over `largest` bytes.

    The number says of how many at most.
    """
    while most:
        sets = [one for part in parts if (one := _shown(part, most)) is not None]
        size = len(script_json(sets).encode())
        if size <= largest - 1000:  # what stands around them
            return sets, most
        most = max(0, min(most - 1, int(most * largest / size)))
    return [], most


def _shown(part: ReportPart, most: int) -> dict[str, Any] | None:
    found = part.found
    places = dict.fromkeys(place for model in found.under()[:1] or found.models[:1] for place in judged_places(model))
    prompts = balanced_subset(list(places), most)
    ids = {one.id for one in prompts}
    cut = str(found.benchmark.get("cut") or "whole")
    responses: list[tuple[ReportedModel, Any]] = [(model, shown_responses(model, ids, cut)) for model in found.models]
    responses = [(model, mine) for model, mine in responses if mine]
    return shown_set(part.title, found, prompts, responses) if responses else None


def _section(part: ReportPart, most: int) -> PageSection:
    """Return a section with those of its tables that have at most `most` rows."""
    found = part.found
    lines = tables.judge_notes(found)
    if found.models:
        b = found.benchmark
        asked = f"{b['prompts']:,} prompts, {count(b['samples'], 'sample')} each; version {b['version']}"
        lines = [f"Base model: {found.base}", f"{asked}; {models_in_words(found)}", *lines]
    kept = [table for table in part.tables if len(table.rows) <= most]
    left = [f"tables/{table.name}.csv" for table in part.tables if len(table.rows) > most]
    lines += [f"Too long for this page: {', '.join(left)}"] if left else []
    pictures = [(png, text) for png, _, text in part.figures.values()]
    return PageSection(re.sub(r"[^a-z0-9-]+", "-", part.name.lower()), part.title, lines, pictures, kept)


def _filters(parts: Sequence[ReportPart]) -> dict[str, list[tuple[str, str]]]:
    categories = dict.fromkeys(category for part in parts for category in part.found.categories)
    policies = dict.fromkeys(policy for part in parts for policy in part.found.mitigations)
    return {
        "value": [(value, label(value)) for value in CIRCLE],
        "category": [(one, tables.category_name(one)) for one in categories],
        "mitigation": [(one, one.replace("_", " ")) for one in policies],
    }


def _page_lines(runs: Sequence[HarmRun], parts: Sequence[ReportPart], aside: Sequence[str]) -> list[str]:
    adapters = {model.about["adapter"] for part in parts for model in part.found.models if model.is_adapter}
    lines = [
        f"{count(len(runs), 'run')} of {count(len({part.found.name for part in parts}), 'benchmark')}, "
        f"{count(len(adapters), 'adapter')}. Each figure stands with its 95 % interval and its n, and with its "
        "judge: a judge can be wrong, and its agreement with labels (κ) stands under each table.",
        "A filter by value keeps the adapters whose target is highest in it, and models without a target.",
    ]
    return [*lines, *aside]


def _text_lines(texts: Sequence[Any]) -> list[str]:
    shown = ", ".join(f"{len(one['prompts'])} of {one['title']}" for one in texts)
    return [
        f"Prompts shown: {shown}; the first sample of each model, the same prompts for all.",
        "Some benchmarks, such as HEx-PHI, must not be passed on: then make the page with texts=0 before you share it.",
    ]


def models_in_words(found: Collection) -> str:
    """Return how many models there are, and under which mitigations."""
    said = count(len({model.title for model in found.models}), "model")
    return said if found.mitigations == [NO_MITIGATION] else f"{said}, mitigation {', '.join(found.mitigations)}"
