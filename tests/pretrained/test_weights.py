from collections import Counter

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest
from hf_tensors import hf_tensors
from model_folder import CONFIGS, hf_random, write_model
from tiny_model import Arrays

from jaxalign.errors import UserError
from jaxalign.models.architecture import from_config
from jaxalign.models.linear import compute_type
from jaxalign.models.transformer import Transformer
from jaxalign.pretrained import weights
from jaxalign.pretrained.leaves import all_finite
from jaxalign.pretrained.safetensors import SafetensorsFolder
from jaxalign.pretrained.weights import (
    identity_of,
    load_params,
    unread_tensors,
    with_own_head,
)


@pytest.mark.parametrize("family", CONFIGS)
def test_the_parameters_of_every_family_are_those_that_the_network_asks_for(family):
    architecture = from_config(CONFIGS[family])
    params, _ = load_params(architecture, Arrays(hf_random(CONFIGS[family])), jnp.bfloat16)
    ones = jnp.ones((1, 4), jnp.int32)
    wanted = jax.eval_shape(Transformer(architecture).init, jax.random.key(0), ones, ones, ones)["params"]
    found = jax.tree.map(lambda leaf: leaf.shape, params)
    head = found.pop("head", None)
    assert found == jax.tree.map(lambda leaf: leaf.shape, wanted)
    assert head == (None if architecture.tied else {"kernel": (259, 32)})


@pytest.mark.parametrize("family", CONFIGS)
def test_tensors_come_back_as_they_went_in(family, tmp_path):
    tensors = hf_random(CONFIGS[family], ml_dtypes.bfloat16)
    architecture = from_config(CONFIGS[family])
    source = SafetensorsFolder(write_model(tmp_path, CONFIGS[family], tensors))
    params, _ = load_params(architecture, source, jnp.bfloat16)
    back = dict(hf_tensors(architecture, params))
    assert back.keys() == tensors.keys()
    for name, array in tensors.items():
        assert back[name].dtype == ml_dtypes.bfloat16
        np.testing.assert_array_equal(back[name], array, err_msg=name)


def test_kernels_are_transposed_norms_float32_and_the_rest_the_bits_of_the_load_dtype():
    tensors = hf_random(CONFIGS["qwen2"])
    params, _ = load_params(from_config(CONFIGS["qwen2"]), Arrays(tensors), jnp.bfloat16)

    def bits(name):
        return tensors[name].astype(ml_dtypes.bfloat16).view(np.uint16)

    down = bits("model.layers.2.mlp.down_proj.weight")
    np.testing.assert_array_equal(params["layers"]["down_proj"]["kernel"][2], down.T)
    np.testing.assert_array_equal(
        params["layers"]["input_norm"]["scale"][1], tensors["model.layers.1.input_layernorm.weight"]
    )
    types = {path[-1].key: leaf.dtype for path, leaf in jax.tree_util.tree_leaves_with_path(params)}
    assert types == {"kernel": jnp.uint16, "bias": jnp.uint16, "scale": jnp.float32}
    assert compute_type(params) == jnp.bfloat16
    np.testing.assert_array_equal(params["head"]["kernel"], bits("lm_head.weight"))


def test_gemma_norms_have_their_one_added():
    tensors = hf_random(CONFIGS["gemma2"])
    params, _ = load_params(from_config(CONFIGS["gemma2"]), Arrays(tensors), jnp.float32)
    np.testing.assert_array_equal(params["norm"]["scale"], tensors["model.norm.weight"] + 1)
    scales = params["layers"]["pre_mlp_norm"]["scale"]
    np.testing.assert_array_equal(scales[0], tensors["model.layers.0.pre_feedforward_layernorm.weight"] + 1)


def test_a_kernel_that_is_quantised_is_read_once():
    tensors, reads = hf_random(CONFIGS["llama"]), Counter()

    class Counting(Arrays):
        def read(self, name):
            reads[name] += 1
            return super().read(name)

    params, _ = load_params(from_config(CONFIGS["llama"]), Counting(tensors), jnp.float32, storage="int8")
    assert reads == dict.fromkeys(tensors, 1)
    kernel = tensors["model.layers.1.mlp.up_proj.weight"].T
    kept = {name: np.asarray(array[1]) for name, array in params["layers"]["up_proj"].items()}
    np.testing.assert_allclose(kept["int8"] * kept["scale"], kernel, atol=float(np.abs(kernel).max()) / 250)


TIED = CONFIGS["llama"] | {"tie_word_embeddings": True}


