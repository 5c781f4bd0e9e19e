"""The reference of a preference stage: the log-probability of each response under the adapter that DPO starts from.

It is computed once, and kept on disk.
"""

import dataclasses
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Float64

from jaxalign.data.preferences import Responses
from jaxalign.data.trees import tree_length
from jaxalign.inference.scorer import Scorer
from jaxalign.inference.shapes import SHAPES, keep_shapes, unread
from jaxalign.models.lora import adapter_hash
from jaxalign.runs.records import append_record, digest, read_records

REFERENCE = "reference.jsonl"
"""The name of the file that a run keeps it in."""

PROMPTS_AT_A_TIME = 64
"""The number of prompts whose responses are scored and written together."""


def read_reference(
    scorer: Scorer,
    data: Responses,
    members: Sequence[int],
    path: Path | None = None,
    *,
    model: str = "",
    progress: Callable[[int, int, float], None] = lambda done, total, speed: None,
) -> Float64[np.ndarray, " R"]:
    """Return the log-probability, in nats, of each of the R responses: 0 for those that are not in `members`.

    The prompts are scored in parts. A part always has the same prompts, is scored whole, and has the shapes that an
    uninterrupted run would choose, whatever the scorer did before. So a run that was interrupted and goes on finds the
    same numbers, to the last bit.

    Args:
        scorer: scores with the reference's adapter.
        data: the responses; its own `reference` is not used.
        members: the numbers of the responses to score, all different.
        path: a JSON Lines file that keeps the numbers, with shapes.jsonl beside it; None keeps nothing.
        model: the base's signature and precision. A number from the file is used only for the same base, adapter,
            scale and tokens.
        progress: is called with (prompts done, all prompts, tokens per second), first with none done. The time of
            compilation does not count.

    Raises:
        UserError: the file cannot be written, or a line of it is not JSON.
    """
    identity = [model, adapter_hash(scorer.adapter), float(scorer.scale)]

    def key(response: int) -> str:
        tokens = [data.prompts[data.prompt_of[response]].tolist(), data.responses[response].tolist()]
        return digest([*identity, tokens], 32)

    keys = {response: key(response) for response in members}
    records = [] if path is None else read_records(path, key=str, log_prob=float)
    known = {record["key"]: record["log_prob"] for record in records}
    trees = data.trees(members)
    parts = [trees[start : start + PROMPTS_AT_A_TIME] for start in range(0, len(trees), PROMPTS_AT_A_TIME)]
    names = [[keys[response] for _, mine in part for response in mine] for part in parts]
    missing, shapes = unread(None if path is None else path.with_name(SHAPES), names, known)
    scorer = dataclasses.replace(scorer, shapes=shapes)
    prompts = sum(len(parts[n]) for n in missing)
    done, tokens, since = 0, 0, time.perf_counter() - scorer.programs.seconds
    progress(0, prompts, 0.0)
    for number in missing:
        part, fresh = parts[number], {}
        for (_, mine), scores in zip(part, scorer.score([tree for tree, _ in part]), strict=True):
            fresh |= {keys[response]: float(score) for response, score in zip(mine, scores[1:], strict=True)}
        fresh = {name: value for name, value in fresh.items() if name not in known}
        known |= fresh
        if path is not None:
            keep_shapes(path.with_name(SHAPES), names[number][-1], shapes)
            append_record(path, *({"key": name, "log_prob": value} for name, value in fresh.items()))
        done, tokens = done + len(part), tokens + sum(tree_length(tree) for tree, _ in part)
        progress(done, prompts, tokens / (time.perf_counter() - scorer.programs.seconds - since))
    found = np.zeros(len(data.responses))
    for response, name in keys.items():
        found[response] = known[name]
    return found
