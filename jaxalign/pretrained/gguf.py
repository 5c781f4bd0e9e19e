"""GGUF files (the format of llama.cpp): a checkpoint, its configuration and its tokenizer in one file, without torch.

Format: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md. This file reads the header itself, because the
package `gguf` makes an array of every vocabulary entry, which takes seconds. The package dequantises the tensors.
"""

import itertools
import math
import mmap
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import gguf
import numpy as np
from gguf import GGMLQuantizationType, GGUFValueType

from jaxalign.errors import UserError
from jaxalign.models.claims import Claims, brief
from jaxalign.pretrained.gguf_parts import GgufParts
from jaxalign.pretrained.gguf_tokenizer import from_gguf, gguf_ends
from jaxalign.runs.reading import cut_while_read
from jaxalign.runs.records import named_errors

ARCHITECTURES = {"llama": "LlamaForCausalLM", "qwen2": "Qwen2ForCausalLM", "qwen3": "Qwen3ForCausalLM"}

_GLOBAL = {"token_embd": "model.embed_tokens", "output_norm": "model.norm", "output": "lm_head"}
_LAYER = {
    "attn_norm": "input_layernorm",
    "ffn_norm": "post_attention_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "attn_q_norm": "self_attn.q_norm",
    "attn_k_norm": "self_attn.k_norm",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}

_SCALARS = {
    GGUFValueType.UINT8: "B",
    GGUFValueType.INT8: "b",
    GGUFValueType.UINT16: "H",
    GGUFValueType.INT16: "h",
    GGUFValueType.UINT32: "I",
    GGUFValueType.INT32: "i",
    GGUFValueType.FLOAT32: "f",
    GGUFValueType.BOOL: "?",
    GGUFValueType.UINT64: "Q",
    GGUFValueType.INT64: "q",
    GGUFValueType.FLOAT64: "d",
}


@dataclass(frozen=True)
class _Stored:
    kind: GGMLQuantizationType
    shape: tuple[int, ...]
    start: int
    size: int


