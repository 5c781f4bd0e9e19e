import json
from collections import Counter, defaultdict

import pytest
from hostile import few, survives, tables
from hypothesis import given
from hypothesis import strategies as st

from jaxalign.errors import UserError
from jaxalign.values.schwartz import VALUES
from jaxalign.values.starter import FILE, STARTER_FIELDS, load_starter

ROW = {"id": "S1", "conclusion": "We should rest", "stance": "against", "premise": "Work calls", "values": ["power"]}


def write(path, *rows):
    path.write_text("\n".join(json.dumps(row) for row in rows) + "\n")
    return str(path)


def test_there_are_at_least_480_arguments_on_40_conclusions():
    arguments = load_starter()
    assert len(arguments) >= 480
    assert len({argument.conclusion for argument in arguments}) == 40


def test_no_row_of_the_shipped_files_is_lost():
    assert len(load_starter()) == len(FILE.read_text().splitlines())


def test_each_value_stands_behind_at_least_40_arguments():
    counts = Counter(value for argument in load_starter() for value in argument.values)
    assert set(counts) == set(VALUES)
    assert min(counts.values()) >= 40


def test_every_conclusion_is_argued_from_both_sides():
    stances = defaultdict(set)
    for argument in load_starter():
        stances[argument.conclusion].add(argument.stance)
    assert all(found == {"in favor of", "against"} for found in stances.values())


def test_no_argument_comes_twice():
    arguments = load_starter()
    assert len({argument.premise.casefold() for argument in arguments}) == len(arguments)
    assert len({argument.id for argument in arguments}) == len(arguments)


def test_a_limit_takes_the_first_arguments():
    assert load_starter(limit=5) == load_starter()[:5]


def test_a_users_own_arguments_are_read_in_the_same_format(tmp_path):
    path = write(
        tmp_path / "mine.jsonl",
        ROW,
        {**ROW, "id": "S2", "values": ["security", "power"]},
        {**ROW, "id": "S3", "values": []},
    )
    assert [(a.id, a.values) for a in load_starter(path=path)] == [("S1", ("power",)), ("S2", ("power", "security"))]


@pytest.mark.parametrize(
    ("row", "line"),
    [
        ({**ROW, "values": ["powre"]}, "line 2 has an unknown value 'powre'; did you mean 'power'?"),
        ({**ROW, "values": "power"}, "line 2 has values='power': it must be a list of names of values"),
        ({**ROW, "stance": "pro"}, "line 2 has the stance 'pro'"),
        ({**ROW, "premise": " "}, "line 2 has premise=' ': it must be a text"),
        ({**ROW, "id": ["S2"]}, "line 2 has id=['S2']: it must be a text"),
        ({**ROW, "id": True}, "line 2 has id=True: it must be a text"),
        ({**ROW, "id": None}, "line 2 has id=None: it must be a text"),
        ({"id": "S2"}, "line 2 lacks conclusion; its fields are: id"),
        (ROW, "line 2: id S1 occurs twice (first: "),
        ([1], "line 2 is not an object with named fields"),
    ],
)
def test_a_bad_row_is_refused_with_its_line(tmp_path, row, line):
    with pytest.raises(UserError) as error:
        load_starter(path=write(tmp_path / "mine.jsonl", ROW, row))
    assert line in str(error.value)


def test_an_absent_empty_or_one_row_file_is_refused(tmp_path):
    with pytest.raises(UserError, match="is not a file"):
        load_starter(path=str(tmp_path / "absent.jsonl"))
    (tmp_path / "empty.jsonl").write_text("")
    with pytest.raises(UserError, match="holds no usable row"):
        load_starter(path=str(tmp_path / "empty.jsonl"))
    with pytest.raises(UserError, match="holds only 1 usable row"):
        load_starter(path=write(tmp_path / "one.jsonl", ROW))


@few
@given(data=st.data())
def test_any_bytes_are_arguments_or_one_line(data):
    suffix = data.draw(st.sampled_from((".json", ".jsonl", ".csv", ".tsv", ".txt")))
    content = data.draw(tables(STARTER_FIELDS, ".jsonl" if suffix == ".txt" else suffix))
    survives(lambda path: load_starter(path=str(path)), f"f{suffix}", content)
