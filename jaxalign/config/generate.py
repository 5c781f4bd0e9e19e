"""The configuration of python -m jaxalign.generate (conf/generate.yaml)."""

from dataclasses import dataclass
from typing import Annotated, Literal
from urllib.parse import urlsplit

from jaxalign.config.fields import (
    Address,
    Count,
    Natural,
    NotNegative,
    Place,
    Positive,
    Samples,
    Seed,
    Stops,
    TopK,
    TopP,
    Uncounted,
    whole,
)
from jaxalign.config.model import AskedAdaptersConfig, ModelCommandConfig, check_system
from jaxalign.errors import UserError, shown


@dataclass(frozen=True, kw_only=True)
class TokenSamplingConfig:
    """How the tokens of a sample are drawn, and how many of them at most."""

    temperature: NotNegative
    top_p: TopP
    max_tokens: Count


@dataclass(frozen=True, kw_only=True)
class ResponsesConfig(TokenSamplingConfig):
    """How the responses to a question or a prompt are drawn, and how many (`samples`)."""

    samples: Samples


@dataclass(frozen=True, kw_only=True)
class SamplingConfig(TokenSamplingConfig):
    """How samples are drawn. `rows`, the number of samples that are drawn together, changes no sample."""

    top_k: TopK
    stop: Stops
    seed: Seed
    rows: Uncounted[Count]


@dataclass(frozen=True, kw_only=True)
class AnswersConfig(SamplingConfig):
    """How answers are drawn, and how many (`n`): a larger `n` adds answers to the same run."""

    n: Uncounted[Samples]


@dataclass(frozen=True, kw_only=True)
class EngineConfig:
    """What answers: this program, or a server.

    The server's address and its names of the models are part of a run's identity, but `jobs.engines` adds them there.
    """

    name: Literal["jaxalign", "openai"]
    url: Uncounted[Address | None] = None
    models: Uncounted[tuple[str, ...] | None] = None
    concurrency: Uncounted[Annotated[int, whole(1, 1024)]] = 1
    retries: Uncounted[Natural] = 0
    timeout: Uncounted[Positive] = 1.0
    send: Literal["tokens", "text"] = "tokens"
    strict: bool = False
    check: Uncounted[Natural] = 0

    def __post_init__(self):
        if self.name != "openai":
            if self.check:
                raise UserError("engine.check compares a server with this program: it needs engine=openai")
            for name in ("url", "models"):
                if getattr(self, name) is not None:
                    raise UserError(f"engine.{name} is for a server: add engine=openai")
        elif not self.url:
            raise UserError("missing: engine.url (engine=openai needs it, such as engine.url=http://localhost:8000/v1)")
        elif _names_more(self.url):
            raise UserError(
                "engine.url has more than an address in it (a name or a password before @, or a part after ? or #): "
                "give the address alone, and the key in the environment as OPENAI_API_KEY"
            )
        elif not _is_address(self.url):
            raise UserError(
                f"engine.url={self.url} is not the address of a server: give http:// or https://, a host and the "
                "version, such as engine.url=http://localhost:8000/v1"
            )


def _names_more(url: str) -> bool:
    """Return whether a URL has parts that may be secret. The URL would be in the run's directory and in error lines."""
    return any(sign in url for sign in "@?#")


def _is_address(url: str) -> bool:
    try:
        parts = urlsplit(url)
        no_port = parts.port == 0  # raises ValueError if the port is not a number
    except ValueError:
        return False
    return (
        not no_port
        and parts.scheme in ("http", "https")
        and bool(parts.hostname)
        and url.isascii()
        and not set(url) & set(" \t\n")
    )


def check_served(engine: EngineConfig, asked: AskedAdaptersConfig) -> None:
    """Raise UserError for a setting of the model or its adapter that a server does not follow."""
    if engine.name != "openai":
        return
    if asked.adapter.scale != 1:
        raise UserError(
            f"adapter.scale={shown(asked.adapter.scale)} does not work with a server: multiply lora_alpha in the "
            "adapter_config.json of an exported adapter by it, or leave it at 1"
        )
    if asked.model.storage is not None:
        raise UserError(
            f"model.storage={asked.model.storage} does not work with a server, which stores its model itself: leave it "
            "out"
        )


@dataclass(frozen=True, kw_only=True)
class GenerateConfig(AskedAdaptersConfig, ModelCommandConfig):
    """The whole configuration (conf/generate.yaml)."""

    engine: EngineConfig
    sampling: AnswersConfig
    base: Uncounted[bool | None]
    prompt: Uncounted[str | None]
    prompts: Uncounted[Place | None]

    def __post_init__(self):
        self.check_adapters()
        if self.prompt is not None and self.prompts is not None:
            raise UserError("prompt and prompts are both given: leave one of them out")
        if self.prompt is not None and not self.prompt.strip():
            raise UserError("prompt is empty: write prompt='What is ...?'")
        check_served(self.engine, self)
        if self.engine.strict and self.sampling.top_k:
            raise UserError(
                "sampling.top_k is not part of OpenAI's interface: leave it at 0, or leave engine.strict at false"
            )
        if not self.chats:
            check_system(vars(self.model))
        elif self.sampling.n > 1:
            raise UserError(f"sampling.n={self.sampling.n} is for prompt=... or prompts=...: a chat has one answer")
        elif self.engine.check:
            raise UserError("engine.check is for prompt=... or prompts=...: a chat has no answers to compare")
        elif self.base and (self.adapter.path is not None or self.adapters):
            raise UserError("base=true is for prompt=... or prompts=...: a chat is with one model")

    @property
    def chats(self) -> bool:
        """Whether the command is a chat, because no prompt is given."""
        return self.prompt is None and self.prompts is None
