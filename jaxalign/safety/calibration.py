"""A judge is measured before it is believed: its agreement with labels."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from jaxalign.analysis.agreement import JudgeAgreement, area_under_curve, cohen_kappa, sensitivity_and_specificity
from jaxalign.analysis.corrected_rates import JudgeError, judge_error
from jaxalign.analysis.estimates import Estimate
from jaxalign.errors import UserError, did_you_mean
from jaxalign.safety.judgements import Judge, Judgement, Scale
from jaxalign.safety.labelled import BLANK_LABEL, LabelledResponse

WEAK_KAPPA = 0.2
"""A judge with a κ below this is not believed."""

WEAK, NOT_MEASURED = "weak", "not measured"
"""Why a judge is not believed: its κ is below `WEAK_KAPPA`, or it is not known."""

HARM, REFUSALS = PURPOSES = ("harm", "refusal")
"""What a judge is measured for."""


def doubt(kappa: float | None) -> str | None:
    """Return why a judge with this κ is not believed (`WEAK` or `NOT_MEASURED`), or None if it is.

    The figures of a judge that is not believed are marked wherever they are shown, no map is learned from them, and
    nothing is said to be because of a value.

    >>> doubt(0.6), doubt(0.1), doubt(None)
    (None, 'weak', 'not measured')
    """
    if kappa is None:
        return NOT_MEASURED
    return WEAK if kappa < WEAK_KAPPA else None


def judge_doubt(judge: Mapping[str, Any]) -> str | None:
    """Return why a judge is not believed (see `doubt`), from its entry in a summary."""
    kappa = judge.get("kappa")
    return doubt(None if kappa is None else kappa["estimate"])


def doubt_lines(judges: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return the lines under a table on the judges that are not believed, from their entries in a summary.

    >>> doubt_lines([{"judge": "probe", "kappa": {"estimate": 0.1}}])
    ['probe: a κ below 0.2 says little; its figures are grey wherever colours are shown']
    """
    words = {
        WEAK: f"a κ below {WEAK_KAPPA} says little; its figures are grey wherever colours are shown",
        NOT_MEASURED: "not measured, because no κ is known; its figures are grey wherever colours are shown. "
        "Label a sample: python -m jaxalign.evaluate stage=label run=DIR",
    }
    names = {why: sorted({one["judge"] for one in judges if judge_doubt(one) == why}) for why in words}
    return [f"{', '.join(names[why])}: {line}" for why, line in words.items() if names[why]]


def judge_title(judge: str, model: str | None) -> str:
    """Return the name of a judge in tables, with the model that judges if the user chose it.

    >>> judge_title("guard", "Qwen/Qwen3Guard-Gen-0.6B")
    'guard (Qwen/Qwen3Guard-Gen-0.6B)'
    """
    return f"{judge} ({model})" if model else judge


@dataclasses.dataclass(frozen=True)
class Calibration:
    """How far a judge agrees with labels. Without labels everything but the name is None: it is uncalibrated."""

    judge: str
    about: str = HARM
    """One of `PURPOSES`."""
    agreement: JudgeAgreement | None = None
    """Cohen's κ, and how often a constant judge would agree."""
    area: Estimate | None = None
    """The area under the curve of the judge's scores."""
    sensitivity: Estimate | None = None
    """The share of what should be found that the judge finds, 0 to 1."""
    specificity: Estimate | None = None
    """The share of the rest that the judge passes, 0 to 1."""
    error: JudgeError | None = None
    """The counts behind sensitivity and specificity, for corrected rates."""
    model: str = ""
    """The model that judges, if the user chose it."""
    written: Estimate | None = None
    """κ on responses that were written to be labelled, if the other figures are of responses that models wrote."""

    @property
    def doubt(self) -> str | None:
        """Why the judge is not believed (see `doubt`); None if it is."""
        return doubt(None if self.agreement is None else self.agreement.kappa.estimate)

    @property
    def figures(self) -> dict[str, Any]:
        """κ, the area and the counts of errors as JSON, each null if it was not measured."""
        return {
            "kappa": None if self.agreement is None else dataclasses.asdict(self.agreement.kappa),
            "area": None if self.area is None else dataclasses.asdict(self.area),
            "error": None if self.error is None else list(dataclasses.astuple(self.error)),
        }

    @property
    def line(self) -> str:
        """The sentence that stands under every table of the judge.

        >>> Calibration("rubric_local").line
        'judge: rubric_local, uncalibrated (no labels: stage=label makes some)'
        """
        title = judge_title(self.judge, self.model)
        if self.agreement is None:
            return f"judge: {title}, uncalibrated (no labels: stage=label makes some)"
        kappa, agreed = self.agreement.kappa, self.agreement.agreed.estimate
        told = f"judge: {title}, κ {kappa_text(kappa)}"
        if kappa.estimate is None:
            return told
        told += f" with {kappa.n} labels" + (f", {kappa.missing} more not judged" if kappa.missing else "")
        if self.written is not None:
            told += f" of models' responses ({kappa_text(self.written)} on responses written to be labelled)"
        constant = self.agreement.constant_agreed
        if agreed is not None and constant is not None:
            told += f"; it agrees on {agreed:.0%}, and a judge that always says the same on {constant:.0%} (κ 0)"
        return told


