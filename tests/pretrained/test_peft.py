import json
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from lora_folder import ARCHITECTURE, CONFIG, random_adapter, write
from model_folder import hf_random, write_model
from safetensors.numpy import load_file, save_file

from jaxalign.errors import UserError
from jaxalign.models.architecture import PROJECTIONS, from_config
from jaxalign.pretrained.parameters import module_of
from jaxalign.pretrained.peft import read_adapter, read_adapter_alone


def change(folder, **settings):
    path = folder / "adapter_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | settings))


@pytest.mark.parametrize("targets", [PROJECTIONS, ("q_proj", "v_proj"), ("down_proj",)])
def test_an_adapter_comes_back_as_it_was_written(tmp_path, targets):
    adapter = random_adapter(targets)
    found = read_adapter(write(tmp_path / "x", adapter), ARCHITECTURE)
    assert (found.rank, found.alpha, found.targets) == (3, 6.0, targets)
    assert (found.base_identity, found.base_name, found.prompt_format) == ("abc", "org/base", "plain")
    assert found.notes == {"value": "power", "scores": [6, 1]}
    for name in targets:
        for side in ("a", "b"):
            assert found.params["layers"][name][side].dtype == np.float32
            np.testing.assert_array_equal(found.params["layers"][name][side], adapter["layers"][name][side])


def test_an_adapter_of_the_last_layers_names_them_and_comes_back(tmp_path):
    adapter = random_adapter(count=2)
    write(tmp_path, adapter, first_layer=1)
    config = json.loads((tmp_path / "adapter_config.json").read_text())
    assert config["layers_to_transform"] == [1, 2]
    numbers = {key.split(".")[4] for key in load_file(tmp_path / "adapter_model.safetensors")}
    assert numbers == {"1", "2"}
    found, alone = read_adapter(tmp_path, ARCHITECTURE), read_adapter_alone(tmp_path)
    assert (found.first_layer, found.layers) == (alone.first_layer, alone.layers) == (1, 2)
    assert found.identity == alone.identity
    jax.tree.map(np.testing.assert_array_equal, found.params, adapter)
    with pytest.raises(UserError, match="adapts 2 layers from 1 to 2, and this base has layers 0 to 3"):
        read_adapter(tmp_path, from_config(CONFIG | {"num_hidden_layers": 4}))
    change(tmp_path, layers_to_transform=None)
    with pytest.raises(UserError, match=r"in 2 of the base's 3 layers \(not in layer 0\)"):
        read_adapter(tmp_path, ARCHITECTURE)


def test_an_adapter_of_a_layer_number_beyond_reason_is_refused_without_counting_to_it(tmp_path):
    write(tmp_path, random_adapter())
    tensors = load_file(tmp_path / "adapter_model.safetensors")
    save_file(renamed(tensors, "layers.2.", "layers.999999999."), tmp_path / "adapter_model.safetensors")
    with pytest.raises(UserError, match="adapts layers up to 999999999, and this base has layers 0 to 2"):
        read_adapter_alone(tmp_path)


def test_the_files_are_those_of_peft(tmp_path):
    adapter = random_adapter(("v_proj", "up_proj"))
    write(tmp_path / "x", adapter)
    tensors = load_file(tmp_path / "x" / "adapter_model.safetensors")
    assert len(tensors) == 3 * 2 * 2
    prefix = "base_model.model.model.layers"
    a = tensors[f"{prefix}.1.self_attn.v_proj.lora_A.weight"]
    b = tensors[f"{prefix}.2.mlp.up_proj.lora_B.weight"]
    np.testing.assert_array_equal(a, adapter["layers"]["v_proj"]["a"][1].T)
    np.testing.assert_array_equal(b, adapter["layers"]["up_proj"]["b"][2].T)
    config = json.loads((tmp_path / "x" / "adapter_config.json").read_text())
    assert config["target_modules"] == ["up_proj", "v_proj"]
    assert (config["peft_type"], config["task_type"], config["r"], config["lora_alpha"]) == ("LORA", "CAUSAL_LM", 3, 6)
    assert (tmp_path / "x" / "README.md").read_text() == "# A card\n"


