"""Reading a nested mapping into frozen dataclasses, with checks of every key and value.

The type of a field is bool, int, float, str, dict, a Literal, a tuple of those, or another dataclass; each may be
optional (`| None`). A field may also take one of several dataclasses, which differ in their field `kind`, a Literal.
If `kind` is missing, the dataclass whose `kind` has a default is taken.
Annotated adds `Rule`s. A field without a default must be given.
"""

import contextlib
import dataclasses
import difflib
import functools
import math
import re
import types
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

from jaxalign.errors import UserError, did_you_mean, refused_value, shown
from jaxalign.runs.reading import is_cut

Schema = TypeVar("Schema")
MISSING = "???"
"""The mark in YAML for a value that the user must give."""

LARGEST_INT, LARGEST_FLOAT = 2**63 - 1, 3.4e38
"""The largest numbers that programs of jax compute with: those of int64 and, nearly, of float32."""

_WORDS = {bool: "true or false", int: "a whole number", float: "a number", str: "a text", dict: "keys and values"}


@dataclass(frozen=True)
class Rule:
    """What a value must be. `words` follow "give" in an error line, `holds` tests the value, and `read` converts it
    before the test."""

    words: str
    holds: Callable[[Any], bool]
    read: Callable[[Any], Any] = lambda value: value


def unescaped(texts: tuple[str, ...]) -> tuple[str, ...]:
    r"""Return texts with \n, \t and \\ replaced by the characters that they stand for.

    On a command line, there is no other way to type a newline or a tab.

    >>> unescaped((r"\n\n", r"\frac", r"\\theta"))
    ('\n\n', '\\frac', '\\theta')
    """
    meaning = {"n": "\n", "t": "\t", "\\": "\\"}
    return tuple(re.sub(r"\\([nt\\])", lambda found: meaning[found[1]], text) for text in texts)


@functools.cache  # a command asks again and again, and reading a schema takes longer than anything else in its checks
def _field_types(schema: type) -> Mapping[str, Any]:
    """Return the type of every field, with what Annotated adds."""
    return types.MappingProxyType(get_type_hints(schema, include_extras=True))


@functools.cache
def leaf_types(schema: type, prefix: str = "") -> Mapping[str, Any]:
    """Return the type of every dotted key that holds a value and not another dataclass."""
    found: dict[str, Any] = {}
    for name, declared in _field_types(schema).items():
        inner = _dataclasses_of(declared)
        for kind in inner:
            found |= leaf_types(kind, f"{prefix}{name}.")
        if not inner:
            found[f"{prefix}{name}"] = declared
    return types.MappingProxyType(found)


def holds_keys(declared: Any) -> bool:
    """Return whether a type is a dictionary, whose keys the schema does not list."""
    return declared is dict or get_origin(declared) is dict or any(map(holds_keys, get_args(declared)))


def is_marked(declared: Any, mark: str) -> bool:
    """Return whether a type, or a part of it, is Annotated with `mark`."""
    return mark in getattr(declared, "__metadata__", ()) or any(is_marked(part, mark) for part in get_args(declared))


def holds_list(declared: Any) -> bool:
    """Return whether a type is a list of any length."""
    return get_origin(declared) is tuple or any(map(holds_list, get_args(declared)))


def nearest_key(word: str, known: Iterable[str]) -> str:
    """Return the end of an error line: the known key, in full, that the user probably meant."""
    known = sorted(known)
    last = word.rpartition(".")[2]
    namesakes = [key for key in known if key.rpartition(".")[2] == last]
    near = difflib.get_close_matches(word, namesakes, n=1, cutoff=0) or difflib.get_close_matches(word, known, n=1)
    return f"; did you mean '{near[0]}'?" if near else "; --help shows where every key is explained"


