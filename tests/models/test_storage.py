"""A base whose kernels are kept in fewer bits: how near it is, and that all that uses a base works on it."""

import dataclasses

import few_examples
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from golden.draw import draw
from tiny_model import CONFIG, Arrays, random_adapter, random_tokens, random_tree

from jaxalign.data.trees import Segment
from jaxalign.errors import UserError
from jaxalign.inference.base_model import BaseModel
from jaxalign.inference.sampling_params import Request, SamplingParams
from jaxalign.models.architecture import from_config
from jaxalign.models.linear import (
    SCALE_GROUP,
    Quantised,
    check_storage,
    codes_of,
    dequantised,
    frozen_product,
    scales_of,
    stored_sizes,
)
from jaxalign.models.lora import effective, stack_lora
from jaxalign.parallel.compilation import Programs
from jaxalign.pretrained.parameters import parameter_leaves
from jaxalign.pretrained.sources import Model, ModelFiles
from jaxalign.pretrained.tokenizer import tiny_tokenizer
from jaxalign.pretrained.weights import abstract_params, bytes_on_device, load_params
from jaxalign.training.state import init_state
from jaxalign.training.step import train_program

ARCHITECTURE = from_config({**CONFIG, "hidden_size": 64, "intermediate_size": 128})
SOURCE = Arrays(draw({n: leaf.shape for leaf in parameter_leaves(ARCHITECTURE) for n in leaf.names(2)}, 1.0))
ADAPTERS = [random_adapter(seed, architecture=ARCHITECTURE) for seed in range(2)]


def base_of(storage, dtype=np.float32) -> BaseModel:
    params, identity = load_params(ARCHITECTURE, SOURCE, dtype, None, storage)
    model = Model(ARCHITECTURE, params, tiny_tokenizer(), identity, "small", storage)
    return BaseModel(model, np.dtype(dtype), Programs())


def some_kernel(inner: int = 2 * SCALE_GROUP, outer: int = 5) -> np.ndarray:
    kernel = np.random.default_rng(0).standard_normal((inner, outer)).astype(np.float32)
    kernel[:, 1] *= 1e-4  # an output with small weights keeps them
    kernel[:, 2] = 0
    return kernel


def stored(kernel, storage) -> Quantised:
    scale = scales_of(kernel, storage)
    return Quantised(jnp.asarray(codes_of(kernel, scale, storage)), jnp.asarray(scale))


