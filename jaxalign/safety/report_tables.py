"""The tables of a report on harm, from collected figures."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from jaxalign.analysis.data_tables import DASH, Cell, DataTable
from jaxalign.analysis.estimates import Estimate
from jaxalign.runs.directory import GENERATIONS
from jaxalign.safety.attribution import MOST_PERPLEXITY
from jaxalign.safety.benchmarks.benchmark import REFUSAL_RATE
from jaxalign.safety.calibration import REFUSALS, doubt_lines, judge_doubt, kappa_text
from jaxalign.safety.categories import category_title
from jaxalign.safety.collection import Collection, ModelKey, ReportedModel
from jaxalign.safety.mitigation import NO_MITIGATION
from jaxalign.safety.noise import with_noise
from jaxalign.safety.states import REFUSED, SHARES_NOTE, STATES, shown_shares, silent_share
from jaxalign.safety.summary import ALL, UNCHANGED_PERPLEXITY, judge_line, label_notes

Tags = dict[str, Sequence[str]]
TrainingLosses = Mapping[str, Sequence[tuple[str, int, float]]]
"""For each adapter, by its hash, every logged step in their order: its stage, its number in the stage, and its loss."""

Perplexities = Mapping[ModelKey, tuple[float | None, float | None]]
"""By base and adapter, the perplexity of plain text of the adapter and of its base."""


def as_estimate(row: Mapping[str, Any] | None) -> Estimate | None:
    """Return a row of a summary as an estimate."""
    if row is None:
        return None
    keys = ("estimate", "low", "high", "clusters", "p", "reason")
    return Estimate(
        n=row["n"],
        missing=row.get("missing") or 0,
        left_out=row.get("left_out") or 0,
        **{key: row.get(key) for key in keys},
    )


def category_name(category: str) -> str:
    """Return the title of a category in a table."""
    return "all" if category == ALL else category_title(category)


def metric_name(metric: str) -> str:
    """Return the name of a metric in a table."""
    return metric.replace("_", " ")


def model_tags(model: ReportedModel, category: str | None = None) -> Tags:
    """Return what a row of a model can be filtered by. The base has no value, so that it stands beside all."""
    tags: Tags = {"mitigation": (model.mitigation,)}
    if model.high_values:
        tags["value"] = model.high_values
    return tags if category is None else tags | category_tags(category)


def category_tags(category: str) -> Tags:
    """Return what a row of a category can be filtered by; one of all categories, by nothing."""
    return {} if category == ALL else {"category": (category,)}


def harm_table(found: Collection, name: str) -> DataTable:
    """Return all figures: one row for each category, model, mitigation and metric."""
    rows: list[list[Cell]] = []
    tags: list[Tags] = []
    for category in (ALL, *found.categories):
        for model in found.models:
            for row in model.rows:
                if row["category"] != category:
                    continue
                states = shown_shares(row.get("states") or {})
                rows.append(
                    [
                        category_name(category),
                        model.title,
                        model.mitigation,
                        metric_name(row["metric"]),
                        row["judge"],
                        as_estimate(row),
                        row["n"],
                        row["missing"],
                        row["left_out"],
                        *(states.get(state) for state in STATES),
                    ]
                )
                tags.append(model_tags(model, category))
    heads = ("category", "model", "mitigation", "metric", "judge", "figure", "n", "missing", "left out", *STATES)
    title = "Figures by category"
    table = DataTable(f"{name}-figures", title, heads, rows, [SHARES_NOTE], tags, for_files=False)
    return with_judges(table, found)


def matrix_table(found: Collection, name: str, mitigation: str = NO_MITIGATION) -> DataTable:
    """Return the main metric of each category (rows) and model (columns), with intervals."""
    models = found.under(mitigation)
    rows: list[list[Cell]] = []
    tags: list[Tags] = []
    for category in (ALL, *found.categories):
        title = found.name_of_all() if category == ALL else category_name(category)
        rows.append([title, *(as_estimate(model.row(category, found.metric)) for model in models)])
        tags.append(category_tags(category))
    title = f"{metric_name(found.metric).capitalize()} by category and model, mitigation {mitigation}"
    heads = ("category", *(model.title for model in models))
    return with_judges(DataTable(f"{name}-{mitigation}", title, heads, rows, tags=tags, is_wide=True), found)


def states_table(found: Collection, name: str) -> DataTable:
    """Return the shares of the five states (see `shown_shares`), by model and mitigation."""
    rows: list[list[Cell]] = []
    for model in found.models:
        states = shown_shares((model.row(ALL) or {}).get("states") or {})
        rows.append([model.title, model.mitigation, *(states.get(state) for state in STATES)])
    tags = [model_tags(model) for model in found.models]
    # The judge of refusals decides these shares, whoever judges harm.
    by = Collection(found.benchmark, [one for one in found.judges if one["about"] == REFUSALS])
    heads, notes = ("model", "mitigation", *STATES), [SHARES_NOTE, *judge_notes(by)]
    return DataTable(
        f"{name}-states", "What became of the responses", heads, rows, notes, tags, [bool(by.doubts)] * len(rows)
    )


def drops_table(found: Collection, name: str) -> DataTable:
    """Return by how much the mean score drops with each mitigation, paired by prompt, beside refusals and ability."""
    rows: list[list[Cell]] = []
    tags: list[Tags] = []
    noises = _drops_noises(found)
    without = {model.title: model for model in found.under()}
    for category in (ALL, *found.categories):
        for model in found.models:
            before = without.get(model.title)
            for drop in (one for one in model.drops if one["category"] == category):
                states = [drop.get("states_before") or _states(before, category)]
                states.append(drop.get("states") or _states(model, category))
                figure = as_estimate(drop)
                rows.append(
                    [
                        category_name(category),
                        model.title,
                        model.mitigation,
                        drop["judge"],
                        figure,
                        drop.get("size"),
                        drop["n"],
                        drop.get("p"),
                        noises.get((model.mitigation, category, drop["judge"])),
                        *(shown_shares(one).get(REFUSED) for one in states),
                        *map(silent_share, states),
                        drop.get("reason") or "",
                    ]
                )
                tags.append(model_tags(model, category))
    heads = ("category", "model", "mitigation", "judge", "drop", "size", "n", "p", "noise")
    note = (
        "Drop: the mean score without mitigation minus that with it, paired by prompt; above 0 is less harm. Size: in "
        "standard deviations of the differences. Refused: of the responses that say something. Blank or repetitive: of "
        f"all responses. {UNCHANGED_PERPLEXITY.capitalize()}."
    )
    noise = "Noise: the standard deviation of the same drop between seeds of one target"
    if all(one is None for one in noises.values()):
        noise += ": not known (no two adapters with a drop are seeds of one target)"
    heads = (*heads, *(f"{what} {when}" for what in ("refused", "blank or repetitive") for when in ("before", "with")))
    heads = (*heads, "reason")
    notes = [note, f"{noise}."]
    return with_judges(DataTable(f"{name}-drops", "Drops by mitigation", heads, rows, notes, tags), found)


def _drops_noises(found: Collection) -> dict[tuple[str, str, str], float | None]:
    """Return the noise of drops by mitigation, category and judge (see `with_noise`); None where it is not known."""
    drops = [{**model.about, **drop, "mitigation": model.mitigation} for model in found.models for drop in model.drops]
    return {(one["mitigation"], one["category"], one["judge"]): one["noise"] for one in with_noise(drops)}


def _states(model: ReportedModel | None, category: str) -> Mapping[str, float | None]:
    row = None if model is None else model.row(category)
    return (row or {}).get("states") or {}


def judges_table(found: Collection, name: str) -> DataTable:
    """Return the judges with their agreement with labels, and whether they are believed (see `doubt`)."""
    rows: list[list[Cell]] = []
    counted = [(one, f"no: {why}" if (why := judge_doubt(one)) else "yes") for one in found.judges]
    for one, believed in (*counted, *((one, "no: a lower κ counts") for one in found.passed_over)):
        kappa = one["kappa"]
        shown: Cell = "uncalibrated" if kappa is None else Estimate(**kappa)
        labels = one["labels"] if kappa is not None else DASH
        rows.append([one["judge"], one["about"], shown, None if kappa is None else kappa["n"], labels])
        rows[-1] += [believed, one["line"]]
    heads = ("judge", "about", "κ", "n", "labels", "believed", "in words")
    notes = label_notes(found.judges)
    return DataTable(f"{name}-judges", "Judges, and how far they agree with labels", heads, rows, notes)


def records_table(found: Collection, name: str) -> DataTable:
    """Return the hashes of the files whose records the figures of each model are of."""
    files = (GENERATIONS, "judged.jsonl")
    rows: list[list[Cell]] = []
    for model in found.models:
        hashes = model.about.get("files") or {}
        rows.append([model.title, model.mitigation, *(str(hashes.get(file, DASH))[:16] for file in files)])
    note = (
        "The first 16 digits of SHA-256 over the sorted lines of each file; the run's summary.json has all of them, "
        f"and where the files are. {DASH}: an older version wrote the run."
    )
    tags = [model_tags(model) for model in found.models]
    title = "The records behind these figures"
    return DataTable(f"{name}-records", title, ("model", "mitigation", *files), rows, [note], tags, for_files=False)


def ability_table(found: Collection, name: str, perplexities: Perplexities) -> DataTable:
    """Return the perplexity of plain text beside the harm, for each model without mitigation."""
    rows: list[list[Cell]] = []
    tags: list[Tags] = []
    for model in found.under():
        adapter, base = model_perplexity(model, perplexities)
        ratio = None if adapter is None or base is None else adapter / base
        words = "not measured" if ratio is None else "" if ratio <= MOST_PERPLEXITY else "it pays with its language"
        states = shown_shares((model.row(ALL) or {}).get("states") or {})
        rows.append(
            [
                model.title,
                adapter,
                ratio,
                as_estimate(model.row(ALL, found.metric)),
                states.get("blank"),
                states.get("repetitive"),
                states.get(REFUSED),
                words,
            ]
        )
        tags.append(model_tags(model))
    figure = metric_name(found.metric)
    heads = ("model", "perplexity", "× base", figure, "blank", "repetitive", "refused", "remark")
    note = (
        "Perplexity of held-out plain text, measured with the responses, or else in the adapter's training run. Above "
        f"{MOST_PERPLEXITY} × the base's, harm says little about the value."
    )
    notes = [note, SHARES_NOTE]
    return with_judges(DataTable(f"{name}-ability", "Ability beside harm", heads, rows, notes, tags), found)


def model_perplexity(model: ReportedModel, perplexities: Perplexities) -> tuple[float | None, float | None]:
    """Return the perplexities of a model and of its base; None where it was not measured, as of a role."""
    if model.is_base:
        known = [base for (of, _), (_, base) in perplexities.items() if of == model.base and base is not None]
        return perplexities.get(model.key, (known[0], known[0]) if known else (None, None))
    return perplexities.get(model.key, (None, None)) if model.is_adapter else (None, None)


def with_judges(table: DataTable, *found: Collection) -> DataTable:
    """Return a table with its judges and their κ under it, and with the rows grey whose judge is not believed.

    The judge of a row is the one in its column `judge`; in a table without that column, the one of its category.

    Args:
        table: its rows have tags; one without a category is about all categories.
        found: the figures that it shows; of two judges, a row is grey if one of them is not believed.
    """
    judges = {judge for one in found for judge in one.doubts}
    categories = {category for one in found for category in one.doubted_categories}
    if "judge" in table.heads:
        place = table.heads.index("judge")
        weak = [row[place] in judges for row in table.rows]
    else:
        weak = [tags.get("category", (ALL,))[0] in categories for tags in table.tags]
    lines = dict.fromkeys(line for one in found for line in judge_notes(one))
    return dataclasses.replace(table, notes=[*table.notes, *lines], weak=weak)


def judge_notes(found: Collection) -> list[str]:
    """Return the lines on the judges and their κ, and on those whose figures are grey."""
    of_refusals = [one for one in found.judges if one["about"] == REFUSALS]
    deciding = of_refusals if of_refusals and found.metric == REFUSAL_RATE else found.judges
    others = [
        f"{one['judge']} was measured more than once, and its lowest κ counts; another one is "
        f"{kappa_text(Estimate(**one['kappa']))} with {one['kappa']['n']} labels ({one['labels']})"
        for one in found.passed_over
    ]
    return [*map(judge_line, found.judges), *others, *label_notes(found.judges), *doubt_lines(deciding)]
