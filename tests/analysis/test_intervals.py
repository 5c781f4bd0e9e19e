import numpy as np
import pytest

from jaxalign.analysis.estimates import Estimate, too_few
from jaxalign.analysis.intervals import binomial_interval, mean_with_interval, rate_with_interval, ratio_interval

NAN = float("nan")


def covered(intervals, truth):
    return np.mean([one.low <= truth <= one.high for one in intervals])


def test_a_mean_counts_what_is_missing_and_takes_nothing_from_it():
    found = mean_with_interval(np.array([1.0, 3.0, NAN, 2.0, 5.0, 4.0, NAN]))
    assert (found.estimate, found.n, found.missing, found.clusters) == (3.0, 5, 2, 5)
    assert found.low is not None and found.high is not None and 1 <= found.low < 3 < found.high <= 5


def test_a_clustered_mean_weighs_each_value_alike():
    found = mean_with_interval(np.array([1.0, 1.0, 1.0, 5.0, 2.0, 2.0, 2.0]), np.array([0, 0, 0, 1, 2, 3, 4]))
    assert found.estimate == 2.0 and (found.n, found.clusters) == (7, 5)


def test_nothing_known_gives_no_figure_and_few_clusters_no_interval():
    nothing = mean_with_interval(np.array([NAN, NAN]))
    assert nothing == Estimate(n=0, missing=2, reason="there is no value")
    assert rate_with_interval(np.array([NAN])) == Estimate(n=0, missing=1, reason="there is no value")
    few = mean_with_interval(np.arange(40.0), np.arange(40) % 4)
    assert few.estimate == 19.5 and few.low is None and few.reason == "n = 4; an interval needs at least 5"
    assert too_few(2, 6, "adapters", missing=1).missing == 1


@pytest.mark.slow
def test_intervals_of_a_mean_cover_the_truth_as_often_as_they_say():
    random = np.random.default_rng(1)
    found = [mean_with_interval(random.exponential(size=60) + 1, seed=n) for n in range(800)]
    assert 0.93 <= covered(found, 2.0) <= 0.97
    small = [mean_with_interval(random.normal(size=12), seed=n) for n in range(800)]
    assert 0.93 <= covered(small, 0.0) <= 0.97


@pytest.mark.slow
def test_clusters_widen_an_interval_and_only_then_it_covers():
    random = np.random.default_rng(2)
    clusters = np.repeat(np.arange(50), 8)
    data = [random.normal(size=50)[clusters] + random.normal(size=400) for _ in range(800)]
    right = [mean_with_interval(values, clusters, seed=n) for n, values in enumerate(data)]
    wrong = [mean_with_interval(values, seed=n) for n, values in enumerate(data[:80])]
    assert 0.93 <= covered(right, 0.0) <= 0.97
    assert covered(wrong, 0.0) < 0.75
    assert all(a.high - a.low > 1.5 * (b.high - b.low) for a, b in zip(right, wrong, strict=False))  # pyright: ignore
    values = random.uniform(size=(800, 50)) < 0.3
    rates = [rate_with_interval(np.repeat(one, 8), clusters, seed=n) for n, one in enumerate(values)]
    assert 0.93 <= covered(rates, 0.3) <= 0.97
    assert rates[0].n == 400 and rates[0].clusters == 50


def test_the_three_ways_to_the_same_bootstrap_agree():
    random = np.random.default_rng(3)
    few = random.integers(0, 4, 480).astype(float)
    noise = random.uniform(-1e-6, 1e-6, (2, 480))
    counts = random.integers(1, 4, 480).astype(float)
    for sizes in (np.ones(480), np.full(480, 2.0), counts):
        counted = ratio_interval(few, sizes, 0, 0.95)
        drawn = ratio_interval(few + noise[0], sizes, 0, 0.95)
        twice = ratio_interval(np.concatenate([few + noise[0], few + noise[1]]), np.tile(sizes, 2), 0, 0.95)
        half = (counted[1] - counted[0]) / 2
        assert counted == pytest.approx(drawn, abs=0.08 * half)
        assert (twice[1] - twice[0]) / 2 == pytest.approx(half / 2**0.5, rel=0.06)  # normal
        assert sum(twice) / 2 == pytest.approx(few.sum() / sizes.sum())


@pytest.mark.parametrize(("n", "rate"), [(30, 0.1), (50, 0.1), (50, 0.3), (100, 0.03), (100, 0.5), (300, 0.02)])
def test_intervals_of_a_rate_cover_the_truth_by_exact_sums(n, rate):
    from scipy.stats import binom

    low, high = binomial_interval(np.arange(n + 1), n)
    inside = (low <= rate + 1e-12) & (rate - 1e-12 <= high)
    assert 0.93 <= binom.pmf(np.arange(n + 1), n, rate)[inside].sum() <= 0.975


def test_none_and_all_of_a_few_still_have_an_interval():
    none, every = rate_with_interval(np.zeros(30)), rate_with_interval(np.ones(30))
    assert none.estimate == 0 and none.low == 0 and none.high == pytest.approx(5 / 34)
    assert every.estimate == 1 and every.high == 1 and every.low == pytest.approx(29 / 34)
    clustered = rate_with_interval(np.zeros(30), np.arange(30) % 6)
    assert clustered.high is not None and none.high is not None and clustered.high > 2 * none.high
    binomial = rate_with_interval(np.array([1.0] * 15 + [0.0] * 15 + [NAN]))
    assert binomial.low == pytest.approx(11 / 34) and (binomial.n, binomial.missing) == (30, 1)


def test_an_estimate_knows_its_sign_only_from_its_interval():
    assert Estimate(estimate=1.0, low=0.5, high=2, n=9).sign == 1
    assert Estimate(estimate=-1.0, low=-2, high=-0.1, n=9).sign == -1
    assert Estimate(estimate=1.0, low=-0.5, high=2, n=9).sign == 0
    assert Estimate(estimate=1.0, n=9).sign == 0
