"""Planted data: a correlation is found and sized right, and no correlation is found as rarely as the p-value says."""

import numpy as np
import pytest
from scipy import stats

from jaxalign.analysis import correlation as module
from jaxalign.analysis.correlation import METHODS, benjamini_hochberg, correlation, correlations
from jaxalign.analysis.permutations import MOST_ORDERS, block_orders
from jaxalign.values.designed import designed_targets
from jaxalign.values.targets import extreme_targets


@pytest.fixture
def only_intervals(monkeypatch):
    """P-values come from few orders."""
    monkeypatch.setattr(module, "block_orders", lambda n, blocks, seed: block_orders(n, blocks, seed, orders=20))


@pytest.mark.parametrize("method", METHODS)
def test_a_planted_correlation_is_found_and_sized_right(method):
    random = np.random.default_rng(0)
    x = random.normal(size=300)
    y = 0.6 * x + 0.8 * random.normal(size=300)
    found = correlation(x, y, method)
    assert found.estimate == pytest.approx(0.6, abs=0.08) and found.p == 1 / MOST_ORDERS and found.n == 300
    assert found.low is not None and found.high is not None and 0.48 < found.low < 0.6 < found.high < 0.71
    assert found.sign == 1 and correlation(x, -y, method).sign == -1


@pytest.mark.parametrize("method", METHODS)
def test_estimates_and_p_values_are_scipys(method):
    random = np.random.default_rng(1)
    theirs = {"spearman": stats.spearmanr, "pearson": stats.pearsonr}[method]
    for ties in (False, True):
        x = random.integers(0, 5, 40).astype(float) if ties else random.normal(size=40)
        y = 0.2 * x + random.normal(size=40)
        wanted, found = theirs(x, y), correlation(x, y, method)
        assert found.estimate == pytest.approx(wanted.statistic)
        assert found.p == pytest.approx(wanted.pvalue, abs=0.02)


@pytest.mark.parametrize(("method", "two_levels"), [("spearman", True), ("spearman", False), ("pearson", False)])
def test_p_values_are_uniform_where_nothing_is_planted(method, two_levels):
    random = np.random.default_rng(2)
    x = np.repeat([1.0, 6.0], 12) if two_levels else random.normal(size=24)
    found = correlations(x[:, None], random.normal(size=(24, 900)), method)[0]
    p = np.array([one.p for one in found], float)
    for level in (0.05, 0.1, 0.2, 0.5):
        assert (p <= level).mean() == pytest.approx(level, abs=3 * (level * (1 - level) / 900) ** 0.5)
    # A value with two levels gives few different sums of ranks, so that the highest p-values are steps.
    assert two_levels or stats.kstest(p, "uniform").pvalue > 0.01


@pytest.mark.usefixtures("only_intervals")
@pytest.mark.parametrize("planted", [0.0, 0.6])
@pytest.mark.parametrize("method", METHODS)
def test_intervals_of_a_correlation_cover_it_as_often_as_they_say(method, planted):
    random = np.random.default_rng(3)
    inside = 0
    truth = {"pearson": planted, "spearman": 6 / np.pi * np.arcsin(planted / 2)}[method]  # for normal numbers
    for seed in range(15):
        x = random.normal(size=(40, 1))
        y = planted * x + (1 - planted**2) ** 0.5 * random.normal(size=(40, 60))
        inside += sum(one.low <= truth <= one.high for one in correlations(x, y, method, seed=seed)[0])  # pyright: ignore
    assert 0.93 <= inside / 900 <= 0.97


def covered(found, truth):
    """The share of intervals that hold a number."""
    return np.mean([one.low <= truth <= one.high for one in found])


@pytest.mark.usefixtures("only_intervals")
@pytest.mark.parametrize("effect", [0, 1, 1.5, 2, 2.5, 3])
@pytest.mark.parametrize("targets", [designed_targets(), extreme_targets()], ids=["designed", "extreme"])
def test_intervals_of_the_targets_that_are_used_cover_a_correlation_as_often_as_they_say(targets, effect):
    """An effect is in standard deviations of the noise; with the strongest, the levels are mostly quite apart."""
    random = np.random.default_rng(8)
    x = np.array([target.scores for target in targets.values()])[:, :1]
    y = effect * (x == x.max()) + random.normal(size=(len(x), 3000))
    high = np.mean(x == x.max())
    above = stats.norm.cdf(effect / np.sqrt(2))  # how often a unit of the upper level exceeds one of the lower
    truth = np.sqrt(12 * high * (1 - high)) * (above - 0.5)
    # Of 14 targets, of which two are high, there are few different intervals: the share moves in steps.
    assert 0.93 <= covered(correlations(x, y)[0], truth) <= (0.975 if len(x) == 24 else 0.98)


