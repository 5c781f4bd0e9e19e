import json
import sys

import numpy as np
import pytest
from tokenizer_styles import hugging_face
from tokenizers import Regex, processors
from tokenizers.pre_tokenizers import ByteLevel, Split

from jaxalign.data.encoding import Encoder
from jaxalign.errors import UserError
from jaxalign.pretrained.gguf_tokenizer import from_gguf, gguf_ends
from jaxalign.pretrained.tokenizer import from_folder, from_hf, tiny_tokenizer

TEXT = "Müller said: 'I agree.'\n\n  日本 \t 3.14 <|im_end|> <|unknown|>"


def test_text_survives_encoding_and_decoding(tokenizer):
    ids = tokenizer.encode(TEXT)
    assert ids.dtype == np.int32
    assert tokenizer.decode(ids) == TEXT


def test_pieces_decode_to_the_whole(tokenizer):
    pieces = [TEXT[:4], TEXT[4:20], TEXT[20:]]
    ids = np.concatenate([tokenizer.encode(piece) for piece in pieces])
    assert tokenizer.decode(ids) == TEXT


def test_special_tokens_are_recognised_in_the_text_and_never_added(tokenizer):
    ids = tokenizer.encode("a<|im_end|>")
    assert ids.tolist()[1:] == [tokenizer.eos_id]
    assert tokenizer.encode("").shape == (0,)


def test_padding_and_end_are_two_tokens_where_the_model_has_two(tokenizer):
    assert (tokenizer.pad_id, tokenizer.eos_id) == (0, 2)
    hf = tiny_tokenizer().hf.to_transformers()
    hf.pad_token = None
    assert from_hf(hf).pad_id == 2


def test_a_bos_counts_only_where_it_is_really_prepended():
    hf = tiny_tokenizer().hf.to_transformers()
    assert hf.bos_token_id == 1
    assert from_hf(hf).bos_id is None
    hf.backend_tokenizer.post_processor = processors.TemplateProcessing(
        single="<|im_start|> $A", special_tokens=[("<|im_start|>", 1)]
    )
    with_bos = from_hf(hf)
    assert with_bos.bos_id == 1
    assert 1 not in with_bos.encode("text")


def test_truncation_and_padding_that_a_file_asks_for_are_switched_off():
    hf = tiny_tokenizer().hf.to_transformers()
    hf.backend_tokenizer.enable_truncation(4)
    hf.backend_tokenizer.enable_padding(length=8)
    tokenizer = from_hf(hf)
    assert len(tokenizer.encode("ab")) == 2
    assert len(tokenizer.encode("a" * 50)) == 50


def test_the_chat_template_ends_where_the_assistant_is_to_speak(tokenizer):
    messages = [{"role": "user", "content": "Hi"}]
    assert tokenizer.chat(messages) == "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n"
    assert tokenizer.chat(messages, system="Be brief.").startswith("<|im_start|>system\nBe brief.<|im_end|>\n")


def test_a_template_without_a_system_role_gets_it_in_the_first_message():
    hf = tiny_tokenizer().hf.to_transformers()
    hf.chat_template = (
        "{% for m in messages %}{% if m['role'] == 'system' %}{{ raise_exception('no system') }}{% endif %}"
        "[{{ m['content'] }}]{% endfor %}"
    )
    tokenizer = from_hf(hf)
    assert tokenizer.chat([{"role": "user", "content": "Hi"}], system="Be brief.") == "[Be brief.\n\nHi]"
    with pytest.raises(UserError, match="refuses these messages: no system"):
        tokenizer.chat([{"role": "system", "content": "x"}])


def test_a_model_without_a_chat_template_says_what_to_use():
    hf = tiny_tokenizer().hf.to_transformers()
    hf.chat_template = None
    with pytest.raises(UserError, match=r"model\.prompt_format=plain"):
        from_hf(hf).chat([{"role": "user", "content": "Hi"}])


def test_a_tokenizer_without_an_end_token_is_refused():
    hf = tiny_tokenizer().hf.to_transformers()
    hf.eos_token = None
    with pytest.raises(UserError, match="eos_token"):
        from_hf(hf)