def read(schema: type[Schema], raw: Mapping[str, Any], also_missing: Iterable[str] = ()) -> Schema:
    """Return the configuration as an instance of `schema`.

    `also_missing` adds keys that are missing only because of the values of others.

    Raises:
        UserError: there are unknown keys (all of them, each with the nearest known key); otherwise, keys are missing
            (all of them); otherwise, values are not allowed (all of them).
    """
    problems = _Problems(known=list(leaf_types(schema)))
    built = _dataclass(schema, raw, "", problems)
    problems.missing.extend(also_missing)
    if problems.unknown:
        raise UserError("; ".join(f"unknown key '{key}'{nearest_key(key, problems.known)}" for key in problems.unknown))
    if problems.missing:
        raise UserError(f"missing: {', '.join(problems.missing)}")
    if problems.wrong:
        raise UserError("; ".join(problems.wrong))
    return built


def is_allowed(schema: type, key: str, raw: Any) -> bool:
    """Return whether the field `key` of a schema allows all keys and values of `raw`; others may be missing."""
    problems = _Problems(known=[])
    with contextlib.suppress(UserError):  # of keys that do not go together; another key may still change one of them
        _value(_field_types(schema)[key], raw, key, problems)
    return not problems.unknown and not problems.wrong


@dataclass
class _Problems:
    known: list[str]
    unknown: list[str] = dataclasses.field(default_factory=list)
    missing: list[str] = dataclasses.field(default_factory=list)
    wrong: list[str] = dataclasses.field(default_factory=list)

    def refuse(self, key: str, value: Any, words: str) -> None:
        self.wrong.append(f"{key}={refused_value(value)} is not allowed: give {words}")


def _dataclasses_of(declared: Any) -> list[type]:
    """Return the dataclasses that a value of this type may be."""
    if dataclasses.is_dataclass(declared) and isinstance(declared, type):
        return [declared]
    if get_origin(declared) in (Union, types.UnionType, Annotated):
        return [kind for option in get_args(declared) for kind in _dataclasses_of(option)]
    return []


def _one_of(kinds: list[type], raw: Mapping[str, Any], prefix: str, problems: _Problems) -> Any:
    """Return the instance of the dataclass whose `kind` the mapping names, or None if there are problems."""
    known = {word: kind for kind in kinds for word in get_args(get_type_hints(kind)["kind"])}
    usual = [known["kind"].default for known in (kind.__dataclass_fields__ for kind in kinds)]
    given = raw.get("kind", next((word for word in usual if word is not dataclasses.MISSING), MISSING))
    if given == MISSING:
        return problems.missing.append(f"{prefix}kind")
    if not isinstance(given, str) or given not in known:
        return problems.wrong.append(f"{prefix}kind={shown(given)} is not known{did_you_mean(str(given), known)}")
    mine = _field_types(known[given])
    for name in raw:
        if name not in mine and (owner := next((k for k, kind in known.items() if name in _field_types(kind)), None)):
            line = f"{prefix}{name} goes with {prefix}kind={owner}, not with {given}: leave it out"
            return problems.wrong.append(line)
    return _dataclass(known[given], raw, prefix, problems)


def _dataclass(schema: type, raw: Mapping[str, Any], prefix: str, problems: _Problems) -> Any:
    """Return the instance, or None if there are problems, which are added to `problems`."""
    before = len(problems.unknown) + len(problems.missing) + len(problems.wrong)
    declared = _field_types(schema)
    problems.unknown.extend(f"{prefix}{name}" for name in raw if name not in declared)
    given = {}
    for field in dataclasses.fields(schema):
        key, value = f"{prefix}{field.name}", raw.get(field.name, MISSING)
        no_default = field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING
        if value != MISSING:
            given[field.name] = _value(declared[field.name], value, key, problems)
        elif no_default or field.name in raw:
            problems.missing.append(key)
    after = len(problems.unknown) + len(problems.missing) + len(problems.wrong)
    return schema(**given) if after == before else None


