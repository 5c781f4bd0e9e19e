"""The Python API, on the tiny random model."""

import dataclasses
import re

import jax
import numpy as np
import pytest
from tiny_model import random_adapter

import jaxalign
from jaxalign.errors import UserError
from jaxalign.models.adapter import Adapter
from jaxalign.parallel.processor import fast_precision


@pytest.fixture(scope="module")
def model():
    return jaxalign.load_model("tiny", precision="float32")


PAIRS = [(f"Say {word}.\n", word) for word in ("one", "two", "three", "four", "five", "six")]


@pytest.mark.slow
def test_a_trained_adapter_prefers_its_responses_and_survives_a_folder(model, tmp_path):
    before = model.log_probs(PAIRS[0][0], ["one", "two"])
    adapter, summary = model.train_adapter(PAIRS, rank=4, epochs=8, learning_rate=0.02, validation_fraction=0.2)
    assert summary["last_loss"] < summary["first_loss"]
    after = model.log_probs(PAIRS[0][0], ["one", "two"], adapter=adapter)
    assert after.sum() > before.sum()
    model.save_adapter(adapter, tmp_path / "adapter")
    read = model.load_adapter(tmp_path / "adapter")
    np.testing.assert_allclose(model.log_probs(PAIRS[0][0], ["one", "two"], adapter=read), after, rtol=1e-5)


@pytest.mark.slow
def test_the_base_is_the_same_after_sampling_and_an_adapter_times_nothing_is_the_base(model):
    first = model.log_probs("Why?\n", ["yes", "no"])
    adapter, _ = model.train_adapter(PAIRS, rank=2, max_steps=1, learning_rate=0.1)
    texts = model.sample(["Why?", "Who?"], n=2, max_tokens=6)
    assert [len(row) for row in texts] == [2, 2]
    assert model.sample(["Why?", "Who?"], n=2, max_tokens=6, adapter=adapter.times(0)) == texts
    assert model.sample(["Why?", "Who?"], n=2, max_tokens=6, adapter=adapter) != texts
    np.testing.assert_array_equal(model.log_probs("Why?\n", ["yes", "no"]), first)
    np.testing.assert_array_equal(model.log_probs("Why?\n", ["yes", "no"], adapter=adapter.times(0)), first)


def test_bad_input_is_refused(model, tmp_path):
    with pytest.raises(UserError, match="precision=half is not known"):
        jaxalign.load_model("tiny", precision="half")
    with pytest.raises(UserError, match="is no adapter"):
        model.load_adapter(tmp_path)
    with pytest.raises(UserError, match="max_tokens"):
        model.sample("Why?", max_tokens=0)
    for n in (0, -1):
        with pytest.raises(UserError, match=f"n={n} is not allowed"):
            model.sample("Why?", n=n)
    with pytest.raises(UserError, match="rows=0 is not allowed"):
        model.sample("Why?", rows=0)
    with pytest.raises(UserError, match="prompt 1 is empty"):
        model.sample("")
    with pytest.raises(UserError, match="the prompt is empty"):
        model.log_probs("", ["a"])
    with pytest.raises(UserError, match="answer 2 is empty"):
        model.log_probs("Why?", ["a", ""])
    with pytest.raises(UserError, match="has 3000 tokens and answer 1 2, and the context holds 2048"):
        model.log_probs("a" * 3000, ["ab"])
    with pytest.raises(UserError, match="no model is called 'tyni'; did you mean 'tiny'"):
        jaxalign.load_model("tyni")


