"""The parts of a report: tables and figures of each benchmark by each judge, and of two judges side by side."""

import dataclasses
import re
from collections.abc import Mapping, Sequence
from itertools import combinations
from typing import Any

import numpy as np

from jaxalign.analysis.data_tables import DataTable
from jaxalign.analysis.estimates import Estimate
from jaxalign.jobs.harm.reported import labels_of_both, tables_of
from jaxalign.safety import report_tables as tables
from jaxalign.safety.attribution import Harms
from jaxalign.safety.attribution_table import attributed_models, attribution_table, harm_kappa
from jaxalign.safety.benchmarks.benchmark import REFUSAL_RATE
from jaxalign.safety.collection import Collection, ReportedModel
from jaxalign.safety.group_tables import MEAN_SCORE, PromptFigures, beside_base_table, groups_table, prompts_mean
from jaxalign.safety.judged import JudgedTable
from jaxalign.safety.metrics import prompt_means, prompt_refusals
from jaxalign.safety.mitigation import NO_MITIGATION
from jaxalign.safety.noise import seed_noise
from jaxalign.safety.risk_tables import collection_risks, published_table, regressions_table, risks_table
from jaxalign.safety.risks import Risk
from jaxalign.safety.summary import ALL, as_scale, harm_drops
from jaxalign.safety.task_tables import TaskScores, tasks_table, with_tasks
from jaxalign.safety.two_judges import (
    DIFFERENCES,
    differences_table,
    flipped_differences,
    flips_table,
    judges_compared,
    with_flips,
)
from jaxalign.safety.value_probe import shipped_value_probe
from jaxalign.safety.value_tables import carried_table

MOST_ATTRIBUTED = 24
"""With more adapters than this, those without a control or a second scale are left out of the conditions."""


@dataclasses.dataclass
class ReportPart:
    """One section of the report: a benchmark by one judge, or two judges of one benchmark."""

    name: str
    title: str
    found: Collection
    tables: list[DataTable]
    figures: dict[str, tuple[bytes, bytes, str]]
    """By name: PNG, SVG, and a text for those who do not see it."""
    risks: list[Risk]

    def table(self, kind: str) -> DataTable:
        """Return the table of a kind, which is the end of its name."""
        return next(table for table in self.tables if table.name == f"{self.name}-{kind}")

    def has(self, kind: str) -> bool:
        """Return whether there is a table of a kind."""
        return any(table.name == f"{self.name}-{kind}" for table in self.tables)

    def put(self, table: DataTable) -> None:
        """Put a table in the place of the one that has its name."""
        self.tables[[one.name for one in self.tables].index(table.name)] = table


def part_names(collections: Sequence[Collection]) -> list[str]:
    """Return a name for the files of each collection: its benchmark, and its judge if there are several."""
    names: list[str] = []
    for found in collections:
        alone = sum(one.name == found.name for one in collections) == 1
        name = found.name if alone else f"{found.name}-by-{found.judged_by}"
        name = re.sub(r"[^\w.-]+", "-", name)
        names.append(name if name not in names else f"{name}-{names.count(name) + 1}")
    return names


def report_part(
    found: Collection, name: str, known: tables.Perplexities, scores: TaskScores | None = None
) -> ReportPart:
    """Return the tables of a collection, without figures; `name` begins the names of their files."""
    scores = scores or {}
    _fill_drops(found)
    risks = collection_risks(found)
    about_harm = found.metric != REFUSAL_RATE
    made = [tables.matrix_table(found, name, policy) for policy in found.mitigations]
    ability = with_tasks(tables.ability_table(found, name, known), found, scores)
    made += [tables.states_table(found, name), ability]
    tasks = tasks_table(found, name, scores)
    made += [] if tasks is None else [tasks]
    if any(model.drops for model in found.models):
        made.append(tables.drops_table(found, name))
    if risks:
        made += [risks_table(found, name, risks), regressions_table(found, name)]
        if about_harm:
            made.append(published_table(found, name, risks))
    if any(model.about.get(key) for model in found.models for key in ("text_values", "dictionary_values")):
        carried = carried_table(found, name, shipped_value_probe())
        made += [] if carried is None else [carried]
    made += [tables.judges_table(found, name), tables.harm_table(found, name), tables.records_table(found, name)]
    title = f"{found.name.replace('_', ' ')}, judged by {found.judged_by}"
    return ReportPart(name, title, found, made, {}, risks)