@pytest.mark.parametrize(("storage", "share", "bits"), [("int8", 0.5, 8), ("int4", 1.0, 4)])
def test_a_weight_is_off_by_a_part_of_its_scale_and_takes_that_many_bits(storage, share, bits):
    kernel = some_kernel()
    kept = stored(kernel, storage)
    assert kept.codes.nbytes == kernel.size * bits / 8
    unit = np.abs(np.repeat(kept.scale, len(kernel) // len(kept.scale), axis=0))
    assert (unit <= np.abs(kernel).max(0) / (127 if storage == "int8" else 8) + 1e-9).all()
    # In int4 the largest weight is -8 units, so one of the other sign may be nearly one unit too large for +7.
    error = np.abs(dequantised(kept, jnp.float32) - kernel)
    assert (error <= share * unit * 1.0001).all() and (error <= 0.5 * unit * 1.0001).mean() > 0.97
    assert not np.any(dequantised(kept, jnp.float32)[:, 2])


@pytest.mark.parametrize("storage", ["int8", "int4"])
def test_a_part_of_a_kernel_has_the_numbers_that_it_has_in_the_whole(storage):
    kernel = some_kernel()
    scale = scales_of(kernel, storage)
    whole = codes_of(kernel, scale, storage)
    part = codes_of(kernel[SCALE_GROUP:, 1:4], scale[-1:, 1:4], storage)
    np.testing.assert_array_equal(part, whole[len(whole) // 2 :, ..., 1:4])


@pytest.mark.parametrize("storage", ["int8", "int4"])
def test_a_product_and_its_gradient_are_those_with_the_dequantised_kernel(storage):
    random = np.random.default_rng(1)
    x = jnp.asarray(random.standard_normal((2, 3, 2 * SCALE_GROUP)), jnp.float32)
    kept = stored(some_kernel(), storage)
    kernel = dequantised(kept, jnp.float32)
    found, pull = jax.vjp(lambda x: frozen_product(x, kept), x)
    wanted, plain = jax.vjp(lambda x: frozen_product(x, kernel), x)
    np.testing.assert_array_equal(found, wanted)
    np.testing.assert_array_equal(pull(found)[0], plain(found)[0])


@pytest.fixture(scope="module")
def bases():
    return {storage: base_of(storage) for storage in (None, "int8", "int4", "bfloat16")}


def test_a_base_takes_the_planned_bytes(bases):
    sizes = {}
    for storage, base in bases.items():
        params, planned = base.model.params, abstract_params(ARCHITECTURE, np.float32, None, storage)
        assert jax.tree.map(lambda x: (x.shape, x.dtype), params) == jax.tree.map(lambda x: (x.shape, x.dtype), planned)
        sizes[storage] = sum(leaf.nbytes for leaf in jax.tree.leaves(params["layers"]))
        whole = sum(leaf.nbytes for leaf in jax.tree.leaves(params))
        assert whole == bytes_on_device(ARCHITECTURE, np.float32, None, storage)
    assert sizes["bfloat16"] < 0.51 * sizes[None]
    assert sizes["int8"] < 0.29 * sizes[None]  # and scales
    assert sizes["int4"] < 0.15 * sizes[None]


@pytest.mark.slow
def test_scores_are_near_those_of_the_whole_base_and_nearer_with_more_bits(bases):
    random = np.random.default_rng(0)
    trees = [random_tree(random, 6) for _ in range(2)]
    scores = {name: np.concatenate(base.scorer(ADAPTERS[0], 1.0).score(trees)) for name, base in bases.items()}
    error = {name: np.abs(found - scores[None]).mean() / np.abs(scores[None]).mean() for name, found in scores.items()}
    assert 0 < error["bfloat16"] < error["int8"] < 0.02
    assert 2 * error["int8"] < error["int4"] < 0.3


@pytest.mark.slow
@pytest.mark.parametrize("storage", ["int8", "int4", "bfloat16"])
def test_a_greedy_sample_is_the_most_probable_text_to_the_scorer(bases, storage):
    base, random = bases[storage], np.random.default_rng(2)
    prompts = [random_tokens(random, 5, 12) for _ in range(2)]
    requests = [Request(prompt, (0,), n) for n, prompt in enumerate(prompts)]
    stack = stack_lora([effective(adapter, 1.0) for adapter in ADAPTERS])
    found = base.sampler(stack, 4).sample(requests, SamplingParams(temperature=0.0, max_tokens=5))
    for adapter, prompt, (one,) in zip(ADAPTERS, prompts, found, strict=True):
        tree = (Segment(prompt, -1), Segment(np.asarray(one.tokens, np.int32), 0, True))
        (((_, score), (_, best)),) = base.scorer(adapter, 1.0).score_greedy([tree])
        assert len(one.tokens) and best and score < 0


def moved_by(adapter) -> np.ndarray:
    """How far a step has moved the first adapter, all its numbers in one row."""
    pairs = zip(jax.tree.leaves(adapter), jax.tree.leaves(ADAPTERS[0]), strict=True)
    return np.concatenate([np.ravel(np.asarray(new) - np.asarray(old)) for new, old in pairs])


@pytest.mark.slow
def test_a_step_changes_the_adapter_alone_and_nearly_as_on_the_whole_base(bases):
    settings = few_examples.SETTINGS
    feed = few_examples.STAGE.feed(settings)
    batch, _ = feed.batch(feed.steps[0][1])
    hyper = jax.tree.map(np.float32, dataclasses.replace(settings.hyper, dropout=0.0))
    found = {}
    for name in (None, "int8", "int4"):
        base = bases[name]
        before = jax.tree.map(np.array, base.weights(False))
        state = init_state(jax.tree.map(jnp.array, ADAPTERS[0]), 0)
        state, metrics = train_program(
            base.network("projections"), "adamw", "sft", False, base.weights(False), state, hyper, batch
        )
        jax.tree.map(np.testing.assert_array_equal, base.weights(False), before)
        found[name] = float(metrics.loss_sum / metrics.loss_count), state.adapter
    moved = {name: moved_by(adapter) for name, (_, adapter) in found.items()}
    for name, tolerance, alike in (("int8", 0.005, 0.9), ("int4", 0.1, 0.5)):
        assert found[name][0] == pytest.approx(found[None][0], rel=tolerance)
        cosine = moved[name] @ moved[None] / np.linalg.norm(moved[name]) / np.linalg.norm(moved[None])
        assert alike < cosine < 1


def test_int4_needs_kernels_that_group():
    narrow = from_config({**CONFIG, "hidden_size": 64, "intermediate_size": 96})
    line = "^model.storage=int4 needs groups of 64 inputs, and down_proj of mine has 96: take model.storage=int8$"
    with pytest.raises(UserError, match=line):
        check_storage("int4", narrow, "mine")
    check_storage("int8", narrow, "mine")
    check_storage("int4", ARCHITECTURE, "mine")


def test_a_mesh_does_not_divide_a_group_of_int4():
    wide = from_config({**CONFIG, "hidden_size": 192, "intermediate_size": 640, "head_dim": 32})
    assert stored_sizes("int8", wide) == {"width": 192, "heads": 2, "ff": 640, "vocabulary": 97}
    assert stored_sizes("int4", wide) == {"width": 3, "heads": 2, "ff": 10, "vocabulary": 97}
    thin = from_config({**CONFIG, "hidden_size": 64, "intermediate_size": 640, "head_dim": 16})
    assert stored_sizes("int4", thin)["heads"] == 1  # two key/value heads, but one group of 64


def test_the_storage_is_in_the_signature_and_not_in_the_identity_of_the_weights(bases):
    plain, kept = bases[None].model, bases["int8"].model
    assert kept.identity == plain.identity and kept.signature == f"int8-{plain.signature}"
    files = ModelFiles(ARCHITECTURE, SOURCE, tiny_tokenizer(), "small")
    assert files.stored_as("int8", "float32").identify()[1] == kept.signature
    assert files.stored_as("bfloat16", "bfloat16") == files  # which is how it is kept anyway