@pytest.mark.slow
@pytest.mark.usefixtures("only_intervals")
@pytest.mark.parametrize("effect", [0, 2])
def test_intervals_of_units_in_blocks_cover_a_correlation_at_least_as_often_as_they_say(effect):
    """As many blocks and units as the extreme targets with ten realistic ones near each."""
    random = np.random.default_rng(9)
    extreme = np.array([target.scores[0] for target in extreme_targets().values()])

    def draw(columns):
        x = np.repeat(extreme, 11)
        x = np.where(np.arange(154) % 11, np.clip(x / 2 + 1.75 + 0.7 * random.normal(size=154), 1, 6), x)
        noise = np.repeat(random.normal(size=(14, columns)), 11, axis=0) + random.normal(size=(154, columns))
        return x, effect * x[:, None] / 5 + noise / np.sqrt(2)

    truth = stats.spearmanr(*map(np.concatenate, zip(*(draw(1) for _ in range(2000)), strict=True))).statistic
    blocks = np.repeat(np.arange(14), 11).tolist()
    shares = []
    for _ in range(60):
        x, y = draw(10)
        shares.append(covered(correlations(x[:, None], y, blocks=blocks)[0], truth))
    assert 0.94 <= np.mean(shares) <= 0.99


def test_a_perfect_order_has_no_interval_where_nothing_says_how_far_it_would_move():
    found = correlation(np.arange(20.0), np.arange(20.0))
    assert found.estimate == pytest.approx(1)  # the last bit is the processor's
    assert (found.low, found.reason) == (None, "too little differs for an interval")
    apart = correlation(np.repeat([1.0, 6.0], 12), np.arange(24.0))
    assert apart.estimate == pytest.approx(0.8667, abs=1e-3) and 0.5 < apart.low < 0.65  # pyright: ignore
    assert apart.high == pytest.approx(apart.estimate)
    same = correlation(np.repeat([1.0, 6.0], 12), np.repeat([0.0, 1.0], 12))
    assert same.estimate == pytest.approx(1) == same.high and 0.5 < same.low < 0.75  # pyright: ignore


@pytest.mark.slow
def test_blocks_widen_intervals_and_only_with_them_p_values_are_uniform():
    random = np.random.default_rng(4)
    blocks = np.repeat(np.arange(14), 11)
    x = random.normal(size=(14, 1))[blocks] + 0.1 * random.normal(size=(154, 1))
    y = random.normal(size=(14, 100))[blocks] + 0.1 * random.normal(size=(154, 100))
    right, wrong = correlations(x, y, blocks=blocks.tolist())[0], correlations(x, y)[0]
    assert stats.kstest(np.array([one.p for one in right]), "uniform").pvalue > 0.01
    assert np.mean([one.p <= 0.05 for one in wrong]) > 0.5  # pyright: ignore
    assert (right[0].n, right[0].clusters) == (154, 14)
    assert all(a.high - a.low > 1.8 * (b.high - b.low) for a, b in zip(right, wrong, strict=True))  # pyright: ignore


def test_blocks_of_different_sizes_are_drawn_whole():
    random = np.random.default_rng(5)
    blocks = [*np.repeat(np.arange(10), 2).tolist(), 10, 11]
    x = random.normal(size=22)
    found = correlation(x, x + 0.5 * random.normal(size=22), blocks=blocks)
    assert found.sign == 1 and found.clusters == 12 and found.p is not None and found.p < 0.01


def test_missing_units_are_counted_and_enter_nothing():
    random = np.random.default_rng(6)
    x, y = random.normal(size=(30, 2)), random.normal(size=(30, 3))
    holes = y.copy()
    holes[:4, 1] = np.nan
    found = correlations(x, holes)
    alone = correlation(x[4:, 1], y[4:, 1])
    assert (found[1][1].n, found[1][1].missing) == (26, 4) and (found[1][0].n, found[1][0].missing) == (30, 0)
    assert found[1][1].estimate == pytest.approx(alone.estimate) and found[1][1].p == alone.p


def test_too_few_units_and_constants_are_silent_with_a_reason():
    few = correlation(np.arange(7.0), np.arange(7.0))
    assert few.estimate is few.low is few.p is None and few.reason == "n = 7 units; at least 8 are needed"
    flat = correlation(np.ones(20), np.arange(20.0))
    assert flat.estimate is None and flat.n == 20 and flat.reason == "one of the two is constant"
    assert correlation(np.arange(20.0), np.full(20, 0.1 + 0.2)).estimate is None
    blocks = correlation(np.arange(20.0), np.arange(20.0), blocks=[n // 10 for n in range(20)])
    assert blocks.reason == "n = 2 blocks; at least 8 are needed" and blocks.n == 20
    one_high = correlation(np.array([6.0] + [1.0] * 19), np.arange(20.0))
    assert one_high.estimate is not None and one_high.p is None and one_high.low is None
    assert one_high.reason == "no p-value under 0.1 is possible; too little differs for an interval"


def test_no_p_value_is_smaller_than_the_smallest_possible():
    x = np.array([6.0, 6.0] + [1.0] * 12)
    y = np.concatenate([[100.0, 99.0], np.arange(12.0)])
    assert correlation(x, y).p == pytest.approx(2 / 91, abs=0.005)


def test_false_findings_stay_under_their_limit_and_planted_ones_are_found():
    random = np.random.default_rng(7)
    shares = []
    for _ in range(200):
        z = random.normal(size=100)
        z[:20] += 4
        q = np.array(benjamini_hochberg(list(2 * stats.norm.sf(np.abs(z)))), float)
        found = q <= 0.05
        shares.append((found[20:].sum() / max(1, found.sum()), found[:20].mean()))
    false, power = np.mean(shares, 0)
    assert false <= 0.05 and power > 0.8
    assert benjamini_hochberg([None, None]) == [None, None] and benjamini_hochberg([]) == []
