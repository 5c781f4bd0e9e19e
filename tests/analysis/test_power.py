import numpy as np
import pytest
from analysis.simulated_power import simulated_power

from jaxalign.analysis.power import design_plan, plan_lines, smallest_effect
from jaxalign.values.designed import designed_targets
from jaxalign.values.schwartz import VALUES
from jaxalign.values.targets import extreme_targets

DESIGNED = np.array([target.scores for target in designed_targets().values()])
EXTREME = np.array([target.scores for target in extreme_targets().values()])
CATEGORIES = 11


@pytest.mark.slow
def test_fourteen_extreme_targets_cannot_show_an_effect_and_the_designed_ones_can():
    assert simulated_power(EXTREME, CATEGORIES, 3.0).estimate == 0
    found = simulated_power(DESIGNED, CATEGORIES, 2.0)
    assert found.estimate is not None and 0.55 < found.estimate < 0.75 and found.n == 300
    strong = simulated_power(DESIGNED, CATEGORIES, 3.0)
    assert strong.estimate is not None and strong.estimate > 0.95


@pytest.mark.slow
def test_several_effects_help_each_other_and_pearson_sees_more_in_two_levels():
    alone, five = (simulated_power(DESIGNED, CATEGORIES, 2.0, effects=k).estimate for k in (1, 5))
    pearson = simulated_power(DESIGNED, CATEGORIES, 2.0, "pearson").estimate
    assert alone is not None and five is not None and pearson is not None
    assert five > alone + 0.1 and pearson > alone + 0.05


def test_no_effect_is_found_as_rarely_as_it_should():
    found = simulated_power(DESIGNED, CATEGORIES, 0.0, "pearson", simulations=1000)
    assert found.estimate is not None and found.estimate <= 0.01


@pytest.mark.parametrize("method", ["spearman", "pearson"])
def test_the_smallest_effect_is_seen_as_often_as_it_says(method):
    effect = smallest_effect(DESIGNED[:, 0], method, tests=110)
    assert effect is not None and 2 < effect < 2.3
    found = simulated_power(DESIGNED, CATEGORIES, effect, method, simulations=600)
    assert found.estimate == pytest.approx(0.8, abs=0.05)


@pytest.mark.slow
def test_more_tests_fewer_units_and_more_power_need_stronger_effects():
    x = np.repeat([1.0, 6.0], 12)
    one, many = smallest_effect(x), smallest_effect(x, tests=110)
    sure, few = smallest_effect(x, power=0.95), smallest_effect(np.repeat([1.0, 6.0], 6))
    assert one is not None and many is not None and sure is not None and few is not None
    assert one < many and one < sure and one < few
    assert smallest_effect(x[9:15]) is None and smallest_effect(np.ones(24)) is None
    assert smallest_effect(EXTREME[:, 0]) is not None and smallest_effect(EXTREME[:, 0], tests=3) is None


def test_a_plan_says_what_a_design_can_show():
    text = plan_lines(design_plan(DESIGNED, VALUES, CATEGORIES))
    assert text[0] == "24 units, 110 tests corrected together (Benjamini and Hochberg)"
    assert text[1].startswith("smallest effect seen with 80 % power: 2.")
    assert text[2:] == ["smallest p-value possible: 5e-05", "variance inflation: 1"]
    plan = design_plan(EXTREME, VALUES, CATEGORIES)
    assert plan.smallest_effects == dict.fromkeys(VALUES)
    assert f"no effect, however strong, would be seen of: {', '.join(VALUES)}" in plan_lines(plan)
    assert "smallest p-value possible: 0.022" in plan_lines(plan)
    blurred = DESIGNED.copy()
    blurred[:, 1] = blurred[:, 0]
    blurred[0, 1] = 7 - blurred[0, 0]
    plan = design_plan(blurred, VALUES, CATEGORIES)
    high = [name for name, factor in plan.collinearity.inflation.items() if factor >= 5]
    assert high == ["achievement", "benevolence"]
    assert plan_lines(plan)[-1] == "correlated: achievement and benevolence, 0.92"


@pytest.mark.slow
def test_a_plan_of_blocks_is_that_of_their_means():
    blocks = [name for name in range(24) for _ in range(3)]
    x = np.repeat(DESIGNED, 3, axis=0)
    apart, alone = design_plan(x[:, :2], ["a", "b"], 11), design_plan(DESIGNED[:, :2], ["a", "b"], 11)
    together = design_plan(x[:, :2], ["a", "b"], 11, blocks=blocks)
    assert together.n == 72 and together.blocks == 24
    assert together.smallest_effects == alone.smallest_effects  # copies of a unit show no more than it does
    assert apart.smallest_effects["a"] < 0.7 * together.smallest_effects["a"]  # pyright: ignore
    assert plan_lines(together)[1].startswith("24 blocks of units that resemble each other")
    near = x[:, :2].copy()
    near[::3] = 3.5 + 0.4 * (near[::3] - 3.5)  # means lie closer together, so more of the range is needed
    shrunk = design_plan(near, ["a", "b"], 11, blocks=blocks).smallest_effects["a"]
    assert shrunk == pytest.approx(1.25 * together.smallest_effects["a"], rel=0.03)  # pyright: ignore
    few = design_plan(x[:18, :2], ["a", "b"], 11, blocks=blocks[:18])
    assert few.smallest_effects == {"a": None, "b": None}  # 6 blocks
