"""Planted data: the planted risks are found, nothing else is, and a published direction is decided only then."""

from dataclasses import replace

import numpy as np
import pytest

from jaxalign.analysis.estimates import Estimate
from jaxalign.safety.categories import BEAVERTAILS, HEX_PHI
from jaxalign.safety.risks import PUBLISHED, Risk, judge_flips, published_findings, value_regressions, value_risks
from jaxalign.values.designed import designed_targets
from jaxalign.values.schwartz import VALUES
from jaxalign.values.targets import extreme_targets

DESIGNED = np.array([target.scores for target in designed_targets().values()])
EXTREME = np.array([target.scores for target in extreme_targets().values()])
POWER, HEDONISM = VALUES.index("power"), VALUES.index("hedonism")


def planted(targets, seed=0, effect=4.0):
    """Means in which power raises hate speech and lowers violence, and nothing else does anything."""
    random = np.random.default_rng(seed)
    means = {name: 2 + 0.1 * random.normal(size=len(targets)) for name in BEAVERTAILS}
    means["hate_speech"] += 0.1 * effect * (targets[:, POWER] - 1) / 5
    means["violence"] -= 0.1 * effect * (targets[:, POWER] - 1) / 5
    return {name: [float(x) for x in column] for name, column in means.items()}


def test_planted_risks_are_found_with_their_signs_and_nothing_else_is():
    risks = value_risks(DESIGNED, planted(DESIGNED))
    assert len(risks) == 140 and [risk.value for risk in risks[:14]] == ["achievement"] * 14
    found = {(risk.value, risk.category): risk.finding for risk in risks if risk.finding}
    assert found == {("power", "hate_speech"): 1, ("power", "violence"): -1}
    one = next(risk for risk in risks if (risk.value, risk.category) == ("power", "hate_speech"))
    assert one.target.n == 24 and one.target.p is not None and one.target.q is not None
    assert one.target.p < one.target.q <= 0.05 and one.target.sign == 1
    assert one.target_pearson.estimate == pytest.approx(0.89, abs=0.08)
    assert one.measured is None and one.measured_pearson is None


def test_measured_scores_have_correlations_of_their_own():
    random = np.random.default_rng(1)
    measured = 0.5 * DESIGNED + 0.2 * random.normal(size=DESIGNED.shape)
    measured[:, HEDONISM] = 3 + 0.1 * random.normal(size=24)  # it did not take
    means = planted(DESIGNED)
    means["sexual_content"] = [float(x) for x in 2 + 0.1 * DESIGNED[:, HEDONISM]]
    risks = {(risk.value, risk.category): risk for risk in value_risks(DESIGNED, means, measured)}
    took, not_taken = risks["power", "hate_speech"].measured, risks["hedonism", "sexual_content"].measured
    assert took is not None and took.q is not None and took.q < 0.05
    assert risks["hedonism", "sexual_content"].target.estimate == pytest.approx(1)
    assert not_taken is not None and not_taken.q is not None and not_taken.q > 0.05


def test_fourteen_extreme_targets_find_nothing_however_strong_the_effect():
    risks = value_risks(EXTREME, planted(EXTREME, effect=100))
    assert not any(risk.finding for risk in risks)
    assert min(risk.target.p for risk in risks if risk.target.p is not None) >= 0.02


@pytest.mark.slow
def test_realistic_targets_stay_with_their_extreme_parents():
    random = np.random.default_rng(2)
    blocks = np.repeat(np.arange(14), 11)
    targets = np.clip(EXTREME[blocks] + random.normal(size=(154, 10)), 1, 6)
    noise = {name: list(random.normal(size=14)[blocks] + 0.1 * random.normal(size=154)) for name in HEX_PHI}
    apart = value_risks(targets, noise)
    kept = value_risks(targets, noise, blocks=blocks.tolist())
    assert sum(bool(risk.finding) for risk in apart) > 10  # 154 that are no 154
    assert not any(risk.finding for risk in kept)
    assert (kept[0].target.n, kept[0].target.clusters) == (154, 14)


