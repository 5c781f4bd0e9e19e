"""Samples from a server with OpenAI's interface for completions, such as vLLM with an exported adapter."""

import dataclasses
import hashlib
import itertools
import json
import time
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from typing import Any

import anyio
import numpy as np
from jaxtyping import Int

from jaxalign.errors import UserError
from jaxalign.inference.connection import Connection, connected
from jaxalign.inference.sampling_params import Completion, Request, SamplingParams, check_requests
from jaxalign.inference.server import KEY_VARIABLE, SHORTEST_KEY, Fault, JsonServer, key_parts, said, secret_key
from jaxalign.pretrained.tokenizer import Tokenizer

FILTERED = "content_filter"
"""The end of an answer that the server cut because of its content. It is recorded, and drawn again on resuming."""

BYTES_A_TOKEN = 1024
"""The most bytes of text in UTF-8 for each token that was asked for. The longest (runs of spaces) have hundreds."""


@dataclasses.dataclass(frozen=True)
class OpenAIEngine:
    """A server that draws samples. It takes the same requests as `Sampler`, and its samples are kept in the same way.

    Args:
        url: the address with the version, such as http://localhost:8000/v1. For the secret key
            see `JsonServer`.
        models: for each adapter (see `Request.adapter`) the name by which the server knows it.
        tokenizer: the model's; it encodes answers, and decodes prompts that are sent as text.
        context: tokens that the model can read.
        concurrency: HTTP requests at the same time, at most.
        retries: how often a request is sent again after an error that may pass.
        timeout: how long a whole request may take, in seconds.
        send: `tokens` sends the prompt's token ids, exactly as in training, with the BOS token. `text` sends the
            prompt's text without the BOS token, which the server adds.
        strict: whether to send only fields that OpenAI has. Otherwise top_k, min_p, repetition_penalty and
            skip_special_tokens are sent too. Without them vLLM and similar servers would take the model's
            generation_config.json, and leave special tokens out of the text, which our own engine keeps.
        pause: waits so many seconds; tests replace it.
    """

    url: str
    models: tuple[str, ...]
    tokenizer: Tokenizer
    context: int
    concurrency: int = 64
    retries: int = 5
    timeout: float = 600.0
    send: str = "tokens"
    strict: bool = False
    pause: Callable[[float], Awaitable[None]] = anyio.sleep
    engine: str = "openai"

    def sample(
        self,
        requests: Sequence[Request],
        sampling: SamplingParams,
        *,
        on_done: Callable[[int, Completion], None] = lambda request, completion: None,
        on_text: Callable[[int, int, str], None] | None = None,
        progress: Callable[[int, int, float], None] = lambda done, total, speed: None,
    ) -> list[list[Completion]]:
        """Return each request's completions, in the order of its `samples`; for the arguments see `Sampler.sample`.

        Each sample is one HTTP request. Its seed derives from the sampling seed, the prompt and the sample's index, so
        it does not depend on what else is asked. `on_done`, `on_text` (once for each sample, at its end) and `progress`
        are called from the caller's thread. `Completion.tokens` are the tokens that our tokenizer gives the text.

        Raises:
            UserError: a prompt does not fit, the server does not know a model, or a request failed for good. Requests
                that were sent before the failure are waited for, and `on_done` is told of them.
        """
        check_requests(requests, sampling, self.context)
        jobs = [(number, index) for number, request in enumerate(requests) for index in request.samples]
        results: list[dict[int, Completion]] = [{} for _ in requests]
        if not jobs:
            return [[] for _ in requests]
        server = JsonServer(self.url, self.retries, self.timeout, self.pause)
        with connected(server) as connection:
            connection.check_models(self.models, "engine.models")
            progress(0, len(jobs), 0.0)
            since, count, done = time.perf_counter(), 0, 0

            def keep(job: int, completion: Completion) -> None:
                nonlocal count, done
                number = jobs[job][0]
                results[number][completion.index] = completion
                done, count = done + 1, count + len(completion.tokens)
                if on_text is not None:
                    on_text(number, completion.index, completion.text)
                on_done(number, completion)
                progress(done, len(jobs), count / (time.perf_counter() - since))

            asked = (partial(self._answer, connection, requests[number], index, sampling) for number, index in jobs)
            connection.ask_all(asked, self.concurrency, keep)
        return [[found[index] for index in request.samples] for request, found in zip(requests, results, strict=True)]

    async def _answer(
        self, connection: Connection, request: Request, index: int, sampling: SamplingParams
    ) -> Completion:
        """Return one sample."""
        body = self._body(request, index, sampling)
        return await connection.ask("completions", body, lambda found: self._completion(found, index, sampling))

    def _body(self, request: Request, index: int, sampling: SamplingParams) -> dict[str, Any]:
        """Return the JSON that asks for one sample."""
        prompt: Any = np.asarray(request.prompt).tolist()
        if self.send == "text":
            bos = self.tokenizer.bos_id
            prompt = self.tokenizer.decode(prompt[1:] if bos is not None and prompt[0] == bos else prompt)
        body = {
            "model": self.models[request.adapter],
            "prompt": prompt,
            "n": 1,
            "max_tokens": sampling.max_tokens,
            "temperature": sampling.temperature,
            "top_p": sampling.top_p,
            "seed": sample_seed(sampling.seed, request.prompt, index),
        }
        if sampling.stop:
            body["stop"] = list(sampling.stop)
        if not self.strict:
            off = {"min_p": 0.0, "repetition_penalty": 1.0, "skip_special_tokens": False}
            body |= {"top_k": sampling.top_k or -1, **off}
        return body

    def _completion(self, answer: Any, index: int, sampling: SamplingParams) -> Completion:
        """Return the sample that stands in the server's JSON.

        Raises:
            Fault: there is no whole answer in it: no text, an end that is neither `stop` nor `length`, or more text
                than the tokens that were asked for can have.
            UserError: the server answers with the secret key.
        """
        try:
            choice: dict[str, Any] = answer["choices"][0]
            text, reason = choice["text"], choice.get("finish_reason")
            if text is None and reason == FILTERED:
                text = ""
            if not isinstance(text, str):
                raise TypeError
            size = len(text.encode())  # records are UTF-8
        except (KeyError, IndexError, TypeError, AttributeError, UnicodeEncodeError):
            raise Fault(f"gave no completion ({said(json.dumps(answer))})") from None
        if size > BYTES_A_TOKEN * sampling.max_tokens:
            raise Fault(f"answered with {size:,} bytes of text, and max_tokens={sampling.max_tokens} was asked for")
        if reason not in ("stop", "length", FILTERED):
            raise Fault(f"ended an answer with finish_reason={said(json.dumps(reason))}, so it may not be whole")
        key = secret_key()
        if len(key) >= SHORTEST_KEY and any(part in text for part in key_parts(key)):
            raise UserError(
                f"{self.url}/completions answers with the key of {KEY_VARIABLE}, so its answer is not kept: is "
                "engine.url right?"
            )
        found = [text.index(stop) for stop in sampling.stop if stop in text]
        if found:  # some servers leave the stop string in
            text = text[: min(found)]
        # vLLM names the string that it stopped at, with null for the end token; other servers name nothing.
        named = choice.get("stop_reason", "") is not None
        stopped = bool(found) or (reason == "stop" and bool(sampling.stop) and named)
        end = "stop" if stopped else "eos" if reason == "stop" else reason
        if end == "eos":  # some servers leave the end token in
            for token in self.tokenizer.end_ids:
                text = text.removesuffix(self.tokenizer.decode([token]))
        return Completion(index, tuple(self.tokenizer.encode(text).tolist()), text, end)


