"""Adapters on disk, in the format of PEFT: `adapter_config.json` and `adapter_model.safetensors`.

Format: https://huggingface.co/docs/peft, "Checkpoint format". Its configuration has no keys for the base's identity,
its storage and the prompt format. They are in `jaxalign.json`, because PEFT may refuse keys that it does not know.
"""

import itertools
import json
import math
import os
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from jaxalign.errors import UserError
from jaxalign.models.adapter import Adapter
from jaxalign.models.architecture import PROJECTIONS, Architecture, projection_shape
from jaxalign.models.claims import Claims, brief
from jaxalign.pretrained.leaves import all_finite
from jaxalign.pretrained.parameters import module_of
from jaxalign.pretrained.safetensors import SafetensorsFolder, write_safetensors
from jaxalign.runs.records import delete_entry, entries, filled_folder, read_json_object, write_atomic

CONFIG, WEIGHTS, OURS, CARD = "adapter_config.json", "adapter_model.safetensors", "jaxalign.json", "README.md"
AGAIN = "get the adapter again"

_REFUSED = (
    *("use_dora", "use_qalora", "lora_bias", "modules_to_save", "rank_pattern", "alpha_pattern", "fan_in_fan_out"),
    *("layer_replication", "exclude_modules", "trainable_token_indices", "target_parameters"),
    *("alora_invocation_tokens", "use_bdlora", "velora_config", "monteclora_config", "arrow_config", "kasa_config"),
    "megatron_config",
)
"""Settings of PEFT that change the meaning of the weights, and that this program does not have."""

_READ = frozenset(
    {"peft_type", "base_model_name_or_path", "r", "lora_alpha", "use_rslora", "bias", "target_modules"}
    | {"init_lora_weights", "layers_to_transform", "layers_pattern"}
)
"""Settings that are read, or checked, one by one."""

_WITHOUT_EFFECT = frozenset(
    {"task_type", "auto_mapping", "peft_version", "revision", "inference_mode", "lora_dropout", "runtime_config"}
    | {"loftq_config", "eva_config", "corda_config", "lora_ga_config"}  # how training began: see `_STARTS`
    | {"megatron_core", "qalora_group_size", "ensure_weight_tying"}  # of settings that are refused
    | {"merge_weights"}  # of early versions: whether a model that answers adds the adapter to its weights
)
"""Settings that change nothing of what a trained adapter computes (PEFT 0.21), whatever their value is."""

_STARTS = (None, True, False, "gaussian", "eva", "orthogonal", "mica")
"""Initialisations (`init_lora_weights`) that leave the base as it is. With PiSSA, OLoRA, CorDA, LoftQ and LoRA-GA, an
adapter fits the changed base only."""


def write_adapter(folder: str | Path, adapter: Adapter, *, dropout: float, card: str) -> None:
    """Write an adapter as a folder that PEFT can load. An adapter that is there already is replaced.

    A new folder appears complete or not at all. A folder that is there already, such as a mount point, is filled: other
    files stay, and it never holds parts of two adapters.

    Args:
        folder: the folder to write.
        adapter: the adapter; `factor` is multiplied into its alpha.
        dropout: the rate that it was trained with.
        card: the text of README.md.

    Raises:
        UserError: the folder cannot be written, or contains files that are not an adapter; or the adapter holds NaN or
            infinity.
    """
    folder = Path(os.path.realpath(folder))  # a symbolic link stays, and what it leads to is written
    assert adapter.params is not None
    alpha = adapter.alpha * adapter.factor
    if not math.isfinite(alpha):
        raise UserError(f"{folder} is not written: the adapter's alpha is {alpha}")
    layers = {name: adapter.params["layers"][name] for name in PROJECTIONS if name in adapter.params["layers"]}
    config = _peft_config(adapter, alpha, dropout, layers)
    ours = {
        "base_identity": adapter.base_identity,
        "base_name": adapter.base_name,
        "prompt_format": adapter.prompt_format,
        "storage": adapter.storage,
        "extra": dict(adapter.notes),
    }
    tensors = {
        _key(layer, name, side): np.ascontiguousarray(matrix.T)
        for name, pair in layers.items()
        for side in ("a", "b")
        for layer, matrix in enumerate(np.asarray(pair[side], np.float32), adapter.first_layer)
    }
    if damaged := next((key for key, one in tensors.items() if not all_finite(one)), None):
        raise UserError(f"{folder} is not written: the adapter's weights hold NaN or infinity ({damaged})")
    try:
        if folder.is_dir() and entries(folder) and not (folder / CONFIG).is_file():
            raise UserError(f"{folder} holds files that are no adapter; nothing was touched: choose another folder")
        with filled_folder(folder) as whole:
            write_safetensors(whole / WEIGHTS, tensors, {"format": "pt"})
            write_atomic(whole / CONFIG, json.dumps(config, indent=2) + "\n")
            write_atomic(whole / OURS, json.dumps(ours, indent=2) + "\n")
            write_atomic(whole / CARD, card.rstrip() + "\n")
            for name in (WEIGHTS, OURS):
                delete_entry(folder / name)
    except OSError as error:
        what = f"cannot write {folder}: {error.strerror or error}"
        raise UserError(f"{what}; free space or choose another place") from error