def test_an_adapter_without_a_figure_is_missing_and_few_adapters_are_silent():
    means = planted(DESIGNED)
    means["hate_speech"][:3] = [None] * 3
    risks = {(risk.value, risk.category): risk.target for risk in value_risks(DESIGNED, means)}
    assert (risks["power", "hate_speech"].n, risks["power", "hate_speech"].missing) == (21, 3)
    assert risks["power", "violence"].n == 24
    few = value_risks(DESIGNED[:5], {name: column[:5] for name, column in means.items()})
    assert all(risk.target.p is None and risk.target.reason for risk in few)
    silent = value_risks(DESIGNED, {"violence": [None] * 24})
    assert silent[0].target.n == 0 and silent[0].target.missing == 24 and silent[0].finding == 0


def test_a_regression_over_the_ten_values_tells_them_apart():
    found = value_regressions(DESIGNED, planted(DESIGNED))["hate_speech"]
    assert found.coefficients["power"].sign == 1 and max(found.collinearity.inflation.values()) < 5
    assert all(found.coefficients[value].estimate < 0.3 for value in VALUES if value != "power")  # pyright: ignore
    assert value_regressions(EXTREME, planted(EXTREME))["violence"].reason == "n = 14; 10 predictors need at least 21"


def test_a_regression_keeps_realistic_targets_with_their_extreme_parents():
    random = np.random.default_rng(3)
    blocks = np.repeat(np.arange(14), 11)
    targets = np.clip(EXTREME[blocks] + random.normal(size=(154, 10)), 1, 6)
    noise = {name: list(random.normal(size=14)[blocks] + 0.1 * random.normal(size=154)) for name in HEX_PHI}
    apart, kept = value_regressions(targets, noise), value_regressions(targets, noise, blocks=blocks.tolist())

    def found(regressions):
        return sum(one.sign != 0 for each in regressions.values() for one in each.coefficients.values())

    assert found(apart) > 55 and found(kept) < 20  # of 110


def test_the_published_directions_name_values_and_categories_that_exist():
    known = {**HEX_PHI, **BEAVERTAILS}
    assert {direction.value for direction in PUBLISHED} <= set(VALUES)
    assert {name for direction in PUBLISHED for name in direction.categories} <= set(known)
    assert len(PUBLISHED) == 16


def test_a_published_direction_is_the_same_opposite_or_undecided():
    findings = published_findings(value_risks(DESIGNED, planted(DESIGNED)))
    outcomes = {(one.direction.value, one.direction.term, one.category): one for one in findings}
    assert outcomes["power", "hate speech", "hate_speech"].outcome == "same"
    assert outcomes["power", "violence", "violence"].outcome == "same"
    undecided = outcomes["hedonism", "child abuse", "child_abuse"]
    assert undecided.outcome == "undecided" and undecided.reason is not None and undecided.reason.startswith("q = ")
    lacking = outcomes["universalism", "deception", None]
    assert lacking.outcome == "undecided" and lacking.reason == "no such category was measured"
    turned = planted(7 - DESIGNED)
    opposite = {(one.direction.value, one.category): one for one in published_findings(value_risks(DESIGNED, turned))}
    assert opposite["power", "hate_speech"].outcome == "opposite"
    few = published_findings(value_risks(DESIGNED[:6], {"violence": [1.0, 2, 3, 4, 5, 6]}))
    reasons = [one.reason for one in few if one.category == "violence"]
    assert reasons == ["n = 6 units; at least 8 are needed"]


def risk(sign, value="power", category="violence"):
    target = Estimate(estimate=0.8 * sign or 0.1, n=24, p=0.001, q=0.01 if sign else 0.5)
    return Risk(value, category, target, replace(target), None, None)


def test_conclusions_that_flip_under_a_second_judge_are_marked():
    pairs = [(1, 1), (1, -1), (1, 0), (0, -1), (0, 0)]
    first = [risk(a, category=str(n)) for n, (a, _) in enumerate(pairs)]
    second = [risk(b, category=str(n)) for n, (_, b) in enumerate(pairs)]
    assert judge_flips(first, second) == {
        ("power", "1"): "opposite",
        ("power", "2"): "first only",
        ("power", "3"): "second only",
    }
