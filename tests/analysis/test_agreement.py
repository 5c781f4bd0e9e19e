import numpy as np
import pytest

from jaxalign.analysis.agreement import area_under_curve, cohen_kappa, sensitivity_and_specificity

NAN = float("nan")


def test_kappa_by_hand():
    first = ["yes"] * 25 + ["no"] * 25 + [None, "yes"]
    second = ["yes"] * 20 + ["no"] * 5 + ["yes"] * 10 + ["no"] * 15 + ["yes", None]
    found = cohen_kappa(first, second)
    assert found.kappa.estimate == pytest.approx((0.7 - 0.5) / (1 - 0.5))  # the textbook's 0.4
    assert found.agreed.estimate == 0.7 and found.constant_agreed == 0.5
    assert (found.kappa.n, found.kappa.missing) == (50, 2)
    assert found.kappa.low == pytest.approx(0.15, abs=0.02) and found.kappa.high == pytest.approx(0.65, abs=0.02)


@pytest.mark.slow
def test_intervals_of_kappa_cover_it_as_often_as_they_say():
    random = np.random.default_rng(0)
    inside = []
    for _ in range(600):
        true = random.random(100) < 0.4
        said = np.where(random.random(100) < 0.15, ~true, true)
        chance = 0.4 * (0.4 * 0.85 + 0.6 * 0.15) + 0.6 * (0.6 * 0.85 + 0.4 * 0.15)
        found = cohen_kappa(list(map(str, true)), list(map(str, said))).kappa
        inside.append(found.low <= (0.85 - chance) / (1 - chance) <= found.high)  # pyright: ignore
    assert 0.93 <= np.mean(inside) <= 0.97


def test_a_constant_judge_has_no_agreement_beyond_chance_whatever_it_agrees_on():
    people = ["fine"] * 45 + ["harmful"] * 5
    found = cohen_kappa(people, ["fine"] * 50)
    assert found.kappa.estimate == 0 and found.agreed.estimate == found.constant_agreed == 0.9
    assert found.kappa.low is None and found.kappa.reason == "one of the two always says the same"


def test_full_agreement_is_not_certain_and_one_label_says_nothing():
    people = ["fine", "harmful"] * 10
    found = cohen_kappa(people, people).kappa
    assert found.estimate == found.high == 1 and found.low == pytest.approx((0.025 ** (1 / 20) - 0.5) / 0.5)
    assert cohen_kappa(["fine"] * 20, ["fine"] * 20).kappa.reason == "both say one label alone, which chance explains"
    few = cohen_kappa(people[:9], people[:9]).kappa
    assert few.estimate is None and few.reason == "n = 9 labels; at least 10 are needed"
    assert cohen_kappa([], []).constant_agreed is None


def test_the_area_under_the_curve_by_hand_and_its_coverage():
    true = np.array([True] * 5 + [False] * 5)
    found = area_under_curve(np.array([0.9, 0.8, 0.7, 0.4, 0.3, 0.6, 0.5, 0.4, 0.2, 0.1]), true)
    assert found.estimate == pytest.approx((5 + 5 + 5 + 2.5 + 2) / 25)
    random = np.random.default_rng(1)
    kinds = np.arange(100) < 40
    many = [area_under_curve(random.normal(size=100) + kinds, kinds) for _ in range(600)]
    area = 0.7602  # of two normal distributions one standard deviation apart
    assert 0.93 <= np.mean([one.low <= area <= one.high for one in many]) <= 0.97  # pyright: ignore


def test_a_perfect_a_constant_and_a_little_measured_judge():
    true = np.array([True] * 10 + [False] * 30)
    perfect = area_under_curve(true * 1.0, true)
    assert perfect.estimate == perfect.high == 1 and perfect.low == pytest.approx(0.025 ** (1 / 10))
    assert area_under_curve(1.0 - true, true).high == pytest.approx(1 - 0.025 ** (1 / 10))
    assert area_under_curve(np.zeros(40), true).estimate == 0.5
    scores = np.where(np.arange(40) < 6, NAN, 1.0)
    few = area_under_curve(scores, true)
    assert few.estimate is None and few.reason == "4 harmful and 30 harmless; at least 5 of each are needed"
    assert (few.n, few.missing) == (34, 6)


def test_sensitivity_and_specificity_by_hand():
    said = np.array([1, 1, 0, NAN, 1, 0, 0, 0, 0, NAN])
    found, passed = sensitivity_and_specificity(said, np.arange(10) < 4)
    assert found.estimate == pytest.approx(2 / 3) and (found.n, found.missing) == (3, 1)
    assert passed.estimate == pytest.approx(4 / 5) and (passed.n, passed.missing) == (5, 1)
