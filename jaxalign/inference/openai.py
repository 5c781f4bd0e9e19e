"""Samples from a server with OpenAI's interface for completions, such as vLLM with an exported adapter."""

import dataclasses
import difflib
import hashlib
import http.client
import itertools
import json
import os
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from typing import Any

import numpy as np
from jaxtyping import Int

from jaxalign.errors import UserError
from jaxalign.inference.sampling_params import Completion, Request, SamplingParams, check_requests
from jaxalign.pretrained.tokenizer import Tokenizer

KEY_VARIABLE = "OPENAI_API_KEY"
PASSING = (408, 409, 425, 429)
"""HTTP statuses after which a request is sent again; so are all of 500 and above."""

LONGEST_PAUSE = 60.0
"""The longest time between two tries, in seconds."""


@dataclasses.dataclass(frozen=True)
class OpenAIEngine:
    """A server that draws samples. It takes the same requests as `Sampler`, and its samples are kept in the same way.

    Args:
        url: the address with the version, such as http://localhost:8000/v1. A secret key is read from $OPENAI_API_KEY
            whenever a request is sent, and is stored nowhere.
        models: for each adapter (see `Request.adapter`) the name by which the server knows it.
        tokenizer: the model's; it encodes answers, and decodes prompts that are sent as text.
        context: tokens that the model can read.
        concurrency: HTTP requests at the same time, at most.
        retries: how often a request is sent again after an error that may pass.
        timeout: how long to wait for an answer, in seconds.
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
    pause: Callable[[float], None] = time.sleep
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
        if jobs:
            self._check_models()
            progress(0, len(jobs), 0.0)
        since, count, done = time.perf_counter(), 0, 0
        pool = ThreadPoolExecutor(self.concurrency)
        try:
            left = iter(jobs)
            running: dict[Future[Completion], int] = {}
            failed: BaseException | None = None
            while True:
                # No job waits in the pool: after a failure nothing more is sent.
                while failed is None and len(running) < self.concurrency and (job := next(left, None)) is not None:
                    running[pool.submit(self._answer, requests[job[0]], job[1], sampling)] = job[0]
                if not running:
                    break
                for future in wait(running, return_when=FIRST_COMPLETED).done:
                    number = running.pop(future)
                    if future.exception() is not None:
                        failed = failed or future.exception()
                        continue
                    completion = future.result()
                    results[number][completion.index] = completion
                    done, count = done + 1, count + len(completion.tokens)
                    if on_text is not None:
                        on_text(number, completion.index, completion.text)
                    on_done(number, completion)
                    progress(done, len(jobs), count / (time.perf_counter() - since))
            if failed is not None:
                raise failed
        finally:
            pool.shutdown(wait=False, cancel_futures=True)
        return [[found[index] for index in request.samples] for request, found in zip(requests, results, strict=True)]

    def _answer(self, request: Request, index: int, sampling: SamplingParams) -> Completion:
        """Return one sample."""
        return self._completion(self._ask("completions", self._body(request, index, sampling)), index, sampling)

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
        """Return the sample that stands in the server's JSON."""
        try:
            choice: dict[str, Any] = answer["choices"][0]
            text, reason = choice["text"], choice.get("finish_reason")
            if not isinstance(text, str):
                raise TypeError
        except (KeyError, IndexError, TypeError, AttributeError) as error:
            raise UserError(f"{self.url}/completions gave no completion: {answer!r:.200}") from error
        found = [text.index(stop) for stop in sampling.stop if stop in text]
        if found:  # some servers leave the stop string in
            text = text[: min(found)]
        # vLLM names the string that it stopped at, with null for the end token; other servers name nothing.
        named = choice.get("stop_reason", "") is not None
        stopped = bool(found) or (reason == "stop" and bool(sampling.stop) and named)
        end = "length" if reason == "length" and not found else "stop" if stopped else "eos"
        if end == "eos":  # some servers leave the end token in
            for token in self.tokenizer.end_ids:
                text = text.removesuffix(self.tokenizer.decode([token]))
        return Completion(index, tuple(self.tokenizer.encode(text).tolist()), text, end)

    def _check_models(self) -> None:
        """Raise UserError for a name that is not in the server's list of models; a server may have no list."""
        try:
            served = [str(model["id"]) for model in self._ask("models", None)["data"]]
        except _NoSuchPath:
            return
        except (KeyError, TypeError) as error:
            raise UserError(f"{self.url}/models is no list of models: is engine.url right?") from error
        for name in self.models:
            if name not in served:
                near = difflib.get_close_matches(name, served, n=1)
                hint = f"did you mean '{near[0]}'?" if near else f"it serves {', '.join(served) or 'none'}"
                raise UserError(f"{self.url} serves no model '{name}'; {hint} (engine.models names them)")

    def _ask(self, path: str, body: dict[str, Any] | None) -> Any:
        """Return the server's JSON for a POST of `body`, or for a GET if it is None; try errors that may pass again."""
        where = f"{self.url.rstrip('/')}/{path}"
        for tried in range(self.retries + 1):
            headers = {"Content-Type": "application/json"}
            if os.environ.get(KEY_VARIABLE):
                headers["Authorization"] = f"Bearer {os.environ[KEY_VARIABLE]}"
            data = None if body is None else json.dumps(body).encode()
            wanted = 0.0
            try:
                request = urllib.request.Request(where, data, headers)
                with urllib.request.urlopen(request, timeout=self.timeout) as response:
                    return json.loads(response.read())
            except urllib.error.HTTPError as error:
                with error:
                    said = _message(error)
                if error.code in (404, 405) and body is None:
                    raise _NoSuchPath from None
                if error.code in (401, 403):
                    raise UserError(f"{where} refuses the key ({error.code}): set {KEY_VARIABLE}") from None
                problem = f"{where} answered {error.code}: {said}"
                if error.code not in PASSING and error.code < 500:
                    hint = "; does the server have completions (not chat alone)?" if error.code == 404 else ""
                    raise UserError(problem + hint) from None
                after = error.headers.get("Retry-After") or ""
                wanted = float(after) if after.replace(".", "", 1).isdigit() else 0.0
            # No connection, a time-out, half an answer, none that is HTTP or JSON.
            except (OSError, ValueError, http.client.HTTPException) as error:
                problem = f"{where} does not answer ({getattr(error, 'reason', None) or error})"
            if tried < self.retries:
                self.pause(min(max(wanted, 0.5 * 2**tried), LONGEST_PAUSE))
        raise UserError(f"{problem}; tried {self.retries + 1} times: is the server up, and engine.url right?")


class _NoSuchPath(Exception):  # noqa: N818 (a signal inside this module)
    pass


def _message(answer: urllib.error.HTTPError) -> str:
    """Return the first line of a server's error message."""
    try:
        text = answer.read().decode("utf-8", "replace")
    except (OSError, http.client.HTTPException):  # half of it
        text = ""
    try:
        found = json.loads(text)
        error = found.get("error", found)
        text = str(error.get("message", error) if isinstance(error, dict) else error)
    except (ValueError, AttributeError):
        pass
    return (text.strip().splitlines() or ["nothing"])[0][:300]


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