def test_the_date_of_a_chat_template_is_given_by_the_caller():
    model = jaxalign.load_model("tiny", precision="float32", date="2026-01-31")
    assert model.tokenizer.date == "2026-01-31"


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"targets": ("query",)}, "targets=query is not known; choose from down_proj, "),
        ({"targets": ("q_porj",)}, "targets=q_porj is not known; did you mean 'q_proj'?"),
        ({"targets": "q_proj"}, "targets=q_proj is not allowed: give a list of one or more projections"),
        ({"targets": ()}, "targets=[] is not allowed"),
        ({"rank": 0}, "rank=0 is not allowed: give a whole number from 1 to 65536"),
        ({"rank": 10_000}, "a LoRA rank of 10000 is above the model's width: give a rank of at most "),
        ({"rank": 2.5}, "rank=2.5 is not allowed"),
        ({"alpha": 0}, "alpha=0 is not allowed"),
        ({"batch_size": 0}, "batch_size=0 is not allowed"),
        ({"max_steps": 0}, "max_steps=0 is not allowed: give a whole number of at least 1, or null"),
        ({"rank": 65_537}, "rank=65537 is not allowed"),
        ({"epochs": 10_001}, "epochs=10001 is not allowed: give a number greater than 0, up to 10000"),
        ({"epochs": -1}, "epochs=-1 is not allowed"),
        ({"learning_rate": float("nan")}, "learning_rate=nan is not allowed"),
        ({"dropout": 1}, "dropout=1 is not allowed"),
        ({"validation_fraction": 0}, "validation_fraction=0 is not allowed"),
        ({"seed": -1}, "seed=-1 is not allowed"),
        ({"rank": 0, "seed": -1}, "seed=-1 is not allowed"),
    ],
)
def test_a_setting_that_will_not_do_is_refused_before_the_training(model, settings, said):
    with pytest.raises(UserError, match=re.escape(said)):
        model.train_adapter(PAIRS, **settings)


HALF = "a\ud800"
REFUSED = [
    (
        lambda model: model.sample("Why?", max_tokens=2.5),
        "max_tokens=2.5 is not allowed: give a whole number of at least 1",
    ),
    (
        lambda model: model.sample("Why?", top_k=1.5),
        "top_k=1.5 is not allowed: give a whole number from 0 to 2147483647",
    ),
    (lambda model: model.sample("Why?", top_k=2**31), "top_k=2147483648 is not allowed: give a whole number from 0"),
    (lambda model: model.sample("Why?", n=True), "n=true is not allowed: give a whole number from 1 to 100000"),
    (lambda model: model.sample("Why?", rows=1.0), "rows=1.0 is not allowed: give a whole number of at least 1"),
    (lambda model: model.sample("Why?", seed="1"), "seed='1' is not allowed: give a whole number from 0 to 4294967295"),
    (
        lambda model: model.sample("Why?", temperature="hot"),
        "temperature=hot is not allowed: give a number of at least 0",
    ),
    (lambda model: model.sample("Why?", stop=["a", ""]), "stop=[a,''] is not allowed: give a list of strings"),
    (lambda model: model.sample("Why?", stop=5), "stop=5 is not allowed: give a list of strings"),
    (lambda model: model.sample("Why?", max_token=5), "unknown key 'max_token'; did you mean 'max_tokens'?"),
    (lambda model: model.sample(5), "prompts=5 is not allowed: give a text, or a list of texts"),
    (lambda model: model.sample(b"Why?"), "is not allowed: give a text, or a list of texts"),
    (lambda model: model.sample(["Why?", None]), "number 2 of prompts is not a text: null"),
    (lambda model: model.log_probs(["Why?"], "a"), "number 1 of prompt is not a text: [Why?]"),
    (lambda model: model.log_probs("Why?", [1]), "number 1 of answers is not a text: 1"),
    (lambda model: model.sample("Why?", adapter="power"), "power is not an adapter: give what load_adapter"),
    (lambda model: model.train_adapter(PAIRS, start="power"), "power is not an adapter: give what load_adapter"),
    (lambda model: model.train_adapter(5), "pairs=5 is not allowed: give a list of pairs"),
    (
        lambda model: model.train_adapter([("a", "b", "c")]),
        "number 1 of pairs is not a prompt and a response, two texts",
    ),
    (lambda model: model.train_adapter([*PAIRS, ("a", 1)]), "number 7 of pairs is not a prompt and a response"),
    (lambda model: model.train_adapter(PAIRS, rank=np.array([2, 4])), "rank=[2,4] is not allowed"),
    (lambda model: model.sample("Why?", n=10**8), "n=100000000 is not allowed: give a whole number from 1 to 100000"),
    (lambda model: model.sample(["Why?", HALF]), "number 2 of prompts holds half of a character ('a\\ud800')"),
    (lambda model: model.sample("Why?", stop=[HALF]), "holds half of a character: write the whole of it"),
    (lambda model: model.log_probs(HALF, ["a"]), "number 1 of prompt holds half of a character"),
    (lambda model: model.log_probs("Why?", ["a", HALF]), "number 2 of answers holds half of a character"),
    (lambda model: model.train_adapter([*PAIRS, ("a", HALF)]), "number 7 of pairs holds half of a character"),
    (lambda model: model.train_adapter([*PAIRS, ("", "b")]), "the prompt of example 7 is empty"),
    (lambda model: model.load_adapter(HALF), "folder holds half of a character"),
    (lambda model: jaxalign.load_model(HALF), "holds half of a character: write the whole of it"),
    (
        lambda model: jaxalign.load_model("tiny", prompt_format="chat", system=HALF),
        "holds half of a character: write the whole of it",
    ),
    (lambda model: model.load_adapter("x" * 300), "xxx cannot be used: File name too long; give another path"),
    (lambda model: jaxalign.load_model("x" * 300), "xxx cannot be used: File name too long; give another path"),
    (lambda model: model.load_adapter(None), "folder=null is not allowed: give a path"),
    (lambda model: model.load_adapter(""), "folder='' is not allowed: give a path"),
    (lambda model: jaxalign.load_model("tiny", offline="no"), "offline=no is not allowed: give true or false"),
    (lambda model: jaxalign.load_model("tiny", precision=32), "precision=32 is not known"),
    (lambda model: jaxalign.load_model("tiny", date="soon"), "date=soon is not allowed: give a date as YYYY-MM-DD"),
    (lambda model: jaxalign.load_model(None), "name=null is not allowed: give a text"),
    (
        lambda model: jaxalign.load_model("tiny", system="Be brief."),
        "system is used only in the chat format: add prompt",
    ),
]


