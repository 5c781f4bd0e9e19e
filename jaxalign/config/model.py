"""The parts of a configuration that many commands share: model, adapters and run."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from jaxalign.config.fields import (
    Attention,
    Date,
    MeshSize,
    Place,
    Places,
    Positive,
    PositiveShare,
    Precision,
    PromptFormat,
    Rank,
    Share,
    Storage,
    Targets,
    Uncounted,
)
from jaxalign.config.presets import preset, presets
from jaxalign.config.schema import Rule
from jaxalign.errors import UserError

NEEDED = {"package": ("package", "version", "sha256", "file"), "hub": ("path",), "random": ("config",), "run": ()}
"""The keys that each source of a model needs."""
TAKEN = {**NEEDED, "package": (*NEEDED["package"], "path"), "hub": ("path", "revision")}
"""The keys that each source takes. The `path` of a package is its model's id on the hub, a name alone."""

PATH_UNUSED = "model.path is read with model=hub alone: add model=hub, or leave model.path out"


@dataclass(frozen=True, kw_only=True)
class RunConfig:
    """Where the run's directory is, and the mirror that it is copied to."""

    dir: Uncounted[Place | None]
    root: Uncounted[Place]
    overwrite: Uncounted[bool]
    mirror: Uncounted[Place | None]

    def __post_init__(self):
        for name, place in (("dir", self.dir), ("root", self.root)):
            if place is not None and _SCHEME.match(place):
                raise UserError(
                    f"run.{name}={place} is no folder of this machine: a run is local, and run.mirror={place} copies "
                    "it there"
                )
        if self.mirror is not None:
            check_mirror(self.mirror)
            if not _SCHEME.match(self.mirror):
                self._check_apart(Path(self.mirror).resolve())

    @property
    def folder(self) -> str:
        """The folder of the run if the user named one, or else the one that holds all runs."""
        return self.root if self.dir is None else self.dir

    def _check_apart(self, mirror: Path) -> None:
        """Raise UserError if a mounted folder as the mirror is where the run itself is: it would be its own copy."""
        run = None if self.dir is None else Path(self.dir).resolve()
        if mirror == (Path(self.root).resolve() if run is None else run.parent) or run in (mirror, *mirror.parents):
            where = f"run.root={self.root}" if run is None else f"run.dir={self.dir}"
            raise UserError(f"run.mirror={self.mirror} is where {where} keeps the run: give a folder of another disk")


_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://|(gs|s3):/")


def check_mirror(url: str) -> None:
    """Raise UserError if no mirror can have this address."""
    scheme, _, rest = url.partition("://")
    if any(sign in url for sign in "@?#") and _SCHEME.match(url):
        raise UserError("run.mirror holds @, ? or #: give gs://BUCKET/PATH alone, and secrets in the environment")
    if _SCHEME.match(url) and not (scheme in ("gs", "s3") and rest.strip("/")):
        raise UserError(f"run.mirror={url} is no gs://BUCKET/PATH, s3://BUCKET/PATH or mounted folder")
    if not url:
        raise UserError("run.mirror is empty: give gs://BUCKET/PATH, s3://BUCKET/PATH or a mounted folder")


@dataclass(frozen=True, kw_only=True)
class MeshConfig:
    """The mesh of devices. It changes no number but the last bits, so a run may go on with another one."""

    name: Uncounted[str]
    data: Uncounted[MeshSize]
    fsdp: Uncounted[MeshSize]
    tensor: Uncounted[MeshSize]
    adapter: Uncounted[MeshSize]

    def __post_init__(self):
        rest = [f"mesh.{axis}" for axis, size in self.sizes.items() if size == -1]
        if len(rest) > 1:
            raise UserError(f"{' and '.join(rest)} are both -1, the rest of the devices: give one of them a number")

    @property
    def sizes(self) -> dict[str, int]:
        """The size of each axis."""
        return {"adapter": self.adapter, "data": self.data, "fsdp": self.fsdp, "tensor": self.tensor}


def check_one_adapter(mesh: MeshConfig) -> None:
    """Raise UserError if devices shall share adapters in a command that trains one at a time."""
    if mesh.adapter != 1:
        raise UserError(
            f"mesh.adapter={mesh.adapter} is for several adapters at once, and this command trains one at a time: "
            "leave it at 1, or use mesh.data"
        )


@dataclass(frozen=True, kw_only=True)
class CommandConfig:
    """What every command has."""

    prefetch: Uncounted[bool]
    offline: Uncounted[bool]