def test_a_head_that_equals_the_embedding_of_a_tied_model_and_unknown_tensors_change_nothing():
    architecture, tensors = from_config(TIED), hf_random(TIED)
    params, identity = load_params(architecture, Arrays(tensors), jnp.float32)
    extra = {
        "lm_head.weight": tensors["model.embed_tokens.weight"].copy(),
        "model.layers.0.self_attn.rotary_emb.inv_freq": np.ones(4),
    }
    source = Arrays(tensors | extra)
    assert with_own_head(architecture, source) == architecture
    assert unread_tensors(architecture, source) == ["model.layers.0.self_attn.rotary_emb.inv_freq"]
    again, same = load_params(architecture, source, jnp.float32)
    assert "head" not in again
    assert same == identity
    jax.tree.map(np.testing.assert_array_equal, params, again)


@pytest.mark.parametrize("place", [0, 258])
def test_a_head_of_other_values_is_used_although_the_configuration_says_tied(place):
    architecture, tensors = from_config(TIED), hf_random(TIED)
    head = tensors["model.embed_tokens.weight"].copy()
    head[place, -1] += 1
    source = Arrays(tensors | {"lm_head.weight": head})
    found = with_own_head(architecture, source)
    assert not found.tied
    assert unread_tensors(found, source) == []
    np.testing.assert_array_equal(load_params(found, source, jnp.float32)[0]["head"]["kernel"], head)


def test_a_head_of_another_shape_is_named():
    source = Arrays(hf_random(TIED) | {"lm_head.weight": np.ones((3, 3))})
    with pytest.raises(UserError, match=r"lm_head\.weight is \[3, 3\] where \[259, 32\] is needed"):
        load_params(with_own_head(from_config(TIED), source), source, jnp.float32)


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, 1e300])
@pytest.mark.parametrize(
    "name", ["model.embed_tokens.weight", "model.layers.1.mlp.up_proj.weight", "model.norm.weight"]
)
def test_a_tensor_that_holds_nan_or_infinity_is_named(dtype, value, name):
    tensors = hf_random(CONFIGS["llama"])
    tensors[name] = tensors[name].astype(np.float64)
    tensors[name].flat[-1] = value
    with pytest.raises(UserError, match=f"the tensor {name} of the checkpoint holds NaN or infinity"):
        load_params(from_config(CONFIGS["llama"]), Arrays(tensors), dtype)


def test_the_largest_numbers_of_bfloat16_are_finite():
    largest = float(jnp.finfo(jnp.bfloat16).max)
    assert all_finite(np.array([largest, -largest, -0.0, 1e-40], jnp.bfloat16))
    for value in (np.nan, -np.nan, np.inf, -np.inf):
        assert not all_finite(np.array([1.0, value], jnp.bfloat16))


def test_the_identity_depends_on_the_stored_bytes_alone(tmp_path):
    config, architecture = CONFIGS["llama"], from_config(CONFIGS["llama"])
    tensors = hf_random(config)
    one = SafetensorsFolder(write_model(tmp_path / "one", config, tensors))
    three = SafetensorsFolder(write_model(tmp_path / "three", config, tensors, files=3))
    identity = load_params(architecture, one, jnp.float32)[1]
    assert load_params(architecture, three, jnp.bfloat16)[1] == identity == identity_of(architecture, three)
    tensors["model.norm.weight"] = np.nextafter(tensors["model.norm.weight"], 9)
    assert load_params(architecture, Arrays(tensors), jnp.float32)[1] != identity


def test_missing_and_misshapen_tensors_are_named_in_one_line_three_of_them_and_a_count():
    tensors = hf_random(CONFIGS["llama"])
    tensors["model.embed_tokens.weight"] = np.ones((7, 32), np.float32)
    for layer in range(3):
        del tensors[f"model.layers.{layer}.mlp.up_proj.weight"]
    with pytest.raises(UserError) as error:
        load_params(from_config(CONFIGS["llama"]), Arrays(tensors), jnp.float32)
    line = str(error.value)
    assert "model.embed_tokens.weight is [7, 32] where [259, 32] is needed" in line
    assert "model.layers.1.mlp.up_proj.weight is missing and 1 more" in line
    assert "up_proj.weight is missing and 2" not in line


def test_no_more_than_one_leaf_is_in_numpy_at_a_time(monkeypatch):
    tensors, alive, most = hf_random(CONFIGS["llama"]), set(), []
    real = weights.jax.device_put

    class Watched(np.ndarray):
        def __del__(self):
            alive.discard(id(self))

    def empty(shape, dtype):
        array = np.zeros(shape, dtype).view(Watched)
        alive.add(id(array))
        most.append(len(alive))
        return array

    monkeypatch.setattr(weights.np, "empty", empty)
    monkeypatch.setattr(weights.jax, "device_put", lambda values: real(np.array(values)))
    load_params(from_config(CONFIGS["llama"]), Arrays(tensors), jnp.float32)
    assert most
    assert max(most) == 1
