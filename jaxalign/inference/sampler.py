"""Sampling: many prompts in, many samples of each out.

This is the device's part: the KV caches, and the programs that prefill prompts and decode samples. The host's part,
which decides the row of each sample, is in scheduler.py.
"""

import dataclasses
import time
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Int, Int32

from jaxalign.data.bucketing import bucket
from jaxalign.inference.call_plan import CallPlan, places, plan_call
from jaxalign.inference.decoding import (
    DecodeState,
    SamplingMetadata,
    decode_program,
    prefill_program,
    sampling_metadata,
)
from jaxalign.inference.kv_cache import (
    Caches,
    CallCaches,
    empty_caches,
    grow_prompts_program,
    grow_ring_program,
    place_prompts_program,
)
from jaxalign.inference.random_keys import sample_keys
from jaxalign.inference.sampling_params import Completion, Request, SamplingParams, check_requests
from jaxalign.inference.scheduler import PrefillBatch, RowState, Scheduler, padded_prompts
from jaxalign.inference.stopping import StoppingCriteria
from jaxalign.models.architecture import Architecture
from jaxalign.models.layout import BaseWeights
from jaxalign.models.linear import compute_type
from jaxalign.models.lora import LoraParams
from jaxalign.parallel.compilation import Programs
from jaxalign.parallel.rules import Placement
from jaxalign.pretrained.tokenizer import Tokenizer


