import numpy as np
import pytest

from jaxalign.analysis.logistic import fit_logistic, grouped_folds, log_loss, out_of_fold


@pytest.fixture
def data():
    random = np.random.default_rng(0)
    features = random.standard_normal((400, 3)) * [1.0, 10.0, 0.1] + [5.0, -3.0, 0.0]
    log_odds = 2 * (features[:, 0] - 5) + 0.1 * (features[:, 1] + 3) - 1
    return features, random.random(400) < 1 / (1 + np.exp(-log_odds))


def test_the_gradient_is_zero_at_the_fit(data):
    features, labels = data
    for penalty in (0.0, 0.3):
        weights, offset = fit_logistic(features, labels, penalty)
        error = 1 / (1 + np.exp(-(features @ weights + offset))) - labels
        spread = features.std(0)
        standard = (features - features.mean(0)) / spread
        np.testing.assert_allclose(error.mean(), 0, atol=1e-6)
        np.testing.assert_allclose(standard.T @ error / len(labels) + penalty * weights * spread, 0, atol=1e-6)


def test_without_a_penalty_the_weights_are_near_those_that_made_the_labels(data):
    weights, offset = fit_logistic(*data, 0.0)
    np.testing.assert_allclose(weights[:2], [2.0, 0.1], atol=0.4)
    assert offset == pytest.approx(-1 - 10 + 0.3, abs=2)


def test_a_feature_that_never_varies_has_no_weight_and_a_fit_repeats_itself(data):
    features, labels = data
    constant = np.column_stack([features, np.full(400, 7.0)])
    weights, offset = fit_logistic(constant, labels, 0.1)
    again, same = fit_logistic(constant, labels, 0.1)
    assert weights[3] == 0
    assert (weights.tolist(), offset) == (again.tolist(), same)


def test_the_rows_of_a_group_are_in_one_fold():
    groups = [number // 3 for number in range(60)]
    folds = grouped_folds(groups, 5)
    assert all(len({*folds[3 * n : 3 * n + 3]}) == 1 for n in range(20))
    assert np.bincount(folds).tolist() == [12] * 5


def test_a_row_is_scored_by_a_fit_that_has_not_seen_it(data):
    features, labels = data
    folds = grouped_folds(range(400), 4)
    found = out_of_fold(features, labels, folds, 0.1)
    weights, offset = fit_logistic(features[folds != 2], labels[folds != 2], 0.1)
    np.testing.assert_allclose(found[folds == 2], features[folds == 2] @ weights + offset)
    assert log_loss(found, labels) < log_loss(np.zeros(400), labels) == pytest.approx(np.log(2))
