"""Checkpoints of a training stage: folders, each with a list of its files' hashes. The newest few are kept.

Of several processes, the first one alone writes and reads them, because what is in them is whole on every device. So a
checkpoint knows neither mesh nor processes. Orbax writes and reads the arrays; only the first functions call it.
"""

import contextlib
import json
import logging
import re
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as orbax
from orbax.checkpoint import v1 as ocp

from jaxalign.errors import UserError
from jaxalign.parallel.distributed import arrays_of_first, by_first, several
from jaxalign.runs.records import delete_entry, file_hash, read_json_object, write_atomic

MANIFEST = "manifest.json"
META = "meta.json"

OWNER = "run"
"""The key of the JSON under which a checkpoint names the run that wrote it (see `config_file.owner`)."""


@contextlib.contextmanager
def _plainly_named(folder: Path) -> Iterator[Path]:
    """Yield a path of a folder that Orbax can use: it takes some characters for a pattern, or for a separator."""
    if not re.search(r"[*?\[\]\\]", str(folder)):
        yield folder
        return
    with tempfile.TemporaryDirectory(prefix="jaxalign-") as place:
        link = Path(place) / "checkpoints"
        link.symlink_to(folder, target_is_directory=True)
        yield link


def _save_arrays(path: Path, tree: Any) -> None:
    with _plainly_named(path.parent) as folder:
        _save_with_orbax(folder / path.name, tree)


def _save_with_orbax(path: Path, tree: Any) -> None:
    if not several():
        return ocp.save(str(path), tree)
    # The newer interface compares the path with that of all processes, even if it is told that one of them works alone.
    one = orbax.options.MultiprocessingOptions(active_processes={0})
    handler = orbax.PyTreeCheckpointHandler(multiprocessing_options=one)
    with orbax.Checkpointer(handler, multiprocessing_options=one) as writer:
        writer.save(str(path), args=orbax.args.PyTreeSave(tree))


def _load_arrays(path: Path, like: Any) -> Any:
    context = ocp.Context()
    if several():
        context.multiprocessing.active_processes = {0}
    with context, _plainly_named(path.parent) as folder:
        return ocp.load(str(folder / path.name), jax.tree.map(lambda leaf: np.zeros(leaf.shape, leaf.dtype), like))


@contextlib.contextmanager
def _without_log() -> Iterator[None]:
    """Keep Orbax's log off the screen: of a full disk it writes pages, and we write one line."""
    loggers = [logging.getLogger(name) for name in ("absl", "asyncio")]
    before = [logger.disabled for logger in loggers]
    try:
        for logger in loggers:
            logger.disabled = True
        yield
    finally:
        for logger, disabled in zip(loggers, before, strict=True):
            logger.disabled = disabled


def save(folder: Path, name: str, tree: Any, meta: dict[str, Any], keep: int) -> None:
    """Write the checkpoint `name`, a pytree of arrays and its JSON `meta`, then delete all but the newest `keep`.

    The names of checkpoints sort by age. A checkpoint counts once its manifest is there, which is written last. Of
    several processes, the first one writes it, and all wait for it.

    Raises:
        UserError: it cannot be written.
    """
    tree = jax.device_get(tree)
    by_first(lambda: _save(folder, name, tree, meta, keep))


