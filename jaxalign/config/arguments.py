"""The arguments of the Python API, checked as the command line checks its keys."""

import dataclasses
import os
from collections.abc import Iterable, Mapping
from typing import Annotated, Any, TypeVar

from jaxalign.config import schema
from jaxalign.config.fields import (
    Count,
    Date,
    Epochs,
    Part,
    Positive,
    Precision,
    PromptFormat,
    Seed,
    Storage,
)
from jaxalign.config.generate import AnswersConfig
from jaxalign.config.model import LoraConfig
from jaxalign.config.schema import Rule
from jaxalign.errors import UserError, shown
from jaxalign.runs.reading import is_cut

Settings = TypeVar("Settings")


@dataclasses.dataclass(frozen=True)
class ModelArguments:
    """The arguments of `load_model`."""

    name: str
    precision: Precision
    prompt_format: PromptFormat
    system: str | None
    date: Date | None
    storage: Storage | None
    offline: bool

    def __post_init__(self):
        if self.system is not None and self.prompt_format == "plain":
            raise UserError("system is used only in the chat format: add prompt_format='chat'")


@dataclasses.dataclass(frozen=True, kw_only=True)
class AdapterArguments(LoraConfig):
    """The settings of `LanguageModel.train_adapter`."""

    learning_rate: Positive
    epochs: Epochs
    max_steps: Count | None
    batch_size: Count
    validation_fraction: Part
    seed: Seed


@dataclasses.dataclass(frozen=True, kw_only=True)
class SampleArguments(AnswersConfig):
    """The settings of `LanguageModel.sample`. Unlike on a command line, a backslash in a stop string is a backslash."""

    stop: Annotated[tuple[str, ...], Rule("a list of strings that are not empty", all)]


def given_settings(kind: type[Settings], given: Mapping[str, Any]) -> Settings:
    """Return arguments as an instance of a dataclass whose fields have the types of `config.fields`.

    Numbers and arrays of NumPy and JAX, such as those of a grid of settings, become plain numbers and lists, and a
    `Path` becomes a text.

    Raises:
        UserError: an argument is not known, or its value is not allowed.
    """

    def builtin(value: Any) -> Any:
        value = os.fspath(value) if isinstance(value, os.PathLike) else value
        return value.tolist() if hasattr(value, "tolist") else value

    return schema.read(kind, {name: builtin(value) for name, value in given.items()})


def given_texts(name: str, given: Any) -> list[str]:
    """Return one text or several as a list; UserError for anything else. `name` is the argument's name."""
    found = [given] if isinstance(given, str) else given
    if not isinstance(found, Iterable) or isinstance(found, bytes | Mapping):
        raise UserError(f"{name}={_short(given)} is not allowed: give a text, or a list of texts")
    found = list(found)
    for number, one in enumerate(found, start=1):
        if not isinstance(one, str):
            raise UserError(f"number {number} of {name} is not a text: {_short(one)}")
        _check_whole(f"number {number} of {name}", one)
    return found


def given_pairs(name: str, given: Any) -> list[tuple[str, str]]:
    """Return pairs of texts as a list; UserError for anything else. `name` is the argument's name."""
    if not isinstance(given, Iterable):
        raise UserError(f"{name}={_short(given)} is not allowed: give a list of pairs of a prompt and a response")
    found = list(given)
    for number, pair in enumerate(found, start=1):
        if not isinstance(pair, list | tuple) or len(pair) != 2 or not all(isinstance(one, str) for one in pair):
            raise UserError(f"number {number} of {name} is not a prompt and a response, two texts: {_short(pair)}")
        for text in pair:
            _check_whole(f"number {number} of {name}", text)
    return [(prompt, response) for prompt, response in found]


def given_path(name: str, given: Any) -> str:
    """Return a path as a text; UserError for anything else. `name` is the argument's name."""
    path = os.fspath(given) if isinstance(given, str | os.PathLike) else None
    if not path or not isinstance(path, str):
        raise UserError(f"{name}={_short(given)} is not allowed: give a path")
    _check_whole(name, path)
    return path


def _check_whole(place: str, text: str) -> None:
    if is_cut(text):
        raise UserError(f"{place} holds half of a character ({text!a:.60}): write the whole of it")


def _short(value: Any) -> str:
    return f"{shown(value):.60}"
