"""A judge with a known error: its rate is wrong, and the corrected one is right on average, and as sure as it says."""

import numpy as np
import pytest

from jaxalign.analysis import corrected_rates
from jaxalign.analysis.corrected_rates import JudgeError, corrected_rate, judge_error
from jaxalign.analysis.estimates import Estimate
from jaxalign.analysis.intervals import rate_with_interval

NAN = float("nan")
CASES = [(0.3, 0.6, 0.95), (0.15, 0.9, 0.8), (0.6, 0.7, 0.8)]


def measured(random, truth, sensitivity, specificity, n=400, labelled=(150, 150), clusters=None):
    """A judge's rate over n responses, and its error on labelled ones."""
    harmful = random.random(n) < truth if clusters is None else (random.random(clusters.max() + 1) < truth)[clusters]
    said = np.where(harmful, random.random(n) < sensitivity, random.random(n) >= specificity)
    found, passed = random.binomial(labelled[0], sensitivity), random.binomial(labelled[1], specificity)
    error = JudgeError(found, labelled[0] - found, passed, labelled[1] - passed)
    return rate_with_interval(said.astype(float), clusters), error


def test_the_correction_by_hand():
    rate = Estimate(estimate=0.3, low=0.25, high=0.35, n=400, missing=3, left_out=2)
    found = corrected_rate(rate, JudgeError(80, 20, 90, 10))
    assert found.estimate == pytest.approx((0.3 + 0.9 - 1) / (0.8 + 0.9 - 1))
    assert (found.n, found.missing, found.left_out) == (400, 3, 2)
    assert found.low is not None and found.high is not None and found.high - found.low > 0.1
    nothing = corrected_rate(Estimate(estimate=0.02, low=0.01, high=0.04, n=400), JudgeError(80, 20, 90, 10))
    assert nothing.estimate == 0 and nothing.low == 0


@pytest.mark.slow
@pytest.mark.parametrize(("truth", "sensitivity", "specificity"), CASES)
def test_a_known_error_is_corrected_without_bias_and_intervals_cover_the_truth(
    monkeypatch, truth, sensitivity, specificity
):
    monkeypatch.setattr(corrected_rates, "CORRECTION_DRAWS", 2_000)
    random = np.random.default_rng(0)
    pairs = [measured(random, truth, sensitivity, specificity) for _ in range(500)]
    found = [corrected_rate(*pair, seed=n) for n, pair in enumerate(pairs)]
    raw = np.mean([rate.estimate for rate, _ in pairs])  # pyright: ignore
    assert abs(raw - truth) > 0.05
    assert np.mean([one.estimate for one in found]) == pytest.approx(truth, abs=0.012)  # pyright: ignore
    assert 0.93 <= np.mean([one.low <= truth <= one.high for one in found]) <= 0.97  # pyright: ignore
    assert np.mean([rate.low <= truth <= rate.high for rate, _ in pairs]) < 0.5  # pyright: ignore


def test_few_labels_and_clusters_widen_the_interval():
    random = np.random.default_rng(1)
    clusters = np.repeat(np.arange(100), 4)

    def width(**how):
        found = corrected_rate(*measured(random, 0.3, 0.8, 0.9, **how))
        return found.high - found.low  # pyright: ignore

    assert width(labelled=(20, 20)) > 1.5 * width() and width(clusters=clusters) > 1.25 * width()


def test_a_judge_that_may_be_a_coin_or_was_hardly_measured_corrects_nothing():
    rate = rate_with_interval(np.arange(100) % 3 == 0)
    coin = corrected_rate(rate, JudgeError(12, 8, 9, 11))
    assert coin.estimate is coin.low is None and coin.reason is not None and "no better than a coin" in coin.reason
    few = corrected_rate(rate, JudgeError(3, 1, 90, 10))
    assert few.reason == (
        "the judge was measured on 4 harmful and 100 harmless responses; at least 5 of each are needed"
    )
    assert corrected_rate(Estimate(n=0, reason="why"), JudgeError(80, 20, 90, 10)).reason == "why"


def test_a_judges_calls_are_counted():
    said, true = np.array([1, 0, 1, 0, NAN, 1]), np.array([True, True, False, False, True, True])
    assert judge_error(said, true) == JudgeError(found=2, overlooked=1, passed=1, accused=1)
