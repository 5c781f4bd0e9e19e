"""The files of a tokenizer and its chat template, checked before another library reads them.

Each is a regular file of a sane size, and of the types that its readers expect. What such a file means is not checked
here.
"""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from jaxalign.errors import UserError
from jaxalign.runs.reading import not_a_file, parse_json, read_text

LARGEST_VOCABULARY = 512 * 2**20
"""The largest file of a vocabulary, in bytes."""

LARGEST_TEMPLATE = 2**20
"""The largest chat template, in bytes."""

_AGAIN = "get the model again"


def check_tokenizer_files(folder: Path) -> None:
    """Check the files of a tokenizer that a folder has.

    Raises:
        UserError: one of them is no regular file, is too large, is not JSON (or not text), or has a field of another
            type (which).
    """
    for name, fields in _FIELDS.items():
        if (folder / name).exists() or (folder / name).is_symlink():
            found = parse_json(
                read_text(folder / name, largest=LARGEST_VOCABULARY, hint=_AGAIN), folder / name, hint=_AGAIN
            )
            if not isinstance(found, dict):
                raise UserError(f"{folder / name} is not a JSON object; {_AGAIN}")
            for key, (words, holds) in fields.items():
                if found.get(key) is not None and not holds(found[key]):
                    raise UserError(f"{folder / name} has {key}={found[key]!r:.60}: it must be {words}; {_AGAIN}")
            if name in _VOCABULARIES and not _is_vocabulary(found):
                raise UserError(f"{folder / name} must hold the number of each token; {_AGAIN}")
    for template in [folder / "chat_template.jinja", *folder.glob("additional_chat_templates/*.jinja")]:
        if template.exists():
            read_text(template, largest=LARGEST_TEMPLATE, hint=_AGAIN)
    for name in ("merges.txt", "tokenizer.model"):
        if (folder / name).exists() and (why := not_a_file(folder / name)):
            raise UserError(f"{folder / name} cannot be read: {why}; {_AGAIN}")


def _is_id(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 2**31


def _is_vocabulary(value: Any) -> bool:
    return isinstance(value, Mapping) and all(map(_is_id, value.values()))


def _is_token(value: Any) -> bool:
    return isinstance(value, str) or (isinstance(value, Mapping) and isinstance(value.get("content"), str))


def _is_template(value: Any) -> bool:
    if isinstance(value, list):
        named = all(isinstance(one, Mapping) and isinstance(one.get("name"), str) for one in value)
        return named and all(isinstance(one.get("template"), str) and _is_template(one["template"]) for one in value)
    return isinstance(value, str) and len(value) <= LARGEST_TEMPLATE


def _is_model(value: Any) -> bool:
    if not isinstance(value, Mapping):
        return False
    vocabulary, merges = value.get("vocab"), value.get("merges", [])
    if isinstance(vocabulary, list):  # of a unigram model: each token with its log-probability
        pairs = all(isinstance(one, list) and len(one) == 2 and isinstance(one[0], str) for one in vocabulary)
        return pairs and all(isinstance(one[1], int | float) and not isinstance(one[1], bool) for one in vocabulary)
    texts = all(isinstance(one, str) or (isinstance(one, list) and len(one) == 2) for one in merges or [])
    return _is_vocabulary(vocabulary) and isinstance(merges, list) and texts


def _are_added(value: Any) -> bool:
    return isinstance(value, list) and all(
        isinstance(one, Mapping) and _is_token(one) and _is_id(one.get("id")) for one in value
    )


def _are_decoded(value: Any) -> bool:
    return isinstance(value, Mapping) and all(
        key.isdecimal() and len(key) < 10 and _is_token(one) for key, one in value.items()
    )


_Field = tuple[str, Callable[[Any], bool]]
_TOKENS: dict[str, _Field] = {
    f"{name}_token": ("a text, or an object with the text 'content'", _is_token)
    for name in ("bos", "eos", "pad", "unk", "sep", "cls", "mask")
}
_TEMPLATE: _Field = (
    f"a text of at most {LARGEST_TEMPLATE:,} characters, or a list of objects with such a template and its name",
    _is_template,
)
_FIELDS: dict[str, dict[str, _Field]] = {
    "tokenizer.json": {
        "model": ("an object with a vocab (the number of each token) and merges", _is_model),
        "added_tokens": ("a list of objects, each with a content and an id", _are_added),
    },
    "tokenizer_config.json": {
        **_TOKENS,
        "chat_template": _TEMPLATE,
        "added_tokens_decoder": ("an object with a token for each number", _are_decoded),
        "tokenizer_class": ("a text", lambda value: isinstance(value, str)),
        "add_bos_token": ("true or false", lambda value: isinstance(value, bool)),
        "add_eos_token": ("true or false", lambda value: isinstance(value, bool)),
    },
    "special_tokens_map.json": _TOKENS,
    "chat_template.json": {"chat_template": _TEMPLATE},
    "added_tokens.json": {},
    "vocab.json": {},
}
_VOCABULARIES = ("added_tokens.json", "vocab.json")
