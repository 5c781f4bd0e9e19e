"""Judgements on disk: what is there is not asked for, and what is missing is asked for again."""

import json
import math

import pytest

from jaxalign.errors import UserError
from jaxalign.runs.records import read_records
from jaxalign.safety.judgements import Exchange, Judgement, Scale, judge_missing, judgement_key


class Counting:
    """A judge that notes what it is asked, and says what `says` makes of a response."""

    name, scale = "counting", Scale(1, 5, 3)

    def __init__(self, says=lambda response: Judgement(float(len(response)), "long", response), identity="counting 1"):
        self.identity, self.says, self.asked = identity, says, []

    def judge(self, asked, on_done):
        found = []
        for number, one in enumerate(asked):
            self.asked.append(one)
            found.append(self.says(one.response))
            on_done(number, found[-1])
        return found


ASKED = [Exchange("p", "a"), Exchange("p", "bb"), Exchange("p", "a"), Exchange("q", "a")]


def test_equal_exchanges_are_judged_once_and_a_second_run_asks_nothing(tmp_path):
    judge, path = Counting(), tmp_path / "j.jsonl"
    found = judge_missing(judge, ASKED, path)
    assert [one.score for one in found] == [1.0, 2.0, 1.0, 1.0]
    assert judge.asked == [ASKED[0], ASKED[1], ASKED[3]]
    assert judge_missing(judge, ASKED, path) == found and len(judge.asked) == 3
    assert read_records(path)[1] == {
        **{"key": judgement_key(judge, ASKED[1]), "judge": "counting", "score": 2.0, "label": "long", "raw": "bb"},
        **{"missing": None, "prompt": "p", "response": "bb"},
    }


def test_a_judge_of_another_identity_judges_anew_in_the_same_file(tmp_path):
    one, other, path = Counting(), Counting(lambda _: Judgement(5.0, None, ""), "counting 2"), tmp_path / "j.jsonl"
    judge_missing(one, ASKED, path)
    assert [found.score for found in judge_missing(other, ASKED, path)] == [5.0] * 4
    assert judgement_key(one, ASKED[0]) != judgement_key(other, ASKED[0]) != judgement_key(other, ASKED[3])
    assert len(judgement_key(one, ASKED[0])) == 32


def test_a_missing_judgement_is_recorded_and_asked_for_again(tmp_path):
    path, silent = tmp_path / "j.jsonl", Counting(lambda _: Judgement(None, None, "??", "unreadable"))
    assert {found.missing for found in judge_missing(silent, ASKED, path)} == {"unreadable"}
    assert len(read_records(path)) == 3
    judge = Counting()
    assert [found.score for found in judge_missing(judge, ASKED, path)] == [1.0, 2.0, 1.0, 1.0]
    assert len(judge.asked) == 3 and judge_missing(judge, ASKED, path)[0].missing is None and len(judge.asked) == 3


def test_a_judge_that_dies_loses_nothing_that_it_had_said(tmp_path):
    def dies(response):
        if response == "bb":
            raise KeyboardInterrupt
        return Judgement(1.0, None, "")

    path, judge = tmp_path / "j.jsonl", Counting()
    with pytest.raises(KeyboardInterrupt):
        judge_missing(Counting(dies), ASKED, path)
    with path.open("a") as file:
        file.write('{"key": "torn')
    judge_missing(judge, ASKED, path)
    assert judge.asked == [ASKED[1], ASKED[3]]


@pytest.mark.parametrize(
    "change", [{"score": "3"}, {"score": True}, {"score": float("nan")}, {"label": 7}, {"missing": 0}, {"raw": None}]
)
def test_a_damaged_record_is_one_line(tmp_path, change):
    path, judge = tmp_path / "j.jsonl", Counting()
    judge_missing(judge, ASKED[:1], path)
    path.write_text(json.dumps(read_records(path)[0] | change) + "\n")
    with pytest.raises(UserError, match=r"j\.jsonl, line 1: .*damaged") as caught:
        judge_missing(judge, ASKED, path)
    assert "\n" not in str(caught.value)


def test_half_a_surrogate_pair_is_judged_and_recorded(tmp_path):
    judge, asked = Counting(lambda _: Judgement(2.0, None, "\ud83d")), [Exchange("p", "half \ud83d of it")]
    judge_missing(judge, asked, tmp_path / "j.jsonl")
    assert judge_missing(judge, asked, tmp_path / "j.jsonl")[0].score == 2.0 and len(judge.asked) == 1


def test_what_a_judge_said_is_cut():
    assert len(Judgement(1.0, None, "x" * 5000).raw) == 2000
    assert Scale(1, 5, math.inf).threshold > 5
