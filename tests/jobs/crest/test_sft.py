from types import SimpleNamespace

import numpy as np
import pytest
from reasoning.few_questions import FIVE, THREE, WORDING, rationale
from rich.console import Console

from jaxalign.data.encoding import Encoder
from jaxalign.errors import UserError
from jaxalign.inference.sampling_params import Completion, SamplingParams
from jaxalign.jobs.crest.dpo import pairs_of, responses_of
from jaxalign.jobs.crest.rationales import rationale_requests
from jaxalign.jobs.crest.session import CrestSession
from jaxalign.jobs.crest.sft import choose_examples, label_examples
from jaxalign.reasoning import answers
from jaxalign.reasoning.preferences import RationalePair

QUESTIONS = {"three": THREE, "five": FIVE}
FOUND = {
    "three": [
        rationale("So that.", True, 3),
        rationale("Not this.", True, 2),
        rationale("Neither.", False),
        rationale("", None),
        rationale("So that.", True, 3),
    ],
    "five": [],
}


@pytest.fixture(scope="module")
def session(tokenizer):
    """What encodes, without a model."""
    config = SimpleNamespace(crest=SimpleNamespace(few_shot=False))
    opened, questions = SimpleNamespace(encoder=Encoder(tokenizer)), SimpleNamespace(train=[THREE, FIVE])
    return CrestSession(config, None, opened, WORDING, questions, None, Console())  # type: ignore[arg-type]


class Silent:
    """An engine that answers nothing, and remembers what it was asked."""

    engine = "silent"

    def __init__(self):
        self.prompts = []

    def sample(self, requests, sampling, *, on_done, **_):
        self.prompts += [request.prompt for request in requests]
        for number, request in enumerate(requests):
            for index in request.samples:
                on_done(number, Completion(index, (1,), "So.\nAnswer: (A)", "eos"))
        return []


def test_sampling_both_trainings_and_the_test_put_a_question_in_the_same_tokens(session, tmp_path):
    sampled = [one.tokens for one in rationale_requests(session, [THREE, FIVE], False)]
    kept, _ = choose_examples(session, QUESTIONS, FOUND, tolerance=None)
    labels, _ = label_examples(session)
    preferred, _ = responses_of(session, QUESTIONS, FOUND)
    engine = Silent()
    answers.ask_questions(
        engine,  # type: ignore[arg-type]
        [THREE, FIVE],
        session.encoder,
        WORDING,
        SamplingParams(temperature=0.0, max_tokens=8),
        tmp_path / "generations.jsonl",
        samples=1,
        model="m",
        adapters=[""],
        progress=lambda done, total, speed: None,
    )
    assert len(kept) == 3 and len(preferred.prompts) == 2
    for prompts in (sampled, labels, preferred.prompts, engine.prompts):
        assert [prompt.tolist() for prompt in prompts] == [prompt.tolist() for prompt in sampled]
    assert all(prompt.tolist() == sampled[0].tolist() for prompt in kept)


def test_fine_tuning_preferences_and_the_test_put_an_answer_in_the_same_tokens(session, tokenizer):
    _, kept = choose_examples(session, QUESTIONS, FOUND, tolerance=None)
    preferred, place = responses_of(session, QUESTIONS, FOUND)
    prompt, said = WORDING.prompt(THREE), WORDING.response(THREE, "So that.", 1)
    _, (whole,) = session.encoder.branches(prompt, [said], end=True)
    np.testing.assert_array_equal(kept[0], whole)
    np.testing.assert_array_equal(preferred.responses[place["three", 0]], whole)
    _, endless = choose_examples(session, QUESTIONS, FOUND, tolerance=None, end=False)
    np.testing.assert_array_equal(endless[0], whole[:-1])
    assert whole[-1] == tokenizer.eos_id


def test_equal_responses_are_one_and_the_released_prompt_holds_no_question(session):
    data, place = responses_of(session, QUESTIONS, FOUND)
    assert len(data.responses) == 3 and place["three", 0] == place["three", 4] and ("three", 3) not in place
    assert pairs_of([RationalePair("three", 4, 2, "z")], place) == [(place["three", 0], place["three", 2])]
    released, _ = responses_of(session, QUESTIONS, FOUND, without_question=True)
    assert len({prompt.tobytes() for prompt in released.prompts}) == 1
    assert "Which" not in session.encoder.tokenizer.decode(released.prompts[0])


def test_nothing_to_learn_from_says_why(session):
    wrong = {"three": [rationale("so", False)]}
    with pytest.raises(UserError, match=r"no rationale leads to the right answer .*crest\.samples"):
        choose_examples(session, QUESTIONS, wrong, tolerance=None)
    right = {"three": [rationale("so", True, 1)]}
    with pytest.raises(UserError, match=r"keeps none of the 1 rationales with z = 1: raise crest\.tolerance \(now 1\)"):
        choose_examples(session, QUESTIONS, right, tolerance=1)
    with pytest.raises(UserError, match=r"rationales with z = 1: lower released\.threshold \(now 4\)"):
        choose_examples(session, QUESTIONS, right, tolerance=1, threshold=4)
    assert len(choose_examples(session, QUESTIONS, right, tolerance=1, threshold=1)[0]) == 1
