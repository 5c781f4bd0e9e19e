"""The identity of a run: what of its configuration, and of what that leads to, changes the run's numbers.

There is one rule for all commands: every key counts unless its type is `Uncounted` (config/fields.py). So a key that is
added later counts by itself, and no finished run is taken for what it is not.
"""

import dataclasses
from collections.abc import Iterable, Mapping
from typing import Any, get_type_hints

from jaxalign.config.fields import UNCOUNTED


def plain(config: Any) -> dict[str, Any]:
    """Return a configuration as nested dictionaries of what JSON and YAML can hold."""

    def convert(value: Any) -> Any:
        if isinstance(value, Mapping):
            return {key: convert(item) for key, item in value.items()}
        return [convert(item) for item in value] if isinstance(value, list | tuple) else value

    return convert(dataclasses.asdict(config))


def identity(config: Any, content: Mapping[str, Any], without: Iterable[str] = ()) -> dict[str, Any]:
    """Return what changes the numbers of a run: all keys that count, and `content`.

    Args:
        config: the configuration, a dataclass of dataclasses.
        content: what the paths among the uncounted keys lead to: names to hashes, or to other JSON.
        without: dotted keys that do not change the numbers of this part of a run; a whole subtree may be named.

    Raises:
        KeyError: `without` names a key that there is not, or that is uncounted already.
    """
    kept = _counted(config)
    for key in without:
        *parents, name = key.split(".")
        tree = kept
        for parent in parents:
            tree = tree[parent]
        del tree[name]
    return {**kept, "content": dict(content)}


def _counted(config: Any) -> dict[str, Any]:
    """Return the keys that count, as nested dictionaries."""
    whole, kept = plain(config), {}
    for name, declared in get_type_hints(type(config), include_extras=True).items():
        if UNCOUNTED not in getattr(declared, "__metadata__", ()):
            value = getattr(config, name)
            kept[name] = _counted(value) if dataclasses.is_dataclass(value) else whole[name]
    return kept
