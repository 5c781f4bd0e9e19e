"""Scores from a file."""

import json

import pytest

from jaxalign.errors import UserError
from jaxalign.safety.judgements import Exchange, Judgement, Scale, judge_missing
from jaxalign.safety.judges.imported import Imported, content_hash

SCALE = Scale(0, 1, 0.5)
ASKED = [Exchange("Is it late?", "No."), Exchange("Is it late?", "Yes,\nit is."), Exchange("Why?", "")]


def quiet(number, judgement):
    pass


def lines(path, *rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def test_scores_are_found_by_hash_or_by_prompt_and_response_and_the_rest_is_missing(tmp_path):
    path = lines(
        tmp_path / "perspective.jsonl",
        {"prompt": "Why?", "response": " \n", "score": 0, "label": "fine"},
        {"hash": content_hash(ASKED[0]), "score": 0.75},
    )
    done = {}
    found = Imported(path, SCALE).judge(ASKED, done.__setitem__)
    assert found == [
        Judgement(0.75, None, "0.75"),
        Judgement(None, None, "", "not in perspective.jsonl"),
        Judgement(0.0, "fine", "0"),
    ]
    assert done == dict(enumerate(found))


def test_a_table_may_be_csv_with_line_breaks_in_its_texts(tmp_path):
    path = tmp_path / "s.csv"
    path.write_text('prompt,response,score\nIs it late?,"Yes,\nit is.",0.5\nWhy?,,\n')
    found = Imported(path, SCALE).judge(ASKED, quiet)
    assert found[1].score == 0.5 and found[2].missing == "no score in the file" and found[0].missing == "not in s.csv"


def test_a_file_of_recorded_judgements_can_be_imported(tmp_path):
    path = lines(tmp_path / "a.jsonl", {"hash": content_hash(ASKED[0]), "score": 1.0, "label": "harmful"})
    recorded = tmp_path / "judgements.jsonl"
    judge_missing(Imported(path, SCALE), ASKED, recorded)
    found = Imported(recorded, SCALE).judge(ASKED, quiet)
    assert (found[0].score, found[0].label) == (1.0, "harmful")
    assert [one.missing for one in found[1:]] == ["not in a.jsonl"] * 2


def test_identity_follows_the_scores_and_not_the_order_or_the_name_of_the_file(tmp_path):
    rows = [{"prompt": one.prompt, "response": one.response, "score": 0.1} for one in ASKED]
    one = Imported(lines(tmp_path / "a.jsonl", *rows), SCALE)
    same = Imported(lines(tmp_path / "b.jsonl", *rows[::-1], rows[0]), SCALE)
    other = Imported(lines(tmp_path / "c.jsonl", *rows[:2], rows[2] | {"score": 0.2}), SCALE)
    scaled = Imported(lines(tmp_path / "d.jsonl", *rows), Scale(0, 1, 0.8))
    assert one.identity == same.identity and len({one.identity, other.identity, scaled.identity}) == 3


GOOD = {"prompt": "p", "response": "r", "score": 0.5}


@pytest.mark.parametrize(
    ("rows", "line"),
    [
        ([], "no scores"),
        ([{"prompt": "p", "score": 1}], "line 1 does not say what it judges"),
        ([{"prompt": "p", "response": "r"}], "line 1 lacks score"),
        ([GOOD | {"score": 1.5}], r"score=1\.5: it must be a number from 0 to 1"),
        ([GOOD | {"score": "high"}], "score='high'"),
        ([GOOD | {"score": True}], "score=True"),
        ([GOOD | {"score": [1]}], "score="),
        ([GOOD | {"response": 7}], "response=7: it must be a text"),
        ([{"hash": "12", "score": 1}], "32 hexadecimal digits"),
        ([GOOD, GOOD | {"score": 0.6}], "line 1 and .*line 2 judge the same exchange differently"),
    ],
)
def test_a_damaged_file_is_one_line(tmp_path, rows, line):
    with pytest.raises(UserError, match=line) as caught:
        Imported(lines(tmp_path / "a.jsonl", *rows), SCALE)
    assert "\n" not in str(caught.value)


def test_a_file_that_is_none_or_is_torn_is_one_line(tmp_path):
    with pytest.raises(UserError, match=r"judge\.path=.* is not a file \(it does not exist\)"):
        Imported(tmp_path / "none.csv", SCALE)
    (tmp_path / "torn.jsonl").write_text('{"prompt": "p", "resp')
    with pytest.raises(UserError, match=r"torn\.jsonl"):
        Imported(tmp_path / "torn.jsonl", SCALE)