def sample_seed(seed: int, prompt: Int[np.ndarray, " T"], index: int) -> int:
    """Return the seed of one sample, 31 bits: a hash of the sampling seed, the prompt's tokens and the index."""
    words = np.asarray(prompt, np.int32).tobytes() + f"{seed},{index}".encode()
    return int.from_bytes(hashlib.sha256(words).digest()[:4], "little") >> 1


@dataclasses.dataclass(frozen=True)
class Agreement:
    """How far two engines give the same answers, as shares from 0 to 1."""

    identical: float
    """The share of answers that are equal."""
    common_prefix: float
    """The share of the longer text that stands before the first difference; the mean over all answers."""


def agreement(one: Sequence[str], other: Sequence[str]) -> Agreement:
    """Compare two engines' answers to the same prompts.

    >>> agreement(["yes it is", "no"], ["yes it was", "no"])
    Agreement(identical=0.5, common_prefix=0.85)
    """
    shares = []
    for first, second in zip(one, other, strict=True):
        longest = max(len(first), len(second))
        same = len(list(itertools.takewhile(lambda pair: pair[0] == pair[1], zip(first, second, strict=False))))
        shares.append(same / longest if longest else 1.0)
    identical = [first == second for first, second in zip(one, other, strict=True)]
    return Agreement(float(np.mean(identical)), float(np.mean(shares)))
