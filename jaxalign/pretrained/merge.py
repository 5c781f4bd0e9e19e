"""Merging: a base with an adapter in its weights, written as a Hugging Face folder.

A merged tensor exists only while it is written, so there is never a second copy of the model in memory.
"""

import json
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, cast

import ml_dtypes
import numpy as np

from jaxalign.errors import UserError
from jaxalign.models.adapter import Adapter
from jaxalign.models.architecture import Architecture, from_config
from jaxalign.models.families import FAMILIES
from jaxalign.pretrained.leaves import all_finite
from jaxalign.pretrained.parameters import TensorSource, parameter_leaves
from jaxalign.pretrained.safetensors import DTYPES, INDEX, SafetensorsFolder, write_safetensors
from jaxalign.pretrained.sources import ModelSource, open_checkpoint
from jaxalign.pretrained.tokenizer import Tokenizer

SHARD_BYTES = 5 * 10**9
"""The largest size of a file in bytes, unless a single tensor is larger."""

COPIED = ("*.json", "*.txt", "*.jinja", "tokenizer.model", "LICENSE*", "NOTICE*")
NOT_COPIED = (INDEX, "adapter_config.json", "jaxalign.json")
"""The files that are copied from a base's folder (its configuration, tokenizer and licence), and the exceptions."""


@dataclass(frozen=True)
class MergedTensor:
    """A tensor that is computed when it is read. `write_safetensors` takes it like an array."""

    shape: tuple[int, ...]
    dtype: np.dtype
    make: Callable[[], np.ndarray]

    @property
    def nbytes(self) -> int:
        """Its size in a file, in bytes."""
        return int(np.prod(self.shape)) * self.dtype.itemsize

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        return self.make()


def write_merged(
    folder: Path,
    source: ModelSource,
    path: Path,
    architecture: Architecture,
    tokenizer: Tokenizer,
    adapter: Adapter,
    *,
    bfloat16: bool = True,
) -> None:
    """Write a base, with an adapter merged into it, as a folder that Transformers can load.

    Args:
        folder: an existing folder to write to.
        source: where the base comes from.
        path: the folder or file of the base (from `sources.fetch`).
        architecture: of the base.
        tokenizer: of the base.
        adapter: what is merged, with its scale.
        bfloat16: whether quantised tensors become bfloat16; otherwise float32. Any other tensor keeps its stored type.

    Raises:
        UserError: something cannot be read or written.
    """
    tensors, config = open_checkpoint(source, path)
    merged = merged_tensors(architecture, tensors, adapter, np.dtype(ml_dtypes.bfloat16 if bfloat16 else "f4"))
    if isinstance(tensors, SafetensorsFolder):
        merged |= _left_aside(tensors, merged)
        for file in sorted({file for pattern in COPIED for file in path.glob(pattern)}):
            if file.is_file() and file.name not in NOT_COPIED:
                shutil.copyfile(file, folder / file.name)
        if from_config(config).tied != architecture.tied:  # see `with_own_head`
            text = json.dumps(config | {"tie_word_embeddings": architecture.tied}, indent=2) + "\n"
            (folder / "config.json").write_text(text, encoding="utf-8")
    else:
        dtype = merged["model.embed_tokens.weight"].dtype
        text = json.dumps(_complete(config, architecture, tokenizer, str(dtype)), indent=2) + "\n"
        (folder / "config.json").write_text(text, encoding="utf-8")
        tokenizer.hf.save_pretrained(folder)
    write_shards(folder, merged)


def merged_tensors(
    architecture: Architecture, tensors: TensorSource, adapter: Adapter, quantised: np.dtype
) -> dict[str, MergedTensor]:
    """Return every tensor of the model under its Hugging Face name: W + scale * (a b)^T, computed in float32.

    Each keeps its stored type, or gets the type `quantised` if safetensors has no such type.
    """
    merged, scale = {}, np.float32(adapter.scale)
    layers = {} if adapter.params is None else adapter.params["layers"]
    for leaf in parameter_leaves(architecture):
        adapted = layers.get(leaf.path[1]) if leaf.path[-1] == "kernel" else None
        for layer, name in enumerate(leaf.names(architecture.layers)):
            pair = adapted if layer >= adapter.first_layer else None
            dtype = DTYPES.get(tensors.dtype(name), quantised)

            def make(name: str = name, pair: Any = pair, layer: int = layer, dtype: np.dtype = dtype) -> np.ndarray:
                array = tensors.read(name)
                with np.errstate(over="ignore", invalid="ignore"):  # what does not fit is found below
                    if pair is not None:
                        a, b = (np.asarray(pair[side][layer - adapter.first_layer], np.float32) for side in ("a", "b"))
                        array = array.astype(np.float32) + scale * (b.T @ a.T)
                    array = array.astype(dtype, copy=False)
                if not all_finite(array):
                    raise UserError(f"the merged {name} is too large for {dtype.name}; train a smaller adapter")
                return array

            merged[name] = MergedTensor(leaf.shape, dtype, make)
    return merged


def _left_aside(tensors: SafetensorsFolder, merged: Mapping[str, MergedTensor]) -> dict[str, MergedTensor]:
    """Return the tensors of a base that the model does not have, as they are stored, where their type can be read."""
    names = [name for name in tensors.names() if name not in merged and tensors.readable(name)]
    return {
        name: MergedTensor(tensors.shape(name), DTYPES[tensors.dtype(name)], partial(tensors.read, name))
        for name in names
    }


def write_shards(folder: Path, tensors: Mapping[str, MergedTensor]) -> None:
    """Write tensors to model.safetensors, or to several files of at most `SHARD_BYTES` and an index."""
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
    """Return a configuration with the keys added that Transformers needs for a model."""
    names = {family.name: name for name, family in FAMILIES.items()}
    known = {
        "architectures": [names[architecture.family]],
        "bos_token_id": tokenizer.bos_id,
        "pad_token_id": tokenizer.pad_id,
        "dtype": dtype,
    }
    given = {key: value for key, value in config.items() if value is not None}
    ends = list(tokenizer.end_ids)
    return {**known, **given, "eos_token_id": ends[0] if len(ends) == 1 else ends}
