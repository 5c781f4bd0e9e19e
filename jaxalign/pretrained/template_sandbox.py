"""Jinja templates of third parties: they run in a sandbox, and neither build much nor work for long.

Everything that a template does is paid for from one budget per rendering, before it is done: turns of loops, calls,
operators, filters, comparisons, and texts that it writes. What cannot be priced is not there: filters, methods and
functions come from lists of those that chat templates use.
"""

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from datetime import date
from functools import lru_cache, wraps
from typing import Any, NoReturn

from jinja2 import Template, TemplateError, pass_context
from jinja2.exceptions import SecurityError
from jinja2.ext import LoopControlExtension
from jinja2.runtime import BlockReference, LoopContext, Macro, Undefined
from jinja2.sandbox import ImmutableSandboxedEnvironment, safe_range
from jinja2.utils import Namespace

from jaxalign.pretrained.template_costs import (
    DEEPEST,
    ITEM_COST,
    LARGEST_BUILT,
    LEAST_WRITTEN,
    LISTING,
    LONGEST_DATE_FIELD,
    MESSAGE_SIZE,
    WRITTEN_PER_CHARACTER,
    bits_of,
    budgeted,
    built_size,
    check_bits,
    format_size,
    item_count,
    plain_size,
    spend,
    take_turn,
    whole_number,
    written_size,
)
from jaxalign.pretrained.template_tree import READ_ITEMS, READ_TURNS, READ_WHOLE, Generation, paid_tree

LARGEST_SOURCE = 2**18
"""The most characters of a template."""


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


_FREE = _words("attr count d default first last length")
"""Filters whose work does not grow with the value."""

_LOOKING = _words(
    "abs capitalize center dictsort e escape float format indent int join lower max min replace round safe sort string "
    "sum title trim unique upper"
)
"""Filters that read the whole of a value."""

_COMPARING = _words("!= < <= == > >= eq equalto ge greaterthan gt in le lessthan lower lt ne sameas upper divisibleby")
"""Tests that read the whole of a value."""

_METHODS = {
    str: _words(
        "capitalize casefold center count endswith expandtabs find index isalnum isalpha isascii isdecimal isdigit "
        "isidentifier islower isnumeric isprintable isspace istitle isupper join ljust lower lstrip partition "
        "removeprefix removesuffix replace rfind rindex rjust rpartition rsplit rstrip split splitlines startswith "
        "strip swapcase title upper zfill"
    ),
    dict: _words("copy get items keys values"),
    list: _words("copy count index"),
    tuple: _words("count index"),
    LoopContext: _words("changed cycle"),
}
"""The methods that a template may call, by the type of their value."""


def render(source: str, messages: Sequence[Mapping[str, str]], **given: Any) -> str:
    """Return what a template writes of messages, and of what else it is given.

    Raises:
        TemplateError: the template has an error, refuses what it is given, or writes, builds or loops too much.
        Exception: whatever else its code raises.
    """
    if len(source) > LARGEST_SOURCE:
        raise SecurityError(f"it has more than {LARGEST_SOURCE:,} characters")
    template = _compiled(source)
    asked = sum(MESSAGE_SIZE + sum(map(len, message.values())) for message in messages)
    with budgeted(len(source), asked):
        text = _joined(template.generate(messages=messages, **given))
    if len(text) > (most := LEAST_WRITTEN + WRITTEN_PER_CHARACTER * asked):
        raise SecurityError(f"it writes {len(text):,} characters, and {most:,} are allowed for these messages")
    return text


@lru_cache(maxsize=16)
def _compiled(source: str) -> Template:
    """Return a template with all that Transformers gives templates, apart from the date."""
    # Without `optimized=False`, constant parts would run here, where no budget counts.
    environment = _Sandbox(
        trim_blocks=True,
        lstrip_blocks=True,
        extensions=[LoopControlExtension, Generation],
        optimized=False,
        finalize=_written,
    )
    tree = paid_tree(environment.parse(source))
    tree.set_environment(environment)
    return environment.from_string(tree)


def _joined(pieces: Iterable[str]) -> str:
    """Return pieces as one text: all that a template writes, or catches of what it writes."""
    texts: list[str] = []
    size = 0
    for piece in pieces:
        texts.append(piece)
        size += len(piece)
        if size > LARGEST_BUILT:
            spend(size)
    spend(size)
    return "".join(texts)


@pass_context
def _written(_context: Any, value: Any) -> Any:
    return _whole(value)