def _fill_drops(found: Collection) -> None:
    """Compute drops that runs do not have, because their run without mitigation came later."""
    without = {model.title: model for model in found.under()}
    scales = {one["judge"]: as_scale(one["scale"]) for one in found.judges}
    for model in found.models:
        before = without.get(model.title)
        if model.mitigation == NO_MITIGATION or model.drops or before is None:
            continue
        earlier, changed = tables_of(before), tables_of(model)
        for judge in (one for one in earlier if one in changed and one in scales):
            for drop in harm_drops(earlier[judge], changed[judge], scales[judge]):
                model.drops.append({**drop, "judge": judge})


def drawn_figures(
    part: ReportPart, known: tables.Perplexities, losses: tables.TrainingLosses
) -> dict[str, tuple[bytes, bytes, str]]:
    """Return the figures of a part, as `ReportPart.figures` has them."""
    # matplotlib takes half a second, so it is imported late
    from jaxalign.analysis.figures import as_png, as_svg
    from jaxalign.safety import adapter_figures, figures

    found, risks = part.found, part.risks
    title, note = found.name.replace("_", " "), "; ".join(_short(one) for one in found.judges)
    metric = tables.metric_name(found.metric)
    drawn: dict[str, Any] = {}
    if risks and any(risk.target.estimate is not None for risk in risks):
        doubted, whole = found.doubted_categories, found.name_of_all()
        drawn["risks"] = figures.risk_map(risks, f"{title}: value × risk", note, doubted=doubted, whole=whole)
    drawn["mitigation"] = figures.mitigation_bars(found, f"{title}: mitigation", note)
    drawn["dose"] = figures.dose_response(found, f"{title}: {metric} by dose", note)
    drawn["ability"] = figures.ability_and_harm(found, known, f"{title}: {metric} and ability", note)
    drawn["profiles"] = adapter_figures.profile_radars(
        found, f"{title}: the adapters' values", "clockwise from self-direction at the top"
    )
    drawn["training"] = adapter_figures.training_curves(found, losses, f"{title}: training of the adapters", "")
    words = {
        "risks": "heat map of the correlation of each value with the harm in each category",
        "mitigation": "bars of the drop of the mean score by mitigation, with intervals",
        "dose": f"lines of the {metric} over adapter.scale, with intervals",
        "ability": f"the {metric} over the perplexity relative to the base's",
        "profiles": "a radar of target and measured scores for each adapter",
        "training": "lines of the loss of each adapter over the steps of its training",
    }
    return {
        f"{part.name}-{kind}": (as_png(figure), as_svg(figure), f"{title}: {words[kind]}; the tables have its numbers")
        for kind, figure in drawn.items()
        if figure is not None
    }


def _short(judge: Any) -> str:
    kappa = judge["kappa"]
    about = "" if judge["about"] == "harm" else f" ({judge['about']})"
    if kappa is None or kappa["estimate"] is None:
        return f"{judge['judge']}{about}, uncalibrated"
    limits = "" if kappa["low"] is None else f" [{kappa['low']:.2f}, {kappa['high']:.2f}]"
    return f"{judge['judge']}{about}, κ {kappa['estimate']:.2f}{limits}"


def add_comparisons_by_prompt(parts: Sequence[ReportPart], known: tables.Perplexities) -> None:
    """Add to each part the tables that compare its models prompt by prompt, behind its tables of the main figure.

    They say whether a value has made its adapter harmful (`*-because`), how groups of models differ (`*-groups`), and
    how each model differs from the base (`*-beside-base`). With more than `MOST_ATTRIBUTED` adapters, those without a
    control and with no other scale are left out of `*-because`.
    """
    figures = _FiguresOfPrompts()
    for part in parts:
        compared = [make(part.found, part.name, figures) for make in (groups_table, beside_base_table)]
        made = [_attributions(part, parts, figures, known), *compared]
        place = len(part.found.mitigations)
        part.tables[place:place] = [table for table in made if table is not None]


