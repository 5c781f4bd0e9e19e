"""The tables of a report that compare adapters, role-play, the controls and the untuned model prompt by prompt.

A group's figure of a prompt is the mean over its models; the models of one target, which differ in their seeds, count
as one. Groups that both have targets are compared on the targets that both have.
"""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from itertools import combinations

import numpy as np

from jaxalign.analysis.comparison import Difference, paired_difference
from jaxalign.analysis.correlation import benjamini_hochberg
from jaxalign.analysis.data_tables import Cell, DataTable
from jaxalign.analysis.estimates import Estimate
from jaxalign.safety.attribution_table import BENIGN, SHUFFLED
from jaxalign.safety.benchmarks.benchmark import REFUSAL_RATE
from jaxalign.safety.calibration import HARM, REFUSALS
from jaxalign.safety.collection import Collection, ReportedModel
from jaxalign.safety.noise import noise_line, seed_noise
from jaxalign.safety.report_tables import Tags, category_name, category_tags, metric_name, model_tags, with_judges
from jaxalign.safety.summary import ALL, target_scores
from jaxalign.values.roleplay import ADAPTER_METHOD, BASE_METHOD, ROLE_METHOD

MEAN_SCORE = "mean_score"
"""The measure of harm that is compared; `REFUSAL_RATE` is the measure of refusing."""

Figures = Mapping[str, float | None]
"""The figure of each prompt of a model by the prompt's id; None is missing."""


@dataclasses.dataclass(frozen=True)
class PromptFigures:
    """The figures of one model by one judge, prompt by prompt."""

    measures: Mapping[str, Figures]
    """For `MEAN_SCORE` and `REFUSAL_RATE`."""
    categories: Mapping[str, str]
    """The category of each prompt."""


ReadFigures = Callable[[ReportedModel], Mapping[str, PromptFigures]]
"""Returns the figures of a model by the name of the judge; none if they are not there."""


@dataclasses.dataclass(frozen=True)
class ModelGroup:
    """Models that are compared with others as one."""

    name: str
    models: Sequence[ReportedModel]
    has_targets: bool
    """Whether what its models do is about a target, each about its own."""

    @property
    def units(self) -> dict[object, list[int]]:
        """The places of the models of each target; a model without one stands alone."""
        found: dict[object, list[int]] = {}
        for place, model in enumerate(self.models):
            target = target_scores(model.about) if self.has_targets else None
            found.setdefault(place if target is None else target, []).append(place)
        return found


def model_groups(found: Collection) -> list[ModelGroup]:
    """Return the groups that have models: adapters, role-play, both controls, and the base; all without mitigation.

    Adapters and controls are those at scale 1.
    """
    mine: dict[str, list[ReportedModel]] = {}
    for model in found.under():
        if not model.is_adapter:
            mine.setdefault(str(model.about["method"]), []).append(model)
        elif model.is_whole:
            mine.setdefault(str(model.about.get("control") or ADAPTER_METHOD), []).append(model)
    names = {
        ADAPTER_METHOD: ("adapters", True),
        ROLE_METHOD: ("role-play", True),
        SHUFFLED: ("shuffled labels", True),
        BENIGN: ("benign control", False),
        BASE_METHOD: ("base", False),
    }
    return [ModelGroup(name, mine[key], targets) for key, (name, targets) in names.items() if key in mine]


