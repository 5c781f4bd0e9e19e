"""Survey files, and the respondents who are nearest to each extreme target."""

import math
import tempfile
from pathlib import Path

import numpy as np
import pytest
from hostile import damaged, few, survives, tables
from hypothesis import given
from hypothesis import strategies as st
from survey_file import forty_people, write_survey

from jaxalign.errors import UserError
from jaxalign.runs.records import write_atomic
from jaxalign.values.schwartz import VALUES
from jaxalign.values.social_survey import (
    ALL_ITEMS,
    ITEMS,
    Respondents,
    divergence,
    nearest,
    read_respondents,
    write_targets,
)
from jaxalign.values.targets import read_target

MISSING = (7, 8, 9, 66, 77, 88, 99)
LOVES_POWER = {item: 1 if item in ITEMS["power"] else 6 for item in ALL_ITEMS}
"""Answers: 1 is "very much like me"."""


def answers(**values):
    """Answers to all items: 4, or what is given for a value."""
    given = {"self_direction": 4} | values
    return {item: given.get(value, 4) for value, items in ITEMS.items() for item in items}


def test_scores_are_turned_round_and_averaged_by_value(tmp_path):
    person = answers(power=1) | {"ipeqopta": 1, "ipudrsta": 2, "impenva": 6}
    found = read_respondents(write_survey(tmp_path / "s.csv", [person]), None, MISSING)
    (one, *_) = nearest(found, "reversed", 1)
    scores = dict(zip(VALUES, one.scores, strict=True))
    assert (scores["power"], scores["universalism"], scores["hedonism"]) == (6, 4, 3)
    (one, *_) = nearest(found, "raw", 1)
    assert dict(zip(VALUES, one.scores, strict=True))["power"] == 1 and one.name.endswith("_close_1_raw")


def test_the_nearest_are_ranked_by_the_divergence_of_the_formula(tmp_path):
    people = [answers(), answers(power=3), LOVES_POWER, answers(power=5), answers(hedonism=3)]
    found = read_respondents(write_survey(tmp_path / "s.csv", people), None, MISSING)
    power = [one for one in nearest(found, "reversed", 3) if one.anchor == "power"]
    # Who holds power above all else is the target itself; then comes the one who holds it somewhat higher. Flat people
    # and lovers of pleasure follow.
    assert [one.line for one in power] == [4, 3, 2]
    assert power[0].divergence == pytest.approx(0, abs=1e-15)
    p, q = [3 / 31] * 9 + [4 / 31], [1 / 15] * 9 + [6 / 15]
    middle = [(a + b) / 2 for a, b in zip(p, q, strict=True)]
    by_hand = sum(a * math.log(a / m) + b * math.log(b / m) for a, b, m in zip(p, q, middle, strict=True)) / 2
    assert power[1].divergence == pytest.approx(by_hand, rel=1e-12)
    assert [one.name for one in power] == ["power_close_1", "power_close_2", "power_close_3"]


# How important each value is to eight people, in the order of `VALUES`, by the line of the file that they stand in.
PEOPLE = {
    2: (2, 2, 2, 2, 5, 2, 2, 2, 3, 4),
    3: (4, 4, 4, 4, 4, 4, 4, 4, 4, 4),
    4: (1, 5, 2, 1, 1, 2, 4, 2, 1, 6),
    5: (4, 2, 2, 3, 5, 2, 2, 2, 2, 2),  # line 2 in another order, but for power
    6: (1, 1, 1, 6, 1, 1, 1, 6, 1, 1),
    7: (3, 3, 5, 2, 3, 5, 2, 2, 5, 3),
    8: (2, 2, 2, 2, 2, 2, 2, 2, 2, 2),  # line 3 in proportion
    9: (1, 1, 1, 5, 4, 1, 1, 5, 1, 1),
}
# The three nearest to each extreme target: line, and divergence to six places, computed with 50 digits apart from this
# program. Line 3 and power, for one: p = 1/10 of each, q = 6/15 and nine times 1/15, so m = 1/4 and nine times 1/12;
# (1/10 ln 2/5 + 9/10 ln 6/5 + 6/15 ln 8/5 + 9/15 ln 4/5) / 2 = 0.063288.
NEAREST = {
    "achievement": [(5, 0.048814), (3, 0.063288), (8, 0.063288)],
    "benevolence": [(4, 0.060537), (3, 0.063288), (8, 0.063288)],
    "conformity": [(7, 0.049925), (3, 0.063288), (8, 0.063288)],
    "hedonism": [(6, 0.048513), (9, 0.057078), (3, 0.063288)],
    "power": [(2, 0.032038), (5, 0.032038), (3, 0.063288)],
    "security": [(7, 0.049925), (3, 0.063288), (8, 0.063288)],
    "self_direction": [(3, 0.063288), (8, 0.063288), (4, 0.077655)],
    "stimulation": [(6, 0.048513), (9, 0.057078), (3, 0.063288)],
    "tradition": [(7, 0.049925), (3, 0.063288), (8, 0.063288)],
    "universalism": [(4, 0.045096), (2, 0.048814), (3, 0.063288)],
    "openness_to_change": [(3, 0.086305), (8, 0.086305), (6, 0.099061)],
    "self_enhancement": [(5, 0.037986), (9, 0.076678), (2, 0.087564)],
    "conservation": [(7, 0.038647), (3, 0.091038), (8, 0.091038)],
    "self_transcendence": [(4, 0.028205), (2, 0.084822), (3, 0.086305)],
}