def _value(declared: Any, value: Any, key: str, problems: _Problems) -> Any:
    """Return a value as its declared type; if it is not of that type, add a problem and return None."""
    rules: list[Rule] = []
    null, kinds = "", _dataclasses_of(declared)
    while get_origin(declared) in (Union, types.UnionType, Annotated):
        if get_origin(declared) is Annotated:
            declared, *metadata = get_args(declared)
            rules = [rule for rule in metadata if isinstance(rule, Rule)] or rules
        elif type(None) in get_args(declared) and value is None:
            return None
        else:
            null = ", or null" if type(None) in get_args(declared) else null
            declared, *_ = (option for option in get_args(declared) if option is not type(None))
    if get_origin(declared) is dict:
        declared = dict
    if kinds:
        if not isinstance(value, Mapping):
            return problems.refuse(key, value, f"keys such as {key}.{dataclasses.fields(kinds[0])[0].name}")
        if len(kinds) > 1:
            return _one_of(kinds, value, f"{key}.", problems)
        return _dataclass(kinds[0], value, f"{key}.", problems)
    words = (rules[0].words if rules else _words(declared)) + null
    try:
        converted = _converted(declared, value)
    except _NotAnOption as error:
        return problems.wrong.append(f"{key}={shown(error.value)} is not known{did_you_mean(*error.args)}")
    except TypeError:
        return problems.refuse(key, value, words)
    except OverflowError:
        return problems.wrong.append(f"{key} is not allowed: its number is too large to compute with")
    if cut := _cut_texts(converted, key):
        where, text = cut[0]
        return problems.wrong.append(f"{where}={shown(text)} holds half of a character: write the whole of it")
    for rule in rules:
        converted = rule.read(converted)
    if not all(rule.holds(converted) for rule in rules):
        return problems.refuse(key, value, words)
    return converted


def _cut_texts(value: Any, key: str) -> list[tuple[str, str]]:
    """Return the texts in a value that hold half of a character, keys too, each with the key that it belongs to."""
    if isinstance(value, Mapping):
        inner = [(part, f"{key}.{name}") for name, one in value.items() for part in (name, one)]
    elif isinstance(value, list | tuple):
        inner = [(part, key) for part in value]
    else:
        return [(key, value)] if isinstance(value, str) and is_cut(value) else []
    return [found for part, place in inner for found in _cut_texts(part, place)]


class _NotAnOption(Exception):  # noqa: N818 (used only inside this module)
    def __init__(self, value: Any, options: tuple):
        super().__init__(shown(value), options)
        self.value = value


def _words(declared: Any) -> str:
    if get_origin(declared) is tuple:
        return f"a list of {_words(get_args(declared)[0])}"
    if get_origin(declared) is Literal:
        return " or ".join(get_args(declared))
    return _WORDS[declared]


def _converted(declared: Any, value: Any) -> Any:
    """Return the value as the declared type, which is not a dataclass.

    If it does not fit, raise TypeError, OverflowError or _NotAnOption.
    """
    if get_origin(declared) is Literal:
        if value not in get_args(declared):
            raise _NotAnOption(value, get_args(declared))
        return value
    if get_origin(declared) is tuple:
        inner, *rest = get_args(declared)
        if inner is str and isinstance(value, str):
            value = [value]  # a list with one item may be given without brackets
        if not isinstance(value, list | tuple) or (rest != [...] and len(value) != 1 + len(rest)):
            raise TypeError
        return tuple(_converted(inner, item) for item in value)
    number = isinstance(value, int | float) and not isinstance(value, bool)
    if declared is float and number and (isinstance(value, int) or math.isfinite(value)):
        if abs(value) > LARGEST_FLOAT:
            raise OverflowError
        return float(value)
    if declared is str and number:
        return str(value)  # such as a folder or a revision whose name is all digits
    if declared is str and isinstance(value, str):
        return value
    if declared in (bool, dict) and isinstance(value, declared):
        return value
    if declared is int and number and isinstance(value, int):
        if abs(value) > LARGEST_INT:
            raise OverflowError
        return value
    raise TypeError
