"""Supervised examples, a stage of them, and the settings that it is trained with."""

import numpy as np
from tiny_model import random_tokens

from jaxalign.data.encoding import Encoded
from jaxalign.training.feed import StageSettings
from jaxalign.training.optimizer import Hyperparameters
from jaxalign.training.supervised import SupervisedStage

SETTINGS = StageSettings(
    epochs=2,
    max_steps=None,
    max_tokens=None,
    batch_size=6,
    seed=3,
    log_every=1,
    checkpoint_every=2,
    keep_checkpoints=2,
    row_length=96,
    max_rows=None,
    packing=True,
    share_prompts=True,
    validate=True,
    optimizer="adamw",
    schedule="linear",
    warmup_steps=1,
    hyper=Hyperparameters(1e-2, scale=2.0, dropout=0.1),
)


def some_examples(seed: int, count: int) -> Encoded:
    """Return examples of a few prompts, three responses to each."""
    random = np.random.default_rng(seed)
    prompts = [random_tokens(random, 5, 12) for _ in range(count // 3)]
    responses = [random_tokens(random, 2, 8) for _ in range(count)]
    weights = [float(random.integers(1, 3)) for _ in range(count)]
    return Encoded([prompts[i // 3] for i in range(count)], responses, weights, [False] * count)


STAGE = SupervisedStage("survey", some_examples(0, 12), some_examples(1, 6), positives=5)
"""Two steps an epoch, so four in all."""
