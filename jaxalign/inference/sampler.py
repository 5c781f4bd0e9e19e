"""Sampling: many prompts in, many samples of each out.

Rows decode together in slots, N samples of one prompt in each. A finished row takes the prompt's next sample, and a
slot whose prompt has none left takes the next prompt, so a long answer holds up its own slot at most.
"""

import dataclasses
import time
from collections import deque
from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
import numpy as np

from jaxalign.data.bucketing import bucket
from jaxalign.inference.decoding import DecodeState, SamplingMetadata, decode_program, prefill_program
from jaxalign.inference.kv_cache import (
    KVCache,
    empty_caches,
    grow_prompts_program,
    grow_ring_program,
    place_prompts_program,
)
from jaxalign.inference.sampling_params import Completion, Request, SamplingParams, check_requests, sample_keys
from jaxalign.inference.stopping import find_stop, showable
from jaxalign.models.architecture import Architecture
from jaxalign.models.layout import BaseWeights
from jaxalign.models.linear import compute_type
from jaxalign.models.lora import LoraParams
from jaxalign.parallel.compilation import Programs
from jaxalign.pretrained.tokenizer import Tokenizer

STEPS = 16
"""Tokens that every row chooses before the host looks for stops."""

WATCHED = 4
"""The same where somebody reads along."""

GROUP = 16
"""Samples of one prompt that decode side by side, at most; further ones follow in their rows."""

CROWDED = 4
"""The same where more samples wait than there are rows. A slot takes the next prompt when its last sample has ended, so
in a narrow one a long sample makes few others wait."""

FEWEST_ROWS = 4
"""Rows that decode together, at least, where so many are allowed."""

PREFILL = 256
"""Tokens of one prefill, at least: short prompts go together."""

NEAR = 512
"""Places for a prompt's keys that cost next to nothing beside the weights: more are taken only by prompts that need
them, so that one long prompt does not make all others' rows attend over its length."""

SHARED = 32
"""Tokens that all prompts of a call must begin with alike to be computed once."""


@dataclasses.dataclass
class Sampler:
    """A model that samples, with a stack of adapters or none.

    `adapters` is stacked [A, ...] and effective, or None for the bare base. `rows` is how many samples decode together
    at most, over all adapters; a row for each adapter there always is.
    """

    architecture: Architecture
    weights: BaseWeights
    adapters: LoraParams | None
    tokenizer: Tokenizer
    programs: Programs
    rows: int = 64
    ends: tuple[int, ...] = ()
    engine: str = "jaxalign"

    def sample(
        self,
        requests: Sequence[Request],
        sampling: SamplingParams,
        *,
        on_done: Callable[[int, Completion], None] = lambda request, completion: None,
        on_text: Callable[[int, int, str], None] | None = None,
        progress: Callable[[int, int, float], None] = lambda done, total, speed: None,
    ) -> list[list[Completion]]:
        """Return each request's completions, in the order of its `samples`.

        Which tokens a sample has depends on the model, the prompt, the sampling and the sample's index alone, not on
        what else is asked: its random numbers derive from (seed, hash of the prompt, index, token).

        Args:
            requests: what to sample.
            sampling: how.
            on_done: told (request, completion) as soon as a sample has ended.
            on_text: told (request, sample, its text so far) after every few tokens. Each text begins with the one told
                before; only the last, that of the completion, need not, where broken characters turned up. What may
                become a stop string is held back.
            progress: told (samples done, all samples, tokens per second), first of all with none done.

        Raises:
            UserError: a prompt is empty, or longer than the context less the new tokens.
        """
        check_requests(requests, sampling, self.architecture.context)
        return _Call(self, requests, sampling, on_done, on_text, progress).run()


def shared_prefix(prompts: Sequence[np.ndarray]) -> int:
    """Return how many tokens all prompts begin with alike, short of the last of each; 0 where it is not worth it."""
    length = min(len(prompt) for prompt in prompts) - 1
    first = prompts[0][:length]
    for prompt in prompts[1:]:
        differs = np.flatnonzero(first != prompt[: len(first)])
        first = first[: differs[0]] if len(differs) else first
    distinct = {prompt.tobytes() for prompt in prompts}
    return len(first) if len(distinct) > 1 and len(first) >= SHARED else 0


