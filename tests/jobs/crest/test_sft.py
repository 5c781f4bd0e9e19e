import numpy as np
import pytest
from reasoning.few_questions import FIVE, THREE, WORDING, rationale
from rich.console import Console

from jaxalign.data.encoding import Encoder
from jaxalign.errors import UserError
from jaxalign.inference.sampling_params import Completion, SamplingParams
from jaxalign.jobs.crest.dpo import pairs_of, responses_of
from jaxalign.jobs.crest.learner import Learner
from jaxalign.jobs.crest.rationales import _asked
from jaxalign.jobs.crest.sft import kept_examples, label_examples
from jaxalign.reasoning import answers
from jaxalign.reasoning.preferences import Choice

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
def learner(tokenizer):
    """What encodes, without a model."""
    return Learner(None, None, Encoder(tokenizer), WORDING, Console())  # type: ignore[arg-type]


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


def test_sampling_both_trainings_and_the_test_put_a_question_in_the_same_tokens(learner, tmp_path):
    sampled = [one.tokens for one in _asked(learner, [THREE, FIVE], False, False)]
    kept, _ = kept_examples(learner, QUESTIONS, FOUND, tolerance=None)
    labels, _ = label_examples(learner, [THREE, FIVE])
    preferred, _ = responses_of(learner, QUESTIONS, FOUND)
    engine = Silent()
    answers.ask_questions(
        engine,  # type: ignore[arg-type]
        [THREE, FIVE],
        learner.encoder,
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


def test_fine_tuning_preferences_and_the_test_put_an_answer_in_the_same_tokens(learner, tokenizer):
    _, kept = kept_examples(learner, QUESTIONS, FOUND, tolerance=None)
    preferred, place = responses_of(learner, QUESTIONS, FOUND)
    whole = learner.encoder.response(WORDING.response(THREE, "So that.", 1))
    np.testing.assert_array_equal(kept[0], whole)
    np.testing.assert_array_equal(preferred.responses[place["three", 0]], whole)
    _, endless = kept_examples(learner, QUESTIONS, FOUND, tolerance=None, end=False)
    np.testing.assert_array_equal(endless[0], whole[:-1])
    assert whole[-1] == tokenizer.eos_id


def test_equal_responses_are_one_and_the_released_prompt_holds_no_question(learner):
    data, place = responses_of(learner, QUESTIONS, FOUND)
    assert len(data.responses) == 3 and place["three", 0] == place["three", 4] and ("three", 3) not in place
    assert pairs_of([Choice("three", 4, 2, "z")], place) == [(place["three", 0], place["three", 2])]
    released, _ = responses_of(learner, QUESTIONS, FOUND, without_question=True)
    assert len({prompt.tobytes() for prompt in released.prompts}) == 1
    assert "Which" not in learner.encoder.tokenizer.decode(released.prompts[0])


def test_nothing_to_learn_from_says_why(learner):
    wrong = {"three": [rationale("so", False)]}
    with pytest.raises(UserError, match=r"no rationale leads to the right answer .*crest\.samples"):
        kept_examples(learner, QUESTIONS, wrong, tolerance=None)
    right = {"three": [rationale("so", True, 1)]}
    with pytest.raises(UserError, match=r"of 1 rationales with z = 1 none is kept: raise crest\.tolerance \(now 1\)"):
        kept_examples(learner, QUESTIONS, right, tolerance=1)
    with pytest.raises(UserError, match=r"none is kept: lower released\.threshold \(now 4\)"):
        kept_examples(learner, QUESTIONS, right, tolerance=1, threshold=4)
    assert len(kept_examples(learner, QUESTIONS, right, tolerance=1, threshold=1)[0]) == 1
