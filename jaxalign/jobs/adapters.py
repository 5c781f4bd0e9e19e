"""The adapters that a command asks, and their base: found in runs and PEFT folders, read, and checked together."""

import dataclasses
import glob
import itertools
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console

from jaxalign.config.model import AskedModelConfig, check_system
from jaxalign.config.presets import DEFAULT_MODEL, preset, presets
from jaxalign.config.search_path import check_not_hidden
from jaxalign.errors import UserError
from jaxalign.models.adapter import BASE, Adapter
from jaxalign.models.architecture import Architecture
from jaxalign.models.claims import Claims
from jaxalign.models.linear import CODES
from jaxalign.parallel.rules import Placement, undivided_lines
from jaxalign.pretrained.peft import CONFIG, read_adapter, read_ours
from jaxalign.pretrained.sources import is_hub_id
from jaxalign.runs.config_file import stored_config
from jaxalign.runs.directory import Run
from jaxalign.runs.progress import say

TOGETHER = 8
"""The largest number of adapters that answer in one program."""


def find_adapters(key: str, names: Sequence[str]) -> list[Path]:
    """Return the PEFT folders that `names` lead to, each once.

    Args:
        key: the setting that holds the names, for error lines.
        names: runs or PEFT folders, or patterns such as outputs/*.

    Raises:
        UserError: a pattern finds no adapter, or a folder holds none.
    """
    found: list[Path] = []
    for name in names:
        if Path(name).exists() or not glob.has_magic(name):
            found.append(adapter_folder(key, Path(name)))
            continue
        # A pattern means only adapters: outputs/* also finds runs without one.
        matches = [Path(match) for match in sorted(glob.glob(name)) if _holds_adapter(Path(match))]
        if not matches:
            raise UserError(f"{key}={name} finds no finished run and no PEFT folder")
        if len(matches) > 1 and key != "adapters":
            raise UserError(f"{key}={name} finds {len(matches)} adapters: name one of them, such as {matches[0]}")
        found += [adapter_folder(key, match) for match in matches]
    return list(dict.fromkeys(found))


def _holds_adapter(path: Path) -> bool:
    run = Run(path)
    return (path / CONFIG).is_file() or (run.adapter / CONFIG).is_file() or (run.finished and run.adapter.is_dir())


def adapter_folder(key: str, path: Path) -> Path:
    """Return the PEFT folder that a path leads to: the path itself, or the folder inside a run's directory.

    `key` is the setting that named the path, for error lines.

    Raises:
        UserError: there is no adapter, or it is not the one that its run wrote; the line says why.
    """
    inside = path.name == "adapter" and Run(path.parent).config.is_file()
    if (path / CONFIG).is_file() and not inside:
        return path
    run = Run(path.parent if inside else path)
    if run.finished:
        run.check_files()
    if (run.adapter / CONFIG).is_file():
        return run.adapter
    if run.finished:
        if run.adapter.is_dir():
            raise UserError(f"{run.adapter} lacks {CONFIG}: remove {run.summary}, and type its training command again")
        raise UserError(f"{key}={path} is finished and made no adapter: give a run that trains one")
    if (path / "config.yaml").is_file():
        raise UserError(f"{key}={path} has no adapter yet: type its training command again, which resumes it")
    raise UserError(f"{key}={path} is no adapter: give a run's directory or a PEFT folder")


def keys_of_base(
    model: AskedModelConfig, adapters: Sequence[Path], *, as_trained: bool = True, here: bool = True
) -> dict[str, Any]:
    """Return the keys of the model that is asked.

    With `source: run`, they come from the first adapter's run, or from the default model without one. `prompt_format`
    is set in any case: by the configuration, by the adapters, or to plain. If `as_trained` is false, the adapters do
    not set it, and it is None where the configuration leaves it open. `here` is false for a model that a server has:
    how it is stored is then not known.

    Raises:
        UserError: the configuration leaves prompt format or system message open, and two adapters (the line names them)
            were trained with different ones; a system message is combined with the plain format; or the user's
            own options have one with the default model's name.
    """
    keys = dataclasses.asdict(model)
    if model.source == "run":
        runs = [(folder, found) for folder in adapters if (found := _trained_on(folder)) is not None]
        trained = runs[0][1] if runs else preset(DEFAULT_MODEL)
        if not runs:
            _check_default(adapters)
            check_not_hidden("model", DEFAULT_MODEL)
        chosen = {name: getattr(model, name) or trained.get(name) for name in ("system", "date", "storage")}
        keys = {**trained, "prompt_format": model.prompt_format, **chosen}
        for (first, theirs), (other, found) in itertools.pairwise(runs):
            if model.system is None and found.get("system") != theirs.get("system"):
                raise UserError(
                    f"{other} was trained with another model.system than {first}: ask them one by one, or choose with "
                    "model.system=..."
                )
    if keys["prompt_format"] is None and as_trained:
        told = [(folder, read_ours(folder).get("prompt_format")) for folder in adapters]
        formats = [(folder, found) for folder, found in told if found is not None]
        for (first, theirs), (other, found) in itertools.pairwise(formats):
            if found != theirs:
                raise UserError(
                    f"{other} was trained with model.prompt_format={found} and {first} with {theirs}: ask them one by "
                    "one, or choose with model.prompt_format=..."
                )
        keys["prompt_format"] = formats[0][1] if formats else "plain"
    check_system(keys)
    return keys if here else {**keys, "storage": None}