@pytest.mark.parametrize("number", range(len(REFUSED)))
def test_an_argument_of_another_type_is_refused_as_on_the_command_line(model, number):
    call, said = REFUSED[number]
    with pytest.raises(UserError, match=re.escape(said)):
        call(model)


@pytest.mark.parametrize(
    ("factor", "said"),
    [
        (float("nan"), "factor=nan is not allowed: give a number"),
        (-np.inf, "factor=-inf is not allowed: give a number"),
        ("2", "factor=2 is not allowed: give a number"),
        (True, "factor=true is not allowed: give a number"),
        (np.ones(2), "factor=a list is not allowed: give a number"),
        (10**40, "factor is not allowed: its number is too large to compute with"),
        (1e38, "factor is not allowed: its number is too large to compute with"),
    ],
)
def test_an_adapter_is_multiplied_by_a_number_alone(factor, said):
    adapter = jaxalign.Adapter("mine", factor=100)
    with pytest.raises(UserError, match=re.escape(said)):
        adapter.times(factor)
    assert adapter.times(np.float32(0.5)).factor == 50


@pytest.mark.slow
def test_a_pattern_must_find_a_single_adapter(model, tmp_path):
    adapter, _ = model.train_adapter(PAIRS, rank=2, max_steps=1)
    model.save_adapter(adapter, tmp_path / "one")
    assert model.load_adapter(f"{tmp_path}/*").identity == adapter.identity
    model.save_adapter(adapter, tmp_path / "two")
    with pytest.raises(
        UserError, match=re.escape(f"{tmp_path}/* finds 2 adapters: name one of them, such as {tmp_path}/one")
    ):
        model.load_adapter(tmp_path / "*")


def test_a_stop_string_is_taken_as_it_is(model):
    ((whole,),) = model.sample("Why?", max_tokens=20)
    assert model.sample("Why?", max_tokens=20, stop=f"{whole[3]}ZZ") == [[whole]]  # no letter of it alone stops
    assert model.sample("Why?", max_tokens=20, stop="\\n") == [[whole]]  # a backslash and an n: no newline


