"""The identity of a run: all that changes the run's numbers, in its configuration and in the files that it names.

There is one rule for all commands: every key counts unless its type is `Uncounted` (config/fields.py). So a new key
counts by default, and a finished run is never taken for a run with other settings.
"""

import dataclasses
from collections.abc import Iterable, Mapping
from typing import Any, get_type_hints

from jaxalign.config.fields import UNCOUNTED


def as_dict(config: Any) -> dict[str, Any]:
    """Return a configuration as nested dictionaries and lists that JSON and YAML can hold."""

    def convert(value: Any) -> Any:
        if isinstance(value, Mapping):
            return {key: convert(item) for key, item in value.items()}
        return [convert(item) for item in value] if isinstance(value, list | tuple) else value

    return convert(dataclasses.asdict(config))


def identity(config: Any, content: Mapping[str, Any], without: Iterable[str] = ()) -> dict[str, Any]:
    """Return the identity of a run: all keys that count, and `content`.

    Args:
        config: the configuration, a dataclass of dataclasses.
        content: hashes, or other JSON values, of what the uncounted paths lead to, by name.
        without: see `counted`.

    Raises:
        KeyError: see `counted`.
    """
    return {**counted(config, without), "content": dict(content)}


def counted(config: Any, without: Iterable[str] = ()) -> dict[str, Any]:
    """Return the keys of a configuration, or of a part of one, that count, as nested dictionaries.

    A part without such keys is left out.

    Args:
        config: the configuration or the part, a dataclass.
        without: dotted keys, each a single setting, that do not change the numbers of this part of a run, or that its
            identity has in other words.

    Raises:
        KeyError: `without` names a key that does not exist or does not count anyway.
    """
    kept = _counted(config)
    for key in without:
        *parents, name = key.split(".")
        trees = [kept]
        for parent in parents:
            trees.append(trees[-1][parent])
        del trees[-1][name]
        for tree, parent in zip(reversed(trees[:-1]), reversed(parents), strict=True):
            if not tree[parent]:  # a part without keys is no part of the identity
                del tree[parent]
    return kept


def _counted(config: Any) -> dict[str, Any]:
    whole, kept = as_dict(config), {}
    for name, declared in get_type_hints(type(config), include_extras=True).items():
        if UNCOUNTED not in getattr(declared, "__metadata__", ()):
            value = getattr(config, name)
            if not dataclasses.is_dataclass(value):
                kept[name] = whole[name]
            elif part := _counted(value):
                kept[name] = part
    return kept
