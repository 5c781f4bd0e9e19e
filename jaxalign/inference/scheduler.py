"""The host's part of sampling: which sample stands in which row, which samples wait, and which have ended.

It is pure Python and NumPy, and needs no model. A slot holds one prompt, and its rows decode samples of that prompt
side by side. A row whose sample has ended takes the prompt's next sample. A slot without samples left takes the next
prompt. So a long sample delays only its own slot.

A adapters, S slots of an adapter, N rows of a slot, P prompts of one prefill, T tokens of a prompt.
"""

import dataclasses
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence

import numpy as np
from jaxtyping import Bool, Int, Int32, UInt32

from jaxalign.data.bucketing import bucket
from jaxalign.inference.call_plan import CallPlan
from jaxalign.inference.not_finite import NOT_FINITE, not_finite
from jaxalign.inference.sampling_params import Completion, Request
from jaxalign.inference.stopping import StoppingCriteria
from jaxalign.parallel.processor import on_cpu

PREFILL, LARGE_PREFILL = 256, 4096
"""Short prompts are prefilled together, up to this number of tokens (with padding), on a CPU and elsewhere. Longer ones
are prefilled alone."""


def padded_prompts(prompts: Sequence[Int[np.ndarray, " _"]], length: int) -> Int32[np.ndarray, "P {length}"]:
    """Return prompts as rows of one length, filled with zeros at the end."""
    tokens = np.zeros((len(prompts), length), np.int32)
    for row, prompt in zip(tokens, prompts, strict=True):
        row[: len(prompt)] = prompt
    return tokens


@dataclasses.dataclass(frozen=True)
class PrefillBatch:
    """Prompts of one adapter to prefill together, and the M places where they go.

    The last prompt and the last place are repeated, so that there are few shapes.
    """

    adapter: int
    """The index of the adapter that reads the prompts."""
    tokens: Int32[np.ndarray, "P T"]
    """The tokens of each prompt without prefix and last token, then zeros [P, T]."""
    which: Int32[np.ndarray, " M"]
    """For each of the M places, the index of its prompt."""
    slots: Int32[np.ndarray, " M"]
    """For each of the M places, the index of its slot."""


@dataclasses.dataclass(frozen=True)
class RowState:
    """The state of all rows that the device reads before it decodes. The scheduler writes into these arrays."""

    token: Int32[np.ndarray, "A S N"]
    """The token that the row reads next."""
    read: Int32[np.ndarray, "A S N"]
    """The number of tokens that the row has read: the last one of the prompt, and those of its sample."""
    active: Bool[np.ndarray, "A S N"]
    """Whether the row has a sample."""
    key: UInt32[np.ndarray, "A S N 2"]
    """The sample's random key."""
    prompt: Int32[np.ndarray, "A S"]
    """The number of tokens of the slot's prompt that have keys in the slot's own KV cache."""


def idle_rows(shape: tuple[int, int, int]) -> RowState:
    """Return the state of rows of the shape (A, S, N), none of which is active."""
    return RowState(
        token=np.zeros(shape, np.int32),
        read=np.zeros(shape, np.int32),
        active=np.zeros(shape, bool),
        key=np.zeros((*shape, 2), np.uint32),
        prompt=np.zeros(shape[:2], np.int32),
    )


@dataclasses.dataclass
class RunningSample:
    """A sample that a row is drawing."""

    index: int
    """The sample's index, one of the request's `samples`."""
    tokens: list[int] = dataclasses.field(default_factory=list)
    """The tokens chosen so far."""
    shown: str = ""
    """The text of the last call of `on_text`."""


@dataclasses.dataclass
class Slot:
    """Rows that draw samples of one request."""

    rows: list[RunningSample | None]
    """The sample of each of the N rows; None for an idle row."""
    request: int | None = None
    """The number of the request; None if the slot is idle."""
    waiting: deque[int] = dataclasses.field(default_factory=deque)
    """The indices of the samples that have no row yet."""


