"""`precision=auto`: the number format that is fast here, or the one that the run was begun with."""

import contextlib
import dataclasses
import functools
import glob
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, TypeVar

from rich.console import Console

from jaxalign.config.identity import identity
from jaxalign.config.model import ModelCommandConfig
from jaxalign.errors import UserError
from jaxalign.jobs.mirroring import mirror_of
from jaxalign.parallel.distributed import by_first, check_joined
from jaxalign.parallel.processor import fast_precision
from jaxalign.runs.config_file import flat, parsed_config, stored_config
from jaxalign.runs.mirror import Mirror
from jaxalign.runs.progress import say

C = TypeVar("C", bound=ModelCommandConfig)


def settle_precision(
    config: C, console: Console, *, shown: bool = True, beside: Sequence[str] = (), of: str | None = None
) -> C:
    """Return the configuration with bfloat16 or float32 in the place of `precision=auto`, and print which and why.

    Results depend on the number format, so it is part of a run's identity. A run that was begun on another processor
    goes on with what was chosen there: if runs with the same settings exist, and none of them has the format that is
    fast here, theirs is taken.

    Args:
        config: the configuration of a command.
        console: prints the line.
        shown: whether the line is printed; a command that multiplies nothing here does not need it.
        beside: parts of the configuration, such as `judge`. If no run has the same settings, one that differs in these
            parts alone decides, because it shares responses with this one, or stands in one table with it.
        of: the directory of another run, whose format is taken, because this command works on what that run has made.
    """
    if config.precision != "auto":
        return config

    # Before the first of several processes asks a device: JAX finds its devices only together with the others.
    check_joined()

    def choose() -> tuple[str, str]:
        chosen, reason = fast_precision()
        begun = _format_of(of) or _begun(config) or (_begun(config, beside) if beside else {})
        if begun and chosen not in begun:
            chosen, path = next(iter(begun.items()))
            reason = f"as {path} was begun"
        return chosen, reason

    chosen, reason = by_first(choose)
    if shown and not config.prefetch:
        say(console, f"precision: {chosen} ({reason})")
    return dataclasses.replace(config, precision=chosen)


def _format_of(place: str | None) -> dict[str, str]:
    """Return the number format of the run in a directory, with the directory; nothing if there is no run."""
    with contextlib.suppress(UserError):
        identity = stored_config(place).get("identity") if place is not None and Path(place).is_dir() else None
        precision = identity.get("precision") if isinstance(identity, dict) else None
        if place is not None and precision in ("bfloat16", "float32"):
            return {precision: place}
    return {}


def _begun(config: ModelCommandConfig, beside: Sequence[str] = ()) -> dict[str, str]:
    """Return the number formats of the runs that these settings have made before, each with one such run.

    In the parts `beside` of the configuration, the runs may differ.
    """
    ours, begun = flat(json.loads(json.dumps(identity(config, {})))), {}
    for path, found in _stored_configs(config):
        stored = flat(found["identity"])
        settings = {key: value for key, value in stored.items() if key.split(".")[0] not in ("content", *beside)}
        precision = settings.pop("precision", None)
        same = all(key in ours and ours[key] == value for key, value in settings.items())
        if precision in ("bfloat16", "float32") and same:
            begun.setdefault(precision, path)
    return begun


def _stored_configs(config: ModelCommandConfig) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield address and config.yaml of each run that may be the one that the configuration means, the mirror's last."""
    folder = None if config.run.dir is None else Path(config.run.dir)
    for path in sorted(Path(config.run.root).glob("*-*")) if folder is None else [folder]:
        with contextlib.suppress(UserError):  # not a run; `open_run` says so if it is the one that was asked for
            yield str(path), stored_config(path)
    mirror = mirror_of(config)
    if mirror is not None:
        yield from _mirrored_configs(mirror, "*-*" if folder is None else glob.escape(folder.name))


@functools.cache
def _mirrored_configs(mirror: Mirror, pattern: str) -> list[tuple[str, dict[str, Any]]]:
    """Return address and config.yaml of the runs in a mirror: read once, for the jobs of a multirun are many."""
    read = [(address, parsed_config(text)) for address, text in mirror.configs(pattern)]
    return [(address, found) for address, found in read if found is not None]
