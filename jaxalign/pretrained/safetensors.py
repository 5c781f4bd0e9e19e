"""The safetensors format, read and written without its library, whose NumPy functions do not know bfloat16.

A file consists of the length of the header (8 bytes, little-endian), the header (JSON: for each tensor its `dtype`,
`shape` and `data_offsets`), and the tensors' bytes. Source: https://github.com/huggingface/safetensors, "Format".
"""

import json
import math
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np

from jaxalign.errors import UserError
from jaxalign.models.claims import brief
from jaxalign.runs.reading import cut_while_read, not_a_file
from jaxalign.runs.records import atomic_file, named_errors, read_json_object

INDEX = "model.safetensors.index.json"

LONGEST_HEADER = 100_000_000
"""The longest header that is read, in bytes. The format's own library has the same limit."""

DTYPES = {
    "F64": np.dtype(np.float64),
    "F32": np.dtype(np.float32),
    "F16": np.dtype(np.float16),
    "BF16": np.dtype(ml_dtypes.bfloat16),
}
_NAMES = {dtype: name for name, dtype in DTYPES.items()}


@dataclass(frozen=True)
class _Stored:
    file: Path
    dtype: str
    shape: tuple[int, ...]
    start: int
    size: int


class SafetensorsFolder:
    """The tensors of a folder, or of one file, as a `TensorSource`. A tensor is read when it is asked for.

    All tensors of a file count, also those that the index does not name.

    Attributes:
        left_aside: the names of the folder's other files of weights, and of an index that is not followed.

    Raises:
        UserError: the folder has no safetensors, a file or a tensor of the index is missing, two files hold the same
            tensor, or a file is damaged or truncated.
    """

    def __init__(self, path: str | Path):
        self._tensors: dict[str, _Stored] = {}
        path = Path(path)
        files = _files(path)
        for file, placed in files.items():
            with named_errors(file, "read", "get the model again"):
                found = _parse(file)
            for name in placed:
                if name not in found:
                    raise UserError(
                        f"{file} has no tensor '{brief(name)}', which {INDEX} places there; get the model again"
                    )
            for name in sorted(found.keys() & self._tensors.keys()):
                other = self._tensors[name].file.name
                raise UserError(f"{file} has a tensor '{brief(name)}', and so has {other}; get the model again")
            self._tensors |= found
        self.left_aside = sorted(one.name for one in path.glob("*.safetensors") if one not in files)
        if (path / INDEX).is_file() and not any(files.values()):
            self.left_aside.append(INDEX)

    def names(self) -> list[str]:
        """Return the names of all tensors, sorted."""
        return sorted(self._tensors)

    def shape(self, name: str) -> tuple[int, ...]:
        """Return a tensor's shape."""
        return self._tensors[name].shape

    def dtype(self, name: str) -> str:
        """Return a tensor's type: BF16, F16, F32 or F64; raises UserError for any other type."""
        stored = self._tensors[name]
        if stored.dtype not in DTYPES:
            raise UserError(
                f"{stored.file}: '{brief(name)}' is stored as {brief(stored.dtype)}; "
                f"give a checkpoint in {', '.join(DTYPES)}"
            )
        return stored.dtype

    def readable(self, name: str) -> bool:
        """Return whether a tensor has one of the types that can be read."""
        return self._tensors[name].dtype in DTYPES

    def read(self, name: str) -> np.ndarray:
        """Return a tensor in its stored type, as a read-only view of the file; raises UserError as `dtype` does."""
        return self._bytes(name).view(DTYPES[self.dtype(name)]).reshape(self.shape(name))

    def parts(self, name: str) -> np.ndarray:
        """Return the same as `read`: of the view, only the parts that are used are read from the disk."""
        return self.read(name)

    def raw(self, name: str) -> memoryview:
        """Return a tensor's bytes as they are stored."""
        return self._bytes(name).data

    def _bytes(self, name: str) -> np.ndarray:
        # Each tensor has a map of its own, freed with the array. One map of the file would keep its pages in memory.
        stored = self._tensors[name]
        if not stored.size:
            return np.empty(0, np.uint8)
        with named_errors(stored.file, "read", "it was there when this command began: type the command again"):
            try:
                return np.memmap(stored.file, np.uint8, "r", stored.start, (stored.size,))
            except ValueError as error:  # from a map of more than the file has
                raise cut_while_read(stored.file) from error


def _files(path: Path) -> dict[Path, list[str]]:
    """Return the files of a checkpoint, each with the tensors that the index places there. As in Transformers, the
    index is not followed if it passes over a model.safetensors."""
    if path.is_file():
        return {path: []}
    single, index = path / "model.safetensors", path / INDEX
    parts: dict[Path, list[str]] = {}
    if index.is_file():
        for name, file in _weight_map(index).items():
            parts.setdefault(path / file, []).append(name)
    if single.is_file() and single not in parts:
        return {single: []}
    if index.is_file():
        missing = sorted(part.name for part in parts if not part.is_file())
        if missing:
            raise UserError(f"{path} lacks {missing[0]} ({len(missing)} of {len(parts)} files); get the model again")
        return parts
    files = sorted(path.glob("*.safetensors"))
    if len(files) != 1:
        found = "several *.safetensors and no " + INDEX if files else "no *.safetensors"
        pickled = " (its *.bin files are pickles, which are never loaded)" if any(path.glob("*.bin")) else ""
        raise UserError(f"{path} holds {found}{pickled}; give a folder with model.safetensors, or files and {INDEX}")
    return {files[0]: []}


