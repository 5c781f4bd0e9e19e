"""What the contenders of accelerator.py do: random tokens, drawn alike in each process, and their operations."""

import argparse
from typing import Any

import numpy as np
from shapes import SIZES

TASKS = {
    "sft": ("jaxalign", "peft", "compiled"),
    "dpo": ("jaxalign", "trl", "precomputed"),
    "sampling": ("jaxalign", "transformers"),
    "scoring": ("jaxalign", "transformers"),
}

NUMBERS = {
    "batch": (16, "examples of a step of fine-tuning"),
    "length": (1024, "tokens of the longest example"),
    "pairs": (8, "pairs of a step of preferences"),
    "prompt": (512, "tokens of the prompt of pairs, samples and answers"),
    "response": (256, "tokens of each response of a pair"),
    "steps": (6, "timed steps of each training"),
    "samples": (64, "samples of one prompt"),
    "tokens": (128, "tokens of each sample"),
    "questions": (16, "questions to score"),
    "answers": (16, "answers to each question"),
    "answer": (32, "tokens of an answer"),
    "rank": (16, "rank of the adapter"),
}
TINY = {
    **{"batch": 2, "length": 48, "pairs": 2, "prompt": 12, "response": 6, "steps": 1, "samples": 2, "tokens": 3},
    **{"questions": 2, "answers": 2, "answer": 3, "rank": 2},
}
"""The same with `--tiny`."""


def examples(args: argparse.Namespace, size: str) -> list[tuple[np.ndarray, np.ndarray]]:
    """Return (prompt, response) of each example of all steps: an eighth of the longest to the longest, half prompt."""
    random, vocabulary = np.random.default_rng(0), SIZES[size]["vocab_size"]
    lengths = random.integers(max(args.length // 8, 4), args.length + 1, args.batch * (args.steps + 1))
    return [
        (_drawn(random, vocabulary, length // 2), _drawn(random, vocabulary, length - length // 2))
        for length in lengths.tolist()
    ]


def questions(args: argparse.Namespace, size: str, count: int, each: int, length: int) -> list[dict[str, Any]]:
    """Return `count` prompts with `each` responses of `length` tokens."""
    random, vocabulary = np.random.default_rng(1), SIZES[size]["vocab_size"]
    return [
        {
            "prompt": _drawn(random, vocabulary, args.prompt).tolist(),
            "responses": [_drawn(random, vocabulary, length).tolist() for _ in range(each)],
        }
        for _ in range(count)
    ]


def _drawn(random: np.random.Generator, vocabulary: int, length: int) -> np.ndarray:
    return random.integers(3, min(vocabulary, 250), length, np.int32)


def operations(size: str, tokens: int, predictions: int) -> int:
    """Return the operations of a forward pass: two for each weight and token, and the head for predictions alone."""
    c = SIZES[size]
    head = c["hidden_size"] // c["num_attention_heads"]
    attention = 2 * c["hidden_size"] * head * (c["num_attention_heads"] + c["num_key_value_heads"])
    layer = attention + 3 * c["hidden_size"] * c["intermediate_size"]
    return 2 * (c["num_hidden_layers"] * layer * tokens + c["vocab_size"] * c["hidden_size"] * predictions)
