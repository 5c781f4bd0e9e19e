import dataclasses

import numpy as np
import pytest
from few_responses import RESPONSES
from tiny_model import ARCHITECTURE, MODEL, Killed, random_adapter, random_tokens

from jaxalign.inference.reference import read_reference
from jaxalign.inference.scorer import Scorer
from jaxalign.models.layout import BaseWeights
from jaxalign.runs.records import read_records


def scorer(params, programs, adapter):
    return Scorer(MODEL, BaseWeights(params, ARCHITECTURE.tied), adapter, 2.0, programs, 96)


def test_the_reference_is_read_once_for_each_response_kept_and_checked(params, programs, tmp_path):
    adapter, path = random_adapter(), tmp_path / "reference.jsonl"
    first = read_reference(scorer(params, programs, adapter), RESPONSES, range(16), path, model="m")
    for response in (0, 7):
        tree = RESPONSES.trees([response])[0][0]
        alone = scorer(params, programs, adapter).score([tree])[0][1]
        assert first[response] == pytest.approx(alone, abs=1e-4)
    written = path.read_bytes()
    done = []
    again = read_reference(
        scorer(params, programs, adapter), RESPONSES, range(16), path, model="m", progress=lambda *x: done.append(x)
    )
    np.testing.assert_array_equal(again, first)
    assert path.read_bytes() == written and done == [(0, 0, 0.0)]
    # Another adapter, and another base, are other numbers.
    other = read_reference(scorer(params, programs, random_adapter(1)), RESPONSES, range(16), path, model="m")
    assert np.abs(other - first).max() > 1e-3
    before = len(read_records(path))
    read_reference(scorer(params, programs, adapter), RESPONSES, [3], path, model="another")
    assert len(read_records(path)) == before + 1


@pytest.mark.slow
def test_the_reference_tells_prompts_and_tokens_per_second(params, programs, monkeypatch):
    monkeypatch.setattr("jaxalign.inference.reference.PROMPTS_AT_A_TIME", 3)
    told = []
    read_reference(scorer(params, programs, random_adapter()), RESPONSES, range(16), progress=lambda *x: told.append(x))
    assert [count[:2] for count in told] == [(0, 4), (3, 4), (4, 4)]
    assert told[0][2] == 0.0 and all(speed > 0 for _, _, speed in told[1:])


def test_a_reference_that_a_kill_tore_is_read_in_the_shapes_of_an_unbroken_one(params, programs, tmp_path, monkeypatch):
    monkeypatch.setattr("jaxalign.inference.reference.PROMPTS_AT_A_TIME", 1)
    adapter, path, random = random_adapter(), tmp_path / "reference.jsonl", np.random.default_rng(9)
    longest = [random_tokens(random, 9, 10) for _ in range(4)]  # so the first part takes the most predictions
    prompts = [random_tokens(random, 30, 31) for _ in range(4)]
    data = dataclasses.replace(RESPONSES, prompts=prompts, responses=[*longest, *RESPONSES.responses[4:]])

    def killed(after=99, shapes=()):
        return Killed(
            MODEL, BaseWeights(params, ARCHITECTURE.tied), adapter, 2.0, programs, 96, shapes=[*shapes], after=after
        )

    unbroken = killed()
    whole = read_reference(unbroken, data, range(16))
    assert len(unbroken.parts[-1]) == 2  # all in the first part's shape
    alone = killed()
    read_reference(alone, data, range(4, 16))
    assert alone.parts[-1] != unbroken.parts[-1]  # which is not the one that the others would choose
    torn = killed(after=2)
    with pytest.raises(KeyboardInterrupt):
        read_reference(torn, data, range(16), path)
    with path.open("r+b") as file:
        file.truncate(path.stat().st_size - 30)
    resumed = killed(shapes=alone.parts[-1][1:])
    np.testing.assert_array_equal(read_reference(resumed, data, range(16), path), whole)
    assert resumed.parts == unbroken.parts[1:]  # the second part is torn, so it is read again
    assert len(read_records(path)) == 16