def _weight_map(index: Path) -> dict[str, str]:
    weight_map = read_json_object(index, "get the model again").get("weight_map")
    if not isinstance(weight_map, dict):
        raise UserError(f"{index} is damaged: no 'weight_map' can be read from it; get the model again")
    for name, file in weight_map.items():
        if not isinstance(file, str) or Path(file).name != file:
            raise UserError(
                f"{index} places '{brief(name)}' in '{brief(file)}', which is not a file name; get the model again"
            )
    return weight_map


def read_metadata(path: str | Path) -> dict[str, str]:
    """Return what is told in the header of a file beside its tensors; UserError if the header cannot be read."""
    path = Path(path)
    with named_errors(path, "read", "get the file again"):
        told = _header(path)[0].get("__metadata__", {})
    return {name: text for name, text in told.items() if isinstance(text, str)} if isinstance(told, dict) else {}


def _damaged(file: Path, what: str) -> UserError:
    return UserError(f"{file} is damaged or truncated: {what}; get the file again")


def _header(file: Path) -> tuple[dict[str, Any], int]:
    """Return the header of a file, and the place where the tensors begin."""
    if why := not_a_file(file):
        raise UserError(f"{file} cannot be read: {why}; get the file again")
    size = file.stat().st_size
    with file.open("rb") as stream:
        prefix = stream.read(8)
        length = struct.unpack("<Q", prefix)[0] if len(prefix) == 8 else None
        if length is None or 8 + length > size:
            raise _damaged(file, "no whole header")
        if length > LONGEST_HEADER:
            raise _damaged(file, f"its header has {length} bytes, and {LONGEST_HEADER} are allowed")
        try:
            header = json.loads(stream.read(length), object_pairs_hook=_distinct)
        except (ValueError, RecursionError) as error:
            raise _damaged(file, "the header cannot be read") from error
    if not isinstance(header, dict):
        raise _damaged(file, "the header cannot be read")
    return header, 8 + length


def _parse(file: Path) -> dict[str, _Stored]:
    header, first = _header(file)
    header.pop("__metadata__", None)
    size = file.stat().st_size
    tensors = {}
    for name, entry in header.items():
        fields = [entry.get(key) for key in ("dtype", "shape", "data_offsets")] if isinstance(entry, dict) else []
        match fields:
            case [str(dtype), list(shape), [int(start), int(end)]] if all(type(side) is int for side in shape):
                stored = _Stored(file, dtype, tuple(shape), first + start, end - start)
            case _:
                raise _damaged(file, f"the header cannot be read at '{brief(name)}'")
        if start < 0 or stored.size < 0 or stored.start + stored.size > size:
            raise _damaged(file, f"the bytes of '{brief(name)}' are not all there")
        if min(shape, default=0) < 0 or (dtype in DTYPES and math.prod(shape) * DTYPES[dtype].itemsize != stored.size):
            raise _damaged(file, f"'{brief(name)}' has not the size of its shape")
        tensors[name] = stored
    _check_every_byte_is_of_one_tensor(file, tensors, first, size)
    return tensors


def _check_every_byte_is_of_one_tensor(file: Path, tensors: Mapping[str, _Stored], first: int, size: int) -> None:
    """Raise UserError if two tensors overlap, or if bytes are of no tensor. The format allows neither."""
    at, before = first, "the header"
    for name, stored in sorted(tensors.items(), key=lambda pair: (pair[1].start, pair[1].size)):
        if stored.start < at:
            raise _damaged(file, f"the bytes of '{brief(name)}' overlap those of {before}")
        if stored.start > at:
            raise _damaged(file, f"{stored.start - at} bytes between {before} and '{brief(name)}' are of no tensor")
        at, before = stored.start + stored.size, f"'{brief(name)}'"
    if at < size:
        raise _damaged(file, f"{size - at} bytes behind {before} are of no tensor")


def _distinct(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Return a JSON object; ValueError if a key is there twice."""
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError("a key is there twice")
    return found


def write_safetensors(path: str | Path, tensors: Mapping[str, np.ndarray], metadata: Mapping[str, str]) -> None:
    """Write tensors to a file, one by one in the order of their names. The file appears complete or not at all.

    Raises:
        UserError: the file cannot be written.
        KeyError: a tensor has a type that is not in `DTYPES`.
    """
    path = Path(path)
    header: dict[str, Any] = {"__metadata__": dict(metadata)}
    offset = 0
    for name in sorted(tensors):
        array = tensors[name]
        dtype = _NAMES[array.dtype]
        header[name] = {"dtype": dtype, "shape": list(array.shape), "data_offsets": [offset, offset + array.nbytes]}
        offset += array.nbytes
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    with atomic_file(path, "free space or choose another place") as stream:
        stream.write(struct.pack("<Q", len(text)) + text)
        for name in sorted(tensors):
            stream.write(np.ascontiguousarray(tensors[name]).reshape(-1).view(np.uint8).data)
