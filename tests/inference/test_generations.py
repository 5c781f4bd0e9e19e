import dataclasses

import numpy as np
import pytest
from tiny_model import ARCHITECTURE, random_weights

from jaxalign.inference.generations import PromptRequest, record_key, sample_missing
from jaxalign.inference.sampler import Sampler
from jaxalign.inference.sampling_params import SamplingParams
from jaxalign.parallel.compilation import Programs
from jaxalign.runs.records import read_records

SAMPLING = SamplingParams(max_tokens=6, seed=1)
ASKED = [PromptRequest(f"p{n}", np.arange(3, 5 + n, dtype=np.int32)) for n in range(3)]


@pytest.fixture(scope="module")
def sampler(tokenizer):
    """The tiny model, which never ends by itself."""
    return Sampler(ARCHITECTURE, random_weights(), None, tokenizer, Programs(), 6, (-1,))


@pytest.fixture(scope="module")
def whole(sampler, tmp_path_factory):
    """(path, records) of one unbroken call."""
    path = tmp_path_factory.mktemp("whole") / "generations.jsonl"
    return path, sample_missing(sampler, ASKED, 4, SAMPLING, path, model="m")


class Counting:
    """A sampler that counts what it is asked for, and may die in the middle."""

    def __init__(self, sampler, dies_after=None):
        self.sampler, self.dies_after, self.asked = sampler, dies_after, 0

    engine = "jaxalign"

    def sample(self, requests, sampling, *, on_done, on_text, progress):
        self.asked = sum(len(request.samples) for request in requests)
        done = 0

        def note(request, completion):
            nonlocal done
            if done == self.dies_after:
                raise KeyboardInterrupt
            done += 1
            on_done(request, completion)

        return self.sampler.sample(requests, sampling, on_done=note, progress=progress)


def test_records_say_what_was_asked_and_answered(whole):
    path, records = whole
    assert [len(row) for row in records] == [4, 4, 4]
    assert [record["prompt"] for record in records[1]] == ["p1"] * 4
    assert [record["index"] for record in records[2]] == [0, 1, 2, 3]
    assert {(record["engine"], record["end"], record["tokens"]) for record in read_records(path)} == {
        ("jaxalign", "length", 6)
    }
    assert len({record["key"] for record in read_records(path)}) == 12


def test_asking_again_draws_nothing(sampler, whole):
    path, records = whole
    before = path.read_bytes()
    counting = Counting(sampler)
    assert sample_missing(counting, ASKED, 4, SAMPLING, path, model="m") == records
    assert counting.asked == 0 and path.read_bytes() == before


@pytest.mark.parametrize("torn", [b"", b'{"key": "half'])
def test_a_broken_run_resumed_equals_an_unbroken_one(sampler, whole, tmp_path, torn):
    path = tmp_path / "generations.jsonl"
    with pytest.raises(KeyboardInterrupt):
        sample_missing(Counting(sampler, dies_after=5), ASKED, 4, SAMPLING, path, model="m")
    with path.open("ab") as file:
        file.write(torn)
    counting = Counting(sampler)
    assert sample_missing(counting, ASKED, 4, SAMPLING, path, model="m") == whole[1]
    assert counting.asked == 7
    assert len(read_records(path)) == 12


@pytest.mark.slow
def test_more_samples_add_to_those_that_are_there(sampler, tmp_path, whole):
    path = tmp_path / "generations.jsonl"
    few = sample_missing(sampler, ASKED, 1, SAMPLING, path, model="m")
    counting = Counting(sampler)
    assert sample_missing(counting, ASKED, 4, SAMPLING, path, model="m") == whole[1]
    assert counting.asked == 9
    assert [row[:1] for row in whole[1]] == few


def test_prompts_that_are_alike_share_their_samples(sampler, tmp_path):
    counting = Counting(sampler)
    first, second = sample_missing(counting, [ASKED[0], ASKED[0]], 2, SAMPLING, tmp_path / "g.jsonl", model="m")
    assert first == second and counting.asked == 2


def test_a_record_says_what_its_own_prompt_is_about(sampler, tmp_path):
    one, other = (dataclasses.replace(ASKED[0], about={"id": name}) for name in "ab")
    for asked in ([one, other], [other, one]):  # also where the file has it with another name
        found = sample_missing(sampler, asked, 2, SAMPLING, tmp_path / "g.jsonl", model="m")
        assert [[record["id"] for record in row] for row in found] == [[one.about["id"]] * 2 for one in asked]
    assert len(read_records(tmp_path / "g.jsonl")) == 2


def test_whatever_decides_a_sample_is_in_its_name():
    prompt = ASKED[0].tokens
    keys = {
        record_key("m", "", prompt, SAMPLING, 0),
        record_key("other", "", prompt, SAMPLING, 0),
        record_key("m", "adapter", prompt, SAMPLING, 0),
        record_key("m", "", prompt[1:], SAMPLING, 0),
        record_key("m", "", prompt, SAMPLING, 1),
        *(
            record_key("m", "", prompt, dataclasses.replace(SAMPLING, **change), 0)
            for change in (
                {"temperature": 0.5},
                {"top_k": 3},
                {"top_p": 0.9},
                {"max_tokens": 7},
                {"stop": ("a",)},
                {"seed": 2},
            )
        ),
    }
    assert len(keys) == 11