class GgufFile:
    """A GGUF file as a `TensorSource` with Hugging Face names, and with its configuration and its tokenizer.

    Raises:
        UserError: the file is not GGUF, is truncated, or has an architecture that is not in `ARCHITECTURES`.
    """

    def __init__(self, path: str | Path):
        self._path = Path(path)
        try:
            with named_errors(self._path, "read", "get it again"), self._path.open("rb") as file:
                self._data = memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))
            self._fields, stored = _Header(self._data).read()
        except (ValueError, EOFError) as error:  # an empty file cannot be mapped: ValueError
            raise UserError(f"{path} is not a whole GGUF file ({error}); get it again") from error
        self._claims = Claims(self._fields, str(path), "get another GGUF file of the model")
        self._kind = self._claims.text("general.architecture", "nameless")
        if self._kind not in ARCHITECTURES:
            raise UserError(
                f"{path} holds a '{brief(self._kind)}' model; supported in GGUF are {', '.join(ARCHITECTURES)}: "
                "for other families give a folder with safetensors"
            )
        self._tensors = {_hf_name(name): tensor for name, tensor in stored.items()}
        if len(self._tensors) < len(stored):
            raise UserError(f"{path} holds two tensors for one place of the model; get another GGUF file of it")

    def names(self) -> list[str]:
        """Return the names of all tensors, sorted."""
        return sorted(self._tensors)

    def shape(self, name: str) -> tuple[int, ...]:
        """Return a tensor's shape, in the order of Hugging Face."""
        return self._tensors[name].shape

    def dtype(self, name: str) -> str:
        """Return a tensor's stored type: Q4_1, F16, ..."""
        return self._tensors[name].kind.name

    def raw(self, name: str) -> memoryview:
        """Return a tensor's bytes as they are stored; UserError if the file has lost them since it was opened."""
        stored = self._tensors[name]
        if cast(Any, self._data.obj).size() < stored.start + stored.size:  # reading them would end the process
            raise cut_while_read(self._path)
        return self._data[stored.start : stored.start + stored.size]

    def read(self, name: str) -> np.ndarray:
        """Return a tensor in float32. The rows of a Llama's query and key kernels get the order of Hugging Face.

        Raises:
            UserError: the package `gguf` cannot read the tensor's type.
        """
        return self.parts(name)[()]

    def parts(self, name: str) -> GgufParts:
        """Return a tensor of which each part is decoded alone, when it is asked for, as `read` decodes all of it."""
        heads = None
        if self._kind == "llama" and ".self_attn.q_proj." in name:
            heads = self._heads()
        elif self._kind == "llama" and ".self_attn.k_proj." in name:
            heads = self._kv_heads()
        stored = self._tensors[name]
        order = None if heads is None else _unpermute(np.arange(stored.shape[0]), heads)
        return GgufParts(f"{self._path}: '{name}'", stored.kind, stored.shape, self.raw(name), order)

    def config(self) -> dict[str, Any]:
        """Return the configuration in the form of a `config.json`.

        Raises:
            UserError: a size is missing or has another type or range than it should, or the file describes a rope
                scaling only by its frequencies.
        """
        found, heads = self._claims, self._heads()
        width = found.whole(f"{self._kind}.embedding_length")
        return {
            "architectures": [ARCHITECTURES[self._kind]],
            "model_type": self._kind,
            "vocab_size": len(found.texts("tokenizer.ggml.tokens")),
            "hidden_size": width,
            "intermediate_size": found.whole(f"{self._kind}.feed_forward_length"),
            "num_hidden_layers": found.whole(f"{self._kind}.block_count"),
            "num_attention_heads": heads,
            "num_key_value_heads": self._kv_heads(),
            "head_dim": found.whole(f"{self._kind}.attention.key_length", max(width // heads, 1)),
            "max_position_embeddings": found.whole(f"{self._kind}.context_length"),
            "rms_norm_eps": _shortest(found.number(f"{self._kind}.attention.layer_norm_rms_epsilon")),
            "rope_theta": _shortest(found.number(f"{self._kind}.rope.freq_base", 10000.0)),
            "rope_scaling": self._rope_scaling(),
            "tie_word_embeddings": "lm_head.weight" not in self._tensors,
            "attention_bias": "model.layers.0.self_attn.o_proj.bias" in self._tensors,
            "bos_token_id": self._fields.get("tokenizer.ggml.bos_token_id"),
            "eos_token_id": self._fields.get("tokenizer.ggml.eos_token_id"),
        }

    def tokenizer(self) -> Any:
        """Return the tokenizer as a `PreTrainedTokenizerFast`.

        Raises:
            UserError: it is not byte-level BPE, or a part of it has another type or range than it should.
        """
        found = self._claims
        tokens = found.texts("tokenizer.ggml.tokens")
        if not all(merge.count(" ") == 1 for merge in found.texts("tokenizer.ggml.merges", [])):
            raise found.refused("tokenizer.ggml.merges", ["..."], "two pieces with a space between them, each")
        kinds = found.get("tokenizer.ggml.token_type")
        if kinds and not (isinstance(kinds, list) and len(kinds) == len(tokens)):
            raise found.refused("tokenizer.ggml.token_type", kinds, "one number for each token")
        for name in ("bos", "eos", "unknown", "padding", "eot", "eom"):
            if found.get(key := f"tokenizer.ggml.{name}_token_id") is not None:
                found.whole(key, low=0, high=len(tokens) - 1)
        for name in ("model", "pre"):
            found.text(f"tokenizer.ggml.{name}", "default")
        found.text("tokenizer.chat_template", "")
        found.flag("tokenizer.ggml.add_bos_token", False)
        return from_gguf(self._fields, self._path)

    def end_ids(self) -> list[int]:
        """Return the tokens besides the EOS that end an answer."""
        return gguf_ends(self._fields)

    def _heads(self) -> int:
        return self._claims.whole(f"{self._kind}.attention.head_count")

    def _kv_heads(self) -> int:
        return self._claims.whole(f"{self._kind}.attention.head_count_kv", self._heads())

    def _rope_scaling(self) -> dict[str, Any] | None:
        kind = self._claims.text(f"{self._kind}.rope.scaling.type", "none")
        if "rope_freqs.weight" in self._tensors or kind not in ("none", "linear"):
            raise UserError(
                f"{self._path} uses a rope scaling that GGUF does not describe; give the safetensors folder"
            )
        if kind == "none":
            return None
        return {"rope_type": "linear", "factor": self._claims.number(f"{self._kind}.rope.scaling.factor")}


def _hf_name(name: str) -> str:
    """Return the Hugging Face name of a tensor, or its own name if Hugging Face has no such tensor."""
    stem, _, kind = name.rpartition(".")
    if stem in _GLOBAL:
        return f"{_GLOBAL[stem]}.{kind}"
    block, _, rest = stem.partition(".")
    layer, _, part = rest.partition(".")
    return f"model.layers.{layer}.{_LAYER[part]}.{kind}" if block == "blk" and part in _LAYER else name


def _unpermute(rows: np.ndarray, heads: int) -> np.ndarray:
    """Return rows in the order of Hugging Face's rope; llama.cpp interleaves the two halves of each head's rows."""
    return rows.reshape(heads, -1, 2, *rows.shape[1:]).swapaxes(1, 2).reshape(rows.shape)


def _shortest(value: float) -> float:
    """Return the shortest decimal number that is the same float32: 1e-05 instead of 9.999999747378752e-06."""
    with np.errstate(over="ignore"):
        return float(str(np.float32(value)))


_DEEPEST, _MOST_AXES, _MOST_ALIGNED = 4, 4, 2**20  # arrays within arrays; axes of a tensor; bytes of an alignment
_MOST_ITEMS = 2**24  # of an array: as many as the largest vocabulary that is believed


class _Header:
    """A cursor over the bytes before the tensors. It raises EOFError behind the end, ValueError if it is not GGUF.

    A count that the header claims is never believed: what it counts takes bytes, which end with the file.
    """

    def __init__(self, data: memoryview):
        self._data, self._at = data, 0

    def read(self) -> tuple[dict[str, Any], dict[str, _Stored]]:
        """Return the metadata, and the tensors by their names in the file."""
        magic, version, tensors, fields = bytes(self._take(4)), *self._scalars("I", 1), *self._scalars("Q", 2)
        if magic != b"GGUF" or version not in (2, 3):
            raise ValueError("no GGUF header of version 2 or 3")
        metadata = {}
        for _ in range(fields):
            key = self._string()
            if key in metadata:
                raise ValueError(f"it has two values of '{brief(key)}'")
            metadata[key] = self._value(GGUFValueType(self._scalars("I", 1)[0]), 0)
        infos = [self._tensor() for _ in range(tensors)]
        alignment = metadata.get("general.alignment", gguf.GGUF_DEFAULT_ALIGNMENT)
        if not isinstance(alignment, int) or not 0 < alignment <= _MOST_ALIGNED:
            raise ValueError("its alignment is not a number of bytes")
        base = -(-self._at // alignment) * alignment
        stored = {}
        for name, kind, shape, offset in infos:
            block, size = gguf.GGML_QUANT_SIZES[kind]
            if not shape or shape[-1] % block or name in stored:
                raise ValueError(f"the tensor '{brief(name)}' has no shape of its type, or is there twice")
            bytes_ = math.prod(shape) // block * size
            if base + offset + bytes_ > len(self._data):
                raise EOFError(f"it ends before '{brief(name)}' does")
            stored[name] = _Stored(kind, shape, base + offset, bytes_)
        by_place = sorted(stored.items(), key=lambda pair: (pair[1].start, pair[1].size))
        for (name, one), (other, next_one) in itertools.pairwise(by_place):
            if next_one.start < one.start + one.size:
                raise ValueError(f"the bytes of '{brief(other)}' overlap those of '{brief(name)}'")
        return metadata, stored

    def _take(self, count: int) -> memoryview:
        piece = self._data[self._at : self._at + count]
        if len(piece) < count:
            raise EOFError("it ends inside its header")
        self._at += count
        return piece

    def _scalars(self, code: str, count: int) -> tuple[Any, ...]:
        return struct.unpack(f"<{count}{code}", self._take(count * struct.calcsize(f"<{code}")))

    def _string(self) -> str:
        return str(self._take(self._scalars("Q", 1)[0]), "utf-8")

    def _value(self, kind: GGUFValueType, depth: int) -> Any:
        if kind == GGUFValueType.STRING:
            return self._string()
        if kind == GGUFValueType.ARRAY:
            inner, count = GGUFValueType(self._scalars("I", 1)[0]), self._scalars("Q", 1)[0]
            if count > _MOST_ITEMS:
                raise ValueError(f"it has an array of {count} items")
            if inner in _SCALARS:
                return list(self._scalars(_SCALARS[inner], count))
            if depth == _DEEPEST:
                raise ValueError("its arrays stand within arrays too deep")
            return [self._value(inner, depth + 1) for _ in range(count)]
        return self._scalars(_SCALARS[kind], 1)[0]

    def _tensor(self) -> tuple[str, GGMLQuantizationType, tuple[int, ...], int]:
        name, dimensions = self._string(), self._scalars("I", 1)[0]
        if dimensions > _MOST_AXES:
            raise ValueError(f"the tensor '{brief(name)}' has {dimensions} axes")
        shape = self._scalars("Q", dimensions)
        kind, offset = GGMLQuantizationType(self._scalars("I", 1)[0]), self._scalars("Q", 1)[0]
        return name, kind, shape[::-1], offset  # the fastest dimension comes first in the file