def test_the_nearest_are_those_of_a_table_computed_by_hand(tmp_path):
    people = [answers(**{v: 7 - score for v, score in zip(VALUES, one, strict=True)}) for one in PEOPLE.values()]
    found = read_respondents(write_survey(tmp_path / "s.csv", people), None, MISSING)
    table = {anchor: [] for anchor in NEAREST}
    for one in nearest(found, "reversed", 3):
        table[one.anchor].append((one.line, round(one.divergence, 6)))
        assert one.scores == PEOPLE[one.line]
    assert table == NEAREST


def test_people_who_differ_in_the_order_of_the_other_values_alone_tie():
    one = [1.5, 4.0, 4.5, 5.5, 3.5, 3.0, 2.5, 3.0, 3.5, 13 / 3]
    other = [4.5, 1.5, 5.5, 4.0, 3.5, 2.5, 3.0, 3.5, 3.0, 13 / 3]  # the same to power and to universalism
    for first, second in ((one, other), (other, one)):
        found = nearest(Respondents(np.array([2, 3]), np.array([first, second]), 2, {}, 0), "raw", 2)
        for anchor in ("power", "universalism"):
            near, next_ = (neighbour for neighbour in found if neighbour.anchor == anchor)
            assert (near.line, next_.line) == (2, 3) and near.divergence == next_.divergence


def test_ties_keep_the_order_of_the_rows(tmp_path):
    # Seen from power, whoever raises one other value is as near as whoever raises another.
    people = [answers(tradition=3), answers(hedonism=3), answers(security=3)]
    found = read_respondents(write_survey(tmp_path / "s.csv", people), None, MISSING)
    assert [one.line for one in nearest(found, "reversed", 3) if one.anchor == "power"] == [2, 3, 4]
    assert next(one.line for one in nearest(found, "reversed", 3) if one.anchor == "security") == 4


@pytest.mark.parametrize("mark", [",", ";", "\t"])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "latin-1"])
def test_files_are_read_as_they_are_published(tmp_path, mark, encoding):
    names = [item.removesuffix("a").upper() for item in ALL_ITEMS]
    path = write_survey(
        tmp_path / "s.csv", [LOVES_POWER, {k: f"{v}.0" for k, v in answers().items()}], names, mark, encoding
    )
    found = read_respondents(path, None, MISSING)
    assert (found.rows, len(found.lines)) == (2, 2)
    assert found.means[1].tolist() == [4] * 10


def test_of_two_rounds_columns_the_filled_one_counts(tmp_path):
    older = [item.removesuffix("a") for item in ALL_ITEMS]
    lines = [
        ",".join([*ALL_ITEMS, *older]),
        ",".join(["", *["5"] * 20, *["3"] * 21]),
        ",".join([*["2"] * 21, *[""] * 21]),
    ]
    (tmp_path / "s.csv").write_text("\n".join(lines))
    found = read_respondents(tmp_path / "s.csv", None, MISSING)
    assert found.means[0].tolist() == [(3 + 5) / 2, *[5] * 9] and found.means[1].tolist() == [2] * 10


def test_a_missing_code_in_the_newer_column_leaves_the_answer_to_the_older(tmp_path):
    older = [item.removesuffix("a") for item in ALL_ITEMS]
    lines = [",".join([*ALL_ITEMS, *older]), ",".join([*["99"] * 21, *["3"] * 21]), ",".join([*["99"] * 42])]
    (tmp_path / "s.csv").write_text("\n".join(lines))
    found = read_respondents(tmp_path / "s.csv", None, MISSING)
    assert found.means.tolist() == [[3] * 10]
    assert (found.rows, found.missing) == (2, {ALL_ITEMS[0]: 1})


@pytest.mark.parametrize("behind", [1, 20_000], ids=["few lines behind it", "more than one cell can hold"])
def test_a_quotation_mark_that_is_not_closed_is_named_with_its_line(tmp_path, behind):
    path = write_survey(tmp_path / "s.csv", [LOVES_POWER, answers(), *[answers(power=2)] * behind])
    path.write_text(path.read_text().replace("Müller 1,", '"Müller 1,'))
    with pytest.raises(UserError, match=r"s\.csv line 3 is not CSV .*: close the quotation mark of that line"):
        read_respondents(path, None, MISSING)