def test_a_folder_is_replaced_whole_and_nothing_is_left_beside_it(tmp_path):
    write(tmp_path / "x", random_adapter())
    write(tmp_path / "x", random_adapter(("q_proj",)))
    assert read_adapter(tmp_path / "x", ARCHITECTURE).targets == ("q_proj",)
    assert [path.name for path in tmp_path.iterdir()] == ["x"]


def test_a_folder_that_is_there_already_is_filled_and_stays_the_same_folder(tmp_path):
    """A mount point cannot be replaced: the system calls it busy."""
    before = tmp_path.stat().st_ino
    for targets in (("q_proj",), ("v_proj",)):
        write(tmp_path, random_adapter(targets))
        assert read_adapter(tmp_path, ARCHITECTURE).targets == targets
    assert tmp_path.stat().st_ino == before
    files = ["README.md", "adapter_config.json", "adapter_model.safetensors", "jaxalign.json"]
    assert sorted(path.name for path in tmp_path.iterdir()) == files


def test_a_folder_of_other_files_is_left_alone(tmp_path):
    (tmp_path / "thesis.tex").write_text("")
    with pytest.raises(UserError, match="nothing was touched"):
        write(tmp_path, random_adapter())
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]


def test_a_place_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="cannot write"):
        write(tmp_path / "file" / "x", random_adapter())


def test_a_run_directory_stands_for_its_adapter(tmp_path):
    write(tmp_path / "run" / "adapter", random_adapter())
    assert read_adapter(tmp_path / "run", ARCHITECTURE).rank == 3


def test_a_foreign_folder_is_read_too(tmp_path):
    write(tmp_path, random_adapter())
    (tmp_path / "jaxalign.json").unlink()
    found = read_adapter(tmp_path, ARCHITECTURE)
    assert (found.base_identity, found.prompt_format, found.notes) == (None, None, {})
    assert found.base_name == "org/base"


def test_rank_stabilised_scaling_becomes_an_alpha_of_the_same_scale(tmp_path):
    write(tmp_path, random_adapter(rank=4), alpha=6.0, rank=4)
    change(tmp_path, use_rslora=True)
    found = read_adapter(tmp_path, ARCHITECTURE)
    assert found.alpha / found.rank == pytest.approx(6.0 / 4**0.5)


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ({"peft_type": "IA3"}, "is a IA3 adapter"),
        ({"use_dora": True}, "uses use_dora"),
        ({"bias": "all"}, "uses bias"),
        ({"modules_to_save": ["lm_head"]}, "uses modules_to_save"),
        ({"rank_pattern": {"q_proj": 2}, "alpha_pattern": {"q_proj": 2}}, "uses rank_pattern, alpha_pattern"),
        ({"init_lora_weights": "pissa_niter_4"}, "init_lora_weights=pissa_niter_4"),
        (
            {"layers_to_transform": [0]},
            "adapts 1 layers from 0 to 0, and this base has layers 0 to 2: only adapters of",
        ),
        ({"exclude_modules": ["k_proj"]}, "uses exclude_modules"),
        ({"layers_to_transform": 0}, "adapts 1 layers from 0 to 0, and this base has layers 0 to 2: only adapters of"),
        ({"layers_to_transform": [0, 2]}, "adapts 2 layers from 0 to 2, .*, or of the last ones without a gap"),
        (
            {"layers_to_transform": [2, 3]},
            "adapts layers up to 3, and this base has layers 0 to 2; is it an adapter of",
        ),
        ({"layers_to_transform": [1, 2]}, "has q_proj of layer 0, and layers_to_transform in adapter_config.json does"),
        ({"layers_to_transform": ["2"]}, "layers_to_transform=a list is not allowed: it must be a list of whole num"),
        ({"layers_to_transform": True}, "layers_to_transform=true is not allowed"),
        ({"layers_to_transform": -1}, "layers_to_transform=-1 is not allowed"),
        ({"lora_bias": True}, "uses lora_bias"),
        ({"layer_replication": [[0, 2], [1, 3]]}, "uses layer_replication"),
        ({"trainable_token_indices": [1]}, "uses trainable_token_indices"),
        ({"megatron_config": {"fp16": True}}, "uses megatron_config"),
        ({"init_lora_weights": "corda", "corda_config": {"corda_method": "kpm"}}, "uses init_lora_weights=corda"),
        ({"init_lora_weights": "of_next_year"}, "uses init_lora_weights=of_next_year"),
        ({"init_lora_weights": 1}, "uses init_lora_weights=1"),
        ({"use_next": True}, r"adapter_config\.json has use_next=true, which this version does not know"),
        ({"next_size": 0}, "has next_size=0, which this version does not know, .*take it out of the file"),
        ({"r": 0}, "r=0 is not allowed: it must be a whole number from 1"),
        ({"r": 3.0}, r"r=3\.0 is not allowed: it must be a whole number"),
        ({"r": 2}, r"is \[3, 32\] where \[2, 32\] is needed; adapter_config\.json says r=2"),
        ({"r": 10**12}, "r=1000000000000 is not allowed"),
        ({"r": 10**9}, r"where \[1000000000, 32\] is needed"),
        ({"lora_alpha": None}, "has no 'lora_alpha'"),
        ({"lora_alpha": float("nan")}, "lora_alpha=nan is not allowed: it must be a finite number"),
        ({"lora_alpha": 10**400}, "a number with too many digits"),
        ({"lora_alpha": 10**300}, "too large for float32"),
        ({"lora_alpha": 1e39}, "too large for float32"),
        ({"peft_type": ["LORA"]}, "peft_type=a list is not allowed"),
        ({"base_model_name_or_path": 3}, "base_model_name_or_path=3 is not allowed: it must be a text"),
    ],
)
def test_what_is_not_plain_lora_is_refused_by_name(tmp_path, setting, message):
    write(tmp_path, random_adapter())
    change(tmp_path, **setting)
    with pytest.raises(UserError, match=message):
        read_adapter(tmp_path, ARCHITECTURE)


