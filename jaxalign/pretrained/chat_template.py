"""A model's chat template: code of a third party, which runs in a sandbox and gets nothing but texts and a date."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import lru_cache
from typing import Any, NoReturn

from jinja2 import Template, TemplateError, nodes
from jinja2.exceptions import SecurityError
from jinja2.ext import Extension, LoopControlExtension
from jinja2.parser import Parser
from jinja2.sandbox import ImmutableSandboxedEnvironment

from jaxalign.errors import UserError

DATE = "2024-07-26"
"""The date for a template that asks for one, where `model.date` gives no other: the one that Llama 3.1's template names
where nobody tells it the date. With today's date, a run that goes on tomorrow would have other prompts."""

LONGEST_RENDERED = 2**24
"""The longest text that a template may write or build, in characters."""


@dataclass(frozen=True)
class ChatTemplate:
    """A template, the special tokens that it may write by their names (`bos_token`, ...), and the date it gets."""

    source: str
    special: Mapping[str, Any]
    date: str = DATE

    @property
    def asks_date(self) -> bool:
        """Whether the template asks for the date, as far as its text tells."""
        return "strftime_now" in self.source

    def render(self, turns: Sequence[Mapping[str, str]], *, answering: bool) -> str:
        """Return messages as one text; with `answering`, it ends where the assistant's answer begins.

        Raises:
            UserError: the template refuses the messages, has an error, or writes too much.
        """
        given = {"messages": [dict(turn) for turn in turns], "tools": None, "documents": None}
        now = datetime.strptime(self.date, "%Y-%m-%d")
        text: list[str] = []
        size = 0
        try:
            for piece in _compiled(self.source).generate(
                **self.special, **given, add_generation_prompt=answering, strftime_now=now.strftime
            ):
                text.append(piece)
                size += len(piece)
                _check_size(size)
        except Exception as error:  # whatever the code of a third party raises
            kind = "" if isinstance(error, TemplateError) else f"{type(error).__name__}: "
            reason = " ".join(str(error).split()) or "no reason given"
            raise UserError(f"the model's chat template refuses these messages: {kind}{reason:.200}") from error
        return "".join(text)


@lru_cache(maxsize=16)
def _compiled(source: str) -> Template:
    """Return a template with all that Transformers gives templates, apart from the date."""
    environment = _Sandbox(trim_blocks=True, lstrip_blocks=True, extensions=[LoopControlExtension, _Generation])
    environment.filters["tojson"] = _tojson
    environment.globals["raise_exception"] = _raise
    return environment.from_string(source)


class _Sandbox(ImmutableSandboxedEnvironment):
    """A sandbox in which no operator builds a text, list or number of more than `LONGEST_RENDERED`."""

    intercepted_binops = frozenset(("+", "*", "**"))

    def call_binop(self, context: Any, operator: str, left: Any, right: Any) -> Any:
        if operator == "+":
            _check_size(_size(left) + _size(right))
        elif operator == "*":
            _check_size(max(_size(left) * _number(right), _size(right) * _number(left)))
        else:
            _check_size(abs(_number(left)).bit_length() * _number(right))
        return super().call_binop(context, operator, left, right)


class _Generation(Extension):
    """The tag `generation`, which marks an assistant's text for others; here it changes nothing."""

    tags = {"generation"}  # noqa: RUF012 (jinja2's own form)

    def parse(self, parser: Parser) -> nodes.Node:
        line = next(parser.stream).lineno
        return nodes.Scope(parser.parse_statements(("name:endgeneration",), drop_needle=True)).set_lineno(line)


def _size(value: Any) -> int:
    return len(value) if isinstance(value, str | list | tuple) else 0


def _number(value: Any) -> int:
    return value if isinstance(value, int) else 0


def _check_size(size: int) -> None:
    if size > LONGEST_RENDERED:
        raise SecurityError(f"it builds more than {LONGEST_RENDERED:,} characters")


def _raise(message: str) -> NoReturn:
    raise TemplateError(message)


def _tojson(value: Any, ensure_ascii: bool = False, **settings: Any) -> str:
    # jinja2's own filter escapes HTML, which no chat template means.
    return json.dumps(value, ensure_ascii=ensure_ascii, **settings)
