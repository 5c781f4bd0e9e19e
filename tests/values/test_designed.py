from pathlib import Path

import numpy as np
import pytest
from omegaconf import OmegaConf

from jaxalign.values.designed import designed_targets, paley_design
from jaxalign.values.targets import make_target

CONF = Path(__file__).parents[2] / "conf" / "value"
SCORES = np.array([target.scores for target in designed_targets().values()])


@pytest.mark.parametrize("order", [3, 7, 11, 19, 23])
def test_a_paley_design_is_balanced_and_uncorrelated(order):
    design = paley_design(order)
    assert design.shape == (order + 1, order) and set(np.unique(design)) == {-1, 1}
    assert (design.sum(0) == 0).all()
    assert (design.T @ design == (order + 1) * np.eye(order)).all()


def test_each_value_is_high_in_twelve_of_twenty_four_targets_and_all_are_uncorrelated():
    assert SCORES.shape == (24, 10)
    assert ((SCORES == 6).sum(0) == 12).all() and ((SCORES == 1).sum(0) == 12).all()
    assert np.allclose(np.corrcoef(SCORES.T), np.eye(10))


def test_each_target_is_another_one_with_some_values_high_and_some_low():
    assert len({tuple(row) for row in SCORES}) == 24
    assert set((SCORES == 6).sum(1)) == {3, 4, 5, 6, 7}


def test_the_files_under_conf_are_exactly_the_designed_targets():
    read = {}
    for file in sorted((CONF / "designed").glob("*.yaml")):
        value = OmegaConf.load(file)
        read[file.stem] = make_target(value.name, value.scores, value.coding)
    assert read == designed_targets()


def test_a_designed_target_differs_from_the_file_of_a_value_in_name_and_scores_alone():
    comments = [line.partition("  #")[2] for line in (CONF / "power.yaml").read_text().splitlines()[3:]]
    for file in (CONF / "designed").glob("*.yaml"):
        lines = file.read_text().splitlines()
        assert lines[1].startswith("# A designed target (jaxalign/values/designed.py)")
        assert [line.partition("  #")[2] for line in lines[3:]] == comments
