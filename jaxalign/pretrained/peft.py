"""Adapters on disk, in the format of PEFT: `adapter_config.json` and `adapter_model.safetensors`.

Format: https://huggingface.co/docs/peft, "Checkpoint format". Its configuration has no keys for the base's identity,
the prompt format and the recipe. They are in `jaxalign.json`, because PEFT may refuse keys that it does not know.
"""

import json
import math
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from jaxalign.errors import UserError
from jaxalign.models.adapter import Adapter
from jaxalign.models.architecture import PROJECTIONS, Architecture, projection_shape
from jaxalign.pretrained.safetensors import SafetensorsFolder, write_safetensors
from jaxalign.pretrained.weights import module_of
from jaxalign.runs.records import entries, read_json_object, scratch_folder, write_atomic

CONFIG, WEIGHTS, OURS, CARD = "adapter_config.json", "adapter_model.safetensors", "jaxalign.json", "README.md"
AGAIN = "get the adapter again"

_REFUSED = (
    "use_dora",
    "use_qalora",
    "lora_bias",
    "modules_to_save",
    "rank_pattern",
    "alpha_pattern",
    "fan_in_fan_out",
    "layer_replication",
    "layers_to_transform",
    "trainable_token_indices",
    "target_parameters",
    "alora_invocation_tokens",
)
"""Settings of PEFT that change the meaning of the weights, and that this program does not have."""

_BASE_CHANGING = ("pissa", "olora", "corda", "loftq", "lora_ga")
"""Initialisations (`init_lora_weights`) that change the base: such an adapter fits the changed base only."""


def write_adapter(folder: str | Path, adapter: Adapter, *, dropout: float, card: str) -> None:
    """Write an adapter as a folder that PEFT can load. An adapter that is there already is replaced.

    The folder appears complete or not at all.

    Args:
        folder: the folder to write.
        adapter: the adapter; `factor` is multiplied into its alpha.
        dropout: the rate that it was trained with.
        card: the text of README.md.

    Raises:
        UserError: the folder cannot be written, or contains files that are not an adapter.
    """
    folder = Path(os.path.realpath(folder))  # a symbolic link stays, and what it leads to is written
    assert adapter.params is not None
    alpha = adapter.alpha * adapter.factor
    layers = {name: adapter.params["layers"][name] for name in PROJECTIONS if name in adapter.params["layers"]}
    config = {
        "alpha_pattern": {},
        "auto_mapping": None,
        "base_model_name_or_path": adapter.base_name,
        "bias": "none",
        "fan_in_fan_out": False,
        "inference_mode": True,
        "init_lora_weights": True,
        "layers_pattern": None,
        "layers_to_transform": None,
        "lora_alpha": int(alpha) if float(alpha).is_integer() else float(alpha),
        "lora_dropout": dropout,
        "modules_to_save": None,
        "peft_type": "LORA",
        "r": adapter.rank,
        "rank_pattern": {},
        "revision": None,
        "target_modules": sorted(layers),
        "task_type": "CAUSAL_LM",
        "use_dora": False,
        "use_rslora": False,
    }
    ours = {
        "base_identity": adapter.base_identity,
        "base_name": adapter.base_name,
        "prompt_format": adapter.prompt_format,
        "extra": dict(adapter.notes),
    }
    tensors = {
        _key(layer, name, side): np.ascontiguousarray(matrix.T)
        for name, pair in layers.items()
        for side in ("a", "b")
        for layer, matrix in enumerate(np.asarray(pair[side], np.float32))
    }
    try:
        if folder.is_dir() and entries(folder) and not (folder / CONFIG).is_file():
            raise UserError(f"{folder} holds files that are no adapter; nothing was touched: choose another folder")
        folder.parent.mkdir(parents=True, exist_ok=True)
        with scratch_folder(folder.parent, folder.name) as scratch:
            whole = scratch / "new"
            write_safetensors(whole / WEIGHTS, tensors, {"format": "pt"})
            write_atomic(whole / CONFIG, json.dumps(config, indent=2) + "\n")
            write_atomic(whole / OURS, json.dumps(ours, indent=2) + "\n")
            write_atomic(whole / CARD, card.rstrip() + "\n")
            if folder.exists():
                os.rename(folder, scratch / "old")
            os.rename(whole, folder)
    except OSError as error:
        raise UserError(
            f"cannot write {folder}: {error.strerror or error}; free space or choose another place"
        ) from error