@dataclasses.dataclass
class _Row:
    """A sample on its way."""

    index: int
    tokens: list[int] = dataclasses.field(default_factory=list)
    shown: str = ""


@dataclasses.dataclass
class _Slot:
    """N rows of one request; None where a row is idle. `waiting` are its samples that have no row yet."""

    request: int | None
    waiting: deque[int]
    rows: list[_Row | None]


class _Call:
    """One call of `Sampler.sample`: the rows' state on the host, their keys on the device."""

    def __init__(
        self, sampler: Sampler, requests: Sequence[Request], sampling: SamplingParams, on_done, on_text, progress
    ):
        self.sampler, self.requests, self.sampling = sampler, requests, sampling
        self.on_done, self.on_text, self.progress = on_done, on_text, progress
        self.steps = STEPS if on_text is None else WATCHED
        self.ends = sampler.ends or sampler.tokenizer.end_ids
        self.dtype = compute_type(sampler.weights.get(layered=True))
        stack = jax.tree.leaves(sampler.adapters)
        self.stack = stack[0].shape[0] if stack else 1
        self.total = sum(len(request.samples) for request in requests)
        each = max(sampler.rows // self.stack, 1)  # rows of an adapter
        group = min(GROUP, each, max((len(request.samples) for request in requests), default=1)) or 1
        if max(sum(len(r.samples) for r in requests if r.adapter == a) for a in range(self.stack)) > each:
            group = min(group, CROWDED)
        # A product of fewer rows takes a CPU longer than one of a few: some may be idle.
        fewest = -(-min(FEWEST_ROWS, sampler.rows) // self.stack)
        if len(requests) == 1:
            group = max(group, fewest)
        wanted = [sum(-(-len(r.samples) // group) for r in requests if r.adapter == a) for a in range(self.stack)]
        most = max(each // group, 1)
        # A power of two, so that calls of many sizes compile few programs.
        slots = 1 << (max(*wanted, -(-fewest // group)) - 1).bit_length()
        self.shape = (self.stack, min(slots, most), group)
        self.slots = [[_Slot(None, deque(), [None] * group) for _ in range(self.shape[1])] for _ in range(self.stack)]
        # Short prompts come first: the places for a prompt's keys grow with what is taken.
        order = sorted(range(len(requests)), key=lambda number: bucket(len(requests[number].prompt)))
        self.queues = [deque(n for n in order if requests[n].adapter == a) for a in range(self.stack)]
        self.results: list[dict[int, Completion]] = [{} for _ in requests]

    def run(self) -> list[list[Completion]]:
        if self.total:
            self.progress(0, self.total, 0.0)
            self.prepare()
            while self.fill():
                self.advance()
        return [
            [done[index] for index in request.samples]
            for request, done in zip(self.requests, self.results, strict=True)
        ]

    def prepare(self) -> None:
        """Allocate the caches, and read what all prompts begin with."""
        architecture, shape = self.sampler.architecture, self.shape
        self.keys = sample_keys(self.requests, self.sampling.seed, self.sampler.programs)
        self.prefix_length = shared_prefix([request.prompt for request in self.requests])
        self.longest = max(len(request.prompt) for request in self.requests) - 1 - self.prefix_length
        heads = architecture.kv_heads
        self.prefix: list[KVCache] = []
        self.places = min(bucket(self.longest), NEAR)
        self.prompt = empty_caches(architecture, self.dtype, (*shape[:2], heads), self.places)
        self.ring = STEPS
        while self.ring < min(4 * STEPS, self.sampling.max_tokens):
            self.ring *= 2
        self.samples = empty_caches(architecture, self.dtype, (*shape[:2], heads, shape[2]), self.ring)
        self.step = 0
        self.token, self.read = np.zeros(shape, np.int32), np.zeros(shape, np.int32)
        self.active, self.key = np.zeros(shape, bool), np.zeros((*shape, 2), np.uint32)
        self.lengths = np.zeros(shape[:2], np.int32)
        s = self.sampling
        knobs = (np.float32(s.temperature), np.int32(s.top_k), np.float32(s.top_p), np.array(self.ends, np.int32))
        self.knobs = SamplingMetadata(*map(jnp.asarray, knobs))
        self.count, self.since = 0, time.perf_counter()
        if self.prefix_length:
            first = self.requests[0].prompt[: self.prefix_length]
            found = [self.read_prompts([first], a, []) for a in range(self.stack)]
            self.prefix = jax.tree.map(lambda *leaves: jnp.concatenate(leaves), *found)

    def read_prompts(self, prompts: Sequence[np.ndarray], adapter: int, prefix: list[KVCache]) -> list[KVCache]:
        """Return the keys of prompts of about one length."""
        tokens = np.zeros((len(prompts), bucket(max(map(len, prompts)))), np.int32)
        for row, prompt in zip(tokens, prompts, strict=True):
            row[: len(prompt)] = prompt
        length = self.prefix_length if prefix else 0
        s = self.sampler
        arguments = (s.weights.get(layered=True), s.adapters, np.int32(adapter), prefix, np.int32(length), tokens)
        return s.programs.get("prefill", prefill_program, (s.architecture,), arguments)(*arguments)

    def fill(self) -> bool:
        """Give idle slots a request and idle rows a sample; return whether anything is left to do."""
        taken: list[tuple[int, int]] = []
        for a, slots in enumerate(self.slots):
            for s, slot in enumerate(slots):
                if slot.request is None and self.queues[a]:
                    slot.request = self.queues[a].popleft()
                    slot.waiting.extend(self.requests[slot.request].samples)
                    taken.append((a, s))
                self.start(a, s)
            for s, slot in enumerate(slots):
                # Nothing new is left: help out where most samples wait.
                busiest = max(slots, key=lambda other: len(other.waiting))
                if slot.request is None and busiest.waiting:
                    slot.request = busiest.request
                    slot.waiting.extend(busiest.waiting.pop() for _ in range(min(self.shape[2], len(busiest.waiting))))
                    taken.append((a, s))
                    self.start(a, s)
        self.read_taken(taken)
        return bool(self.active.any())

    def start(self, a: int, s: int) -> None:
        """Start waiting samples in a slot's idle rows."""
        slot = self.slots[a][s]
        for n, row in enumerate(slot.rows):
            if row is None and slot.waiting:
                assert slot.request is not None
                index, prompt = slot.waiting.popleft(), self.requests[slot.request].prompt
                slot.rows[n] = _Row(index)
                # Each row reads the prompt's last token itself, which gives it its first logits.
                self.token[a, s, n], self.read[a, s, n], self.active[a, s, n] = prompt[-1], 0, True
                self.key[a, s, n] = self.keys[slot.request][index]

    def read_taken(self, taken: Sequence[tuple[int, int]]) -> None:
        """Prefill the requests of slots that have just been taken, each request once."""
        groups: dict[tuple[int, int], dict[int, list[int]]] = {}
        for a, s in taken:
            request = self.slots[a][s].request
            assert request is not None
            length = len(self.requests[request].prompt) - 1 - self.prefix_length
            self.lengths[a, s] = length
            if length:
                groups.setdefault((a, bucket(length)), {}).setdefault(request, []).append(s)
        self.make_room(max((size for _, size in groups), default=0))
        for (a, size), members in groups.items():
            together = max(PREFILL // size, 1)
            numbers = list(members)
            for first in range(0, len(numbers), together):
                part = numbers[first : first + together]
                rows = [self.requests[number].prompt[self.prefix_length : -1] for number in part]
                found = self.read_prompts(rows + rows[-1:] * (together - len(rows)), a, self.prefix)
                places = [(place, s) for place, number in enumerate(part) for s in members[number]]
                # One shape for any number of places: the last is repeated.
                places += places[-1:] * (max(self.shape[1], together) - len(places))
                which, slots = np.array(places, np.int32).T
                arguments = (self.prompt, found, which, np.int32(a), slots)
                program = self.sampler.programs.get("place", place_prompts_program, (), arguments)
                self.prompt = program(*arguments)

    def make_room(self, size: int) -> None:
        """See to it that a slot has places for the keys of a prompt of `size` tokens (a bucket)."""
        if size > self.places:
            while self.places < size:
                self.places *= 2
            self.places = min(self.places, bucket(self.longest))
            more = self.places - self.prompt[0].k.shape[-2]
            program = self.sampler.programs.get("longer prompts", grow_prompts_program, (more,), (self.prompt,))
            self.prompt = program(self.prompt)

    def advance(self) -> None:
        """Let all rows choose some tokens, and see which have ended."""
        s, limit = self.sampler, self.sampling.max_tokens
        while self.ring < min(int(self.read[self.active].max()) + self.steps, limit):
            arguments = (self.samples, np.int32(self.step % self.ring))
            self.samples = s.programs.get("longer ring", grow_ring_program, (), arguments)(*arguments)
            self.step, self.ring = self.ring, 2 * self.ring
        limits = np.full(self.shape, limit, np.int32)
        fields = (self.token, self.read, self.active, limits, self.key, self.lengths, np.int32(self.prefix_length))
        rows = DecodeState(*fields)  # type: ignore[arg-type]
        static = (s.architecture, self.steps, bool(self.sampling.top_k) or self.sampling.top_p < 1)
        start = np.int32(self.step % self.ring)
        params = s.weights.get(layered=True)
        arguments = (params, s.adapters, self.prefix, self.prompt, self.samples, rows, start, self.knobs)
        self.samples, chosen = s.programs.get("decode", decode_program, static, arguments)(*arguments)
        self.step += self.steps
        for place, tokens in self.chosen(np.asarray(chosen)):
            self.note(place, tokens)
        done = sum(map(len, self.results))
        self.progress(done, self.total, self.count / (time.perf_counter() - self.since))

    def chosen(self, chosen: np.ndarray):
        """Yield ((adapter, slot, row), its new tokens) of every active row."""
        for place in map(tuple, np.argwhere(self.active)):
            tokens = chosen[(slice(None), *place)]
            yield place, tokens[tokens >= 0]

    def note(self, place: tuple[int, int, int], tokens: np.ndarray) -> None:
        """Add a row's new tokens to its sample, and end it where it ends."""
        a, s, n = place
        slot = self.slots[a][s]
        row = slot.rows[n]
        assert row is not None and slot.request is not None
        row.tokens += tokens.tolist()
        self.count += len(tokens)
        self.read[place] += len(tokens)
        self.token[place] = tokens[-1]
        completion = self.ended(row, len(tokens))
        if completion is None:
            if self.on_text is not None:
                text = showable(self.sampler.tokenizer.decode(row.tokens), self.sampling.stop)
                if text.startswith(row.shown):
                    row.shown = text
                    self.on_text(slot.request, row.index, text)
            return
        self.active[place] = False
        slot.rows[n] = None
        self.results[slot.request][row.index] = completion
        if self.on_text is not None:
            self.on_text(slot.request, row.index, completion.text)
        self.on_done(slot.request, completion)
        if not slot.waiting and not any(slot.rows):
            slot.request = None

    def ended(self, row: _Row, new: int) -> Completion | None:
        """Return a row's completion if it has ended with its newest tokens."""
        tokens, decode = row.tokens, self.sampler.tokenizer.decode
        end = "eos" if tokens[-1] in self.ends else "length" if len(tokens) == self.sampling.max_tokens else None
        said, unseen = (tokens[:-1], new - 1) if end == "eos" else (tokens, new)
        found = find_stop(said, unseen, self.sampling.stop, decode)
        if found is not None:
            length, text = found
            return Completion(row.index, tuple(tokens[:length]), text, "stop")
        return None if end is None else Completion(row.index, tuple(tokens), decode(said), end)
