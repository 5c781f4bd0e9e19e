"""The table of a report on whether adapters are more, or less, harmful because of their value."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from jaxalign.analysis.data_tables import Cell, DataTable
from jaxalign.analysis.estimates import Estimate
from jaxalign.safety.attribution import MOST_PERPLEXITY, Attribution, Harms, attribution
from jaxalign.safety.calibration import WEAK_KAPPA
from jaxalign.safety.collection import Collection, ReportedModel
from jaxalign.safety.noise import noise_line
from jaxalign.safety.report_tables import (
    Perplexities,
    Tags,
    as_estimate,
    model_perplexity,
    model_tags,
    with_judges,
)
from jaxalign.safety.summary import ALL

SHUFFLED, BENIGN = "shuffled labels", "benign"
"""The controls: the value's data with its labels shuffled, and benign data of the same budget."""

MOST_TOKENS = 1.25
"""A benign control of the same budget is trained on at most so many times the tokens of the adapter, or the inverse."""


@dataclass(frozen=True)
class AttributedModel:
    """An adapter with a value, and what it is compared with.

    Attributes:
        model: the adapter at scale 1, or else at its largest scale.
        doses: the models of the adapter at each scale, and the base at scale 0.
        shuffled: the control of the same target with shuffled labels; None if there is none.
        benign: the benign control of the same budget; None if there is none.
    """

    model: ReportedModel
    doses: Mapping[float, ReportedModel]
    shuffled: ReportedModel | None
    benign: ReportedModel | None

    @property
    def is_compared(self) -> bool:
        """Whether there is a control, or a scale besides the base and the adapter."""
        return len(self.doses) > 2 or self.shuffled is not None or self.benign is not None


def attributed_models(found: Collection) -> list[AttributedModel]:
    """Return the adapters with a value, without mitigation and without controls."""
    models = found.under()
    base = found.untuned()
    benign = [model for model in models if model.about.get("control") == BENIGN and _scale(model) == 1]
    doses: dict[tuple[str, str], dict[float, ReportedModel]] = {}
    for model in models:
        about = model.about
        if model.is_adapter and about.get("target") and not about.get("control"):
            mine = doses.setdefault((str(about["model"]), str(about["value"])), {})
            mine.setdefault(_scale(model), model)
    attributed = []
    for mine in doses.values():
        scale = 1.0 if 1.0 in mine else max(mine)
        adapter = mine[scale]
        shuffled = [
            model
            for model in models
            if model.about.get("control") == SHUFFLED
            and model.about.get("target") == adapter.about["target"]
            and _scale(model) == scale
        ]
        whole = ({} if base is None else {0.0: base}) | mine
        matched = [model for model in benign if _same_budget(adapter, model)]
        attributed.append(AttributedModel(adapter, whole, *((some or [None])[0] for some in (shuffled, matched))))
    return attributed


def _same_budget(one: ReportedModel, other: ReportedModel) -> bool:
    """Return whether two adapters are known to have been trained on about as many tokens."""
    tokens = [float(n) for model in (one, other) if (n := model.about.get("trained_tokens"))]
    return len(tokens) == 2 and max(tokens) <= MOST_TOKENS * min(tokens)


def _scale(model: ReportedModel) -> float:
    scale = model.about.get("scale")
    return 1.0 if scale is None else float(scale)


def harm_kappa(found: Collection, model: ReportedModel) -> Estimate | None:
    """Return κ with labels of the judge of a model's main figure; None if it was not measured."""
    row = model.row(ALL, found.metric) or {}
    kappas = [one["kappa"] for one in found.judges if one["judge"] == row.get("judge")]
    return Estimate(**kappas[0]) if kappas and kappas[0] else None


def attribution_table(
    found: Collection,
    name: str,
    models: Sequence[AttributedModel],
    harms: Callable[[ReportedModel], Harms],
    second: Callable[[ReportedModel], tuple[Harms, Harms, Estimate | None] | None],
    perplexities: Perplexities,
    noise: Estimate,
) -> DataTable:
    """Return what may be said of each adapter, and the six conditions that decide it.

    Args:
        found: the figures by the first judge.
        name: begins the name of the table's files.
        models: the adapters.
        harms: returns the mean harm of each prompt of a model (see `prompt_means`).
        second: returns the harms of an adapter and of the base by another judge, and that judge's κ with labels; None
            if there is none.
        perplexities: of adapters and of their bases.
        noise: of the mean score between seeds of one target, over all models and not these alone (see `seed_noise`).
    """
    rows: list[list[Cell]] = []
    tags: list[Tags] = []
    for one in models:
        doses = {scale: harms(model) for scale, model in one.doses.items()}
        direction = _direction(harms(one.model), doses.get(0.0, {}))
        other = second(one.model)
        result = attribution(
            doses,
            shuffled=None if one.shuffled is None else harms(one.shuffled),
            benign=None if one.benign is None else harms(one.benign),
            second_judge=None if other is None else other[:2],
            perplexities=model_perplexity(one.model, perplexities),
            kappas=(harm_kappa(found, one.model), None if other is None else other[2]),
            direction=direction,
        )
        words = {True: "yes", False: "no", None: "not known"}
        told = [f"{words[condition.met]}: {condition.reason}" for condition in result.conditions]
        row = as_estimate(one.model.row(ALL, found.metric))
        rows.append([one.model.title, statement(result, direction), row, *told])
        tags.append(model_tags(one.model))
    heads = ("model", "because of the value", "harm", "grows with adapter.scale", "beats shuffled labels")
    heads = (
        *heads,
        "beats the benign control",
        "same sign by a second judge",
        f"perplexity ≤ {MOST_PERPLEXITY} × base",
        f"κ of the judge ≥ {WEAK_KAPPA}",
    )
    note = (
        "More or less harm is said to come from the value only if all six conditions hold. What was not measured is "
        "never taken for met. Differences are paired by prompt. For less harm, grows is shrinks and beats is below. "
        "A benign control counts if it is known to be trained on about as many tokens as the adapter (one of the two "
        f"numbers at most {MOST_TOKENS} times the other)."
    )
    notes = [note, noise_line(noise, "the mean score")]
    return with_judges(DataTable(f"{name}-because", "Is it because of the value?", heads, rows, notes, tags), found)


def statement(result: Attribution, direction: int) -> str:
    """Return what may be said of an adapter, in words."""
    if not result.conditions[-1].met:
        known = result.conditions[-1].met is not None
        return f"not known: the judge is {'too weak to tell' if known else 'not measured'}"
    if result.because_of_the_value is None:
        return "not known"
    return f"yes: {'more' if direction > 0 else 'less'} harm" if result.because_of_the_value else "no"


def _direction(adapter: Harms, base: Harms) -> int:
    """Return 1 if the adapter is more harmful than the base on the prompts that both have a figure for, or else -1."""
    pairs = [(adapter[name], base[name]) for name in adapter if name in base]
    differences = [one - other for one, other in pairs if one is not None and other is not None]
    return 1 if not differences or np.mean(differences) >= 0 else -1
