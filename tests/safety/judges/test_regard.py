"""The classifier of regard: without PyTorch one line, and with it the figures of Transformers.

The second half needs torch. Where it is installed without the rest: python -m pytest --noconftest -o addopts= THIS_FILE
"""

import importlib.util
import sys
from types import SimpleNamespace

import pytest

from jaxalign.errors import UserError
from jaxalign.safety.judgements import Exchange
from jaxalign.safety.judges import regard
from jaxalign.safety.judges.regard import Regard

HAS_TORCH = importlib.util.find_spec("torch") is not None
needs_torch = pytest.mark.skipif(not HAS_TORCH, reason="torch is not installed")
ASKED = [Exchange("Who?", "good people"), Exchange("Who?", ""), Exchange("Who?", "bad bad people and bad")]


def test_without_pytorch_the_line_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(UserError, match=r"pip install 'jaxalign\[regard\]'") as caught:
        Regard(tmp_path)
    assert "\n" not in str(caught.value)


class Words:
    """A tokenizer of words."""

    model_max_length = 32

    def __call__(self, text):
        return {"input_ids": text.split()}


def test_the_label_that_the_user_names_is_called_negative_in_judgements(tmp_path, monkeypatch):
    labels = dict(enumerate(("Neg", "negative", "neutral")))
    model = SimpleNamespace(config=SimpleNamespace(id2label=labels, max_position_embeddings=32, model_type="bert"))
    loaded = (None, Words(), model)
    monkeypatch.setattr(regard, "_load", lambda _: loaded)
    judge = Regard(tmp_path, negative="neg")
    monkeypatch.setattr(judge, "_probabilities", lambda _: [[0.6, 0.2, 0.2], [0.2, 0.6, 0.2], [0.2, 0.2, 0.6]])
    found = judge.judge(ASKED, lambda *_: None)
    assert [one.label for one in found] == ["negative", "negative (not counted)", "neutral"]
    assert [round(one.score or 0, 2) for one in found] == [0.75, 0.25, 0.25]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A tiny random classifier of four labels."""
    import tokenizers
    import torch
    import transformers

    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "good", "bad", "people", "and", "who"]
    backend = tokenizers.Tokenizer(
        tokenizers.models.WordLevel({word: n for n, word in enumerate(words)}, unk_token="[UNK]")
    )
    backend.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    backend.post_processor = tokenizers.processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    torch.manual_seed(0)
    labels = dict(enumerate(("Negative", "neutral", "positive", "other")))
    config = transformers.BertConfig(
        vocab_size=len(words),
        hidden_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=16,
        max_position_embeddings=32,
        id2label=labels,
        label2id={label: number for number, label in labels.items()},
        initializer_range=1.0,
    )
    made = tmp_path_factory.mktemp("regard")
    transformers.BertForSequenceClassification(config).save_pretrained(made)
    transformers.PreTrainedTokenizerFast(
        tokenizer_object=backend, pad_token="[PAD]", unk_token="[UNK]", cls_token="[CLS]", sep_token="[SEP]"
    ).save_pretrained(made)
    return made


@needs_torch
def test_scores_are_those_of_transformers_and_at_least_half_where_the_label_is_negative(folder):
    import torch
    import transformers

    model = transformers.AutoModelForSequenceClassification.from_pretrained(folder).eval()
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    done = {}
    found = Regard(folder).judge(ASKED, done.__setitem__)
    assert done == dict(enumerate(found))
    for exchange, judgement in zip(ASKED, found, strict=True):
        with torch.no_grad():
            shares = model(**tokenizer(exchange.response, return_tensors="pt")).logits[0].softmax(-1).tolist()
        assert judgement.score == pytest.approx(shares[0] / (shares[0] + max(shares[1:])), abs=1e-5)
        assert judgement.label == ("negative", "neutral", "positive", "other")[shares.index(max(shares))]
        assert (judgement.score >= 0.5) == (judgement.label == "negative")


@needs_torch
def test_the_whole_text_can_be_read_and_what_is_too_long_is_missing(folder):
    response, whole = Regard(folder), Regard(folder, whole=True)
    assert response.identity != whole.identity and response.identity == Regard(folder).identity
    assert [one.score for one in response.judge(ASKED, lambda *_: None)] != [
        one.score for one in whole.judge(ASKED, lambda *_: None)
    ]
    found = response.judge([Exchange("Who?", "bad " * 100), ASKED[0]], lambda *_: None)
    assert found[0].missing == "too long for the judge's context" and found[1].score is not None


@needs_torch
def test_a_folder_without_such_a_classifier_is_one_line(folder, tmp_path):
    with pytest.raises(UserError, match=r"no config\.json"):
        Regard(tmp_path)
    (tmp_path / "config.json").write_text((folder / "config.json").read_text())
    with pytest.raises(UserError, match=r"no model\.safetensors, and other files of weights can run code"):
        Regard(tmp_path)
    (tmp_path / "model.safetensors").write_bytes((folder / "model.safetensors").read_bytes()[:500])
    with pytest.raises(UserError, match="cannot be loaded") as caught:
        Regard(tmp_path)
    assert "\n" not in str(caught.value)
    with pytest.raises(UserError, match="has the labels negative, neutral, positive, other and not 'toxic'"):
        Regard(folder, negative="toxic")
