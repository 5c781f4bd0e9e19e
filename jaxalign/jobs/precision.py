"""`precision=auto`: the number format that is fast here, or the one that the run was begun with."""

import dataclasses
import json
from pathlib import Path
from typing import TypeVar

from rich.console import Console

from jaxalign.config.identity import identity
from jaxalign.config.model import ModelCommandConfig
from jaxalign.errors import UserError
from jaxalign.parallel.processor import fast_precision
from jaxalign.runs.config_file import flat
from jaxalign.runs.directory import stored_config

C = TypeVar("C", bound=ModelCommandConfig)


def settle_precision(config: C, console: Console, *, say: bool = True) -> C:
    """Return the configuration with bfloat16 or float32 in the place of `precision=auto`, and print which and why.

    Results depend on the number format, so it is part of a run's identity. A run that was begun on another processor
    goes on with what was chosen there: if runs with the same settings exist, and none of them has the format that is
    fast here, theirs is taken.

    Args:
        config: the configuration of a command.
        console: prints the line.
        say: whether the line is printed; a command that multiplies nothing here does not need it.
    """
    if config.precision != "auto":
        return config
    chosen, reason = fast_precision()
    begun = _begun(config)
    if begun and chosen not in begun:
        chosen, path = next(iter(begun.items()))
        reason = f"as {path} was begun"
    if say and not config.prefetch:
        console.print(f"precision: {chosen} ({reason})", highlight=False, soft_wrap=True)
    return dataclasses.replace(config, precision=chosen)


def _begun(config: ModelCommandConfig) -> dict[str, Path]:
    """Return the number formats of the runs that these settings have made before, each with one such run."""
    places = [Path(config.run.dir)] if config.run.dir is not None else sorted(Path(config.run.root).glob("*-*"))
    ours, begun = flat(json.loads(json.dumps(identity(config, {})))), {}
    for path in places:
        try:
            stored = flat(stored_config(path)["identity"])
        except UserError:
            continue  # not a run; `open_run` says so if it is the one that was asked for
        settings = {key: value for key, value in stored.items() if not key.startswith("content.")}
        precision = settings.pop("precision", None)
        same = all(key in ours and ours[key] == value for key, value in settings.items())
        if precision in ("bfloat16", "float32") and same:
            begun.setdefault(precision, path)
    return begun