@dataclasses.dataclass
class Sampler:
    """A base model, with or without a stack of adapters, that draws samples."""

    architecture: Architecture
    weights: BaseWeights
    adapters: LoraParams | None
    """A stack [A, ...] of effective adapters (see `lora.effective`); None for the bare base."""
    tokenizer: Tokenizer
    programs: Programs
    rows: int = 64
    """The largest number of samples that decode together, over all adapters; each adapter gets at least one row."""
    ends: tuple[int, ...] = ()
    """The end tokens; an empty tuple means those of the tokenizer."""
    engine: str = "jaxalign"
    """The engine's name in records."""

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

        The tokens of a sample depend only on the model, the prompt, the sampling parameters and the sample's index, not
        on the other requests: its random numbers derive from (seed, hash of the prompt, index, number of the token).

        Args:
            requests: the prompts, and the samples wanted of each.
            sampling: the sampling parameters, the same for all.
            on_done: is called with (request, completion) as soon as a sample has ended.
            on_text: is called with (request, sample, its text so far) after every few tokens. An end that may become a
                stop string is held back. Each text begins with the one before it; only the last one, the completion's,
                may differ where a character was broken.
            progress: is called with (samples done, all samples, tokens per second), first with none done.

        Raises:
            UserError: a prompt is empty, or longer than the context less the new tokens; or the model's logits are not
                finite.
        """
        check_requests(requests, sampling, self.architecture.context)
        total = sum(len(request.samples) for request in requests)
        if not total:
            return [[] for _ in requests]
        progress(0, total, 0.0)
        stack = jax.tree.leaves(self.adapters)
        adapters = stack[0].shape[0] if stack else 1
        plan = plan_call(requests, adapters, self.rows, sampling.max_tokens, watched=on_text is not None)
        keys = sample_keys(requests, sampling.seed, self.programs)
        ends = self.ends or self.tokenizer.end_ids
        stopping = StoppingCriteria(sampling, ends, self.tokenizer.decode)
        scheduler = Scheduler(requests, keys, plan, stopping, on_done, on_text)
        decoder = _Decoder(self, plan, sampling, sampling_metadata(sampling, ends))
        since = time.perf_counter()
        decoder.prefill_prefix(requests[0].prompt[: plan.prefix])
        for batches in scheduler.rounds():
            decoder.prefill(batches)
            scheduler.take(decoder.decode(scheduler.state))
            progress(scheduler.done, total, scheduler.tokens / (time.perf_counter() - since))
        return [
            [done[index] for index in request.samples]
            for request, done in zip(requests, scheduler.results, strict=True)
        ]


@dataclasses.dataclass
class _Decoder:
    """The device's part of one call of `Sampler.sample`."""

    sampler: Sampler
    """Has the model, the adapters and the compiled programs."""
    plan: CallPlan
    """The shapes of this call."""
    sampling: SamplingParams
    """The sampling parameters of this call."""
    metadata: SamplingMetadata
    """The sampling parameters and the end tokens, as arrays for the device."""
    caches: CallCaches = dataclasses.field(init=False)
    """The KV caches of this call."""
    placement: Placement | None = dataclasses.field(init=False)
    """How the adapters and slots of this call are divided between devices; None for one device."""

    def __post_init__(self):
        architecture = self.sampler.architecture
        a, s, n = self.plan.shape
        placement = self.sampler.weights.placement
        self.placement = None if placement is None else placement.fitting(adapters=a, slots=s)
        self.caches = CallCaches(
            prefix=[],
            prompt=self._empty((a, s, architecture.kv_heads), self.plan.prompt_places),
            sample=self._empty((a, s, architecture.kv_heads, n), self.plan.sample_places),
        )

    def _empty(self, shape: tuple[int, ...], places: int) -> Caches:
        weights = self.sampler.weights
        dtype, stacked = compute_type(weights.get(layered=True)), weights.always_stacked
        return empty_caches(self.sampler.architecture, dtype, shape, places, self.placement, stacked=stacked)

    def run(self, name: str, function: Any, static: tuple, *arguments: Any) -> Any:
        """Run a program with these arguments, compiled once for their shapes."""
        return self.sampler.programs.get(name, function, static, arguments)(*arguments)

    def prefill_prefix(self, prefix: Int[np.ndarray, " T"]) -> None:
        """Prefill the tokens with which all prompts begin, for each adapter; do nothing if there are none."""
        if len(prefix):
            tokens = padded_prompts([prefix], places(len(prefix)))
            found = [self.prefilled(tokens, adapter, 0) for adapter in range(self.plan.shape[0])]
            self.caches.prefix = jax.tree.map(lambda *leaves: jnp.concatenate(leaves), *found)

    def prefilled(self, tokens: Int32[np.ndarray, "P T"], adapter: int, before: int) -> Caches:
        """Return for each layer the KV cache [P, K, T, Dh] of prompts that follow `before` tokens of the prefix."""
        s = self.sampler
        start = (s.weights.get(layered=True), s.adapters, np.int32(adapter), self.caches.prefix, np.int32(before))
        return self.run("prefill", prefill_program, (s.architecture,), *start, tokens)

    def prefill(self, batches: Sequence[PrefillBatch]) -> None:
        """Prefill prompts, and put their keys into the caches of their slots."""
        self.make_room(max((batch.tokens.shape[1] for batch in batches), default=0))
        for batch in batches:
            found = self.prefilled(batch.tokens, batch.adapter, self.plan.prefix)
            arguments = (self.caches.prompt, found, batch.which, np.int32(batch.adapter), batch.slots)
            self.caches.prompt = self.run("place", place_prompts_program, (self.placement,), *arguments)

    def make_room(self, size: int) -> None:
        """Add places to each slot's KV cache until a prompt of `size` tokens (a bucket) fits."""
        old = grown = self.caches.prompt_places
        while grown < size:
            grown *= 2
        if grown > old:
            static = (self.placement, min(grown, bucket(self.plan.longest)) - old)
            self.caches.prompt = self.run("longer prompts", grow_prompts_program, static, self.caches.prompt)

    def decode(self, state: RowState) -> Int32[np.ndarray, "steps A S N"]:
        """Run up to `steps` decode steps; return the chosen tokens as `decoding.decode` does."""
        s, caches, limit, steps = self.sampler, self.caches, self.sampling.max_tokens, self.plan.steps
        self.lengthen_rings(min(int(state.read[state.active].max()) + steps, limit))
        limits = np.full(self.plan.shape, limit, np.int32)
        prefix = np.asarray(self.plan.prefix, np.int32)
        rows = DecodeState(state.token, state.read, state.active, limits, state.key, state.prompt, prefix)
        static = (s.architecture, steps, bool(self.sampling.top_k) or self.sampling.top_p < 1, self.placement)
        weights, start = s.weights.get(layered=True), np.int32(caches.step % caches.ring)
        arguments = (weights, s.adapters, caches.prefix, caches.prompt, caches.sample, rows, start, self.metadata)
        caches.sample, chosen = self.run("decode", decode_program, static, *arguments)
        caches.step += steps
        return np.asarray(chosen)

    def lengthen_rings(self, needed: int) -> None:
        """Double the samples' rings until they have at least `needed` places."""
        caches = self.caches
        while caches.ring < needed:
            step = caches.step % caches.ring
            caches.step = caches.ring
            caches.sample = self.run("longer ring", grow_ring_program, (self.placement,), caches.sample, np.int32(step))