def groups_table(found: Collection, name: str, read: ReadFigures) -> DataTable | None:
    """Return the paired differences between groups of models; None if there are no two groups.

    Args:
        found: the figures.
        name: begins the name of the table's files.
        read: returns the figures of a model prompt by prompt.
    """
    groups = model_groups(found)
    if len(groups) < 2:
        return None
    everyone = [model for group in groups for model in group.models]
    known = {id(model): read(model) for model in everyone}
    if not any(known.values()):
        return None  # the judged responses are not there
    heads = ("category", "measure", "compared", "with", "judge", "difference", "size", "n", "p", "q", "noise", "models")
    heads = (*heads, "reason")
    rows: list[list[Cell]] = []
    tags: list[Tags] = []
    noises: dict[str, Estimate] = {}
    unread: dict[str, None] = {}
    for measure, judge, shown, whole in _measured(found):
        unread |= dict.fromkeys(one.title for one in everyone if not _of(known[id(one)], judge, measure))
        columns = _columns([known[id(model)].get(judge) for model in everyone])
        values = [_values(group, known, judge, measure, columns[ALL][0]) for group in groups]
        for category in [*([ALL] if whole else []), *(one for one in found.categories if one in columns)]:
            parts = [one[:, columns[category][1]] for one in values]
            noise = _adapters_noise(groups, parts)
            if category == ALL:
                noises[measure] = noise
            for one, other in combinations(range(len(groups)), 2):
                if category != ALL and one:  # in each category the first group alone is compared
                    continue
                difference, count = _compared(groups[one], parts[one], groups[other], parts[other])
                names = [category_name(category), metric_name(measure), groups[one].name, groups[other].name, shown]
                rows.append([*names, *_difference_cells(difference, noise), count, difference.mean.reason or ""])
                tags.append(category_tags(category))
    for measure in dict.fromkeys(row[1] for row in rows):
        _put_q([row for row in rows if row[1] == measure], heads.index("p"))
    notes = [
        "Difference: the first group minus the second, paired by prompt, as a mean over prompts; above 0 the first has "
        "more. Interval and p (signs of the differences flipped) draw prompts: they are about these models, and the "
        "noise says how far another seed would move one of them. q is corrected for all rows of a measure, of "
        "all its judges (Benjamini and Hochberg). Models: how many of each group have figures; of two groups with "
        "targets, those of the targets in both. Size: in standard deviations of the differences.",
        *([f"Without judged responses, and not counted: {', '.join(unread)}."] if unread else []),
        *(noise_line(noise, f"the {metric_name(measure)}") for measure, noise in noises.items()),
    ]
    title = "Adapters, role-play, controls and base, paired by prompt"
    return with_judges(DataTable(f"{name}-groups", title, heads, rows, notes, tags), found)


def beside_base_table(found: Collection, name: str, read: ReadFigures) -> DataTable | None:
    """Return the paired difference of each model, without mitigation, from the base; None without a base or others.

    For the arguments see `groups_table`.
    """
    base = found.untuned()
    models = [model for model in found.under() if not model.is_base]
    if base is None or not models:
        return None
    of_base = read(base)
    if not of_base:
        return None  # the judged responses are not there
    rows: list[list[Cell]] = []
    tags: list[Tags] = []
    notes = [
        "Difference: the model minus the base, paired by prompt; above 0 the model has more. p: signs of the "
        "differences flipped; q: corrected for all models (Benjamini and Hochberg). Size: in standard deviations of "
        "the differences."
    ]
    for measure, judge, shown, whole in _measured(found):
        if not whole:
            continue
        theirs = _of(of_base, judge, measure)
        figures = [_of(read(model), judge, measure) for model in models]
        noise = seed_noise([model.about for model in models], [prompts_mean(one) for one in figures])
        start = len(rows)
        for model, mine in zip(models, figures, strict=True):
            difference = paired_difference(mine, theirs)
            names = [model.title, metric_name(measure), shown]
            rows.append([*names, *_difference_cells(difference, noise), difference.mean.reason or ""])
            tags.append(model_tags(model))
        heads = ("model", "measure", "judge", "difference", "size", "n", "p", "q", "noise", "reason")
        _put_q(rows[start:], heads.index("p"))
        notes.append(noise_line(noise, f"the {metric_name(measure)}"))
    title = "Each model beside the base, paired by prompt"
    return with_judges(DataTable(f"{name}-beside-base", title, heads, rows, notes, tags), found)


def _measured(found: Collection) -> list[tuple[str, str, str, bool]]:
    """Return what is compared: the measure, the judge whose responses it is of, the judge who decides it, and whether
    it is said of all categories together.

    Where several judges have their own categories, the judge of the main figure alone speaks of all of them together.
    """
    main = next((row["judge"] for model in found.models if (row := model.row(ALL, found.metric)) is not None), "")
    refusals = next((one["judge"] for one in found.judges if one["about"] == REFUSALS), None)
    if found.metric == REFUSAL_RATE:
        return [(REFUSAL_RATE, main, refusals or main, True)]
    judges = dict.fromkeys((main, *(one["judge"] for one in found.judges if one["about"] == HARM)))
    harm = [(MEAN_SCORE, judge, judge, judge == main) for judge in judges]
    return [*harm, *([] if refusals is None else [(REFUSAL_RATE, main, refusals, True)])]


