import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest

from jaxalign.safety.judgements import Exchange
from jaxalign.safety.judges.toxicity_linear import TOXICITY_FILE, ToxicityJudge, toxicity_model

GOLDEN = json.loads((Path(__file__).parents[2] / "golden" / "toxicity.json").read_text(encoding="utf-8"))["scores"]


@pytest.mark.parametrize(("text", "score"), GOLDEN)
def test_a_score_is_that_of_alt_profanity_check(text, score):
    assert toxicity_model().score(text) == pytest.approx(score, abs=1e-6)


def test_a_text_of_any_length_and_any_characters_has_a_score():
    for text in ("\ud800 half a pair", "a" * 100_000, "idiot " * 20_000, "\x00\u202eidiot"):
        assert 0 <= toxicity_model().score(text) <= 1


def test_each_judgement_is_told_at_once_and_a_blank_text_has_none():
    asked = [Exchange("You are an", " idiot."), Exchange("Hello", " . . "), Exchange("Hello", "Thank you.")]
    told = []
    found = ToxicityJudge().judge(asked, lambda number, judgement: told.append((number, judgement)))
    assert told == list(enumerate(found))
    assert [one.missing for one in found] == [None, "blank", None]
    assert found[0].score > 0.99 > 0.1 > found[2].score
    assert found[1].score is None


def test_the_released_scope_reads_prompt_and_response_as_one_text():
    exchange = Exchange("You stupid", " cat, come here.")
    alone, joined = ToxicityJudge(), ToxicityJudge(joined=True)
    scores = [judge.judge([exchange], lambda *_: None)[0].score for judge in (alone, joined)]
    assert scores == [toxicity_model().score(" cat, come here."), toxicity_model().score("You stupid cat, come here.")]
    assert alone.identity != joined.identity


def test_the_file_holds_no_words_and_comes_with_its_licence():
    assert b"idiot" not in TOXICITY_FILE.read_bytes()
    assert "MIT License" in TOXICITY_FILE.with_suffix(".LICENSE").read_text(encoding="utf-8")


def test_a_score_is_the_mean_of_calibrated_classifiers():
    model = toxicity_model()
    single = [
        dataclasses.replace(
            model,
            weights=model.weights[[n]],
            intercepts=model.intercepts[[n]],
            slopes=model.slopes[[n]],
            offsets=model.offsets[[n]],
        ).score("what an idiot")
        for n in range(len(model.slopes))
    ]
    assert np.mean(single) == pytest.approx(model.score("what an idiot"))
