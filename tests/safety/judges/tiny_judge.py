"""A judge's model for tests: random, of a few thousand parameters, with the byte-level tokenizer and a long context."""

import dataclasses
import functools

import jax.numpy as jnp
from tiny_model import CONFIG, random_adapter, random_weights

from jaxalign.data.encoding import Encoder
from jaxalign.inference.scorer import Scorer
from jaxalign.models.architecture import from_config
from jaxalign.models.transformer import Transformer
from jaxalign.parallel.compilation import Programs
from jaxalign.pretrained.tokenizer import tiny_tokenizer

ARCHITECTURE = from_config(CONFIG | {"vocab_size": 259, "num_hidden_layers": 1, "max_position_embeddings": 4096})


@functools.cache
def tiny_scorer(row_length: int = 4096) -> Scorer:
    """Return a scorer of the bare model."""
    weights = random_weights(ARCHITECTURE)
    adapter = random_adapter(targets=("q_proj",), architecture=ARCHITECTURE)
    return Scorer(Transformer(ARCHITECTURE, jnp.float32), weights, adapter, 0.0, Programs(), row_length, row_length)


def tiny_encoder(**settings) -> Encoder:
    return dataclasses.replace(Encoder(tiny_tokenizer()), **settings)