def _of(known: Mapping[str, PromptFigures], judge: str, measure: str) -> Figures:
    return known[judge].measures[measure] if judge in known else {}


def prompts_mean(figures: Figures) -> float | None:
    """Return the mean of the figures of a model's prompts; None without any."""
    numbers = [one for one in figures.values() if one is not None]
    return float(np.mean(numbers)) if numbers else None


def _columns(figures: Sequence[PromptFigures | None]) -> dict[str, tuple[list[str], np.ndarray]]:
    """Return, for `ALL` and for each category, its prompts and their places among those of all models."""
    category = {name: mine for one in figures if one is not None for name, mine in one.categories.items()}
    ids = list(category)
    places: dict[str, list[int]] = {ALL: list(range(len(ids)))}
    for place, name in enumerate(ids):
        places.setdefault(category[name], []).append(place)
    return {name: ([ids[place] for place in mine], np.array(mine, np.int64)) for name, mine in places.items()}


def _values(
    group: ModelGroup, known: Mapping[int, Mapping[str, PromptFigures]], judge: str, measure: str, ids: Sequence[str]
) -> np.ndarray:
    """Return the figures [models, prompts] of a group; NaN is missing."""
    figures = [_of(known[id(model)], judge, measure) for model in group.models]
    return np.array([[one.get(name) for name in ids] for one in figures], np.float64).reshape(len(figures), len(ids))


def _known_mean(values: np.ndarray, axis: int = 0) -> np.ndarray:
    """Return the mean of the known values along an axis; NaN where there is none."""
    counts = (~np.isnan(values)).sum(axis)
    return np.where(counts > 0, np.nansum(values, axis) / np.maximum(counts, 1), np.nan)


def _adapters_noise(groups: Sequence[ModelGroup], values: Sequence[np.ndarray]) -> Estimate:
    models = [model.about for group in groups for model in group.models]
    means = np.concatenate([_known_mean(one, axis=1) for one in values])
    return seed_noise(models, [_known(one) for one in means])


def _compared(first: ModelGroup, mine: np.ndarray, second: ModelGroup, theirs: np.ndarray) -> tuple[Difference, str]:
    """Return the difference of two groups with figures [models, prompts], and how many models of each it is of.

    A model without any figure is not counted.
    """
    one, other = first.units, second.units
    by_target = first.has_targets and second.has_targets
    reason = "a group has no figures"
    if by_target and not {key for key in one if isinstance(key, tuple)} & {*other}:
        reason = "no target is in both groups"
    one, other = _with_numbers(one, mine), _with_numbers(other, theirs)
    if by_target:
        shared = [key for key in one if key in other and isinstance(key, tuple)]
        one, other = ({key: units[key] for key in shared} for units in (one, other))
    count = " and ".join(str(sum(map(len, units.values()))) for units in (one, other))
    if not one or not other:
        return Difference(Estimate(n=0, reason=reason), None), count
    a, b = (
        np.stack([_known_mean(values[places]) for places in units.values()])
        for units, values in ((one, mine), (other, theirs))
    )
    if by_target:
        unpaired = np.isnan(a) | np.isnan(b)
        a[unpaired] = b[unpaired] = np.nan
    sides = [{str(place): _known(x) for place, x in enumerate(_known_mean(side))} for side in (a, b)]
    return paired_difference(*sides), count


def _with_numbers(units: Mapping[object, Sequence[int]], values: np.ndarray) -> dict[object, list[int]]:
    """Return the places of units whose models have a number in [models, prompts]; units without any are left out."""
    there = set(np.flatnonzero(np.isfinite(values).any(axis=1)).tolist())
    kept = {key: [place for place in places if place in there] for key, places in units.items()}
    return {key: places for key, places in kept.items() if places}


def _known(value: float) -> float | None:
    return None if np.isnan(value) else float(value)


def _difference_cells(difference: Difference, noise: Estimate) -> list[Cell]:
    """Return the cells of a difference: itself, its size, n, p, room for q, and the noise."""
    mean = difference.mean
    return [mean, difference.size, mean.n, mean.p, None, noise.estimate]


def _put_q(rows: Sequence[list[Cell]], place: int) -> None:
    """Put the corrected p-values into rows, behind the p-values in the column `place`."""
    given = [row[place] for row in rows]
    corrected = benjamini_hochberg([one if isinstance(one, float) else None for one in given])
    for row, q in zip(rows, corrected, strict=True):
        row[place + 1] = q
