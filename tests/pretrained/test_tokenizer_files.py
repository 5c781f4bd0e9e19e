import json
import os
import tempfile
from pathlib import Path

import pytest
from hostile import VALUES, damaged, few, survives
from hypothesis import given
from hypothesis import strategies as st

from jaxalign.errors import UserError
from jaxalign.pretrained.tokenizer import from_folder, tiny_tokenizer
from jaxalign.pretrained.tokenizer_files import check_tokenizer_files


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A tokenizer as transformers writes it."""
    path = tmp_path_factory.mktemp("tokenizer")
    tiny_tokenizer().hf.save_pretrained(path)
    return path


def copy(folder, target):
    target.mkdir(exist_ok=True)
    for file in folder.iterdir():
        (target / file.name).write_bytes(file.read_bytes())
    return target


def test_what_transformers_writes_is_accepted(folder):
    check_tokenizer_files(folder)
    assert from_folder(folder).eos_id == tiny_tokenizer().eos_id


@pytest.mark.parametrize(
    ("name", "change", "words"),
    [
        (
            "tokenizer.json",
            {"model": {"vocab": {"a": -1}}},
            "tokenizer.json has model={'vocab': {'a': -1}}: it must be",
        ),
        ("tokenizer.json", {"model": {"vocab": {"a": 10**12}, "merges": []}}, "tokenizer.json has model="),
        ("tokenizer.json", {"model": {"vocab": {"a": True}, "merges": []}}, "tokenizer.json has model="),
        (
            "tokenizer.json",
            {"added_tokens": ["a"]},
            "tokenizer.json has added_tokens=['a']: it must be a list of objects",
        ),
        ("tokenizer_config.json", {"chat_template": 3}, "tokenizer_config.json has chat_template=3: it must be a text"),
        ("tokenizer_config.json", {"chat_template": "x" * 2**21}, "it must be a text of at most 1,048,576 characters"),
        ("tokenizer_config.json", {"eos_token": 3}, "tokenizer_config.json has eos_token=3: it must be a text, or an"),
        ("tokenizer_config.json", {"added_tokens_decoder": {"x": {"content": "a"}}}, "has added_tokens_decoder="),
        ("tokenizer_config.json", {"model_max_length": 10**30}, None),
        ("special_tokens_map.json", {"eos_token": ["a"]}, "special_tokens_map.json has eos_token=['a']"),
        ("vocab.json", {"a": "b"}, "vocab.json must hold the number of each token"),
        ("chat_template.json", {"chat_template": {}}, "chat_template.json has chat_template={}"),
        ("tokenizer_config.json", {"chat_template": [{"template": "x"}]}, "a list of objects with such a template and"),
        ("tokenizer_config.json", {"chat_template": [{"name": ["default"], "template": "x"}]}, "and its name"),
        ("tokenizer_config.json", {"chat_template": [{"name": "default", "template": [[]]}]}, "and its name"),
    ],
)
def test_a_field_of_another_type_is_named_with_its_file(folder, tmp_path, name, change, words):
    target = copy(folder, tmp_path / "t")
    before = json.loads((target / name).read_text()) if (target / name).exists() else {}
    (target / name).write_text(json.dumps(before | change))
    if words is None:
        check_tokenizer_files(target)
        return
    with pytest.raises(UserError) as error:
        from_folder(target)
    assert words in str(error.value) and str(error.value).endswith("get the model again")


@pytest.mark.parametrize("name", ["tokenizer_config.json", "chat_template.jinja", "merges.txt"])
def test_a_named_pipe_is_refused_and_not_waited_for(folder, tmp_path, name):
    target = copy(folder, tmp_path / "t")
    (target / name).unlink(missing_ok=True)
    os.mkfifo(target / name)
    with pytest.raises(UserError, match=f"{name} cannot be read: it is a named pipe; get the model again"):
        from_folder(target)


def test_a_template_that_is_no_text_is_refused(folder, tmp_path):
    target = copy(folder, tmp_path / "t")
    (target / "chat_template.jinja").write_bytes(b"\xff")
    with pytest.raises(UserError, match=r"chat_template.jinja is not UTF-8 text \(byte 0\); get the model again"):
        from_folder(target)


KEYS = (
    *("model", "added_tokens", "chat_template", "eos_token", "added_tokens_decoder", "tokenizer_class", "normalizer"),
    *("pre_tokenizer", "decoder", "post_processor", "truncation", "padding", "version"),
)


@few
@given(
    name=st.sampled_from(
        ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "generation_config.json")
    ),
    change=st.dictionaries(st.sampled_from(KEYS), VALUES, max_size=2) | damaged(VALUES.map(json.dumps)),
)
def test_any_bytes_are_a_tokenizer_or_one_line(folder, name, change):
    with tempfile.TemporaryDirectory() as inside:
        target = copy(folder, Path(inside) / "f")
        before = json.loads((target / name).read_text()) if (target / name).exists() else {}
        content = change if isinstance(change, bytes) else json.dumps(before | change).encode()
        (target / name).write_bytes(content)
        survives(lambda _: from_folder(target), target / name, content)