def _check_default(folders: Sequence[Path]) -> None:
    """Raise UserError for the first folder that names another base than the default, before the default is fetched."""
    named = {name: {one.get("path"), one["name"]} for name in presets() for one in [preset(name)]}
    for folder in folders:
        base = read_ours(folder).get("base_name")
        if base is not None and base not in named[DEFAULT_MODEL]:
            fits = [name for name, theirs in named.items() if base in theirs]
            if not fits and not is_hub_id(base):
                continue  # a local folder or file, which may hold the default: its weights are compared later
            choice = f"model={fits[0]}" if fits else f"model=hub model.path={base}"
            raise UserError(f"{folder} was trained on {base}: add {choice}")


def _trained_on(folder: Path) -> dict[str, Any] | None:
    """Return the model of the run whose directory holds an adapter's folder; None if no run holds it.

    Raises:
        UserError: a key of the model is damaged.
    """
    try:
        model = stored_config(folder.parent).get("model")
    except UserError:
        return None
    return stored_model(model, folder.parent) if isinstance(model, dict) else None


def stored_model(model: dict[str, Any], run: Path) -> dict[str, Any]:
    """Return the part `model` of a run's config.yaml, which may come from anybody; UserError if a key is damaged."""
    claims = Claims(model, f"{run / 'config.yaml'}: model", "get the run again", "the model")
    for key in ("name", "source"):
        claims.text(key)
    for key in ("path", "revision", "package", "version", "sha256", "file", "prompt_format", "system", "storage"):
        claims.text(key, "")
    claims.text("date", "")
    claims.part("config")
    return model


def read_adapters(folders: Sequence[Path], architecture: Architecture, factor: float) -> list[Adapter]:
    """Return the adapter of each folder that `find_adapters` found.

    If two adapters have the same name, or one is called like the bare base, a number is added to the name.

    Args:
        folders: PEFT folders.
        architecture: the architecture of the base.
        factor: the user's factor on the effect of each adapter.

    Raises:
        UserError: an adapter cannot be read, does not fit the architecture, or was trained on another base than an
            adapter before it (the line names both).
    """
    adapters = [read_adapter(folder, architecture, factor=factor) for folder in folders]
    known = [adapter for adapter in adapters if adapter.base_identity is not None]
    for first, other in itertools.pairwise(known):
        other.check_base(first.base_identity, f"{first.base_name}, as {first.folder} was", "ask them one by one")
    names = [adapter.name for adapter in adapters]
    taken = {BASE.name, *names}
    distinct = []
    for adapter in adapters:
        name = adapter.name
        if name == BASE.name or names.count(name) > 1:
            name = next(new for n in itertools.count(1) if (new := f"{adapter.name} ({n})") not in taken)
            taken.add(name)
        distinct.append(dataclasses.replace(adapter, name=name))
    return distinct


def print_other_storages(console: Console, adapters: Sequence[Adapter], storage: str) -> None:
    """Print a line for each adapter that was trained on a base with another storage than this one.

    bfloat16 and float32 do not count as different: the processor chooses between them.
    """
    for adapter in adapters:
        if adapter.storage not in (None, storage) and {adapter.storage, storage} & CODES.keys():
            line = f"{adapter.name} was trained on a base stored as {adapter.storage}, and is used with one stored as"
            say(console, f"{line} {storage}")


def print_undivided(console: Console, placement: Placement | None, counts: Iterable[int]) -> None:
    """Print a line for each number of adapters that are asked together, if the mesh does not divide it."""
    if placement is None:
        return
    for count in sorted(set(counts)):
        for line in undivided_lines(placement.mesh, {"adapters": count}):
            say(console, line)


def check_together(adapters: Sequence[Adapter]) -> None:
    """Raise UserError for the first adapter that differs in rank, layers or projections from the adapter before it."""
    for first, other in itertools.pairwise([adapter for adapter in adapters if adapter.params is not None]):
        for what, theirs, ours in (
            ("lora.rank", other.rank, first.rank),
            ("lora.targets", sorted(other.targets), sorted(first.targets)),
            ("adapters in", f"{other.layers} layers", f"{first.layers} layers"),
        ):
            if theirs != ours:
                raise UserError(
                    f"{other.folder} has {what} {theirs} and {first.folder} has {ours}: adapters that answer together "
                    "must have the same rank, targets and layers; ask them one by one"
                )
