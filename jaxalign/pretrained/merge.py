"""A base with an adapter in its weights, written as a Hugging Face folder, tensor by tensor.

A merged tensor exists only while it is written, so no second copy of the model is ever in memory.
"""

import json
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import ml_dtypes
import numpy as np

from jaxalign.models.architecture import FAMILIES, Architecture
from jaxalign.pretrained.gguf import GgufFile
from jaxalign.pretrained.safetensors import DTYPES, INDEX, SafetensorsFolder, write_safetensors
from jaxalign.pretrained.sources import ModelSource, RandomTensors
from jaxalign.pretrained.tokenizer import Tokenizer
from jaxalign.pretrained.weights import TensorSource, parameter_leaves

SHARD_BYTES = 5 * 10**9
"""The largest file, unless one tensor alone is larger."""

CARRIED = ("*.json", "*.txt", "*.jinja", "tokenizer.model", "LICENSE*", "NOTICE*")
LEFT = (INDEX, "adapter_config.json", "jaxalign.json")
"""What goes along from a base's folder: its configuration, tokenizer and licence; what of that does not."""


@dataclass(frozen=True)
class MergedTensor:
    """A tensor that is computed when it is asked for; to `write_safetensors` it looks like an array."""

    shape: tuple[int, ...]
    dtype: np.dtype
    make: Callable[[], np.ndarray]

    @property
    def nbytes(self) -> int:
        """The bytes that it takes in a file."""
        return int(np.prod(self.shape)) * self.dtype.itemsize

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        return self.make()


def write_merged(
    folder: Path,
    source: ModelSource,
    path: Path,
    architecture: Architecture,
    tokenizer: Tokenizer,
    adapter: Mapping[str, Any],
    scale: float,
    *,
    bfloat16: bool = True,
) -> None:
    """Write a base with its adapter merged as a folder that Transformers loads.

    Args:
        folder: where to; it is there.
        source: where the base comes from, and `path`, where it was fetched to (`sources.fetch`).
        path: see source.
        architecture: of the base.
        tokenizer: of the base.
        adapter: {"layers": {projection: {"a": [L, in, r], "b": [L, r, out]}}}.
        scale: alpha / rank.
        bfloat16: what a quantised base is rounded to; float32 if not. Any other tensor keeps the type it is stored in.

    Raises UserError for whatever cannot be read or written.
    """
    tensors: TensorSource
    if source.source == "random":
        tensors, config = RandomTensors(architecture, source.seed), dict(source.config or {})
    elif path.is_file():
        file = GgufFile(path)
        tensors, config = file, file.config()
    else:
        tensors, config = SafetensorsFolder(path), None
    merged = merged_tensors(architecture, tensors, adapter, scale, np.dtype(ml_dtypes.bfloat16 if bfloat16 else "f4"))
    if config is None:
        for file in sorted({file for pattern in CARRIED for file in path.glob(pattern)}):
            if file.is_file() and file.name not in LEFT:
                shutil.copyfile(file, folder / file.name)
    else:
        dtype = merged["model.embed_tokens.weight"].dtype
        text = json.dumps(_complete(config, architecture, tokenizer, str(dtype)), indent=2) + "\n"
        (folder / "config.json").write_text(text, encoding="utf-8")
        tokenizer.hf.save_pretrained(folder)
    write_shards(folder, merged)


def merged_tensors(
    architecture: Architecture, tensors: TensorSource, adapter: Mapping[str, Any], scale: float, quantised: np.dtype
) -> dict[str, MergedTensor]:
    """Return every tensor of the model under its Hugging Face name: W + scale * (A B)^T, computed in float32.

    Each has the type that it is stored in, or `quantised` where safetensors has no such type.
    """
    merged = {}
    for leaf in parameter_leaves(architecture):
        pair = adapter["layers"].get(leaf.path[1]) if leaf.path[-1] == "kernel" else None
        for layer, name in enumerate(leaf.names(architecture.layers)):
            dtype = DTYPES.get(tensors.dtype(name), quantised)

            def make(name: str = name, pair: Any = pair, layer: int = layer, dtype: np.dtype = dtype) -> np.ndarray:
                array = tensors.read(name)
                if pair is not None:
                    a, b = (np.asarray(pair[side][layer], np.float32) for side in ("a", "b"))
                    array = array.astype(np.float32) + np.float32(scale) * (b.T @ a.T)
                return array.astype(dtype, copy=False)

            merged[name] = MergedTensor(leaf.shape, dtype, make)
    return merged


def write_shards(folder: Path, tensors: Mapping[str, MergedTensor]) -> None:
    """Write tensors as model.safetensors, or as several files of at most `SHARD_BYTES` with their index."""
    shards: list[dict[str, MergedTensor]] = [{}]
    size = 0
    for name in sorted(tensors):
        if shards[-1] and size + tensors[name].nbytes > SHARD_BYTES:
            shards.append({})
            size = 0
        shards[-1][name] = tensors[name]
        size += tensors[name].nbytes
    weight_map = {}
    for number, shard in enumerate(shards, start=1):
        file = "model.safetensors" if len(shards) == 1 else f"model-{number:05}-of-{len(shards):05}.safetensors"
        write_safetensors(folder / file, cast(Mapping[str, np.ndarray], shard), {"format": "pt"})
        weight_map |= dict.fromkeys(shard, file)
    if len(shards) > 1:
        total = sum(tensor.nbytes for tensor in tensors.values())
        index = {"metadata": {"total_size": total}, "weight_map": weight_map}
        (folder / INDEX).write_text(json.dumps(index, indent=2) + "\n", encoding="utf-8")


def _complete(
    config: Mapping[str, Any], architecture: Architecture, tokenizer: Tokenizer, dtype: str
) -> dict[str, Any]:
    """Add to a configuration what Transformers wants to know of a whole model."""
    names = {family: name for name, family in FAMILIES.items()}
    known = {
        "architectures": [names[architecture.family]],
        "bos_token_id": tokenizer.bos_id,
        "eos_token_id": tokenizer.eos_id,
        "pad_token_id": tokenizer.pad_id,
        "dtype": dtype,
    }
    return known | {key: value for key, value in config.items() if value is not None}
