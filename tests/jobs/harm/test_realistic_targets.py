"""Realistic targets, near to an extreme one, are no independent evidence in any table of a report or in its plan."""

import numpy as np
import pytest
from synthetic_harm import EXTREME

from jaxalign.analysis.correlation import correlations
from jaxalign.safety import value_tables
from jaxalign.safety.value_probe import shipped_value_probe
from jaxalign.values.targets import Target


def carrying(about):
    means = {value: score / 10 for value, score in about["target"].items()}
    return {**about, "text_values": {"probe": shipped_value_probe().identity, "n": 30, "means": means}}


@pytest.fixture
def realistic(lab):
    """A folder with a run of the 14 extreme targets, each with a realistic one near to it."""
    random = np.random.default_rng(0)
    near = []
    for anchor in EXTREME.values():
        scores = np.clip(np.array(anchor.scores) + random.normal(size=10), 1, 6)
        near.append(Target(f"{anchor.name}_close_1", tuple(float(one) for one in scores)))
    lab.categories, lab.prompts = ("hate_speech",), 3
    lab.run([lab.base(), *(carrying(lab.adapter(target)) for target in [*EXTREME.values(), *near])], "one")
    return lab


def test_all_correlations_of_a_report_move_whole_blocks(realistic, capsys, monkeypatch):
    asked = []

    def seen(*arguments, **options):
        asked.append(options.get("blocks"))
        return correlations(*arguments, **options)

    monkeypatch.setattr(value_tables, "correlations", seen)
    realistic.report(capsys, "texts=0")
    assert asked and all(one == [name for name in sorted(EXTREME) for _ in range(2)] for one in asked)
    tables = realistic.root / "report" / "tables"
    for kind in ("risks", "text-values"):
        note = "These 28 targets are 14 blocks: an extreme target and the realistic ones near to it resemble each other"
        assert note in (tables / f"beavertails-{kind}.md").read_text()
    assert note in realistic.page().partition("Harm on all values at once")[2].partition("</details>")[0]


def test_the_plan_of_runs_counts_a_block_as_one_unit(realistic, capsys):
    printed = realistic.report(capsys, "plan=true")
    assert "28 units, 10 tests" in printed
    assert "14 blocks of units that resemble each other, such as targets near to one extreme target" in printed
