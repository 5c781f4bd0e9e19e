import numpy as np
import pytest
from scipy import stats

from jaxalign.analysis.comparison import noise_floor, paired_difference


def named(values):
    return {str(n): value for n, value in enumerate(values)}


def test_a_paired_difference_by_hand():
    found = paired_difference(named([3, 4, 5, 4, 6, 5, None]), named([1, 2, 3, 3, 3, 3, 1]) | {"x": 2})
    assert found.mean.estimate == 2 and (found.mean.n, found.mean.missing) == (6, 2)
    assert found.mean.p == 2 / 2**6
    spread = (2 / 5) ** 0.5  # the differences are 2 2 2 1 3 2
    assert found.size == pytest.approx(2 / spread * (1 - 3 / 19))
    assert found.mean.sign == 1


def test_pairs_are_joined_by_id_and_not_by_order():
    first, second = named(range(20)), dict(reversed(list(named(range(20)).items())))
    found = paired_difference(first, second)
    assert found.mean.estimate == 0 and found.mean.p == 1 and found.size is None


@pytest.mark.slow
def test_a_null_gives_uniform_p_values_and_intervals_cover_the_truth():
    random = np.random.default_rng(0)
    found = []
    for seed in range(400):
        level = random.normal(size=30)  # what a prompt does to both
        noise = random.normal(size=(2, 30))
        found.append(paired_difference(named(level + noise[0] + 0.5), named(level + noise[1]), seed=seed))
    assert 0.93 <= np.mean([one.mean.low <= 0.5 <= one.mean.high for one in found]) <= 0.97  # pyright: ignore
    assert np.mean([one.size for one in found]) == pytest.approx(0.5 / 2**0.5, abs=0.03)  # pyright: ignore
    null = [paired_difference(named(random.normal(size=12)), named(random.normal(size=12))).mean.p for _ in range(400)]
    assert stats.kstest(np.array(null, float), "uniform").pvalue > 0.01


def test_many_pairs_give_the_p_value_of_a_t_test():
    random = np.random.default_rng(1)
    x = random.normal(size=50) + 0.25
    found = paired_difference(named(x), named([0] * 50)).mean.p
    assert found == pytest.approx(stats.ttest_1samp(x, 0).pvalue, abs=0.02)


def test_pairs_beyond_those_that_are_flipped_have_the_p_value_of_their_limit():
    random = np.random.default_rng(3)
    x = random.normal(size=2000) + 0.05
    found = paired_difference(named(x), named([0] * 2000)).mean.p
    assert found == pytest.approx(stats.ttest_1samp(x, 0).pvalue, abs=0.002) and 0 < found < 0.2
    strong = paired_difference(named(x + 1), named([0] * 2000)).mean.p
    assert strong is not None and strong < 1e-100  # and not one of 10,000 draws


def test_pairs_without_a_difference_do_not_make_six_that_differ_many():
    found = paired_difference(named([1] * 6 + [0] * 2000), named([0] * 2006)).mean
    assert found.p == 2 / 2**6 and found.n == 2006
    one_large = paired_difference(named([1000.0, *[0.001, -0.001] * 600]), named([0] * 1201)).mean.p
    # The large one is nearly the whole sum, whatever its sign: half of the draws reach it. The normal would say 0.32.
    assert one_large == pytest.approx(0.5, abs=0.02)


def test_few_pairs_are_silent_with_a_reason():
    few = paired_difference(named([1, 2, 3, 4, 5]), named([0] * 5))
    assert few.mean.estimate == 3 and few.mean.p is few.mean.low is few.size is None
    assert few.mean.reason == "n = 5 pairs; at least 6 are needed"
    none = paired_difference({"a": None}, {"a": 1.0})
    assert none.mean.estimate is None and (none.mean.n, none.mean.missing) == (0, 1)


def test_the_spread_over_seeds_is_pooled_over_targets():
    found = noise_floor([1.0, 3.0, 10.0, 14.0, 5.0, None], ["a", "a", "b", "b", "c", "c"])
    assert found.estimate == pytest.approx(((2 + 8) / 2) ** 0.5)
    assert (found.n, found.clusters, found.missing) == (4, 2, 1)
    assert noise_floor([1.0, 2.0], ["a", "b"]).reason == "no target has two seeds"
    random = np.random.default_rng(2)
    targets = [n // 3 for n in range(42)]
    data = random.normal(size=(500, 14)).repeat(3, 1) + 2 * random.normal(size=(500, 42))
    many = [noise_floor(values.tolist(), targets) for values in data]
    assert 0.93 <= np.mean([one.low <= 2 <= one.high for one in many]) <= 0.97  # pyright: ignore