def test_settings_that_are_off_or_change_nothing_of_what_is_computed_are_passed_over(tmp_path):
    write(tmp_path, random_adapter())
    before = read_adapter(tmp_path, ARCHITECTURE)
    off = {"use_next": False, "next_config": None, "next_pattern": {}, "next_name": "", "lora_bias": False}
    change(tmp_path, **off, megatron_core="megatron.core", qalora_group_size=16, peft_version="0.21.2")
    change(tmp_path, init_lora_weights="EVA", eva_config={"rho": 1.0}, inference_mode=False, revision="main")
    found = read_adapter(tmp_path, ARCHITECTURE)
    assert (found.rank, found.alpha) == (before.rank, before.alpha)


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"hidden_size": 64, "head_dim": 8}, "where .* is needed; is it an adapter of another base"),
        ({"num_hidden_layers": 2}, "adapts layers up to 2, and this base has layers 0 to 1; is it an adapter of"),
        ({"num_hidden_layers": 4}, "adapts layers up to 2, and this base has layers 0 to 3; is it an adapter of"),
    ],
)
def test_an_adapter_of_another_base_is_refused(tmp_path, config, message):
    write(tmp_path, random_adapter())
    with pytest.raises(UserError, match=message):
        read_adapter(tmp_path, from_config(CONFIG | config))


def renamed(tensors, old, new):
    return {key.replace(old, new): array for key, array in tensors.items()}


def without(tensors, *parts):
    return {key: array for key, array in tensors.items() if not all(part in key for part in parts)}


