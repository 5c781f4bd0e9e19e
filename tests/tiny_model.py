"""A decoder of a few thousand parameters with known weights, and random trees for it to read."""

import dataclasses
from typing import Any

import jax.numpy as jnp
import numpy as np
from golden.draw import draw

from jaxalign.data.packing import PackedBatch, measure, pack
from jaxalign.data.trees import Segment, Tree
from jaxalign.inference.scorer import Scorer
from jaxalign.models.architecture import PROJECTIONS, Architecture, from_config, projection_shape
from jaxalign.models.layout import BaseWeights
from jaxalign.models.transformer import Transformer
from jaxalign.pretrained.weights import load_params, parameter_leaves

CONFIG = {
    "architectures": ["LlamaForCausalLM"],
    "vocab_size": 97,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "tie_word_embeddings": True,
}
ARCHITECTURE = from_config(CONFIG)
MODEL = Transformer(ARCHITECTURE, jnp.float32)


class Arrays:
    """A TensorSource over NumPy arrays."""

    def __init__(self, tensors: dict[str, np.ndarray]):
        self.tensors = tensors

    def names(self) -> list[str]:
        return list(self.tensors)

    def shape(self, name: str) -> tuple[int, ...]:
        return self.tensors[name].shape

    def dtype(self, name: str) -> str:
        return str(self.tensors[name].dtype)

    def read(self, name: str) -> np.ndarray:
        return self.tensors[name]

    def parts(self, name: str) -> np.ndarray:
        return self.read(name)

    def raw(self, name: str) -> memoryview:
        return memoryview(self.tensors[name]).cast("B")


def random_params(architecture: Architecture = ARCHITECTURE, dtype: Any = jnp.float32) -> dict[str, Any]:
    """Return parameters large enough that every part of the model matters."""
    shapes = {name: leaf.shape for leaf in parameter_leaves(architecture) for name in leaf.names(architecture.layers)}
    return load_params(architecture, Arrays(draw(shapes, 1.0)), dtype)[0]


def random_weights(architecture: Architecture = ARCHITECTURE, dtype: Any = jnp.float32) -> BaseWeights:
    """Return `random_params` as samplers and scorers take them."""
    return BaseWeights(random_params(architecture, dtype), architecture.tied)


def random_adapter(seed: int = 0, rank: int = 3, targets=PROJECTIONS, architecture: Architecture = ARCHITECTURE):
    """Return an adapter whose b is not zero, so that it changes the model."""
    random = np.random.default_rng(seed)

    def normal(*shape: int) -> jnp.ndarray:
        return jnp.asarray(0.2 * random.standard_normal((architecture.layers, *shape)), jnp.float32)

    layers = {}
    for name in targets:
        width, features = projection_shape(architecture, name)
        layers[name] = {"a": normal(width, rank), "b": normal(rank, features)}
    return {"layers": layers}


def random_tokens(random: np.random.Generator, low: int, high: int) -> np.ndarray:
    """Return between `low` and `high` tokens, int32."""
    return random.integers(0, CONFIG["vocab_size"], random.integers(low, high + 1)).astype(np.int32)


def random_tree(random: np.random.Generator, segments: int, longest: int = 6) -> Tree:
    """Return a tree in depth-first order, any of whose segments but the root may be scored."""
    tree = [Segment(random_tokens(random, 1, longest), -1)]
    path = [0]
    for index in range(1, segments):
        del path[random.integers(1, len(path) + 1) :]
        weight = float(random.integers(1, 4))
        tree.append(Segment(random_tokens(random, 1, longest), path[-1], bool(random.random() < 0.7), weight))
        path.append(index)
    return tuple(tree)


def packed(trees: list[Tree], tokens: int, **options: Any) -> PackedBatch:
    """Return the trees in rows of `tokens` tokens, as tight as they go."""
    return pack(trees, measure(trees, tokens, **options), **options)


def some_examples(seed: int = 0) -> tuple[list[np.ndarray], list[np.ndarray], list[float]]:
    """Return prompts, responses and weights of six examples; two prompts are shared, and all begin alike."""
    random = np.random.default_rng(seed)
    stem = random_tokens(random, 7, 7)
    prompts = [np.concatenate([stem, random_tokens(random, 3, 9)]) for _ in range(3)]
    responses = [random_tokens(random, 2, 7) for _ in range(6)]
    return [prompts[i] for i in (0, 0, 0, 1, 1, 2)], responses, [1.0, 2.0, 0.5, 1.0, 3.0, 1.0]


def apart(prompts: list[np.ndarray], responses: list[np.ndarray], weights: list[float]) -> list[Tree]:
    """Return a tree for each example, with a copy of the prompt of its own."""
    examples = zip(prompts, responses, weights, strict=True)
    return [(Segment(prompt, -1), Segment(response, 0, True, weight)) for prompt, response, weight in examples]


@dataclasses.dataclass(frozen=True)
class Killed(Scorer):
    """A scorer that a kill stops after so many parts; it notes what it reads, and the shapes it knows then."""

    after: int = 99
    parts: list = dataclasses.field(default_factory=list)

    def score(self, trees, *args, **kwargs):
        if len(self.parts) == self.after:
            raise KeyboardInterrupt
        scores = super().score(trees, *args, **kwargs)
        texts = [segment.tokens.tolist() for tree in trees for segment in tree]
        self.parts.append((texts, *self.shapes))
        return scores