@dataclasses.dataclass
class Scheduler:
    """Gives slots their requests and rows their samples, and collects the completions."""

    requests: Sequence[Request]
    """The prompts, and the samples wanted of each."""
    keys: Sequence[Mapping[int, UInt32[np.ndarray, " 2"]]]
    """For each request the random key of each of its samples, by the sample's index."""
    plan: CallPlan
    """The shapes of this call."""
    stopping: StoppingCriteria
    """Decides when a sample ends."""
    on_done: Callable[[int, Completion], None]
    """Is called with (request, completion) when a sample has ended."""
    on_text: Callable[[int, int, str], None] | None = None
    """Is called with (request, sample, its text so far) after each decode call."""
    state: RowState = dataclasses.field(init=False)
    """What the device reads before each decode call."""
    slots: list[list[Slot]] = dataclasses.field(init=False)
    """The S slots of each of the A adapters."""
    queues: list[deque[int]] = dataclasses.field(init=False)
    """For each adapter the numbers of its requests that have no slot yet."""
    results: list[dict[int, Completion]] = dataclasses.field(init=False)
    """For each request its completions so far, by the sample's index."""
    tokens: int = 0
    """The number of tokens chosen so far."""

    def __post_init__(self):
        adapters, slots, rows = self.plan.shape
        self.state = idle_rows(self.plan.shape)
        self.slots = [[Slot([None] * rows) for _ in range(slots)] for _ in range(adapters)]
        # Short prompts come first, because the prompts' KV caches grow with the longest prompt so far.
        order = [number for number, request in enumerate(self.requests) if request.samples]
        order.sort(key=lambda number: bucket(len(self.requests[number].prompt)))
        self.queues = [deque(n for n in order if self.requests[n].adapter == a) for a in range(adapters)]
        self.results = [{} for _ in self.requests]

    @property
    def done(self) -> int:
        """The number of samples that have ended."""
        return sum(map(len, self.results))

    def rounds(self) -> Iterator[list[PrefillBatch]]:
        """Yield the prompts to prefill before each decode call, until all samples have ended.

        Between two rounds the caller prefills, decodes, and hands the chosen tokens to `take`.
        """
        while True:
            batches = self.fill()
            if not self.state.active.any():
                return
            yield batches

    def fill(self) -> list[PrefillBatch]:
        """Give idle slots a request and idle rows a sample; return the prompts to prefill for them."""
        taken: list[tuple[int, int]] = []
        for a, slots in enumerate(self.slots):
            for s, slot in enumerate(slots):
                if slot.request is None and self.queues[a]:
                    slot.request = self.queues[a].popleft()
                    slot.waiting.extend(self.requests[slot.request].samples)
                    taken.append((a, s))
                self._start(a, s)
            for s, slot in enumerate(slots):
                # A slot without a request takes over samples from the slot where most are waiting.
                busiest = max(slots, key=lambda other: len(other.waiting))
                if slot.request is None and busiest.waiting:
                    slot.request = busiest.request
                    count = min(len(slot.rows), len(busiest.waiting))
                    slot.waiting.extend(busiest.waiting.pop() for _ in range(count))
                    taken.append((a, s))
                    self._start(a, s)
        return self._prefill(taken)

    def _start(self, a: int, s: int) -> None:
        """Start waiting samples in a slot's idle rows."""
        slot, state = self.slots[a][s], self.state
        for n, row in enumerate(slot.rows):
            if row is None and slot.waiting:
                assert slot.request is not None
                index = slot.waiting.popleft()
                slot.rows[n] = RunningSample(index)
                # Each row reads the prompt's last token itself, which gives it its first logits.
                state.token[a, s, n] = self.requests[slot.request].prompt[-1]
                state.read[a, s, n], state.active[a, s, n] = 0, True
                state.key[a, s, n] = self.keys[slot.request][index]

    def _prefill(self, taken: Sequence[tuple[int, int]]) -> list[PrefillBatch]:
        """Return the prompts of slots (a, s) that have just been given a request, each prompt once.

        A batch has prompts of one adapter, whose lengths are in one bucket.
        """
        groups: dict[tuple[int, int], dict[int, list[int]]] = {}
        for a, s in taken:
            request = self.slots[a][s].request
            assert request is not None
            length = len(self.requests[request].prompt) - 1 - self.plan.prefix
            self.state.prompt[a, s] = length
            if length:
                groups.setdefault((a, bucket(length)), {}).setdefault(request, []).append(s)
        return [batch for (a, size), slots in groups.items() for batch in self._batches(a, size, slots)]

    def _batches(self, adapter: int, size: int, slots: Mapping[int, Sequence[int]]) -> Iterator[PrefillBatch]:
        """Yield batches of requests whose prompts all have the bucket `size`; `slots` has each request's slots."""
        numbers, together = list(slots), max((PREFILL if on_cpu() else LARGE_PREFILL) // size, 1)
        for start in range(0, len(numbers), together):
            part = numbers[start : start + together]
            prompts = [self.requests[number].prompt[self.plan.prefix : -1] for number in part]
            prompts += prompts[-1:] * (together - len(part))
            places = [(place, s) for place, number in enumerate(part) for s in slots[number]]
            places += places[-1:] * (max(self.plan.shape[1], together) - len(places))
            which, where = np.array(places, np.int32).T
            yield PrefillBatch(adapter, padded_prompts(prompts, size), which, where)

    def take(self, chosen: Int32[np.ndarray, "steps A S N"]) -> None:
        """Add the tokens of a decode call to the samples, and free the rows of samples that have ended.

        `chosen` is -1 where a row was no longer active.

        Raises:
            UserError: a row's logits were not finite.
        """
        if (chosen == NOT_FINITE).any():
            raise not_finite()
        for a, s, n in np.argwhere(self.state.active).tolist():
            tokens = chosen[:, a, s, n]
            self._extend(a, s, n, tokens[tokens >= 0])

    def _extend(self, a: int, s: int, n: int, tokens: Int32[np.ndarray, " steps"]) -> None:
        """Add a row's new tokens to its sample, and end the sample if they end it."""
        slot, state = self.slots[a][s], self.state
        request, sample = slot.request, slot.rows[n]
        assert request is not None and sample is not None
        sample.tokens += tokens.tolist()
        self.tokens += len(tokens)
        state.read[a, s, n] += len(tokens)
        state.token[a, s, n] = tokens[-1]
        completion = self.stopping.completion(sample.index, sample.tokens, len(tokens))
        if completion is None:
            self._show(request, sample)
            return
        state.active[a, s, n] = False
        slot.rows[n] = None
        self.results[request][completion.index] = completion
        if self.on_text is not None:
            self.on_text(request, completion.index, completion.text)
        self.on_done(request, completion)
        if not slot.waiting and not any(slot.rows):
            slot.request = None

    def _show(self, request: int, sample: RunningSample) -> None:
        """Call `on_text` with the text of a sample that is sure to stay, if it begins with the text shown before."""
        if self.on_text is not None:
            text = self.stopping.showable(sample.tokens)
            if text.startswith(sample.shown):
                sample.shown = text
                self.on_text(request, sample.index, text)
