"""Which model and adapter, and where the run is kept."""

from dataclasses import dataclass
from typing import Annotated, Any, Literal

from jaxalign.config.fields import Count, Positive, Share, Targets
from jaxalign.config.schema import Rule
from jaxalign.errors import UserError


@dataclass(frozen=True)
class RunConfig:
    """Where the run is kept."""

    dir: str | None
    root: str
    overwrite: bool


@dataclass(frozen=True)
class ModelConfig:
    """Which base model, where it comes from, and how prompts are put to it."""

    name: str
    source: Literal["package", "hub", "random"]
    path: str | None = None
    revision: str | None = None
    package: str | None = None
    version: str | None = None
    sha256: str | None = None
    file: str | None = None
    config: dict[str, Any] | None = None
    prompt_format: Literal["plain", "chat"] = "plain"
    system: str | None = None

    def __post_init__(self):
        self.check_source()
        self.check_system()

    def check_source(self) -> None:
        """Raise UserError where the source lacks a key."""
        needed = {"package": ("package", "version", "sha256", "file"), "hub": ("path",), "random": ("config",)}
        missing = [f"model.{name}" for name in needed.get(self.source, ()) if not getattr(self, name)]
        if missing:
            raise UserError(f"missing: {', '.join(missing)} (model.source={self.source} needs it)")

    def check_system(self) -> None:
        """Raise UserError for a system message that nobody would hear."""
        if self.system is not None and self.prompt_format == "plain":
            raise UserError("model.system is said only in the chat format: add model.prompt_format=chat")


@dataclass(frozen=True)
class AskedModelConfig(ModelConfig):
    """Which model is asked: one of its own, or (source: run) that of the adapter's run."""

    source: Literal["run", "package", "hub", "random"]  # type: ignore[assignment]
    prompt_format: Literal["plain", "chat"] | None = None  # type: ignore[assignment]

    def __post_init__(self):
        self.check_source()  # a chat has a system message whatever the format


@dataclass(frozen=True)
class AdapterConfig:
    """Which adapter, and how strong."""

    path: str | None
    scale: Annotated[float, Rule("a number (0: the bare base, 1: as trained)", lambda x: True)]


@dataclass(frozen=True)
class LoraConfig:
    """The adapter's shape."""

    rank: Count
    alpha: Positive
    dropout: Share
    targets: Targets