def test_a_folder_gives_back_the_tokenizer_that_was_saved_there(tmp_path, tokenizer):
    tokenizer.hf.save_pretrained(tmp_path)
    again = from_folder(tmp_path)
    assert again.encode(TEXT).tolist() == tokenizer.encode(TEXT).tolist()
    assert (again.bos_id, again.eos_id, again.pad_id) == (tokenizer.bos_id, tokenizer.eos_id, tokenizer.pad_id)
    assert again.chat([{"role": "user", "content": "Hi"}]) == tokenizer.chat([{"role": "user", "content": "Hi"}])


def test_a_folder_without_a_tokenizer_says_so(tmp_path):
    with pytest.raises(UserError, match="has no tokenizer"):
        from_folder(tmp_path)


def test_a_damaged_tokenizer_is_one_line(tmp_path, tokenizer):
    tokenizer.hf.save_pretrained(tmp_path)
    (tmp_path / "tokenizer.json").write_text('{"version": "1.0"}')
    with pytest.raises(UserError, match="cannot be loaded") as error:
        from_folder(tmp_path)
    assert "\n" not in str(error.value)


def test_dropout_of_merges_is_off_so_that_a_text_has_the_same_tokens_each_time(tmp_path):
    style = hugging_face("gpt2")
    style.backend_tokenizer.model.dropout = 0.9
    style.save_pretrained(tmp_path)
    assert json.loads((tmp_path / "tokenizer.json").read_text())["model"]["dropout"] == pytest.approx(0.9)
    found = from_folder(tmp_path)
    text = "Question: the answer is yes\nAnswer:"
    assert {tuple(found.encode(text).tolist()) for _ in range(20)} == {tuple(hugging_face("gpt2").encode(text))}


def test_a_regular_expression_that_backtracks_too_often_is_one_line_and_no_panic():
    found = tiny_tokenizer()
    found.hf.backend_tokenizer.pre_tokenizer = Split(Regex("(?=(a+)+b)a"), "isolated")
    text = "a" * 26
    for ask in (found.encode, found.encode_with_special, lambda text: found.encode_cut(text, 3)):
        with pytest.raises(
            UserError, match=r"the model's tokenizer cannot read a text of 26 characters: .*retry-limit"
        ):
            ask(text)


def test_ctrl_c_in_a_tokenizer_is_no_fault_of_the_tokenizer(monkeypatch):
    class Interrupted:
        def encode(self, *_, **__):
            raise KeyboardInterrupt

    found = tiny_tokenizer()
    monkeypatch.setattr(found.hf, "backend_tokenizer", Interrupted())
    with pytest.raises(KeyboardInterrupt):
        found.encode("a")


def test_why_a_tokenizer_cannot_be_loaded_is_told_whole(tmp_path, tokenizer, monkeypatch):
    def refuse(*_, **__):
        raise ValueError("The class is not valid:\n    the width is no multiple of the heads" + "\nx" * 1000)

    tokenizer.hf.save_pretrained(tmp_path)
    monkeypatch.setattr("transformers.AutoTokenizer.from_pretrained", refuse)
    with pytest.raises(UserError, match="not valid: the width is no multiple of the heads") as caught:
        from_folder(tmp_path)
    assert len(str(caught.value)) < 500


def test_a_sentencepiece_file_that_cannot_be_loaded_hints_at_the_packages(tmp_path):
    (tmp_path / "tokenizer.model").write_bytes(b"not a model")
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": "LlamaTokenizer"}))
    with pytest.raises(UserError, match="sentencepiece"):
        from_folder(tmp_path)


