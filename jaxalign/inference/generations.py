"""Samples on disk: append-only records, each named by what makes it, so that asking again does only what is missing."""

import dataclasses
import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from jaxalign.inference.sampling_params import Completion, Request, SamplingParams
from jaxalign.runs.records import append_record, read_records


class Engine(Protocol):
    """What answers requests: this program's `Sampler`, or a server."""

    @property
    def engine(self) -> str:
        """The name that records give it."""
        ...

    def sample(
        self,
        requests: Sequence[Request],
        sampling: SamplingParams,
        *,
        on_done: Callable[[int, Completion], None] = ...,
        on_text: Callable[[int, int, str], None] | None = ...,
        progress: Callable[[int, int, float], None] = ...,
    ) -> list[list[Completion]]:
        """See `Sampler.sample`."""
        ...


@dataclasses.dataclass(frozen=True)
class PromptRequest:
    """A prompt as text and as tokens, and the adapter (by place in the engine's stack) that is to answer it.

    `about` is what else its records are to say, as JSON.
    """

    text: str
    tokens: np.ndarray
    adapter: int = 0
    about: Mapping[str, Any] = dataclasses.field(default_factory=dict)


def record_key(model: str, adapter: str, prompt: np.ndarray, sampling: SamplingParams, index: int) -> str:
    """Return the name of one sample: 32 hexadecimal digits of a SHA-256 over all that decides its tokens.

    Args:
        model: signature of the base (see `Model.signature`), precision included.
        adapter: identity of the adapter's weights and its scale, empty for the bare base.
        prompt: the prompt's tokens.
        sampling: how the sample is drawn.
        index: which of the prompt's samples it is.
    """
    parts = [model, adapter, np.asarray(prompt).tolist(), dataclasses.asdict(sampling), index]
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:32]


def sample_missing(
    engine: Engine,
    asked: Sequence[PromptRequest],
    samples: int,
    sampling: SamplingParams,
    path: Path,
    *,
    model: str,
    adapters: Sequence[str] = ("",),
    on_text: Callable[[int, int, str], None] | None = None,
    progress: Callable[[int, int, float], None] = lambda done, total, speed: None,
) -> list[list[dict[str, Any]]]:
    """Return the records of `samples` samples of each prompt, drawing only those that `path` does not hold yet.

    A record is written as soon as its sample has ended, so a kill at any moment loses what was on its way and nothing
    else. Records of other prompts, models or settings may stand in the same file.

    Each record returned has its own prompt's `about`, whatever the file has that it was read from.

    Args:
        engine: what answers. A sample has the same key whichever engine draws it: records of another one that stand in
            the same file are taken over, and still name it.
        asked: the prompts; two that are alike share their records, which the file has once, with the first one's
            `about`.
        samples: how many of each.
        sampling: how they are drawn.
        path: the JSON Lines file.
        model: signature of the base (see `record_key`).
        adapters: identities of the adapters, in the order of the engine's stack.
        on_text: told (prompt, sample, its text so far) after every few tokens of those that are drawn.
        progress: told (samples done, samples that were missing, tokens per second).

    Raises:
        UserError: a prompt does not fit into the context, the file cannot be written, or a line of it is not JSON.
    """
    wanted = [
        [record_key(model, adapters[one.adapter], one.tokens, sampling, index) for index in range(samples)]
        for one in asked
    ]
    known: dict[str, dict[str, Any]] = {}
    for record in read_records(path):
        if "key" in record:
            known.setdefault(record["key"], record)  # the first: what is appended from another run fills gaps alone
    requests, owners, claimed = [], [], set(known)
    for number, (one, keys) in enumerate(zip(asked, wanted, strict=True)):
        missing = tuple(index for index, key in enumerate(keys) if key not in claimed)
        claimed.update(keys)
        if missing:
            requests.append(Request(one.tokens, missing, one.adapter))
            owners.append(number)

    def keep(request: int, completion: Completion) -> None:
        number = owners[request]
        record = {
            "key": wanted[number][completion.index],
            **asked[number].about,
            "engine": engine.engine,
            "adapter": adapters[asked[number].adapter],
            "prompt": asked[number].text,
            "index": completion.index,
            "text": completion.text,
            "tokens": len(completion.tokens),
            "end": completion.end,
        }
        append_record(path, record)
        known[record["key"]] = record

    told = None if on_text is None else lambda request, index, text: on_text(owners[request], index, text)
    engine.sample(requests, sampling, on_done=keep, on_text=told, progress=progress)
    return [[{**known[key], **one.about} for key in keys] for one, keys in zip(asked, wanted, strict=True)]
