"""Answers of the tiny random model: the settings, and what a run has written."""

import json

QUICK = ["precision=float32", "sampling.max_tokens=5"]
TINY = ["model=tiny", *QUICK]


def records(folder, name="generations.jsonl"):
    return [json.loads(line) for line in (folder / name).read_text().splitlines()]
