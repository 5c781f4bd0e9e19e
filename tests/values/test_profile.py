import numpy as np
import pytest

from jaxalign.values.profile import best_constant_nmse, nmse, nmse_centred, pearson, profile_fit
from jaxalign.values.targets import extreme_targets

POWER = extreme_targets()["power"].scores


def test_the_error_is_on_the_scale_from_0_to_1():
    assert nmse(POWER, POWER) == 0
    assert nmse([7 - score for score in POWER], POWER) == 1
    assert nmse([2] * 10, POWER) == pytest.approx((9 * 0.2**2 + 0.8**2) / 10)


def test_the_best_constant_for_power_is_0_09_and_no_constant_beats_it():
    best = best_constant_nmse(POWER)

    assert best == pytest.approx(0.09)
    assert nmse([np.mean(POWER)] * 10, POWER) == pytest.approx(best)
    assert all(nmse([constant] * 10, POWER) >= best for constant in np.linspace(1, 6, 101))


def test_the_centred_error_ignores_the_level_and_sees_the_shape():
    raised = [score * 0.1 + 3 for score in POWER]

    assert nmse_centred([score + 0.7 for score in POWER], POWER) == pytest.approx(0)
    assert nmse_centred(raised, POWER) == pytest.approx(0.09 * 0.9**2)
    assert nmse_centred([2] * 10, POWER) == pytest.approx(best_constant_nmse(POWER))


def test_correlations_agree_with_scipy_ties_included():
    stats = pytest.importorskip("scipy.stats")
    scores = [2.5, 1.0, 2.5, 4.0, 5.5, 3.0, 1.0, 1.0, 2.0, 6.0]
    target = [1, 2, 2, 4, 5, 3, 1, 1, 6, 6]
    fit = profile_fit(scores, target)

    assert fit["pearson"] == pytest.approx(stats.pearsonr(scores, target)[0])
    assert fit["spearman"] == pytest.approx(stats.spearmanr(scores, target)[0])


def test_a_flat_profile_has_an_error_but_no_correlation_also_where_rounding_moves_its_last_bits():
    wobbling = [2 + 1e-15 * place for place in range(10)]
    fit = profile_fit(wobbling, POWER)

    assert fit["nmse"] == pytest.approx(0.1)
    assert (fit["pearson"], fit["spearman"]) == (None, None)
    assert pearson(POWER, [3.0] * 10) is None


def test_without_a_target_or_with_an_unread_value_nothing_is_claimed():
    nothing = {"nmse": None, "nmse_centred": None, "pearson": None, "spearman": None}

    assert profile_fit([2.0] * 10, None) == nothing
    assert profile_fit([None, *POWER[1:]], POWER) == nothing