@dataclass(frozen=True, kw_only=True)
class ModelCommandConfig(CommandConfig):
    """What every command has that computes with a model and keeps a run. Each such command adds its `model`."""

    run: RunConfig
    mesh: MeshConfig
    precision: Precision
    attention: Uncounted[Attention]  # it changes the last bits alone, as the mesh does


@dataclass(frozen=True, kw_only=True)
class BaseModelConfig:
    """Where a base model comes from, and how it is kept.

    A run's identity has a hash of its weights with their storage (`sources.Model.signature`), and not the place they
    came from.
    """

    name: Uncounted[str]
    path: Uncounted[Place | None] = None
    revision: Uncounted[str | None] = None
    package: Uncounted[str | None] = None
    version: Uncounted[str | None] = None
    sha256: Uncounted[str | None] = None
    file: Uncounted[Place | None] = None
    config: Uncounted[dict[str, Any] | None] = None
    date: Uncounted[Date | None] = None  # the rendered prompts count, where a chat template asks for it
    system: str | None = None
    storage: Uncounted[Storage | None] = None

    def check_source(self, source: str) -> None:
        """Raise UserError if a key that the source needs is missing, or one is given that it would pass over."""
        missing = [f"model.{name}" for name in NEEDED[source] if not getattr(self, name)]
        if missing:
            raise UserError(f"missing: {', '.join(missing)} (model.source={source} needs it)")
        keys = sorted({key for keys in TAKEN.values() for key in keys})
        unused = [key for key in keys if key not in TAKEN[source] and getattr(self, key) is not None]
        if "path" in unused:
            raise UserError(PATH_UNUSED)
        if unused:
            with_what = "without a model= of its own" if source == "run" else f"with model={self.name}"
            raise UserError(f"model.{unused[0]} is not read {with_what}: leave it out")


def check_preset_path(model: BaseModelConfig) -> None:
    """Raise UserError if a model of conf/model was given another path, which it would pass over."""
    shipped = preset(model.name) if model.name in presets() else {}
    same = all(getattr(model, key) == shipped.get(key) for key in NEEDED["package"])
    if shipped.get("source") == "package" and same and model.path != shipped.get("path"):
        raise UserError(PATH_UNUSED)


def check_system(model: Mapping[str, Any]) -> None:
    """Raise UserError for a system message with the plain prompt format, which has no place for one."""
    if model.get("system") is not None and model.get("prompt_format") == "plain":
        raise UserError("model.system is used only in the chat format: add model.prompt_format=chat")


@dataclass(frozen=True, kw_only=True)
class ModelConfig(BaseModelConfig):
    """Which base model, and in which format it gets prompts."""

    source: Uncounted[Literal["package", "hub", "random"]]
    prompt_format: PromptFormat = "plain"

    def __post_init__(self):
        self.check_source(self.source)
        check_system(vars(self))


@dataclass(frozen=True, kw_only=True)
class AskedModelConfig(BaseModelConfig):
    """Which model is asked. With `source: run`, it is the model that the adapter was trained on."""

    source: Uncounted[Literal["run", "package", "hub", "random"]]
    prompt_format: PromptFormat | None = None

    def __post_init__(self):
        self.check_source(self.source)  # no check_system: a chat may have a system message in either format


@dataclass(frozen=True, kw_only=True)
class AdapterConfig:
    """Which adapter, and the factor on its effect. A run's identity has a hash of the weights and the scale."""

    path: Uncounted[Place | None]
    scale: Uncounted[Annotated[float, Rule("a number (0: the bare base, 1: as trained)", lambda x: True)]]


@dataclass(frozen=True, kw_only=True)
class AskedAdaptersConfig:
    """Which adapters are asked, one or a list with patterns, and on which model."""

    model: AskedModelConfig
    adapter: AdapterConfig
    adapters: Uncounted[Places]

    def check_adapters(self) -> None:
        """Raise UserError if both `adapter` and `adapters` are given."""
        if self.adapter.path is not None and self.adapters:
            raise UserError("adapter and adapters are both given: name all of them in adapters=[A,B]")

    @property
    def named(self) -> tuple[str, tuple[str, ...]]:
        """The key that names the adapters, and its values."""
        return ("adapters", self.adapters) if self.adapter.path is None else ("adapter", (self.adapter.path,))


@dataclass(frozen=True, kw_only=True)
class LoraConfig:
    """The adapter's shape."""

    rank: Rank
    alpha: Positive
    dropout: Share
    targets: Targets
    layers: PositiveShare

    def count(self, all_layers: int) -> int:
        """Return the number of layers of a model that get an adapter: at least one."""
        return max(round(self.layers * all_layers), 1)