def read_adapter(folder: str | Path, architecture: Architecture, name: str = "", factor: float = 1.0) -> Adapter:
    """Return the adapter in a folder (in PEFT's format) or in a run, for a base of this architecture.

    With `use_rslora` the scale is alpha / sqrt(rank) (Kalajdzievski, 2023, arXiv 2312.03732). The alpha that is
    returned is such that alpha / rank is this scale.

    Args:
        folder: a PEFT folder, or a run's directory.
        architecture: of the base.
        name: its name in results; "" for the value that it was trained towards, or the name of its folder.
        factor: a number that multiplies its effect.

    Raises:
        UserError: there is no adapter, it is not plain LoRA on the seven projections (which setting), its weights are
            pickled, or its shapes do not fit the base.
    """
    folder = Path(folder)
    if not (folder / CONFIG).is_file() and (folder / "adapter" / CONFIG).is_file():
        folder = folder / "adapter"
    if not (folder / CONFIG).is_file():
        raise UserError(f"{folder} holds no adapter ({CONFIG}); give a run's directory or a PEFT folder")
    config = read_json_object(folder / CONFIG, AGAIN)
    rank, alpha = _check_config(folder, config)
    if not (folder / WEIGHTS).is_file():
        pickled = ": its adapter_model.bin is a pickle, which is never loaded" if any(folder.glob("*.bin")) else ""
        raise UserError(f"{folder} has no {WEIGHTS}{pickled}; save the adapter as safetensors")
    ours = read_json_object(folder / OURS, AGAIN) if (folder / OURS).is_file() else {}
    layers = _read_layers(folder, architecture, rank)
    notes = ours.get("extra") or {}
    place = folder.parent if folder.name == "adapter" else folder
    return Adapter(
        name or notes.get("value") or place.name,
        {"layers": layers},
        rank,
        alpha,
        factor,
        folder,
        base_identity=ours.get("base_identity"),
        base_name=ours.get("base_name") or config.get("base_model_name_or_path"),
        prompt_format=ours.get("prompt_format"),
        notes=notes,
    )


def _check_config(folder: Path, config: Mapping[str, Any]) -> tuple[int, float]:
    """Return rank and alpha of an adapter, after a check that it is plain LoRA."""
    if config.get("peft_type") != "LORA":
        raise UserError(f"{folder} is a {config.get('peft_type')} adapter; give a LORA adapter")
    faults = [key for key in _REFUSED if config.get(key)]
    if config.get("bias", "none") != "none":
        faults.append("bias")
    if str(config.get("init_lora_weights")).lower().startswith(_BASE_CHANGING):
        faults.append(f"init_lora_weights={config['init_lora_weights']}")
    if faults:
        raise UserError(f"{folder} uses {', '.join(faults)}, which cannot be read; train it as plain LoRA")
    rank, alpha = config.get("r"), config.get("lora_alpha")
    if not isinstance(rank, int) or rank < 1 or not isinstance(alpha, int | float):
        raise UserError(
            f"{folder / CONFIG} needs a whole 'r' above 0 and a number 'lora_alpha'; it has {rank}, {alpha}"
        )
    return rank, float(alpha * math.sqrt(rank) if config.get("use_rslora") else alpha)


def _read_layers(folder: Path, architecture: Architecture, rank: int) -> dict[str, dict[str, np.ndarray]]:
    """Return the adapter's layers: {projection: {"a": [L, in, r], "b": [L, r, out]}}."""
    source = SafetensorsFolder(folder / WEIGHTS)
    present = source.names()
    targets = [name for name in PROJECTIONS if any(f".{name}.lora_" in key for key in present)]
    needed = {}
    for name in targets:
        inner, outer = projection_shape(architecture, name)
        for layer in range(architecture.layers):
            needed[_key(layer, name, "a")] = (rank, inner)
            needed[_key(layer, name, "b")] = (outer, rank)
    strange = [key for key in present if key not in needed]
    missing = [key for key in needed if key not in present]
    if strange or not needed:
        what = f"'{strange[0]}', which this base has no place for" if strange else "no tensors"
        raise UserError(f"{folder} does not fit the base: it holds {what}; is it an adapter of another base?")
    if missing:
        raise UserError(f"{folder} does not fit the base: it lacks '{missing[0]}'; is it an adapter of another base?")
    for key, shape in needed.items():
        if source.shape(key) != shape:
            found = list(source.shape(key))
            raise UserError(
                f"{folder} does not fit the base: '{key}' is {found} where {list(shape)} is needed; "
                "is it an adapter of another base?"
            )
    return {
        name: {
            side: np.stack(
                [source.read(_key(layer, name, side)).astype(np.float32).T for layer in range(architecture.layers)]
            )
            for side in ("a", "b")
        }
        for name in targets
    }


def _key(layer: int, name: str, side: str) -> str:
    return f"base_model.model.model.layers.{layer}.{module_of(name)}.lora_{side.upper()}.weight"
