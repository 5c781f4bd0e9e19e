"""What of a configuration changes the numbers of a run."""

import dataclasses
from collections.abc import Mapping
from typing import Any

from jaxalign.config.train import TrainConfig


def plain(config: Any) -> dict[str, Any]:
    """Return a configuration as nested dictionaries of what JSON and YAML can hold."""

    def convert(value: Any) -> Any:
        if isinstance(value, Mapping):
            return {key: convert(item) for key, item in value.items()}
        return [convert(item) for item in value] if isinstance(value, list | tuple) else value

    return convert(dataclasses.asdict(config))


NOT_NUMBERS = (
    *("run", "prefetch", "offline", "inspect"),
    *("training.log_every", "training.checkpoint_every", "training.keep_checkpoints", "training.rematerialisation"),
    "value.table",
    *(f"model.{name}" for name in ("name", "source", "path", "revision", "package", "version", "sha256", "file")),
    "dataset.path",
)
"""The keys that change no number of a run, or only say where a thing lies whose content stands in their place."""


def identity(config: TrainConfig, content: Mapping[str, str]) -> dict[str, Any]:
    """Return what changes the numbers of a run: the configuration without paths, logging and the like.

    Args:
        config: the configuration.
        content: fingerprints of what the paths lead to; each takes the place of its key. `model` (the identity of the
            weights) and `dataset` must be there; `adapter` and `benchmark.portraits` where those are files.
    """
    kept = plain(config)
    for key in NOT_NUMBERS:
        _drop(kept, key)
    for key in sorted({"model", "dataset", *content}):
        *parents, name = key.split(".")
        node = kept
        for parent in parents:
            node = node[parent]
        if isinstance(node.get(name), dict):
            node[name]["content"] = content[key]
        else:
            node[name] = content[key]
    return kept


def _drop(tree: dict[str, Any], key: str) -> None:
    *parents, name = key.split(".")
    for parent in parents:
        tree = tree[parent]
        if tree is None:  # a part that may be left out
            return
    del tree[name]


def readable_name(config: TrainConfig) -> str:
    """Return the readable part of a run directory's name: what is taught, from what, to which model, and the seed."""
    what = [] if config.value is None else [str(config.value.name)]
    return "-".join([*what, config.dataset.name, config.model.name, f"seed{config.training.seed}"])