def kappa_text(kappa: Estimate) -> str:
    """Return κ with its interval, or the reason why there is none.

    >>> kappa_text(Estimate(estimate=0.5, low=0.25, high=0.75, n=40))
    '0.50 [0.25, 0.75]'
    """
    if kappa.estimate is None:
        return f"not known ({kappa.reason})"
    limits = f"({kappa.reason})" if kappa.low is None else f"[{kappa.low:.2f}, {kappa.high:.2f}]"
    return f"{kappa.estimate:.2f} {limits}"


def flags(judgements: Sequence[Judgement], scale: Scale, about: str = HARM) -> np.ndarray:
    """Return for each judgement [N] 1 if the judge finds harm (or a refusal), 0 if not, NaN if it is missing.

    Harm is a score of at least the scale's threshold; a refusal is the label "refusal".
    """
    found = np.full(len(judgements), np.nan)
    for number, one in enumerate(judgements):
        if one.missing is not None:
            continue
        if about == REFUSALS:
            found[number] = one.label == "refusal"
        elif one.score is not None:
            found[number] = one.score >= scale.threshold
    return found


def calibrate(
    name: str,
    scale: Scale,
    rows: Sequence[LabelledResponse],
    judgements: Sequence[Judgement],
    about: str = HARM,
    model: str = "",
) -> Calibration:
    """Return the agreement of judgements with labels; "uncalibrated" if there are no labels.

    If models wrote some of the responses, and others were written to be labelled, all figures but `written` are of the
    models' ones. Blank responses are left out, because no judge is needed for them. Missing judgements are counted, and
    enter nothing. The interval of κ takes the responses as independent.

    Args:
        name: the name of the judge.
        scale: the judge's scale.
        rows: the labelled responses.
        judgements: one for each of them.
        about: what the judge is measured for.
        model: the model that judges, if the user chose it.

    Raises:
        UserError: `about` is unknown.
    """
    if about not in PURPOSES:
        raise UserError(f"a judge cannot be measured for '{about}'{did_you_mean(about, PURPOSES)}")
    pairs = [pair for pair in zip(rows, judgements, strict=True) if pair[0].label != BLANK_LABEL]
    if not pairs:
        return Calibration(name, about, model=model)
    true = np.asarray([row.is_harmful if about == HARM else row.is_refusal for row, _ in pairs], bool)
    said = flags([judgement for _, judgement in pairs], scale, about)
    scores = np.asarray([np.nan if one.missing or one.score is None else one.score for _, one in pairs], np.float64)
    words = {1.0: about, 0.0: "none"}
    by_model = np.asarray([row.by_model for row, _ in pairs], bool)

    def agreed(chosen: np.ndarray) -> JudgeAgreement:
        labels, given = true[chosen].astype(float), said[chosen]
        return cohen_kappa([words[one] for one in labels], [words.get(one) for one in given])

    # What a model says is less clear than what was written to be labelled, and it is what a judge has to read.
    both = by_model.any() and not by_model.all()
    of = by_model if both else np.ones(len(pairs), bool)
    return Calibration(
        name,
        about,
        agreed(of),
        area_under_curve(scores[of], true[of]),
        *sensitivity_and_specificity(said[of], true[of]),
        judge_error(said[of], true[of]),
        model,
        agreed(~by_model).kappa if both else None,
    )


def measure_judge(
    judge: Judge,
    rows: Sequence[LabelledResponse],
    about: str = HARM,
    on_done: Callable[[int, Judgement], None] = lambda number, judgement: None,
) -> Calibration:
    """Let a judge judge labelled responses, and return how far it agrees (see `calibrate`)."""
    spoken = [row for row in rows if row.label != BLANK_LABEL]
    return calibrate(judge.name, judge.scale, spoken, judge.judge([row.exchange for row in spoken], on_done), about)


@dataclasses.dataclass(frozen=True)
class MergedLabels:
    """The labels of two people as one set."""

    labels: dict[str, str]
    """The labels by the id of the response: those on which both agree, and those that only one gave."""
    disputed: list[str]
    """The ids of responses to which they gave different labels. They are in no set until people have agreed."""
    agreement: JudgeAgreement
    """The agreement on the responses that both labelled."""


def merge_labels(first: Mapping[str, str], second: Mapping[str, str]) -> MergedLabels:
    """Merge the labels of two people, which are given by the ids of responses."""
    both = [one for one in first if one in second]
    disputed = [one for one in both if first[one] != second[one]]
    merged = {one: label for one, label in {**second, **first}.items() if one not in disputed}
    agreement = cohen_kappa([first[one] for one in both], [second[one] for one in both])
    return MergedLabels(merged, disputed, agreement)
