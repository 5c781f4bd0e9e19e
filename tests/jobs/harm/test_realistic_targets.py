"""Realistic targets, near to an extreme one, are no independent evidence in any table of a report or in its plan."""

import numpy as np
import pytest
from command_line import refused, run
from survey_file import forty_people
from synthetic_harm import EXTREME

from jaxalign.analysis.correlation import correlations
from jaxalign.report import main
from jaxalign.safety import value_tables
from jaxalign.safety.value_probe import shipped_value_probe
from jaxalign.survey import main as survey
from jaxalign.values.designed import designed_targets
from jaxalign.values.schwartz import VALUES
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


@pytest.mark.slow
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


def test_targets_of_a_table_are_planned_before_they_are_trained(tmp_path, capsys):
    table = tmp_path / "mine.csv"
    rows = [[name, *target.scores] for name, target in designed_targets().items()]
    table.write_text("\n".join(",".join(map(str, row)) for row in [["name", *VALUES], *rows, rows[0]]) + "\n")
    printed = run(main, ["plan=true", f"targets={table}", "categories=1"], capsys)
    assert printed.startswith(f"24 targets of {table}, against 1 category:\n  24 units, 10 tests")
    assert "blocks" not in printed and "variance inflation: 1" in printed


@pytest.mark.slow
def test_respondents_of_a_survey_are_planned_with_the_extreme_targets_that_they_are_near_to(tmp_path, capsys):
    table = tmp_path / "table"
    run(survey, [f"path={forty_people(tmp_path / 's.csv')}", f"out={table}", "neighbours=1"], capsys)
    printed = run(main, ["plan=true", f"targets={table}", "categories=1"], capsys)
    number = int(printed.split()[0])
    assert 1 < number <= 14 and f"{number} targets of {table} and the 14 extreme ones, against" in printed
    assert f"{number + 14} units, 10 tests" in printed and "14 blocks of units" in printed


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("name,power\nmine,6\n", "line 2: achievement is None: a table of targets has a column for each of the ten"),
        (",".join(VALUES) + "\n" + ",".join(["1"] * 9 + ["7"]) + "\n", "is '7': a table of targets has a column"),
        (",".join(VALUES) + "\n" + ",".join(["nan"] * 10) + "\n", "line 2: achievement is 'nan'"),
        (",".join(VALUES) + "\n", "has no row: give a table of targets"),
    ],
)
def test_a_table_without_scores_is_one_line(tmp_path, capsys, text, said):
    (tmp_path / "t.csv").write_text(text)
    assert said in refused(main, ["plan=true", f"targets={tmp_path / 't.csv'}"], capsys)


def test_targets_without_a_plan_or_with_runs_are_refused(tmp_path, capsys):
    for more in ([f"runs={tmp_path}"], [f"runs={tmp_path}", "plan=true"]):
        line = refused(main, [f"targets={tmp_path}", *more], capsys)
        assert line == "targets= is for plan=true without runs=: add plan=true, or leave targets= out"