def _peft_config(adapter: Adapter, alpha: float, dropout: float, targets: Iterable[str]) -> dict[str, Any]:
    """Return the content of adapter_config.json, as PEFT writes it."""
    return {
        "alpha_pattern": {},
        "auto_mapping": None,
        "base_model_name_or_path": adapter.base_name,
        "bias": "none",
        "fan_in_fan_out": False,
        "inference_mode": True,
        "init_lora_weights": True,
        "layers_pattern": None,
        "layers_to_transform": [*range(adapter.first_layer, adapter.first_layer + adapter.layers)]
        if adapter.first_layer
        else None,
        "lora_alpha": int(alpha) if float(alpha).is_integer() else float(alpha),
        "lora_dropout": dropout,
        "modules_to_save": None,
        "peft_type": "LORA",
        "r": adapter.rank,
        "rank_pattern": {},
        "revision": None,
        "target_modules": sorted(targets),
        "task_type": "CAUSAL_LM",
        "use_dora": False,
        "use_rslora": False,
    }


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
        UserError: there is no adapter, it is not plain LoRA on the seven projections of every layer or of the last
            ones (the line says what it is instead), its weights are pickled, hold NaN or infinity, or do not fit the
            base.
    """
    folder = Path(folder)
    if not (folder / CONFIG).is_file() and (folder / "adapter" / CONFIG).is_file():
        folder = folder / "adapter"
    if not (folder / CONFIG).is_file():
        raise UserError(f"{folder} holds no adapter ({CONFIG}); give a run's directory or a PEFT folder")
    config = Claims(read_json_object(folder / CONFIG, AGAIN), str(folder / CONFIG), AGAIN, "LoRA")
    rank, alpha = check_lora(folder, config)
    if not (folder / WEIGHTS).is_file():
        pickled = ": its adapter_model.bin is a pickle, which is never loaded" if any(folder.glob("*.bin")) else ""
        raise UserError(f"{folder} has no {WEIGHTS}{pickled}; save the adapter as safetensors")
    ours, told = read_ours(folder), config.text("base_model_name_or_path", "")
    first = first_layer_of(folder, config, architecture.layers)
    layers = _read_layers(folder, architecture, config, rank, first)
    notes = ours.get("extra") or {}
    place = folder.parent if folder.name == "adapter" else folder
    found = Adapter(
        name or notes.get("value") or place.name,
        {"layers": layers},
        rank,
        alpha,
        factor,
        folder,
        first_layer=first,
        base_identity=ours.get("base_identity"),
        base_name=ours.get("base_name") or told or None,
        prompt_format=ours.get("prompt_format"),
        storage=ours.get("storage"),
        notes=notes,
    )
    largest = max(float(np.abs(pair["b"]).max()) for pair in layers.values())
    if not abs(found.scale) * max(largest, 1.0) < float(np.finfo(np.float32).max):
        raise UserError(
            f"{folder}: its weights times adapter.scale={factor:g} and lora_alpha={alpha:g} are too large for float32; "
            "use a smaller adapter.scale"
        )
    return found


def read_adapter_alone(folder: Path) -> Adapter:
    """Return the adapter in a PEFT folder without its base, such as for its hash (see `Adapter.identity`).

    Whether it fits a base is not known.

    Raises:
        UserError: it is not plain LoRA on the seven projections of every layer or of the last ones, or is damaged.
    """
    config = Claims(read_json_object(folder / CONFIG, AGAIN), str(folder / CONFIG), AGAIN, "LoRA")
    rank, alpha = check_lora(folder, config)
    source = SafetensorsFolder(folder / WEIGHTS)
    named = {int(match[1]) for key in source.names() if (match := _MODULE.fullmatch(key))}
    stop = min(named, default=0) + len(named)
    adapted = range(first_layer_of(folder, config, stop), stop)
    layers: dict[str, dict[str, np.ndarray]] = {}
    for name in _targets(folder, source.names(), adapted):
        for side in ("a", "b"):
            if len({source.shape(_key(layer, name, side)) for layer in adapted}) > 1:
                raise UserError(f"{folder} is damaged: {name} has another shape in some layers; {AGAIN}")
            layers.setdefault(name, {})[side] = _stacked(folder, source, name, side, adapted)
    return Adapter(params={"layers": layers}, rank=rank, first_layer=adapted.start, alpha=alpha, folder=folder)


def read_ours(folder: Path) -> dict[str, Any]:
    """Return what this program wrote beside an adapter (`OURS`); any key may be missing or None, and all may be.

    Raises:
        UserError: the file is damaged.
    """
    if not (folder / OURS).is_file():
        return {}
    claims = Claims(read_json_object(folder / OURS, AGAIN), str(folder / OURS), AGAIN)
    for key in ("base_identity", "base_name", "prompt_format", "storage"):
        claims.text(key, "")
    if claims.get("prompt_format") not in (None, "plain", "chat"):
        raise claims.refused("prompt_format", claims.get("prompt_format"), "plain, chat or null")
    extra = claims.part("extra")
    extra.text("coding", "")
    if not extra.text("value", "").isprintable():  # it is the adapter's name, which is printed
        raise extra.refused("value", extra.get("value"), "a text without control characters")
    return dict(claims.values)


def check_lora(folder: Path, config: Claims) -> tuple[int, float]:
    """Return rank and alpha of an adapter, after a check that it is plain LoRA; UserError if it is not."""
    kind = config.text("peft_type", "nameless")
    if kind != "LORA":
        raise UserError(f"{folder} is a {brief(kind)} adapter; give a LORA adapter")
    used = [key for key, value in config.values.items() if not _is_off(value)]
    faults = [key for key in _REFUSED if key in used]
    if config.text("bias", "none") != "none":
        faults.append("bias")
    start = config.get("init_lora_weights")
    if (start.lower() if isinstance(start, str) else start) not in _STARTS or type(start) in (int, float):  # 1 == True
        faults.append(f"init_lora_weights={brief(start)}")
    if faults:
        raise UserError(f"{folder} uses {', '.join(faults)}, which cannot be read; train it as plain LoRA")
    if unknown := [key for key in used if key not in _READ | _WITHOUT_EFFECT]:
        raise UserError(
            f"{folder / CONFIG} has {brief(unknown[0])}={brief(config.get(unknown[0]))}, which this version does not "
            "know, and which may change what the adapter computes; if it does not, take it out of the file"
        )
    named = config.get("target_modules")
    if not isinstance(named, str | None) and not (isinstance(named, list) and all(isinstance(n, str) for n in named)):
        raise config.refused("target_modules", named, "a list of texts, or a text")
    rank, alpha = config.whole("r"), config.number("lora_alpha")
    return rank, alpha * math.sqrt(rank) if config.flag("use_rslora", False) else alpha


def _is_off(value: Any) -> bool:
    """Return whether a setting is null, false or empty. 0 is not: it may be the number of a layer."""
    return value is None or value is False or (isinstance(value, str | list | dict) and not value)


def _read_layers(
    folder: Path, architecture: Architecture, config: Claims, rank: int, first: int
) -> dict[str, dict[str, np.ndarray]]:
    """Return the adapter's l layers from `first` on: {projection: {"a": [l, in, r], "b": [l, r, out]}}."""
    source, adapted = SafetensorsFolder(folder / WEIGHTS), range(first, architecture.layers)
    targets = _targets(folder, source.names(), adapted)
    _check_named(folder, config, targets, adapted)
    for name in targets:
        inner, outer = projection_shape(architecture, name)
        for side, shape in (("a", (rank, inner)), ("b", (outer, rank))):
            for layer in adapted:
                key = _key(layer, name, side)
                found = source.shape(key)
                if found != shape:
                    ranks = len(found) == 2 and found[side == "b"] != rank and found[side == "a"] == shape[side == "a"]
                    guess = f"{CONFIG} says r={rank}" if ranks else "is it an adapter of another base?"
                    raise UserError(
                        f"{folder} does not fit the base: '{key}' is {list(found)} where {list(shape)} is needed; "
                        f"{guess}"
                    )
    return {name: {side: _stacked(folder, source, name, side, adapted) for side in ("a", "b")} for name in targets}


