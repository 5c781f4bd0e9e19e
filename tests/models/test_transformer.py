import dataclasses
import json
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from golden_model import assert_logits_equal, golden_model
from one_program import value_and_vjp
from tiny_model import ARCHITECTURE, MODEL, packed, random_adapter, random_params, random_tokens, random_tree

from jaxalign.data.trees import Segment
from jaxalign.models.architecture import PROJECTIONS, from_config
from jaxalign.models.lora import effective, init_adapter
from jaxalign.models.transformer import REMATERIALISATION, Transformer, normalised
from jaxalign.objectives.forward import batch_log_probs

GOLDENS = sorted((Path(__file__).parents[1] / "golden" / "families").glob("*.json"))


@pytest.fixture(scope="module", params=GOLDENS, ids=lambda path: path.stem)
def golden(request):
    """A family's golden numbers, its model and its parameters."""
    return golden_model(request.param)


def test_every_family_has_a_golden():
    families = {from_config(json.loads(path.read_text())["config"]).family for path in GOLDENS}
    assert families == {"llama", "mistral", "qwen2", "qwen3", "gemma", "gemma2", "granite"}


def test_logits_equal_those_of_transformers(golden):
    assert_logits_equal(*golden)


def test_packed_texts_are_read_as_transformers_reads_each_alone(golden):
    stored, model, params = golden
    texts = np.array(stored["tokens"], np.int32)
    batch = packed([(Segment(text[:1], -1), Segment(text[1:], 0, True)) for text in texts], 64)
    assert batch.tokens.shape == (1, 64)
    log_probs = np.asarray(jax.jit(batch_log_probs, static_argnums=0)(model, params, None, batch))
    log_probs = log_probs[0, : 2 * 23].reshape(2, 23)
    inner = [(place, position) for place, position in enumerate(stored["positions"]) if position < 23]
    for place, position in inner:
        expected = jax.nn.log_softmax(jnp.asarray(stored["logits"])[:, place])
        expected = expected[np.arange(2), texts[:, position + 1]]
        np.testing.assert_allclose(log_probs[:, position], expected, atol=1e-4)


@pytest.fixture(scope="module")
def batch():
    """A row of random trees with room left over."""
    random = np.random.default_rng(3)
    return packed([random_tree(random, 5) for _ in range(3)], 96)


@pytest.mark.slow
def test_a_new_adapter_changes_nothing(batch):
    params, read = random_params(), jax.jit(batch_log_probs, static_argnums=0)
    adapter = init_adapter(jax.random.key(0), ARCHITECTURE, 4, PROJECTIONS)
    np.testing.assert_array_equal(read(MODEL, params, adapter, batch), read(MODEL, params, None, batch))


def test_an_adapter_does_what_its_product_added_to_the_kernels_does(batch):
    params, read = random_params(), jax.jit(batch_log_probs, static_argnums=0)
    adapter = effective(random_adapter(), 0.5)
    merged = {name: dict(leaf) for name, leaf in params["layers"].items()}
    for name, pair in adapter["layers"].items():
        merged[name]["kernel"] = merged[name]["kernel"] + pair["a"] @ pair["b"]
    adapted = read(MODEL, params, adapter, batch)
    np.testing.assert_allclose(adapted, read(MODEL, params | {"layers": merged}, None, batch), atol=1e-4)
    assert np.abs(adapted - read(MODEL, params, None, batch)).max() > 0.1


@pytest.mark.slow
@pytest.mark.parametrize("policy", ["none", "projections"])
def test_an_adapter_of_the_last_layers_is_one_that_adds_nothing_in_the_first(batch, policy):
    params, model = random_params(), Transformer(ARCHITECTURE, jnp.float32, policy)
    whole = random_adapter()
    last = jax.tree.map(lambda leaf: leaf[1:], whole)
    padded = jax.tree.map(lambda leaf: leaf.at[0].set(0.0), whole)
    dropout = (jax.random.key(5), jnp.float32(0.25))

    @jax.jit
    def read(adapter):
        def loss(adapter):
            log_probs = batch_log_probs(model, params, adapter, batch, dropout)
            return (log_probs * batch.weight).sum(), log_probs

        return jax.grad(loss, has_aux=True)(adapter)

    (gradient, found), (wanted_gradient, wanted) = read(last), read(padded)
    np.testing.assert_allclose(found, wanted, atol=1e-5)
    for one, other in zip(jax.tree.leaves(gradient), jax.tree.leaves(wanted_gradient), strict=True):
        assert one.shape[0] == ARCHITECTURE.layers - 1
        np.testing.assert_allclose(one, other[1:], rtol=1e-4, atol=1e-5)


