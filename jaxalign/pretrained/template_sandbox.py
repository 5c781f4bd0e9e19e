"""Jinja templates of third parties: they run in a sandbox, and neither build much nor loop for long."""

import json
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import lru_cache, partial, wraps
from typing import Any, NoReturn

from jinja2 import Template, TemplateError, nodes
from jinja2.exceptions import SecurityError
from jinja2.ext import Extension, LoopControlExtension
from jinja2.parser import Parser
from jinja2.sandbox import ImmutableSandboxedEnvironment
from jinja2.visitor import NodeTransformer

LARGEST_BUILT = 2**24
"""The most characters that a template may write, or build in one step."""

MOST_TURNS = 2**20
"""The most turns that all loops of a template may take in one rendering."""

_WIDE = re.compile(r"\d{8}")
"""A width in a format that is too large."""


def render(source: str, **given: Any) -> str:
    """Return what a template writes.

    Raises:
        TemplateError: the template has an error, refuses what it is given, or writes, builds or loops too much.
        Exception: whatever else its code raises.
    """
    text: list[str] = []
    size = 0
    for piece in _compiled(source).generate(**given, **{_COUNTED: partial(_counted, [0])}):
        text.append(piece)
        size += len(piece)
        _check_size(size)
    return "".join(text)


@lru_cache(maxsize=16)
def _compiled(source: str) -> Template:
    """Return a template with all that Transformers gives templates, apart from the date."""
    environment = _Sandbox(trim_blocks=True, lstrip_blocks=True, extensions=[LoopControlExtension, _Generation])
    environment.filters = {name: _bounded(name, filter_) for name, filter_ in environment.filters.items()}
    environment.filters["tojson"] = _tojson
    environment.globals["raise_exception"] = _raise
    tree = _Bounded().visit(environment.parse(source))
    return environment.from_string(tree.set_environment(environment))


_COUNTED = "loop_over"
"""The name of the function that every loop's iterable goes through."""


class _Bounded(NodeTransformer):
    """Counts the turns of every loop, and lets `~` go through the sandbox as `+` of texts."""

    def visit_For(self, node: nodes.For) -> nodes.Node:  # noqa: N802 (NodeTransformer finds it by this name)
        self.generic_visit(node)
        node.iter = nodes.Call(nodes.Name(_COUNTED, "load"), [node.iter], [], None, None, lineno=node.lineno)
        return node

    def visit_Concat(self, node: nodes.Concat) -> nodes.Node:  # noqa: N802
        self.generic_visit(node)
        texts = [nodes.Filter(part, "string", [], [], None, None, lineno=node.lineno) for part in node.nodes]
        joined: nodes.Expr = texts[0]
        for text in texts[1:]:
            joined = nodes.Add(joined, text, lineno=node.lineno)
        return joined


def _counted(turns: list[int], items: Iterable[Any]) -> Iterator[Any]:
    for item in items:
        turns[0] += 1
        if turns[0] > MOST_TURNS:
            raise SecurityError(f"its loops take more than {MOST_TURNS:,} turns")
        yield item


class _Sandbox(ImmutableSandboxedEnvironment):
    """A sandbox in which no operator and no method builds a text, list or number of more than `LARGEST_BUILT`."""

    intercepted_binops = frozenset(("+", "*", "**", "%"))

    def call_binop(self, context: Any, operator: str, left: Any, right: Any) -> Any:
        if operator == "+":
            _check_size(_size(left) + _size(right))
        elif operator == "*":
            _check_size(max(_size(left) * _number(right), _size(right) * _number(left)))
        elif operator == "**":
            _check_size(abs(_number(left)).bit_length() * _number(right))
        else:
            _check_format(left, right)
        return super().call_binop(context, operator, left, right)

    def call(self, *arguments: Any, **named: Any) -> Any:
        _context, function, *given = arguments
        if isinstance(text := getattr(function, "__self__", None), str):
            _check_call(function.__name__, text, [*given, *named.values()])
        return super().call(*arguments, **named)


class _Generation(Extension):
    """The tag `generation`, which marks an assistant's text for others; here it changes nothing."""

    tags = {"generation"}  # noqa: RUF012 (jinja2's own form)

    def parse(self, parser: Parser) -> nodes.Node:
        line = next(parser.stream).lineno
        return nodes.Scope(parser.parse_statements(("name:endgeneration",), drop_needle=True)).set_lineno(line)


def _bounded(name: str, filter_: Callable[..., Any]) -> Callable[..., Any]:
    """Return a filter that refuses arguments with which it would build too much."""

    @wraps(filter_)  # keeps the mark that tells jinja2 what to pass first
    def checked(*arguments: Any, **named: Any) -> Any:
        value, *given = arguments[1:] if hasattr(filter_, "jinja_pass_arg") else arguments
        _check_call(name, value, [*given, *named.values()])
        return filter_(*arguments, **named)

    return checked


def _check_call(name: str, value: Any, given: Sequence[Any]) -> None:
    """Check what a filter or a method of this name builds of a value: it pads, indents, formats, replaces, joins."""
    if name == "format":
        _check_format(value, given)
        return
    text = value if isinstance(value, str) else ""
    lines = 1 + text.count("\n") + text.count("\t")
    texts = [one for one in given if isinstance(one, str)]
    _check_size(max(map(_number, given), default=0) * lines)
    if name == "replace" and len(texts) > 1:
        _check_size((text.count(texts[0]) if texts[0] else len(text)) * len(texts[1]))
    elif name == "join":
        _check_size(max(_size(one) for one in [*given, value]) * max(map(len, [*texts, text])))


def _check_format(text: Any, given: Any) -> None:
    numbers = given if isinstance(given, list | tuple) else [given]
    _check_size(max(map(_number, numbers), default=0) if isinstance(text, str) else 0)
    if isinstance(text, str) and _WIDE.search(text):
        raise SecurityError(f"it builds more than {LARGEST_BUILT:,} characters")


def _size(value: Any) -> int:
    return len(value) if isinstance(value, str | list | tuple) else 0


def _number(value: Any) -> int:
    return value if isinstance(value, int) else 0


def _check_size(size: int) -> None:
    if size > LARGEST_BUILT:
        raise SecurityError(f"it builds more than {LARGEST_BUILT:,} characters")


def _raise(message: str) -> NoReturn:
    raise TemplateError(message)


def _tojson(value: Any, ensure_ascii: bool = False, **settings: Any) -> str:
    # jinja2's own filter escapes HTML, which no chat template means.
    return json.dumps(value, ensure_ascii=ensure_ascii, **settings)