class _Sandbox(ImmutableSandboxedEnvironment):
    """A sandbox in which operators, calls, filters and tests are paid for before they run."""

    intercepted_binops = frozenset(("+", "-", "*", "/", "//", "**", "%"))
    concat = staticmethod(_joined)  # type: ignore[assignment]

    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings)
        known = _FREE | LISTING | _LOOKING
        self.filters = {name: _paid(name, self.filters[name]) for name in known}
        self.filters |= {"tojson": _tojson, READ_WHOLE: _whole, READ_ITEMS: _by_items, READ_TURNS: _in_turns}
        self.tests = {name: _paid_test(name, test) for name, test in self.tests.items()}
        self.globals = {"range": safe_range, "dict": dict, "namespace": _Namespace, "raise_exception": _raise}

    def call_binop(self, context: Any, operator: str, left: Any, right: Any) -> Any:
        bits = [bits_of(left), bits_of(right)]
        if operator == "**":
            check_bits(bits[0] * whole_number(right))
        check_bits(sum(bits))
        size = plain_size(left) + plain_size(right)
        if operator == "*":
            size = max(plain_size(left) * whole_number(right), plain_size(right) * whole_number(left))
        elif operator == "%" and isinstance(left, str):
            size = format_size(left, "%", right)
        spend(size)
        return super().call_binop(context, operator, left, right)

    def call(self, *arguments: Any, **named: Any) -> Any:
        context, function, *given = arguments
        if isinstance(function, Macro | BlockReference | LoopContext):
            take_turn()
            given = [_in_turns(items) for items in given] if isinstance(function, LoopContext) else given
        elif callable(function) and not isinstance(function, Undefined):
            given = [list(_in_turns(one)) if isinstance(one, Iterator) else one for one in given]
            spend(_call_size(function, given, [*named.values()]))
        return super().call(context, function, *given, **named)

    def getitem(self, obj: Any, argument: Any) -> Any:
        spend(written_size(argument))  # to find an item takes the hash of its name
        return super().getitem(obj, argument)

    def getattr(self, obj: Any, attribute: str) -> Any:
        spend(0)
        return super().getattr(obj, attribute)

    def wrap_str_format(self, value: Any) -> Callable[..., str] | None:
        fill = super().wrap_str_format(value)
        return fill and _Format(value.__self__, fill)


class _Namespace(Namespace):
    def __repr__(self) -> str:  # jinja2 writes all that it holds
        return "<Namespace>"


class _Format:
    """The method `format` of a text."""

    def __init__(self, text: str, fill: Callable[..., str]) -> None:
        self.text = text
        self._fill = fill

    def __call__(self, *given: Any, **named: Any) -> str:
        return self._fill(*given, **named)


def _paid(name: str, filter_: Callable[..., Any]) -> Callable[..., Any]:
    """Return a filter that is paid for before it runs."""

    @wraps(filter_)  # keeps the mark that tells jinja2 what to pass first
    def paid(*arguments: Any, **named: Any) -> Any:
        at = 1 if hasattr(filter_, "jinja_pass_arg") else 0
        if name in _FREE:
            spend(0)
            return filter_(*arguments, **named)
        first, value, given = arguments[:at], arguments[at], arguments[at + 1 :]
        if isinstance(value, Iterator):
            value = list(_in_turns(value))
        spend(built_size(name, value, [*given, *named.values()]))
        built = filter_(*first, value, *given, **named)
        check_bits(bits_of(built))
        return built

    return paid


def _paid_test(name: str, test: Callable[..., Any]) -> Callable[..., Any]:
    @wraps(test)
    def paid(*arguments: Any, **named: Any) -> Any:
        given = [*arguments, *named.values()]
        check_bits(max(map(bits_of, given)))
        spend(written_size(given) if name in _COMPARING else 0)
        return test(*arguments, **named)

    return paid


def _whole(value: Any, more: int = 0) -> Any:
    spend(written_size(value) + more)
    return value


def _by_items(value: Any) -> Any:
    spend(plain_size(value))
    return value


def _in_turns(items: Iterable[Any]) -> Iterator[Any]:
    for item in items:
        take_turn()
        yield item


def _call_size(function: Any, placed: Sequence[Any], named: Sequence[Any]) -> int:
    """Return how much a call of a function or a method of Python reads and builds."""
    given = [*placed, *named]
    owner, name = getattr(function, "__self__", None), getattr(function, "__name__", type(function).__name__)
    if isinstance(function, _Format):
        return format_size(function.text, "{", given)
    if function in (dict, _Namespace):
        return written_size(given) + sum(map(item_count, placed)) ** 2  # each key may be compared with all others
    if function in (safe_range, _raise):
        check_bits(max(map(bits_of, given), default=0))
        return written_size(given)
    if isinstance(owner, date) and name == "strftime":
        return LONGEST_DATE_FIELD * written_size(given)
    if not any(isinstance(owner, kind) and name in names for kind, names in _METHODS.items()):
        raise SecurityError(f"it calls {name}, which is not among the functions and methods that it may call")
    if isinstance(owner, dict):
        return plain_size(owner) + written_size(given) if name == "copy" else written_size(given)
    if isinstance(owner, str) and name == "join" and given:
        return built_size("join", given[0], [owner])
    return built_size(name, None if isinstance(owner, LoopContext) else owner, given)


def _raise(message: str) -> NoReturn:
    raise TemplateError(message)


def _tojson(
    value: Any,
    ensure_ascii: bool = False,
    indent: int | str | None = None,
    separators: tuple[str, str] | None = None,
    sort_keys: bool = False,
) -> str:
    # jinja2's own filter escapes HTML, which no chat template means.
    if isinstance(value, Iterator):
        value = list(_in_turns(value))
    size = written_size(value)
    gaps = whole_number(indent) + sum(map(plain_size, [indent, *(separators or ())]))
    spend(size + gaps * (size // ITEM_COST if indent is None else DEEPEST))
    encoder = json.JSONEncoder(ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)
    # Only with an indent does the size depend on the depth; then the pieces are counted as they come.
    return encoder.encode(value) if indent is None else _joined(_in_turns(encoder.iterencode(value)))
