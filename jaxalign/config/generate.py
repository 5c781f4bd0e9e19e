"""conf/generate.yaml."""

from dataclasses import dataclass
from typing import Literal
from urllib.parse import urlsplit

from jaxalign.config import schema
from jaxalign.config.fields import Count, Natural, NotNegative, Positive, Seed, Stops, TopP
from jaxalign.config.model import AdapterConfig, AskedModelConfig, RunConfig
from jaxalign.errors import UserError


@dataclass(frozen=True)
class SamplingConfig:
    """How many samples, and how they are drawn."""

    n: Count
    temperature: NotNegative
    top_p: TopP
    top_k: Natural
    max_tokens: Count
    stop: Stops
    seed: Seed
    rows: Count


@dataclass(frozen=True)
class EngineConfig:
    """What answers: this program, or a server."""

    name: Literal["jaxalign", "openai"]
    url: str | None = None
    models: tuple[str, ...] | None = None
    concurrency: Count = 1
    retries: Natural = 0
    timeout: Positive = 1.0
    send: Literal["tokens", "text"] = "tokens"
    strict: bool = False
    check: Natural = 0

    def __post_init__(self):
        if self.name != "openai":
            if self.check:
                raise UserError("engine.check compares a server with this program: it needs engine=openai")
            for name in ("url", "models"):
                if getattr(self, name) is not None:
                    raise UserError(f"engine.{name} is for a server: add engine=openai")
        elif not self.url:
            raise UserError("missing: engine.url (engine=openai needs it, such as engine.url=http://localhost:8000/v1)")
        elif not _is_address(self.url):
            raise UserError(
                f"engine.url={self.url} is no address of a server: give http:// or https://, a host and the version, "
                "such as engine.url=http://localhost:8000/v1"
            )


def _is_address(url: str) -> bool:
    try:
        parts = urlsplit(url)
        _ = parts.port  # raises ValueError where it is no number
    except ValueError:
        return False
    return parts.scheme in ("http", "https") and bool(parts.hostname) and url.isascii() and not set(url) & set(" \t\n")


@dataclass(frozen=True)
class GenerateConfig:
    """conf/generate.yaml."""

    run: RunConfig
    model: AskedModelConfig
    engine: EngineConfig
    sampling: SamplingConfig
    adapter: AdapterConfig
    adapters: tuple[str, ...]
    base: bool | None
    prompt: str | None
    prompts: str | None
    precision: Literal["bfloat16", "float32"]
    prefetch: bool
    offline: bool

    def __post_init__(self):
        if self.adapter.path is not None and self.adapters:
            raise UserError("adapter and adapters are both given: name all of them in adapters=[A,B]")
        if self.prompt is not None and self.prompts is not None:
            raise UserError("prompt and prompts are both given: leave one of them out")
        if self.prompt is not None and not self.prompt.strip():
            raise UserError("prompt is empty: write prompt='What is ...?'")
        if self.engine.name == "openai" and self.adapter.scale != 1:
            raise UserError(
                f"adapter.scale={schema.shown(self.adapter.scale)} is not known to a server: export an adapter with "
                "that scale, or leave it at 1"
            )
        if self.engine.strict and self.sampling.top_k:
            raise UserError("sampling.top_k is no field of OpenAI's: leave it at 0, or engine.strict at false")
        if not self.chats:
            self.model.check_system()
        elif self.sampling.n > 1:
            raise UserError(f"sampling.n={self.sampling.n} is for prompt=... or prompts=...: a chat has one answer")
        elif self.engine.check:
            raise UserError("engine.check is for prompt=... or prompts=...: a chat has none to compare")
        elif self.base and (self.adapter.path is not None or self.adapters):
            raise UserError("base=true is for prompt=... or prompts=...: a chat has one partner")

    @property
    def chats(self) -> bool:
        """Whether there is no prompt, so that the user talks with the model."""
        return self.prompt is None and self.prompts is None