def beside(name):
    return lambda tensors: tensors | {f"base_model.model.{name}": np.ones((2, 2), np.float32)}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (beside("lm_head.lora_A.weight"), r"holds 'base_model\.model\.lm_head\.lora_A\.weight', and only LoRA on"),
        (beside("lm_head.weight"), "without modules_to_save"),
        (beside("model.embed_tokens.lora_embedding_A"), "embed_tokens.*only LoRA on"),
        (beside("model.layers.0.self_attn.q_proj.lora_magnitude_vector"), "lora_magnitude_vector', and only LoRA on"),
        (lambda t: renamed(t, "base_model.model.model.", "model."), r"keys in another form \('model\.layers"),
        (lambda t: renamed(t, "base_model.model.model.", "base_model.model."), "keys in another form"),
        (lambda t: renamed(t, "A.weight", "A.default.weight"), r"lora_A\.default\.weight', and only LoRA on"),
        (lambda t: without(t, "layers.1."), r"adapts q_proj in 2 of the base's 3 layers \(not in layer 1\)"),
        (
            lambda t: without(t, "layers.0."),
            r"2 of the base's 3 layers \(not in layer 0\), .* layers_to_transform names",
        ),
        (lambda t: without(t, "layers.2.", "v_proj"), "adapts v_proj in 2 of the base's 3 layers"),
        (lambda t: without(t, "layers.2.", "v_proj", "lora_B"), r"is damaged: .* lacks '.*layers\.2.*v_proj\.lora_B"),
        (lambda t: without(t, "v_proj"), r"is damaged: adapter_config\.json names v_proj"),
        (
            lambda t: t | {key.replace("layers.0.", "layers.00."): one for key, one in t.items() if "layers.0." in key},
            r"holds .*layers\.00\.",
        ),
        (lambda t: {}, "holds no tensors"),
    ],
)
def test_an_adapter_that_cannot_be_read_is_refused_for_what_it_is(tmp_path, change, message):
    write(tmp_path, random_adapter())
    tensors = load_file(tmp_path / "adapter_model.safetensors")
    save_file(change(tensors), tmp_path / "adapter_model.safetensors")
    with pytest.raises(UserError, match=message) as error:
        read_adapter(tmp_path, ARCHITECTURE)
    assert "adapter of another base" not in str(error.value)


@pytest.mark.parametrize(
    ("named", "message"),
    [
        (["q_proj"], "has k_proj of layer 0, and target_modules in adapter_config.json does not name it"),
        ([f"model.layers.0.{module_of(name)}" for name in PROJECTIONS], "has q_proj of layer 1, and target_modules"),
        (5, "target_modules=5 is not allowed: it must be a list of texts, or a text"),
        (["q_proj", 1], "target_modules=a list is not allowed"),
        ({"q_proj": 1}, "target_modules=keys and values is not allowed"),
    ],
)
def test_weights_that_the_settings_do_not_name_are_not_used_in_silence(tmp_path, named, message):
    write(tmp_path, random_adapter())
    change(tmp_path, target_modules=named)
    with pytest.raises(UserError, match=message):
        read_adapter(tmp_path, ARCHITECTURE)


@pytest.mark.parametrize(
    "named",
    [
        ["self_attn.q_proj", "layers.0.self_attn.v_proj", "v_proj", "lm_head", "c_attn"],
        r".*\.(q|v)_proj",
        "all-linear",
        None,
        [],
    ],
)
def test_modules_may_be_named_by_the_ends_of_their_paths_or_by_a_pattern(tmp_path, named):
    write(tmp_path, random_adapter(("q_proj", "v_proj")))
    change(tmp_path, target_modules=named)
    assert read_adapter(tmp_path, ARCHITECTURE).targets == ("q_proj", "v_proj")


def test_a_text_in_the_place_of_a_number_is_shown_as_a_text(tmp_path):
    write(tmp_path, random_adapter())
    change(tmp_path, r="3")
    with pytest.raises(UserError, match="r='3' is not allowed: it must be a whole number from 1"):
        read_adapter(tmp_path, ARCHITECTURE)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_an_adapter_of_nan_or_infinity_is_refused(tmp_path, value):
    file = write(tmp_path, random_adapter()) / "adapter_model.safetensors"
    tensors = {name: np.array(tensor) for name, tensor in load_file(file).items()}
    tensors["base_model.model.model.layers.2.self_attn.k_proj.lora_B.weight"][-1, -1] = value
    save_file(tensors, file)
    with pytest.raises(UserError, match=r"the weights of k_proj \(lora_B\) hold NaN or infinity"):
        read_adapter(tmp_path, ARCHITECTURE)