def _check_named(folder: Path, config: Claims, targets: Sequence[str], adapted: range) -> None:
    """Raise UserError if the weights are of other projections than the list `target_modules` names.

    PEFT passes over weights of what is not named, and over names that the base does not have. As there, a name stands
    for all modules whose path ends in it. A text is a pattern, which is not looked at.
    """
    named = config.get("target_modules")
    if not named or isinstance(named, str):
        return
    wanted = set(named)
    for name, layer in itertools.product(PROJECTIONS, adapted):
        parts = f"model.layers.{layer}.{module_of(name)}".split(".")
        is_named = not wanted.isdisjoint(".".join(parts[start:]) for start in range(len(parts)))
        if is_named and name not in targets:
            raise UserError(f"{folder} is damaged: {CONFIG} names {name}, and {WEIGHTS} has none of it; {AGAIN}")
        if name in targets and not is_named:
            raise UserError(
                f"{folder} is damaged: {WEIGHTS} has {name} of layer {layer}, and target_modules in {CONFIG} does not "
                f"name it; {AGAIN}"
            )


def _stacked(folder: Path, source: SafetensorsFolder, name: str, side: str, adapted: range) -> np.ndarray:
    """Return one side of a projection's adapters, float32 [l, in, r] or [l, r, out]."""
    with np.errstate(over="ignore", invalid="ignore"):  # what does not fit becomes infinite, and is found below
        found = np.stack([source.read(_key(layer, name, side)).astype(np.float32).T for layer in adapted])
    if not all_finite(found):
        raise UserError(f"{folder}: the weights of {name} (lora_{side.upper()}) hold NaN or infinity; {AGAIN}")
    return found