def _save(folder: Path, name: str, tree: Any, meta: dict[str, Any], keep: int) -> None:
    target = (folder / name).absolute()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if target.exists():
            shutil.rmtree(target)
        # On a full disk, Orbax's threads print tracebacks that nobody can catch, also after it has given up.
        wanted, free = sum(leaf.nbytes for leaf in jax.tree.leaves(tree)), shutil.disk_usage(folder).free
        if wanted > free:
            raise OSError(f"it takes {wanted / 1e6:,.1f} MB, and the disk has {free / 1e6:,.1f} MB left")
        with _without_log():
            _save_arrays(target, tree)
    except (OSError, ValueError) as error:  # Orbax raises either for an error of the file system
        reason = str(error).strip().splitlines()[0]
        raise UserError(
            f"cannot write the checkpoint {target}: {reason}; free space or choose another run.dir"
        ) from error
    write_atomic(target / META, json.dumps(meta, indent=1))
    files = {str(file.relative_to(target)): file_hash(file) for file in _files(target)}
    write_atomic(target / MANIFEST, json.dumps(files, indent=1))
    # Folders without a manifest go too: a kill left them unfinished, or they are damaged.
    kept = {name, *names(folder)[-keep:]}
    for old in folder.iterdir():
        if old.is_dir() and old.name not in kept:
            shutil.rmtree(old, ignore_errors=True)


def names(folder: Path) -> list[str]:
    """Return the names of the checkpoints that have a manifest, oldest first."""
    return sorted(path.parent.name for path in folder.glob(f"*/{MANIFEST}"))


def load_newest(
    folder: Path, like: Callable[[dict[str, Any]], Any], say: Callable[[str], None], owner: str | None = None
) -> tuple[Any, dict[str, Any]] | None:
    """Return (tree, meta) of the newest checkpoint that is whole, or None if there is none.

    `like(meta)` returns a pytree of the same structure, shapes and types. If a checkpoint is damaged, `say` is told so,
    the checkpoint counts no longer, and the one before it is tried. All processes get what the first one finds.

    Raises:
        UserError: a checkpoint names another run than `owner` as the one that wrote it.
    """
    found: tuple[Any, dict[str, Any]] | None = None

    def newest() -> dict[str, Any] | None:
        nonlocal found
        found = _load_newest(folder, like, say, owner)
        return None if found is None else found[1]

    meta = by_first(newest)
    return None if meta is None else (arrays_of_first(None if found is None else found[0], like(meta)), meta)


def newest_meta(folder: Path, say: Callable[[str], None], owner: str | None = None) -> dict[str, Any] | None:
    """Return the meta of the checkpoint that `load_newest` finds, without loading its arrays."""

    def newest() -> dict[str, Any] | None:
        found = _newest(folder, say, owner)
        return None if found is None else found[1]

    return by_first(newest)


def _load_newest(
    folder: Path, like: Callable[[dict[str, Any]], Any], say: Callable[[str], None], owner: str | None = None
) -> tuple[Any, dict[str, Any]] | None:
    found = _newest(folder, say, owner)
    return None if found is None else (_load_arrays(found[0], like(found[1])), found[1])


def _newest(folder: Path, say: Callable[[str], None], owner: str | None) -> tuple[Path, dict[str, Any]] | None:
    """Return the folder and the meta of the newest checkpoint that is whole."""
    for name in reversed(names(folder)):
        path = (folder / name).absolute()
        problem = _damage(path)
        if problem is None:
            meta = read_json_object(path / META, "")
            if owner is not None and meta.get(OWNER) not in (None, owner):
                raise UserError(f"{path} was written by another run: remove {folder}, and type the command again")
            return path, meta
        say(f"checkpoint {name} is damaged ({problem}); trying the one before it")
        delete_entry(path / MANIFEST)
    return None


def _damage(path: Path) -> str | None:
    try:
        expected = read_json_object(path / MANIFEST, "")
    except UserError:
        return f"{MANIFEST} cannot be read"
    found = {str(file.relative_to(path)) for file in _files(path)}
    missing = sorted(set(expected) - found)
    if missing:
        return f"{missing[0]} is missing"
    unlisted = sorted(name for name in found - set(expected) if not Path(name).name.startswith("."))
    if unlisted or META not in found:
        return f"{MANIFEST} does not list {(unlisted or [META])[0]}"
    changed = sorted(name for name, digest in expected.items() if file_hash(path / name) != digest)
    return f"{changed[0]} has changed" if changed else None


def _files(path: Path) -> list[Path]:
    return [file for file in path.rglob("*") if file.is_file() and file.name != MANIFEST]
