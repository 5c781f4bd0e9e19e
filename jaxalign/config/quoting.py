"""Free texts and paths on a command line, quoted for Hydra's grammar, so that all their characters belong to them."""

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from omegaconf import OmegaConf

from jaxalign.config.commands import SHORT, TEXTS
from jaxalign.config.fields import PATH
from jaxalign.config.schema import holds_list, is_marked


@dataclass(frozen=True)
class Quoting:
    """What must be quoted for one command.

    Attributes:
        keys: the type of each key of the command, by its dotted name.
        multirun: whether commas stand between the values of several runs.
    """

    keys: Mapping[str, Any]
    multirun: bool

    def quoted(self, override: str) -> str:
        """Quote the value of a free text or a path for Hydra, unless the user has quoted it.

        Of a list, and of the values of a multirun, each is quoted; a comma stands between two of them.
        """
        key, sign, value = override.partition("=")
        name = key.lstrip("+")
        if not sign or value in ("", "null") or (len(value) > 1 and value[0] == value[-1] and value[0] in "'\""):
            return override
        if name in TEXTS:
            value = _in_quotes(value).replace("${", "\\${")  # so that it is not an interpolation
            return f"{key}={value}"
        name = name if name in self.keys else SHORT.get(name, name)
        if not (name in self.keys and is_marked(self.keys[name], PATH)):
            # Some other texts may be paths, such as those of a free key, and Hydra's grammar allows no ~ in a value.
            return f"{key}={_in_quotes(os.path.expanduser(value))}" if value.startswith("~/") else override
        is_list = value[0] == "[" and value[-1] == "]" and holds_list(self.keys[name])
        if is_list or self.multirun or (holds_list(self.keys[name]) and "," in value):
            if re.search(r"['\"]|^[a-z]+\(.*\)$", value):  # quoted by the user, or a sweep such as glob(*)
                return override
            if not is_list and not self.multirun:
                return override  # Hydra says how a list is written
            if not is_list:
                return f"{key}={self._paths(value)}"
            lists = re.split(r"(?<=\]),(?=\[)", value) if self.multirun else [value]
            return f"{key}={','.join(f'[{self._paths(one[1:-1])}]' for one in lists)}"
        return f"{key}={self._path(value)}"

    def _paths(self, listed: str) -> str:
        """Return paths with commas between them as Hydra reads them back; none for an empty text."""
        return ",".join(self._path(one.strip()) for one in listed.split(",")) if listed.strip() else ""

    def _path(self, value: str) -> str:
        """Return a path as Hydra reads it back: in quotes, unless it means the same without.

        A `${` that is not the beginning of an interpolation of a known key or of a resolver belongs to the path.
        """
        same = re.fullmatch(r"[./]*[A-Za-z_][\w./@%+*?|-]*", value, re.ASCII)
        if same and value.lower() not in ("true", "false", "null", "inf", "nan"):
            return value
        return re.sub(r"(\\*)\$\{([^{}$]*)", self._interpolation, _in_quotes(value))

    def _interpolation(self, found: re.Match[str]) -> str:
        slashes, inside = found.groups()
        resolver, colon, _ = inside.partition(":")
        known = (
            OmegaConf.has_resolver(resolver)
            if colon
            else inside.partition(".")[0] in {key.partition(".")[0] for key in self.keys}
        )
        if known or len(slashes) % 2:  # an odd number of backslashes is the user's own escape
            return found[0]
        return f"{2 * slashes}\\${{{inside}"


def _in_quotes(value: str) -> str:
    value = re.sub(r"(\\*)('|$)", lambda found: found[1] * 2 + ("\\'" if found[2] else ""), value)
    return f"'{value}'"