_MODULE = re.compile(r"base_model\.model\.model\.layers\.(0|[1-9][0-9]{0,8})\.([a-z_.]+)\.lora_([AB])\.weight")


def first_layer_of(folder: Path, config: Claims, count: int) -> int:
    """Return the first of the layers that `layers_to_transform` names, which must be all from there to `count`.

    Without that setting, it is 0. UserError if other layers are named.
    """
    named = config.get("layers_to_transform")
    if _is_off(named):
        return 0
    layers = named if isinstance(named, list) else [named]
    if not all(type(layer) is int and layer >= 0 for layer in layers):
        raise config.refused("layers_to_transform", named, "a list of whole numbers, or null")
    if max(layers) >= count:
        raise UserError(
            f"{folder} adapts layers up to {max(layers)}, and this base has layers 0 to {count - 1}; is it an adapter "
            "of another base?"
        )
    if {*layers} != {*range(min(layers), count)}:
        raise UserError(
            f"{folder} adapts {len({*layers})} layers from {min(layers)} to {max(layers)}, and this base has layers 0 "
            f"to {count - 1}: only adapters of all layers, or of the last ones without a gap, can be read; is it an "
            "adapter of another base?"
        )
    return min(layers)


def _targets(folder: Path, keys: Sequence[str], adapted: range) -> list[str]:
    """Return the adapted projections, after a check that the keys are those of plain LoRA in each layer of `adapted`.

    Raises:
        UserError: they are not; the line says what the adapter holds instead.
    """
    modules = {module_of(name): name for name in PROJECTIONS}
    layers: dict[str, set[int]] = {}
    for key in keys:
        if not key.startswith("base_model.model.model.") and ".layers." in key:
            raise UserError(
                f"{folder} has keys in another form ('{brief(key)}') than PEFT's ('{_key(0, 'q_proj', 'a')}'); "
                "save it with PEFT's save_pretrained"
            )
        match = _MODULE.fullmatch(key)
        if match is None or match[2] not in modules:
            raise UserError(
                f"{folder} holds '{brief(key)}', and only LoRA on {', '.join(PROJECTIONS)} can be read: train it on "
                "those alone, without modules_to_save"
            )
        layers.setdefault(modules[match[2]], set()).add(int(match[1]))
    if not layers:
        raise UserError(f"{folder} is damaged: {WEIGHTS} holds no tensors; {AGAIN}")
    targets = [name for name in PROJECTIONS if name in layers]
    first, count, depth = adapted.start, adapted.stop, max(map(max, layers.values())) + 1
    if depth > count or (depth < count and all(found == {*range(depth)} for found in layers.values())):
        raise UserError(
            f"{folder} adapts layers up to {depth - 1}, and this base has layers 0 to {count - 1}; is it an adapter of "
            "another base?"
        )
    for name in targets:
        if missing := sorted({*adapted} - layers[name]):
            named = f"of the layers {first} to {count - 1}" if first else f"of the base's {count} layers"
            raise UserError(
                f"{folder} adapts {name} in {len(layers[name])} {named} (not in layer {missing[0]}), and only adapters "
                "of all layers, or of the last ones that layers_to_transform names, can be read; train it on those"
            )
        if beyond := sorted(layers[name] - {*adapted}):
            raise UserError(
                f"{folder} is damaged: {WEIGHTS} has {name} of layer {beyond[0]}, and layers_to_transform in {CONFIG} "
                f"does not name it; {AGAIN}"
            )
    halves = (_key(layer, name, side) for name in targets for layer in adapted for side in ("a", "b"))
    lost = sorted({*halves} - {*keys})
    if lost:
        raise UserError(f"{folder} is damaged: {WEIGHTS} lacks '{lost[0]}'; {AGAIN}")
    return targets


def _key(layer: int, name: str, side: str) -> str:
    return f"base_model.model.model.layers.{layer}.{module_of(name)}.lora_{side.upper()}.weight"
