import dataclasses
import weakref

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tiny_model import ARCHITECTURE, random_adapter, random_params, random_tokens

from jaxalign.data.trees import Segment
from jaxalign.errors import UserError
from jaxalign.inference.base_model import BaseModel
from jaxalign.inference.sampling_params import Request, SamplingParams
from jaxalign.models import layout
from jaxalign.models.lora import effective
from jaxalign.parallel.compilation import Programs
from jaxalign.pretrained.sources import Model

PROGRAMS = Programs()
SAMPLING = SamplingParams(max_tokens=12, seed=3)
RANDOM = np.random.default_rng(0)
REQUESTS = [Request(random_tokens(RANDOM, 5, 9), (0, 1)) for _ in range(2)]
TREES = [
    (Segment(random_tokens(RANDOM, 5, 9), -1), *(Segment(random_tokens(RANDOM, 1, 4), 0, True) for _ in range(2)))
    for _ in range(3)
]
ADAPTER = random_adapter()


@pytest.fixture
def make(tokenizer):
    """Make base models that share nothing but their compiled programs."""

    def build(dtype=jnp.float32):
        model = Model(ARCHITECTURE, random_params(dtype=dtype), tokenizer, "identity", "tiny")
        return BaseModel(model, jnp.dtype(dtype), PROGRAMS)

    return build


def sampler_of(base):
    return base.sampler(jax.tree.map(lambda leaf: leaf[None], effective(ADAPTER, 0.7)))


def arrays_of(base):
    """Weak references to the arrays of the weights, and what they weigh."""
    leaves = jax.tree.leaves(base.model.params)
    return [weakref.ref(leaf) for leaf in leaves], sum(leaf.nbytes for leaf in leaves)


def left_over(old, base):
    """The shapes of those arrays of an earlier layout that are still there, and in whose memory no weight of now is.

    Some versions of JAX let a new array use the memory of the one that it was made of.
    """
    weights = [np.asarray(leaf) for leaf in jax.tree.leaves(base.model.params)]
    there = [np.asarray(array()) for array in old if array() is not None]
    return [one.shape for one in there if not any(np.may_share_memory(one, weight) for weight in weights)]


@pytest.mark.slow
def test_a_sampler_and_a_scorer_of_one_base_give_in_turn_what_each_gives_alone(make):
    samples, scores = sampler_of(make()).sample(REQUESTS, SAMPLING), make().scorer(ADAPTER, 0.7).score(TREES)
    base = make()
    sampler, scorer, bare = sampler_of(base), base.scorer(ADAPTER, 0.7), base.sampler(None)
    others = make().sampler(None).sample(REQUESTS, SAMPLING)
    assert others != samples
    for _ in range(2):
        assert sampler.sample(REQUESTS, SAMPLING) == samples
        jax.tree.map(np.testing.assert_array_equal, scorer.score(TREES), scores)
        jax.tree.map(np.testing.assert_array_equal, scorer.score(TREES), scores)
        assert bare.sample(REQUESTS, SAMPLING) == others


def near(one, other):
    np.testing.assert_allclose(one, other, atol=1e-5)


@pytest.mark.slow
def test_whoever_is_told_of_progress_may_ask_the_other_one(make):
    samples, scores = sampler_of(make()).sample(REQUESTS, SAMPLING), make().scorer(ADAPTER, 0.7).score(TREES)
    base = make()
    sampler, scorer, asked = sampler_of(base), dataclasses.replace(base.scorer(ADAPTER, 0.7), batch_tokens=32), []
    in_passes = scorer.score(TREES, lambda done, total: asked.append(sampler.sample(REQUESTS, SAMPLING)))
    jax.tree.map(near, in_passes, scores)
    assert len(asked) > 1 and all(found == samples for found in asked)
    asked.clear()
    told = SamplingParams(max_tokens=40, seed=3)
    long = sampler.sample(REQUESTS, told)
    assert sampler.sample(REQUESTS, told, progress=lambda *_: asked.append(scorer.score(TREES))) == long
    assert len(asked) > 2
    for found in asked:
        jax.tree.map(near, found, in_passes)


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_the_weights_exist_once_and_come_back_as_they_were(make, dtype):
    base = make(dtype)
    (old, size), given = arrays_of(base), base.model.params
    layered = base.weights(layered=True)
    assert left_over(old, base) == []
    head = layered["head"].nbytes  # of a tied model the one thing that decoding has besides
    (old, with_head) = arrays_of(base)
    assert with_head == size + head and layered is given
    jax.tree.map(np.testing.assert_array_equal, base.weights(layered=False), random_params(dtype=dtype))
    assert left_over(old, base) == []
    assert arrays_of(base)[1] == size


@pytest.mark.parametrize("layered", [True, False])
def test_a_change_of_layout_that_is_interrupted_is_told_of_afterwards(make, layered, monkeypatch):
    base = make()
    sampler, scorer = base.sampler(None), base.scorer(None, 0.0)
    base.weights(not layered)

    def interrupted(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(layout.jnp, "asarray", interrupted)
        with pytest.raises(KeyboardInterrupt):
            base.weights(layered)
    for ask in (lambda: sampler.sample(REQUESTS, SAMPLING), lambda: scorer.score(TREES), lambda: base.weights(False)):
        with pytest.raises(UserError, match=r"the weights of the model are gone.*load the model again"):
            ask()


@pytest.mark.slow
@pytest.mark.parametrize(("tpu", "small", "kind"), [(True, 0, dict), (False, 1e9, dict), (False, 0, list)])
def test_off_a_cpu_samples_are_the_same_and_only_a_gpu_takes_large_layers_apart(make, monkeypatch, tpu, small, kind):
    here, scores = sampler_of(make()).sample(REQUESTS, SAMPLING), make().scorer(ADAPTER, 0.7).score(TREES)
    monkeypatch.setattr(layout, "on_cpu", lambda: False)
    monkeypatch.setattr(layout, "on_tpu", lambda: tpu)
    monkeypatch.setattr(layout, "COPIED_BYTES", small)
    base = make()
    assert sampler_of(base).sample(REQUESTS, SAMPLING) == here
    assert isinstance(base.model.params["layers"], kind)
    jax.tree.map(near, base.scorer(ADAPTER, 0.7).score(TREES), scores)
    jax.tree.map(np.testing.assert_array_equal, base.weights(layered=False), random_params())


def test_on_a_gpu_kernels_keep_their_orientation_and_an_untied_head_comes_back(monkeypatch):
    monkeypatch.setattr(layout, "on_cpu", lambda: False)
    monkeypatch.setattr(layout, "COPIED_BYTES", 0)
    head = {
        "kernel": jnp.arange(ARCHITECTURE.vocab_size * ARCHITECTURE.width, dtype=jnp.float32).reshape(
            ARCHITECTURE.vocab_size, -1
        )
    }
    weights = layout.BaseWeights(random_params() | {"head": head}, tied=False)
    apart = weights.get(layered=True)
    kernel = random_params()["layers"]["q_proj"]["kernel"]
    np.testing.assert_array_equal(apart["layers"][1]["q_proj"]["kernel"], kernel[1])
    np.testing.assert_array_equal(apart["head"], head["kernel"])
    jax.tree.map(np.testing.assert_array_equal, weights.get(layered=False), random_params() | {"head": head})