def test_a_factor_that_makes_the_adapter_infinite_is_refused(tmp_path):
    write(tmp_path, random_adapter())
    with pytest.raises(UserError, match=r"adapter\.scale=1e\+39 .* too large for float32"):
        read_adapter(tmp_path, ARCHITECTURE, factor=1e39)
    new = random_adapter()
    for pair in new["layers"].values():
        pair["b"][:] = 0  # as before the first step, when no scale makes the product large
    write(tmp_path, new)
    with pytest.raises(UserError, match=r"adapter\.scale=1e\+39 .* too large for float32"):
        read_adapter(tmp_path, ARCHITECTURE, factor=1e39)


@pytest.mark.parametrize(
    ("ours", "message"),
    [
        ({"extra": [1]}, "extra=a list is not allowed: it must be keys and values"),
        ({"extra": {"value": 3}}, "value=3 is not allowed: it must be a text"),
        ({"prompt_format": "ChatML"}, "prompt_format=ChatML is not allowed: it must be plain, chat or null"),
        ({"base_name": {}}, "base_name=keys and values is not allowed: it must be a text"),
        ({"extra": {"value": "\x1b]0;title\x07power"}}, "value=.*it must be a text without control characters"),
        ({"extra": {"coding": ["raw"]}}, "coding=a list is not allowed"),
    ],
)
def test_a_damaged_file_beside_an_adapter_is_named(tmp_path, ours, message):
    write(tmp_path, random_adapter())
    (tmp_path / "jaxalign.json").write_text(json.dumps(ours))
    with pytest.raises(UserError, match=rf"jaxalign\.json.*{message}"):
        read_adapter(tmp_path, ARCHITECTURE)


def test_a_folder_without_an_adapter_or_with_a_pickled_one_says_so(tmp_path):
    with pytest.raises(UserError, match="holds no adapter"):
        read_adapter(tmp_path, ARCHITECTURE)
    write(tmp_path / "x", random_adapter())
    shutil.move(tmp_path / "x" / "adapter_model.safetensors", tmp_path / "x" / "adapter_model.bin")
    with pytest.raises(UserError, match="pickle, which is never loaded"):
        read_adapter(tmp_path / "x", ARCHITECTURE)


@pytest.mark.filterwarnings("default")
@pytest.mark.parametrize("first_layer", [0, 1])
def test_peft_computes_what_we_compute_and_reads_and_writes_our_files(tmp_path, first_layer):
    torch = pytest.importorskip("torch")
    peft = pytest.importorskip("peft")
    import transformers

    from jaxalign.models.transformer import Transformer, head_kernel
    from jaxalign.pretrained.safetensors import SafetensorsFolder
    from jaxalign.pretrained.weights import load_params

    base = write_model(tmp_path / "base", CONFIG | {"dtype": "float32"}, hf_random(CONFIG))
    write(tmp_path / "x", random_adapter(count=3 - first_layer), first_layer=first_layer)
    model = peft.PeftModel.from_pretrained(
        transformers.AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32), tmp_path / "x"
    ).eval()
    tokens = np.random.default_rng(1).integers(0, 259, (1, 12), np.int32)
    with torch.no_grad():
        theirs = model(torch.tensor(tokens)).logits.numpy()
        with model.disable_adapter():
            assert np.abs(theirs - model(torch.tensor(tokens)).logits.numpy()).max() > 0.1
    model.save_pretrained(tmp_path / "again")
    found = read_adapter(tmp_path / "again", ARCHITECTURE)
    params, _ = load_params(ARCHITECTURE, SafetensorsFolder(base), jnp.float32)
    lora = found.effective()
    hidden = Transformer(ARCHITECTURE, jnp.float32).apply(
        {"params": params, "lora": lora}, tokens, np.arange(12, dtype=np.int32)[None], np.full((1, 12), 12, np.int32)
    )
    ours = hidden @ head_kernel(params, ARCHITECTURE).T
    np.testing.assert_allclose(ours, theirs, atol=1e-3, rtol=1e-3)
