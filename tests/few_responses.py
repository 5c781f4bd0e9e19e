"""Sixteen responses to four prompts, and the pairs of those to one prompt."""

import itertools

import numpy as np
from tiny_model import random_tokens

from jaxalign.data.preferences import PreferencePair, Responses

_RANDOM = np.random.default_rng(0)

RESPONSES = Responses(
    [random_tokens(_RANDOM, 5, 12) for _ in range(4)],
    [random_tokens(_RANDOM, 2, 8) for _ in range(16)],
    [number // 4 for number in range(16)],
    -10 * _RANDOM.random(16),
)
PAIRS = [
    PreferencePair(first + better, first + other)
    for first in range(0, 16, 4)
    for better, other in itertools.combinations(range(4), 2)
]
