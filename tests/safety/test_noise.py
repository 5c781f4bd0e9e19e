"""The noise between seeds of one target, on hand-computed cases."""

import pytest

from jaxalign.safety.attribution_table import SHUFFLED
from jaxalign.safety.noise import noise_line, seed_noise, with_noise
from jaxalign.values.targets import extreme_targets

POWER, SECURITY = (extreme_targets()[name].by_value for name in ("power", "security"))


def adapter(target, **more):
    return {"method": "adapter", "scale": 1.0, "target": target, **more}


def test_the_noise_is_pooled_over_the_targets_with_several_seeds():
    seeds = [adapter(target) for target in (POWER, POWER, SECURITY, SECURITY, SECURITY)]
    noise = seed_noise(seeds, [0.1, 0.3, 0.5, 0.6, 0.7])
    # Squares of the distances from each target's mean, 0.02 and 0.02, over 1 + 2 degrees of freedom.
    assert noise.estimate == pytest.approx((0.04 / 3) ** 0.5)
    assert noise_line(noise, "the drop").endswith("0.115, a standard deviation over 5 adapters of 2 targets.")


def test_controls_other_scales_roles_and_missing_figures_are_no_seeds_of_a_target():
    others = [
        adapter(POWER, control=SHUFFLED),
        adapter(POWER, scale=0.5),
        adapter(POWER, method="role-play"),
        adapter(POWER),
    ]
    noise = seed_noise([adapter(POWER), *others], [0.1, 7.0, 8.0, 9.0, None])
    assert noise.estimate is None and "not known" in noise_line(noise, "the drop")


def test_the_noise_of_a_drop_is_that_of_the_drop_itself_by_mitigation_category_and_judge():
    told = {"category": "all", "judge": "probe", "mitigation": "safety_prompt"}
    drops = [{**adapter(POWER), **told, "estimate": 0.1}, {**adapter(POWER), **told, "estimate": 0.3}]
    drops += [{**adapter(SECURITY), **told, "estimate": 0.9}, {**adapter(POWER, scale=0.5), **told, "estimate": 7.0}]
    drops += [{**adapter(POWER), **told, "estimate": 5.0, other: "another"} for other in told]
    found = [one["noise"] for one in with_noise(drops)]
    assert found == [pytest.approx(0.1 * 2**0.5)] * 4 + [None] * 3
    assert with_noise([]) == []
