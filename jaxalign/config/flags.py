"""The flags of a command line, which are Hydra's but for --version: known, whole and in agreement, or refused."""

import re
from typing import Any

from hydra._internal.utils import get_args_parser

from jaxalign.errors import UserError

_SHOWING = ("version", "help", "hydra_help", "cfg", "info", "shell_completion")
"""Hydra's flags, and our own --version, with which a command shows something and runs nothing."""


def split_flags(arguments: list[str]) -> tuple[list[str], list[str], Any]:
    """Return the flags, the overrides, and the parsed flags; flags and overrides may be mixed in any order.

    Raises:
        UserError: a flag is not known, lacks what belongs to it, or does not go with another one.
    """
    parser = get_args_parser()
    parser.allow_abbrev = False  # --vers would be Hydra's own --version

    def refuse(message: str) -> None:
        raise UserError(f"{message}; settings are written key=value, and --help lists them")

    parser.error = refuse  # type: ignore[assignment]
    options = parser.parse_intermixed_args([one for one in arguments if one != "--version"])
    options.version = "--version" in arguments
    if (options.cfg and options.multirun) or (options.resolve and not options.cfg):
        refuse("--cfg does not go with -m, and --resolve needs --cfg")
    ways = [name for name in ("run", "multirun", "cfg", "info", "shell_completion") if getattr(options, name)]
    if len(ways) > 1:
        refuse(f"{_flag(ways[0])} does not go with {_flag(ways[1])}")
    if options.experimental_rerun is not None:
        refuse("--experimental-rerun is refused, because it runs code from a file (a pickle)")
    if "" in (options.config_path, options.config_name, options.config_dir):
        refuse("--config-dir, --config-path and --config-name need a name, and one of them is empty")
    known = "(install|uninstall|query)=(bash|zsh|fish)"
    if options.shell_completion and not (len(options.overrides) == 1 and re.fullmatch(known, options.overrides[0])):
        refuse("--shell-completion needs what to do, such as install=bash (or zsh, fish)")
    flags = [one for one in arguments if one != "--"]
    for override in options.overrides:
        flags.remove(override)
    return flags, options.overrides, options


def showing(options: Any) -> str | None:
    """Return the flag with which a command only shows something, by its long name; None if it runs."""
    return next((_flag(name) for name in _SHOWING if getattr(options, name)), None)


def _flag(name: str) -> str:
    return f"--{name.replace('_', '-')}"
