import numpy as np
import pytest

from jaxalign.data import bucketing
from jaxalign.inference import scheduler as scheduling
from jaxalign.inference.call_plan import CallPlan
from jaxalign.inference.sampling_params import Request, SamplingParams
from jaxalign.inference.scheduler import LARGE_PREFILL, PREFILL, Scheduler
from jaxalign.inference.stopping import StoppingCriteria

END = 0


def text_of(tokens):
    return "".join(chr(96 + token) for token in tokens)


def scheduler_of(requests, shape, max_tokens=6, prefix=0, stop=(), on_text=None):
    """A scheduler whose samples have their index as their key; what `on_done` is told stands in its `told`."""
    longest = max(len(request.prompt) for request in requests) - 1 - prefix
    plan = CallPlan(shape, 2, prefix, longest, 16, 16)
    keys = [{index: np.full(2, index, np.uint32) for index in request.samples} for request in requests]
    stopping = StoppingCriteria(SamplingParams(max_tokens=max_tokens, stop=stop), (END,), text_of)
    told = []
    scheduler = Scheduler(requests, keys, plan, stopping, lambda *done: told.append(done), on_text)
    return scheduler, told


def asked(*prompts, samples=1, adapter=0):
    return [Request(np.arange(1, length + 1, dtype=np.int32), tuple(range(samples)), adapter) for length in prompts]


def decode(scheduler, lengths, steps=2):
    """What a device would choose: in each row 2, 3, 4, ..., and the end token as the last of as many as `lengths` says
    of the (request, sample) that stands there."""
    state = scheduler.state
    chosen = np.full((steps, *state.read.shape), -1, np.int32)
    for a, s, n in np.argwhere(state.active).tolist():
        slot = scheduler.slots[a][s]
        length = lengths.get((slot.request, slot.rows[n].index), 99)
        for step in range(steps):
            number = int(state.read[a, s, n]) + step + 1
            if number <= min(length, scheduler.stopping.sampling.max_tokens):
                chosen[step, a, s, n] = END if number == length else number + 1
    return chosen


def standing(scheduler):
    """What stands where: of each slot its request, and the sample in each of its rows."""
    return [
        (slot.request, [None if row is None else row.index for row in slot.rows])
        for slots in scheduler.slots
        for slot in slots
    ]


def test_every_sample_stands_in_a_row_once_and_ends_as_it_should():
    requests = asked(5, 3, samples=3)
    scheduler, told = scheduler_of(requests, (1, 2, 2))
    lengths = {(0, 0): 1, (0, 2): 4, (1, 1): 3}
    for _ in scheduler.rounds():
        scheduler.take(decode(scheduler, lengths))
    assert scheduler.done == len(told) == 6
    for number, found in enumerate(scheduler.results):
        for index, completion in found.items():
            length = lengths.get((number, index))
            assert completion.end == ("length" if length is None else "eos")
            assert len(completion.tokens) == (length or 6)
            assert completion.text == text_of(range(2, 2 + len(completion.tokens) - (length is not None)))
    assert scheduler.tokens == sum(len(completion.tokens) for _, completion in told)
    assert not scheduler.state.active.any() and standing(scheduler) == [(None, [None, None])] * 2


def test_a_free_row_takes_the_next_sample_and_a_free_slot_the_next_prompt():
    scheduler, _ = scheduler_of(asked(5, 4, 3, samples=3), (1, 2, 2))
    scheduler.fill()
    assert standing(scheduler) == [(0, [0, 1]), (1, [0, 1])]
    state = scheduler.state
    np.testing.assert_array_equal(state.token[0], [[5, 5], [4, 4]])  # each row reads the prompt's last token
    np.testing.assert_array_equal(state.key[0, :, :, 0], [[0, 1], [0, 1]])
    np.testing.assert_array_equal(state.prompt, [[4, 3]])
    scheduler.take(decode(scheduler, {(0, 1): 2, (1, 0): 1, (1, 1): 2}))
    assert scheduler.fill() == []  # no new prompt
    assert standing(scheduler) == [(0, [0, 2]), (1, [2, None])]
    np.testing.assert_array_equal(state.read[0], [[2, 0], [0, 2]])
    np.testing.assert_array_equal(state.active[0], [[True, True], [True, False]])
    scheduler.take(decode(scheduler, {(1, 2): 1}))
    (batch,) = scheduler.fill()
    assert standing(scheduler) == [(0, [0, 2]), (2, [0, 1])]
    np.testing.assert_array_equal(batch.tokens[0, :3], [1, 2, 0])
    assert batch.slots[0] == 1