@pytest.mark.slow
def test_an_adapter_is_written_where_a_symbolic_link_leads(model, tmp_path):
    adapter, _ = model.train_adapter(PAIRS, rank=2, max_steps=1)
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to("real")
    model.save_adapter(adapter, tmp_path / "link")
    assert (tmp_path / "link").is_symlink() and (tmp_path / "real" / "adapter_config.json").is_file()


def test_a_setting_may_be_a_numpy_scalar(model):
    settings = {"rank": np.int64(2), "learning_rate": np.float32(0.1), "max_steps": np.int32(1)}
    assert model.train_adapter(PAIRS, **settings)[1]["steps"] == 1


def test_a_text_may_go_without_a_list(model):
    ((whole,),) = model.sample("Why?", max_tokens=20)
    stop = whole[2:4]
    assert model.sample("Why?", max_tokens=20, stop=stop) == [[whole[: whole.index(stop)]]]
    assert model.sample(["Why?"], max_tokens=20, stop=[stop]) == model.sample("Why?", max_tokens=20, stop=stop)
    assert model.log_probs("Why?\n", "yes").tolist() == model.log_probs("Why?\n", ["yes"]).tolist()
    assert model.log_probs("Why?\n", []).shape == (0,)


def test_an_adapter_of_another_base_is_refused(model, tmp_path):
    adapter, _ = model.train_adapter(PAIRS, rank=2, max_steps=1)
    assert adapter.base_identity == model.identity
    other = dataclasses.replace(adapter, base_identity="of another one")
    layers = jax.tree.map(lambda leaf: np.concatenate([leaf, leaf[:1]]), adapter.params)
    deeper = dataclasses.replace(adapter, params=layers, base_identity=None)
    for wrong, said in ((other, "belongs to another base than tiny"), (deeper, "does not fit tiny: .* has the shapes")):
        for use in (
            lambda adapter: model.sample("Why?", adapter=adapter),
            lambda adapter: model.log_probs("Why?", ["a"], adapter=adapter),
            lambda adapter: model.train_adapter(PAIRS, start=adapter),
            lambda adapter: model.save_adapter(adapter, tmp_path / "adapter"),
        ):
            with pytest.raises(UserError, match=said):
                use(wrong)
    model.save_adapter(adapter, tmp_path / "adapter")
    assert model.load_adapter(tmp_path / "adapter").times(2).base_identity == model.identity


def drawn_adapter(model):
    """A new adapter that fits the model."""
    return Adapter("drawn", random_adapter(rank=2, architecture=model.architecture), rank=2)


def test_an_adapter_without_weights_of_projections_is_no_adapter(model):
    made = drawn_adapter(model)
    for params in ({}, {"layers": {}}, {"layers": {"lm_head": made.params["layers"]["q_proj"]}}, {"layers": [1]}):
        with pytest.raises(UserError, match="the adapter has no weights of projections"):
            model.sample("a", adapter=dataclasses.replace(made, params=params))


def test_an_adapter_that_is_not_finite_is_not_written(model, tmp_path):
    made = drawn_adapter(model)
    pair = made.params["layers"]["q_proj"]
    pair["b"] = pair["b"].at[-1, -1, -1].set(np.nan)
    for wrong, said in (
        (made, r"hold NaN or infinity \(base_model.*layers\.1\.self_attn\.q_proj\.lora_B"),
        (dataclasses.replace(drawn_adapter(model), alpha=float("inf")), "the adapter's alpha is inf"),
    ):
        with pytest.raises(UserError, match=said):
            model.save_adapter(wrong, tmp_path / "adapter")
    assert not (tmp_path / "adapter").exists()


def test_a_model_says_what_it_computes_in():
    assert jaxalign.load_model("tiny", precision="bfloat16").precision == "bfloat16"
    assert jaxalign.load_model("tiny").precision == fast_precision()[0]