@pytest.mark.parametrize(
    ("cut", "words"),
    [
        ("gpt-2", ["It", "'s", " 2024"]),
        ("smollm", ["It", "'s", " ", "2", "0", "2", "4"]),
        ("llama-bpe", ["It", "'s", " ", "202", "4"]),
        ("qwen2", ["It", "'s", " ", "2", "0", "2", "4"]),
    ],
)
def test_words_are_cut_as_each_family_cuts_them(cut, words):
    fields = {
        "tokenizer.ggml.model": "gpt2",
        "tokenizer.ggml.pre": cut,
        "tokenizer.ggml.tokens": ["a", "<e>"],
        "tokenizer.ggml.token_type": [1, 3],
        "tokenizer.ggml.merges": [],
        "tokenizer.ggml.eos_token_id": 1,
    }
    backend = from_gguf(fields, "x.gguf").backend_tokenizer
    found = [word.replace("Ġ", " ") for word, _ in backend.pre_tokenizer.pre_tokenize_str("It's 2024")]
    assert found == words


def test_every_end_token_that_a_file_of_the_model_names_ends_an_answer(tmp_path, tokenizer):
    tokenizer.hf.save_pretrained(tmp_path)
    (tmp_path / "generation_config.json").write_text(json.dumps({"eos_token_id": [2, 0]}))
    (tmp_path / "config.json").write_text(json.dumps({"eos_token_id": 7}))
    assert from_folder(tmp_path).end_ids == (2, 0, 7)
    assert gguf_ends({"tokenizer.ggml.eot_token_id": 5, "tokenizer.ggml.eom_token_id": 6}) == [5, 6]
    assert from_hf(tiny_tokenizer().hf, gguf_ends({"tokenizer.ggml.eot_token_id": 5})).end_ids == (2, 5)


@pytest.mark.parametrize("named", ['"2"', "true", "[2, null]", "1.5", "-1"])
def test_an_end_token_that_is_no_number_of_a_token_is_refused(tmp_path, tokenizer, named):
    tokenizer.hf.save_pretrained(tmp_path)
    (tmp_path / "generation_config.json").write_text(f'{{"eos_token_id": {named}}}')
    with pytest.raises(UserError, match=r"generation_config\.json has eos_token_id=.*: it must be a token's number"):
        from_folder(tmp_path)


def test_a_bos_that_a_chat_template_writes_stands_once(tokenizer):
    hf = tiny_tokenizer().hf.to_transformers()
    hf.chat_template = "{{ bos_token }}{{ messages[0]['content'] }}"
    hf.backend_tokenizer.post_processor = processors.TemplateProcessing(
        single="<|im_start|> $A", special_tokens=[("<|im_start|>", 1)]
    )
    encoder = Encoder(from_hf(hf), "plain")
    text = encoder.tokenizer.chat([{"role": "user", "content": "Hi"}])
    assert encoder.root(text).tolist() == encoder.root("Hi").tolist() == hf.encode("Hi")


def test_the_tiny_tokenizer_reads_and_writes_without_transformers_as_its_tokenizer_does(monkeypatch):
    monkeypatch.setitem(sys.modules, "transformers", None)  # importing it is an error
    tokenizer = tiny_tokenizer()
    ids = tokenizer.encode(TEXT + "<|im_end|>")
    assert tokenizer.decode(ids) == TEXT + "<|im_end|>" and tokenizer.turn.close
    ours = tokenizer.hf
    names = ("special_tokens_map", "all_special_ids", "added_tokens_decoder", "chat_template")
    names += ("bos_token_id", "eos_token_id", "pad_token_id")
    found, text = [getattr(ours, name) for name in names], ours.decode(ids, skip_special_tokens=True)
    monkeypatch.undo()
    theirs = ours.to_transformers()
    assert [getattr(theirs, name) for name in names] == found
    assert theirs.decode(ids, skip_special_tokens=True) == text == TEXT.replace("<|im_end|>", "")


def test_a_named_end_that_a_gguf_file_calls_a_common_token_is_recognised_in_texts():
    fields = {
        "tokenizer.ggml.model": "gpt2",
        "tokenizer.ggml.tokens": ["<s>", "</s>", *sorted(ByteLevel.alphabet())],
        "tokenizer.ggml.bos_token_id": 0,
        "tokenizer.ggml.eos_token_id": 1,
    }
    hf = from_gguf(fields, "x.gguf")
    assert from_hf(hf).encode("</s>").tolist() == [1]
    assert hf.to_transformers().encode("</s>", add_special_tokens=False) == [1]