def test_quoted_cells_may_hold_marks_and_line_breaks(tmp_path):
    path = write_survey(tmp_path / "s.csv", [LOVES_POWER, answers()])
    path.write_text(path.read_text().replace("Müller 0", '"Müller, ""0""\nof Rome"'))
    assert read_respondents(path, None, MISSING).lines.tolist() == [3, 4]


def test_a_table_that_was_replaced_half_is_no_table(tmp_path, monkeypatch):
    table, survey = tmp_path / "table", forty_people(tmp_path / "s.csv")
    found = read_respondents(survey, None, MISSING)
    write_targets(table, nearest(found, "reversed", 10), found, survey, "reversed")

    def killed(path, *rest):
        if path.name == "survey.json":
            raise KeyboardInterrupt
        write_atomic(path, *rest)

    people = nearest(found, "raw", 10)
    with monkeypatch.context() as patch:
        patch.setattr("jaxalign.values.social_survey.write_atomic", killed)
        with pytest.raises(KeyboardInterrupt):
            write_targets(table, people, found, survey, "raw")
    assert "power_close_1_raw" in (table / "targets.csv").read_text()
    with pytest.raises(UserError, match="is no table of targets"):
        read_target(table, "power", 1)
    write_targets(table, people, found, survey, "raw")
    assert read_target(table, "power", 1)[2] == "raw"


def test_what_is_dropped_is_counted(tmp_path):
    people = [answers(), answers() | {"impfuna": 88}, answers() | {"impfuna": "."}, answers(), answers(power=2)]
    found = read_respondents(write_survey(tmp_path / "s.csv", people), None, MISSING)
    assert (found.rows, found.missing, found.duplicates) == (5, {"impfuna": 2}, 1)
    assert found.lines.tolist() == [2, 6]


@pytest.mark.parametrize(
    ("people", "names", "said"),
    [
        ([answers() | {"impfuna": 12}], ALL_ITEMS, r"line 2: impfuna=12 is neither an answer \(1 to 6\) nor a missing"),
        ([answers() | {"impfuna": "often"}], ALL_ITEMS, "line 2: impfuna=often is neither"),
        ([answers() | {"impfuna": 2.5}], ALL_ITEMS, r"line 2: impfuna=2\.5 is neither"),
        ([answers() | {"impfuna": 99}], ALL_ITEMS, "none of the 1 respondents answered all 21 items"),
        ([], ALL_ITEMS, "none of the 0 respondents"),
        ([answers()], ["x", "y", *ALL_ITEMS[2:]], "lacks the columns ipshabta, ipsucesa"),
    ],
)
def test_files_that_will_not_do_are_refused(tmp_path, people, names, said):
    with pytest.raises(UserError, match=said):
        read_respondents(write_survey(tmp_path / "s.csv", people, names), None, MISSING)


def test_the_divergence_is_symmetric_and_bounded():
    random = np.random.default_rng(0)
    profiles = random.uniform(1, 6, (20, 10))
    found = divergence(profiles, profiles[0])
    assert found[0] == 0 and (found[1:] > 0).all() and (found <= math.log(2)).all()
    assert divergence(profiles[:1], profiles[7])[0] == pytest.approx(found[7])


@few
@given(data=st.data())
def test_any_bytes_are_a_survey_or_one_line(data):
    whole = ",".join(ALL_ITEMS) + "\n" + ",".join("123456123456123456123") + "\n"
    content = data.draw(damaged(st.just(whole)) | tables(ALL_ITEMS, ".csv"))
    mark = data.draw(st.none() | st.sampled_from((",", ";", "|", '"', "\n", "é")))
    survives(lambda path: read_respondents(path, mark, MISSING), "f.csv", content)


@few
@given(data=st.data(), table=st.booleans())
def test_any_bytes_are_a_table_of_targets_or_one_line(data, table):
    columns = ("name", "anchor", "rank", *VALUES)
    whole = f"{','.join(columns)}\npower_close_1,power,1,1,2,3,4,5,6,1,2,3,4\n"
    content = data.draw(damaged(st.just(whole if table else '{"coding": "raw"}')))
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name) / "f"
        folder.mkdir()
        (folder / "targets.csv").write_text(whole)
        (folder / "survey.json").write_text('{"coding": "raw"}')
        assert read_target(folder, "power", 1)[1]["universalism"] == 4
        damaged_file = folder / ("targets.csv" if table else "survey.json")
        damaged_file.write_bytes(content)
        survives(lambda _: read_target(folder, "power", 1), damaged_file, content)


def test_a_column_that_is_there_twice_is_refused(tmp_path):
    names = [*ALL_ITEMS, "impricha"]
    (tmp_path / "s.csv").write_text(",".join(names) + "\n" + ",".join("1" for _ in names) + "\n")
    with pytest.raises(UserError, match=r"s\.csv has the column impricha twice"):
        read_respondents(tmp_path / "s.csv", None, MISSING)