def _attributions(
    part: ReportPart, parts: Sequence[ReportPart], figures: "_FiguresOfPrompts", known: tables.Perplexities
) -> DataTable | None:
    """Return the table on whether it is because of the value; None if the part is not about harm, or has no adapter."""
    found = part.found
    if found.metric == REFUSAL_RATE:
        return None
    models = attributed_models(found)
    means = [prompts_mean(figures.harms(found, model)) for model in found.under()]
    noise = seed_noise([model.about for model in found.under()], means)
    if len(models) > MOST_ATTRIBUTED:
        models = [one for one in models if one.is_compared]
    others = [other.found for other in parts if other is not part and other.found.name == found.name]
    others.sort(key=lambda found: ALL in found.doubted_categories)  # a judge that is not believed is asked last

    def second(model: ReportedModel) -> tuple[Harms, Harms, Estimate | None] | None:
        for other in others:
            mine = next((one for one in other.under() if one.title == model.title), None)
            base = other.untuned()
            if mine is not None and base is not None:
                return figures.harms(other, mine), figures.harms(other, base), harm_kappa(other, mine)
        return None

    if not models:
        return None
    return attribution_table(found, part.name, models, lambda model: figures.harms(found, model), second, known, noise)


class _FiguresOfPrompts:
    """The figures of each prompt of a model, by judge; each model is read once."""

    def __init__(self) -> None:
        self._read: dict[int, Mapping[str, PromptFigures]] = {}
        self._categories: dict[tuple[Any, ...], dict[str, str]] = {}

    def __call__(self, model: ReportedModel) -> Mapping[str, PromptFigures]:
        if id(model) not in self._read:
            self._read[id(model)] = {judge: self._figures(table) for judge, table in tables_of(model).items()}
        return self._read[id(model)]

    def harms(self, found: Collection, model: ReportedModel) -> Harms:
        """Return the mean harm of each prompt of a model by the judge of its main figure."""
        row, figures = model.row(ALL, found.metric), self(model)
        return {} if row is None or row["judge"] not in figures else figures[row["judge"]].measures[MEAN_SCORE]

    def _figures(self, table: JudgedTable) -> PromptFigures:
        first = np.unique(table.prompt, return_index=True)[1]
        names = tuple(table.categories[place] for place in table.category[first].tolist())
        # Most models of a benchmark were asked the same prompts, so these are kept once. Two benchmarks may have the
        # same ids in other categories.
        categories = self._categories.setdefault((table.prompts, names), dict(zip(table.prompts, names, strict=True)))
        found = {MEAN_SCORE: prompt_means(table), REFUSAL_RATE: prompt_refusals(table)}
        return PromptFigures(
            {measure: dict(zip(categories, mine.values(), strict=True)) for measure, mine in found.items()}, categories
        )


def with_comparisons(parts: list[ReportPart]) -> list[ReportPart]:
    """Return the parts, with a part behind them for each two judges of one benchmark."""
    found = list(parts)
    for one, other in combinations(parts, 2):
        if one.found.name != other.found.name:
            continue
        theirs = {(model.title, model.mitigation): model for model in other.found.models}
        pairs = [
            (model, same, labels_of_both(one.found, model, other.found, same))
            for model in one.found.models
            if (same := theirs.get((model.title, model.mitigation))) is not None
        ]
        if not pairs:
            continue
        name = f"{one.name}-and-{other.name.removeprefix(one.found.name).lstrip('-')}"
        made = [judges_compared(one.found, other.found, name, pairs)]
        if one.risks and other.risks:
            made.append(flips_table(one.found, other.found, f"{name}-flips", one.risks, other.risks))
            for part, beside in ((one, other), (other, one)):
                part.put(with_flips(part.table("risks"), part.risks, beside.risks, beside.found.judged_by))
        made += _flipped(one, other, name)
        benchmark = one.found.name.replace("_", " ")
        title = f"{benchmark}: {one.found.judged_by} beside {other.found.judged_by}"
        found.append(ReportPart(name, title, Collection(one.found.benchmark, []), made, {}, []))
    return found


def _flipped(one: ReportPart, other: ReportPart, name: str) -> list[DataTable]:
    """Mark the differences that flip between two parts, and return the table of them; none if both have no such."""
    found = []
    for kind in DIFFERENCES:
        if one.has(kind) and other.has(kind):
            judges = (one.found.judged_by, other.found.judged_by)
            found.append(flipped_differences(kind, (one.table(kind), other.table(kind)), judges))
            one.put(found[-1].first)
            other.put(found[-1].second)
    return [differences_table(one.found, other.found, f"{name}-differences", found)] if found else []