def test_layers_without_an_adapter_have_no_backward_pass(batch):
    arch = dataclasses.replace(ARCHITECTURE, layers=4, windows=(0,) * 4)
    params, model = random_params(arch), Transformer(arch, jnp.float32)

    def loss(adapter):
        return batch_log_probs(model, params, adapter, batch).sum()

    def layer_loops(count: int) -> tuple[list[int], list[int]]:
        adapter = init_adapter(jax.random.key(0), arch, 2, ("q_proj",), count)
        scans = [one.params for one in jax.make_jaxpr(jax.grad(loss))(adapter).eqns if one.primitive.name == "scan"]
        scans = [one for one in scans if one["length"] != 1 or "layer_weights" in str(one["jaxpr"])]
        return tuple([one["length"] for one in scans if one["reverse"] == turned] for turned in (False, True))

    assert layer_loops(3) == ([1, 3], [3])
    assert layer_loops(4) == ([4], [4])


def test_bfloat16_stays_near_float32(batch):
    rough = Transformer(ARCHITECTURE, jnp.bfloat16)
    read = jax.jit(batch_log_probs, static_argnums=0)
    adapter = random_adapter(targets=("q_proj", "up_proj"))
    exact = read(MODEL, random_params(), adapter, batch)
    close = read(rough, random_params(dtype=jnp.bfloat16), adapter, batch)
    assert close.dtype == jnp.float32
    assert 0 < np.abs(exact - close).max() < 0.3


@pytest.mark.slow
def test_rematerialisation_changes_no_gradient(batch):
    params, adapter = random_params(), random_adapter(targets=("q_proj", "o_proj", "up_proj"))
    dropout = (jax.random.key(5), jnp.float32(0.25))
    gradients = []
    for policy in REMATERIALISATION:
        model = Transformer(ARCHITECTURE, jnp.float32, policy)

        def loss(adapter, model=model):
            return (batch_log_probs(model, params, adapter, batch, dropout) * batch.weight).sum()

        gradients.append(jax.jit(jax.grad(loss))(adapter))
    for other in gradients[1:]:
        jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=2e-5, atol=2e-5), gradients[0], other)


@pytest.mark.slow
@pytest.mark.parametrize("policy", ["projections", "full"])
def test_what_is_saved_of_all_layers_is_not_converted_to_float32_as_a_whole(policy):
    model, params = Transformer(ARCHITECTURE, jnp.bfloat16, policy), random_params(dtype=jnp.bfloat16)
    tokens = jnp.ones((2, 48), jnp.int32)

    def loss(adapter, params):
        variables = {"params": params, "lora": effective(adapter, 1.0)}
        return jnp.square(model.apply(variables, tokens, jnp.cumsum(tokens, 1) - 1, 48 * tokens)).sum()

    text = jax.jit(jax.grad(loss)).lower(random_adapter(), params).compile().as_text()
    saved = f"[{ARCHITECTURE.layers},2,48,{ARCHITECTURE.width}]"
    assert f"u16{saved}" in text and f"f32{saved}" not in text


def test_a_program_is_no_longer_for_a_deeper_model(batch):
    def program(layers: int) -> int:
        arch = dataclasses.replace(ARCHITECTURE, layers=layers, windows=(0,) * layers)
        model = Transformer(arch, jnp.float32)
        params = jax.eval_shape(model.init, jax.random.key(0), batch.tokens, batch.positions, batch.ends)["params"]
        return (
            jax.jit(model.apply)
            .lower({"params": params}, batch.tokens, batch.positions, batch.ends)
            .as_text()
            .count("\n")
        )

    assert program(2) == program(12)


def test_a_token_sees_its_ancestors_and_nothing_else():
    random = np.random.default_rng(8)
    prompt, other, answer, last = (random_tokens(random, 6, 6) for _ in range(4))
    tree = (Segment(prompt, -1), Segment(other, 0), Segment(answer, 0, True), Segment(last, 2, True))
    params, read = random_params(), jax.jit(batch_log_probs, static_argnums=0)

    def log_probs(**changed):
        parts = {"prompt": prompt, "other": other, "answer": answer, "last": last} | changed
        parts = [segment._replace(tokens=parts[name]) for segment, name in zip(tree, parts, strict=True)]
        return np.asarray(read(MODEL, params, None, packed([tuple(parts)], 32)))

    plain = log_probs()
    np.testing.assert_array_equal(log_probs(other=other[::-1].copy()), plain)
    swapped = log_probs(answer=np.concatenate([answer[:-1], (answer[-1:] + 1) % 97]))
    np.testing.assert_array_equal(swapped[0, :5], plain[0, :5])
    assert np.abs(swapped[0, 6:12] - plain[0, 6:12]).min() > 0
    assert np.abs(log_probs(prompt=(prompt + 1) % 97)[0, :12] - plain[0, :12]).min() > 0


def test_the_gradient_of_the_norm_is_that_of_its_formula():
    random = np.random.default_rng(0)
    x, upstream = (jnp.asarray(random.standard_normal((2, 5, 12)), jnp.float32) for _ in range(2))

    def plain(x):
        return x / jnp.sqrt((x * x).mean(-1, keepdims=True) + 1e-2)

    found, (gradient,) = value_and_vjp(lambda x: normalised(x, 1e-2), upstream, x)
    wanted, (reference,) = value_and_vjp(plain, upstream, x)
    np.testing.assert_allclose(found, wanted, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(gradient, reference, rtol=1e-5, atol=1e-6)
