import dataclasses
import json

import pytest
from reasoning.few_questions import FIVE, THREE, WORDING

from jaxalign.data.encoding import Encoder
from jaxalign.inference.sampling_params import Completion, SamplingParams
from jaxalign.reasoning.answers import ANSWER_TOKENS, answer_tokens, ask_questions

GREEDY = SamplingParams(temperature=0.0, max_tokens=64)
BY_TEXT = dataclasses.replace(WORDING, reply="{text}")
BOUND = dataclasses.replace(THREE, options=("this", "that", "neither of the two, for want of a better one"))


class Scripted:
    """An engine that says what its script has for the end of a prompt (a list: sample by sample), cut to the tokens
    that it may write; it remembers what it was asked for."""

    engine = "script"

    def __init__(self, tokenizer, script):
        self.tokenizer, self.script, self.asked = tokenizer, script, []

    def sample(self, requests, sampling, *, on_done, progress, **_):
        progress(0, sum(len(request.samples) for request in requests), 0.0)
        for number, request in enumerate(requests):
            prompt = self.tokenizer.decode(request.prompt)
            self.asked.append((prompt, sampling))
            said = next(said for end, said in self.script.items() if prompt.endswith(end))
            for index in request.samples:
                text = said if isinstance(said, str) else said[index]
                tokens = self.tokenizer.encode(text)[: sampling.max_tokens]
                on_done(number, Completion(index, tuple(tokens.tolist()), self.tokenizer.decode(tokens), "length"))
        return []


@pytest.fixture
def asking(tokenizer, tmp_path):
    def asks(script, questions, wording=WORDING, sampling=GREEDY, samples=1, adapters=("",), again=None):
        engine = Scripted(tokenizer, script)
        found = ask_questions(
            engine,
            questions,
            Encoder(tokenizer),
            wording,
            sampling,
            tmp_path / "generations.jsonl",
            samples=samples,
            model="m",
            adapters=adapters,
            progress=lambda done, total, speed: None,
            again=again or (lambda done, total, speed: None),
        )
        return found, engine.asked

    return asks


def test_what_the_first_response_answers_is_not_asked_again(asking):
    script = {WORDING.prompt(THREE): "So.\nAnswer: (B)", WORDING.prompt(FIVE): "It sat.\nAnswer: D."}
    ((three, five),), asked = asking(script, [THREE, FIVE])
    assert (three.option, three.first, three.right, three.rationale) == (1, True, True, "So.")
    assert (five.option, five.first, five.right) == (3, True, False)
    assert len(asked) == 2


def test_without_the_marker_it_is_appended_and_the_response_read_again(asking, tmp_path):
    script = {
        "Reasoning:\nSo it is.\nAnswer:": " (B)",
        "Reasoning:\nAnswer:": " both",
        WORDING.prompt(THREE): "So it is.",
    }
    script[WORDING.prompt(FIVE)] = ""
    ((three, five),), asked = asking(script, [THREE, FIVE], sampling=dataclasses.replace(GREEDY, temperature=0.7))
    assert (three.option, three.first, three.right) == (1, False, True)
    assert (five.option, five.first, five.right) == (None, False, False)  # never read, which is wrong
    assert [prompt for prompt, _ in asked[2:]] == [
        f"{WORDING.prompt(THREE)}So it is.\nAnswer:",
        f"{WORDING.prompt(FIVE)}Answer:",
    ]
    assert {(how.temperature, how.max_tokens) for _, how in asked[2:]} == {(0.0, ANSWER_TOKENS)}
    lines = (tmp_path / "generations.jsonl").read_text().splitlines()
    assert [json.loads(line)["id"] for line in lines] == ["three", "five", "three", "five"]


def test_the_progress_of_second_readings_is_told_apart(asking):
    script = {"So.\nAnswer:": " C", WORDING.prompt(THREE): "So.", WORDING.prompt(FIVE): "So.\nAnswer: D"}
    told = []
    asking(script, [THREE, FIVE], again=lambda *count: told.append(count))
    assert told == [(0, 1, 0.0)]


@pytest.mark.parametrize("unread", ["Answer:", "Answer: both", "Answer: A or B\n(C)"])
def test_a_marker_with_nothing_to_read_behind_it_is_read_again(asking, unread):
    script = {"Reasoning:\nSo.\nAnswer:": " C", WORDING.prompt(THREE): f"So.\n{unread}"}
    (((one,),), asked) = asking(script, [THREE])
    assert (one.option, one.first, one.rationale) == (2, False, "So.")
    assert len(asked) == 2


def test_a_second_reading_has_room_for_the_longest_option(asking, tokenizer):
    whole = f"So.\nAnswer: {BOUND.options[2]}"
    script = {"So.\nAnswer:": f" {BOUND.options[2]}\nQuestion", WORDING.prompt(BOUND): whole}
    cut = dataclasses.replace(GREEDY, max_tokens=len(whole) - 9)
    (((one,),), asked) = asking(script, [BOUND], BY_TEXT, cut)
    assert (one.option, one.first) == (2, False)
    longest = len(tokenizer.encode(BY_TEXT.answer(BOUND, 2)))
    assert asked[-1][1].max_tokens == longest + 2 == answer_tokens([THREE, BOUND], Encoder(tokenizer), BY_TEXT)
    assert answer_tokens([BOUND], Encoder(tokenizer), WORDING) == ANSWER_TOKENS


def test_the_majority_of_the_samples_is_the_answer_with_a_rationale_that_leads_to_it(asking):
    said = ["Well.\nAnswer: A", "So.\nAnswer: B", "Hm.", "Thus.\nAnswer: B", "No.\nAnswer: none"]
    script = {"Hm.\nAnswer:": " A", "No.\nAnswer:": " none", WORDING.prompt(THREE): said}
    (((one,),), _) = asking(script, [THREE], sampling=dataclasses.replace(GREEDY, temperature=0.7), samples=5)
    assert (one.option, one.first, one.rationale) == (0, True, "Well.")  # two of each: the first option
    said[2] = "Then.\nAnswer: (B)"
    (((one,),), _) = asking(script, [THREE], sampling=dataclasses.replace(GREEDY, temperature=0.8), samples=5)
    assert (one.option, one.first, one.rationale) == (1, True, "So.")
    said[:] = ["No."] * 5
    (((one,),), _) = asking(script, [THREE], sampling=dataclasses.replace(GREEDY, temperature=0.9), samples=5)
    assert (one.option, one.first) == (None, False)


def test_every_adapter_answers_all_questions(asking):
    script = {WORDING.prompt(THREE): "So.\nAnswer: B", WORDING.prompt(FIVE): "So.", "So.\nAnswer:": " (E)"}
    found, asked = asking(script, [THREE, FIVE], adapters=("one", "two"))
    assert [[(one.question.id, one.option, one.first) for one in mine] for mine in found] == [
        [("three", 1, True), ("five", 4, False)]
    ] * 2
    assert len(asked) == 6