def test_a_slot_without_a_prompt_helps_out_where_most_samples_wait():
    scheduler, _ = scheduler_of(asked(5, samples=5), (1, 2, 2))
    (batch,) = scheduler.fill()
    assert standing(scheduler) == [(0, [0, 1]), (0, [4, 3])]
    assert [(int(which), int(slot)) for which, slot in zip(batch.which[:2], batch.slots[:2], strict=True)] == [
        (0, 0),
        (0, 1),
    ]


def test_short_prompts_come_first_and_adapters_keep_to_their_slots():
    requests = [*asked(40, 5, 30), *asked(20, 3, adapter=1)]
    scheduler, _ = scheduler_of(requests, (2, 1, 1))
    order = []
    for _ in scheduler.rounds():
        order.append([request for request, _ in standing(scheduler)])
        scheduler.take(decode(scheduler, {}, steps=6))
    assert order == [[1, 4], [2, 3], [0, None]]


def test_a_request_without_samples_takes_no_slot():
    requests = [Request(np.arange(1, 4, dtype=np.int32), ()), *asked(5)]
    scheduler, _ = scheduler_of(requests, (1, 1, 1))
    for _ in scheduler.rounds():
        scheduler.take(decode(scheduler, {}))
    assert [list(found) for found in scheduler.results] == [[], [0]]


def test_off_a_cpu_all_short_prompts_are_prefilled_by_one_program(monkeypatch):
    for module in (scheduling, bucketing):
        monkeypatch.setattr(module, "on_cpu", lambda: False)
    scheduler, _ = scheduler_of(asked(12, 40, 14, 1, 38), (1, 8, 1), prefix=0)
    (batch,) = scheduler.fill()
    assert batch.tokens.shape == (LARGE_PREFILL // 64, 64)
    assert len(batch.which) == len(batch.slots) == LARGE_PREFILL // 64


def test_prompts_of_about_one_length_are_prefilled_together_behind_the_prefix():
    scheduler, _ = scheduler_of(asked(12, 40, 14, 1, 38), (1, 8, 1), prefix=0)
    batches = scheduler.fill()
    assert [batch.tokens.shape for batch in batches] == [(PREFILL // 16, 16), (PREFILL // 48, 48)]
    short, long = batches
    # The prompt of one token stands in slot 2: it has nothing to prefill.
    np.testing.assert_array_equal(short.tokens[0, :12], [*range(1, 12), 0])
    assert set(zip(short.which.tolist(), short.slots.tolist(), strict=True)) == {(0, 0), (1, 1)}
    assert set(zip(long.which.tolist(), long.slots.tolist(), strict=True)) == {(0, 3), (1, 4)}
    scheduler, _ = scheduler_of(asked(12, 14), (1, 2, 1), prefix=10)
    (batch,) = scheduler.fill()
    np.testing.assert_array_equal(batch.tokens[:2, :4], [[11, 0, 0, 0], [11, 12, 13, 0]])
    np.testing.assert_array_equal(scheduler.state.prompt, [[1, 3]])


@pytest.mark.parametrize("stop", [(), ("de",)])
def test_who_reads_along_is_told_each_text_before_the_sample_is_done(stop):
    said = []
    scheduler, told = scheduler_of(asked(5), (1, 1, 1), stop=stop, on_text=lambda *text: said.append(text))
    for _ in scheduler.rounds():
        scheduler.take(decode(scheduler, {}))
    texts = ["bc", "bcde", "bcdefg"] if not stop else ["bc", "bc"]
    assert said == [(0, 0, text) for text in texts]
    ((request, completion),) = told
    assert (request, completion.text, completion.end) == (0, texts[-1], "stop" if stop else "length")
