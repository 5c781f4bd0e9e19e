"""Samples on disk. Records are only appended. The key of a record is a hash of all that decides its tokens, so only
missing samples are drawn."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Int

from jaxalign.inference.sampling_params import ENDS, Completion, Request, SamplingParams
from jaxalign.runs.records import append_record, digest, read_records


@runtime_checkable
class Engine(Protocol):
    """What draws samples: a `Sampler` of this package, or a server."""

    @property
    def engine(self) -> str:
        """The engine's name in records."""
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
        """Return each request's completions, in the order of its `samples` (see `Sampler.sample`)."""
        ...


@dataclasses.dataclass(frozen=True)
class PromptRequest:
    """A prompt whose samples are kept on disk."""

    text: str
    tokens: Int[np.ndarray, " T"]
    """The prompt's tokens, at least one."""
    adapter: int = 0
    """The index of the adapter that answers."""
    about: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    """Further fields for its records, as JSON."""


def record_key(model: str, adapter: str, prompt: Int[np.ndarray, " T"], sampling: SamplingParams, index: int) -> str:
    """Return the key of one sample: 32 hexadecimal digits of a SHA-256 over all that decides its tokens.

    Args:
        model: the base's signature (see `Model.signature`) and its precision.
        adapter: the identity of the adapter's weights and of its scale; empty for the bare base.
        prompt: the prompt's tokens.
        sampling: the sampling parameters.
        index: the number of the sample among the prompt's samples.
    """
    parts = [model, adapter, np.asarray(prompt).tolist(), dataclasses.asdict(sampling), index]
    return digest(parts, 32)


def read_whole(path: Path) -> dict[str, dict[str, Any]]:
    """Return the records of samples that are whole (see `ENDS`) by key; none if the file does not exist.

    Of records with one key the first counts: records that were appended from another run only fill gaps.
    """
    known: dict[str, dict[str, Any]] = {}
    for record in read_records(path, key=str, text=str, tokens=int, index=int, engine=str):
        if record.get("end") in ENDS:
            known.setdefault(record["key"], record)
    return known


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
    """Return the records of `samples` samples of each prompt, and draw only those that are not in the file yet.

    A record is written as soon as its sample has ended. So a process that is killed loses only the samples that it was
    drawing. A sample that a server did not end as `ENDS` says is drawn again, and has several records. Records of other
    prompts, models or settings may be in the same file. A returned record has the `about` of its prompt in `asked`,
    whatever `about` it has in the file.

    Args:
        engine: draws the samples. The key of a sample does not depend on the engine: a record that another engine
            wrote into the same file is used, and still names that engine.
        asked: the prompts. Equal prompts share their records; the file has them once, with the first one's `about`.
        samples: the number of samples of each prompt.
        sampling: the sampling parameters.
        path: the JSON Lines file.
        model: the base's signature and precision (see `record_key`).
        adapters: the identities of the adapters, in the order of the engine's stack.
        on_text: is called with (prompt, sample, its text so far) after every few tokens of the samples that are drawn.
        progress: is called with (samples done, samples that were missing, tokens per second).

    Raises:
        UserError: a prompt does not fit into the context, the file cannot be written, or a line of it is not JSON.
    """
    wanted = [
        [record_key(model, adapters[one.adapter], one.tokens, sampling, index) for index in range(samples)]
        for one in asked
    ]
    known = read_whole(path)
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

    show = None if on_text is None else lambda request, index, text: on_text(owners[request], index, text)
    engine.sample(requests, sampling, on_done=keep, on_text=show, progress=progress)
    return [[{**known[key], **one.about} for key in keys] for one, keys in zip(asked, wanted, strict=True)]


def count_samples(records: Sequence[Sequence[Mapping[str, Any]]]) -> dict[str, Any]:
    """Return how many samples were drawn, their tokens, and how many of them ended in which way, for a summary."""
    everyone = [record for mine in records for record in mine]
    return {
        "sampled": len(everyone),
        "tokens": sum(record["tokens"] for record in everyone),
        "ends": {end: sum(record["end"] == end for record in everyone) for end in ENDS},
    }
