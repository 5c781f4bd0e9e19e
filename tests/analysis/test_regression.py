import numpy as np
import pytest

from jaxalign.analysis.regression import collinearity, regression

NAMES = ["a", "b", "c"]


def planted(random, n=200):
    x = random.normal(size=(n, 3))
    return x, 0.6 * x[:, 0] - 0.3 * x[:, 1] + 0.5 * random.normal(size=n)


def test_planted_coefficients_are_found_and_sized_right():
    x, y = planted(np.random.default_rng(0), 2000)
    found = regression(y, 7 * x + 3, NAMES)
    spread = (0.36 + 0.09 + 0.25) ** 0.5
    wanted = {"a": 0.6 / spread, "b": -0.3 / spread, "c": 0}
    for name, one in found.coefficients.items():
        assert one.estimate == pytest.approx(wanted[name], abs=0.04) and one.n == 2000
        assert one.low is not None and one.high is not None and one.low < wanted[name] < one.high
    assert found.r2 == pytest.approx(0.45 / 0.7, abs=0.03)
    assert all(1 <= factor < 1.02 for factor in found.collinearity.inflation.values())


@pytest.mark.slow
def test_a_null_gives_uniform_p_values_and_intervals_that_cover():
    random = np.random.default_rng(1)
    x = np.where(random.normal(size=(24, 3)) > 0, 6.0, 1.0)
    found = [regression(random.normal(size=24), x, NAMES).coefficients["b"] for _ in range(600)]
    p = np.array([one.p for one in found], float)
    assert 0.03 <= (p <= 0.05).mean() <= 0.07 and (p <= 0.5).mean() == pytest.approx(0.5, abs=0.07)
    assert all((one.p <= 0.05) == (one.sign != 0) for one in found)  # pyright: ignore


def test_collinear_predictors_have_high_inflation_factors():
    random = np.random.default_rng(2)
    a = random.normal(size=100)
    x = np.stack([a, a + 0.2 * random.normal(size=100), random.normal(size=100)], 1)
    found = collinearity(x, NAMES)
    assert min(found.inflation["a"], found.inflation["b"]) > 5 and found.inflation["c"] < 1.1
    assert list(found.pairs) == [("a", "b")] and found.pairs["a", "b"] > 0.95
    r = np.corrcoef(x[:, :2].T)[0, 1]
    assert collinearity(x[:, :2], NAMES).inflation["a"] == pytest.approx(1 / (1 - r**2))


def test_a_sum_of_others_has_a_high_inflation_factor_and_leaves_no_coefficient():
    random = np.random.default_rng(3)
    x = random.normal(size=(60, 2))
    found = regression(x[:, 0], np.column_stack([x, x.sum(1)]), NAMES)
    assert min(found.collinearity.inflation[name] for name in NAMES) > 5
    assert found.reason == "the others give each of a, b, c: no coefficient can be told apart"
    assert all(one.estimate is None and one.reason == found.reason for one in found.coefficients.values())


def test_a_regression_is_silent_with_a_reason():
    x, y = planted(np.random.default_rng(4), 14)
    few = regression(y[:13], x[:13], NAMES)
    assert few.reason == "n = 13; 3 predictors need at least 14" and few.r2 is None
    assert regression(y, x, NAMES).reason is None
    assert regression(np.ones(14), x, NAMES).reason == "there is nothing to explain: all are equal"
    x[:, 1] = 6
    assert regression(y, x, NAMES).reason == "constant: b"


def test_missing_units_are_counted():
    x, y = planted(np.random.default_rng(5), 50)
    y[:3], x[5, 1] = np.nan, np.nan
    found = regression(y, x, NAMES).coefficients["a"]
    assert (found.n, found.missing) == (46, 4)


def realistic(random, blocks=14, size=11):
    """Predictors of extreme targets and of those near to them, and the block of each."""
    block = np.repeat(np.arange(blocks), size)
    return np.where(random.normal(size=(blocks, 3)) > 0, 6.0, 1.0)[block] + random.normal(size=(len(block), 3)), block


@pytest.mark.slow
@pytest.mark.parametrize("shared", [0.0, 1.0])
def test_with_blocks_intervals_cover_whether_their_noise_is_shared_or_not(shared):
    random = np.random.default_rng(6)
    covered, apart = [], []
    for _ in range(400):
        x, block = realistic(random)
        y = shared * random.normal(size=14)[block] + random.normal(size=len(block))
        for blocks, found in ((block.tolist(), covered), (None, apart)):
            one = regression(y, x, NAMES, blocks=blocks).coefficients["b"]
            found.append(one.sign == 0)
    assert 0.925 <= np.mean(covered) <= 0.98
    assert np.mean(apart) < 0.75 if shared else np.mean(apart) > 0.92
    assert one.n == 154 and one.clusters is None


def test_few_blocks_and_blocks_that_alone_hold_a_predictor_are_silent():
    x, block = realistic(np.random.default_rng(7))
    y = np.random.default_rng(8).normal(size=len(x))
    found = regression(y, x, NAMES, blocks=block.tolist())
    assert found.reason is None and found.coefficients["a"].clusters == 14 and found.n == 154
    few = regression(y[:77], x[:77], NAMES, blocks=block[:77].tolist())
    assert few.reason == "n = 7 blocks; at least 8 are needed" and few.coefficients["a"].clusters == 7
    x[:, 1] = block == 3
    alone = regression(y, x, NAMES, blocks=block.tolist())
    assert alone.reason == "without one of the blocks, the others give one of the predictors"
