import numpy as np
import pytest

from jaxalign.inference.call_plan import NEAR, SAMPLES_TOGETHER, SHARED, STEPS, WATCHED, plan_call, shared_prefix
from jaxalign.inference.sampling_params import Request


def asked(*lengths, samples=1, adapters=1):
    """A request for each length and adapter, no two prompts of which begin alike."""
    return [
        Request(np.full(length, 3 + number, np.int32), tuple(range(samples)), adapter)
        for adapter in range(adapters)
        for number, length in enumerate(lengths)
    ]


@pytest.mark.parametrize(
    ("rows", "samples", "adapters", "shape"),
    [
        (2, 16, 1, (1, 1, 2)),
        (1, 1, 1, (1, 1, 1)),
        (64, 1, 1, (1, 1, 4)),  # a CPU takes no longer for four
        (8, 16, 4, (4, 1, 2)),
        (3, 16, 4, (4, 1, 1)),  # one for each adapter there must be
    ],
)
def test_no_more_rows_decode_together_than_allowed(rows, samples, adapters, shape):
    assert plan_call(asked(5, samples=samples, adapters=adapters), adapters, rows, 256).shape == shape


@pytest.mark.parametrize(
    ("prompts", "samples", "shape"),
    [
        (3, 1, (1, 4, 1)),  # slots come in powers of two
        (3, 30, (1, 16, 4)),  # more samples than rows: slots of few rows
        (1, 20, (1, 2, SAMPLES_TOGETHER)),
        (100, 1, (1, 64, 1)),
    ],
)
def test_many_prompts_stand_in_slots_of_few_rows(prompts, samples, shape):
    assert plan_call(asked(*[5] * prompts, samples=samples), 1, 64, 256).shape == shape


def test_caches_begin_small_and_in_few_sizes():
    plan = plan_call(asked(9, 30), 1, 8, 16)
    assert (plan.steps, plan.longest, plan.prompt_places, plan.sample_places) == (STEPS, 29, 64, STEPS)
    assert plan_call(asked(9, 90), 1, 8, 16).prompt_places == 128
    plan = plan_call(asked(9, 3000), 1, 8, 1000, watched=True)
    assert (plan.steps, plan.longest, plan.prompt_places, plan.sample_places) == (WATCHED, 2999, NEAR, 4 * STEPS)


def test_a_prefix_is_shared_by_all_prompts_but_for_the_last_token_of_each():
    start = np.arange(SHARED + 2, dtype=np.int32)
    longer = np.append(start, np.int32(7))
    assert shared_prefix([start, longer]) == SHARED + 1
    assert shared_prefix([start[: SHARED + 1], longer]) == SHARED
    assert shared_prefix([start[:SHARED], longer]) == 0  # too short to be worth it
    assert shared_prefix([start, start]) == 0  # one prompt, which is prefilled once anyway
    plan = plan_call([Request(start), Request(longer)], 1, 8, 16)
    assert (plan.prefix, plan.longest) == (SHARED + 1, 1)
