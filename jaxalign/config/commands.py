"""Every key of conf/ with its type and its allowed values. What the keys mean stands beside them in conf/."""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal, TypeVar
from urllib.parse import urlsplit

from jaxalign.config import schema
from jaxalign.config.schema import Rule, unescaped
from jaxalign.errors import UserError
from jaxalign.values.social_survey import read_target
from jaxalign.values.targets import Target, make_target

Projection = Literal["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]

Count = Annotated[int, Rule("a whole number of at least 1", lambda n: n >= 1)]
Natural = Annotated[int, Rule("a whole number of at least 0", lambda n: n >= 0)]
Seed = Annotated[int, Rule("a whole number from 0 to 4294967295", lambda n: 0 <= n < 2**32)]
Positive = Annotated[float, Rule("a number greater than 0", lambda x: x > 0)]
NotNegative = Annotated[float, Rule("a number of at least 0", lambda x: x >= 0)]
Share = Annotated[float, Rule("a number of at least 0 and below 1", lambda x: 0 <= x < 1)]
Part = Annotated[float, Rule("a number above 0 and below 1", lambda x: 0 < x < 1)]
Betas = Annotated[
    tuple[float, float],
    Rule("two numbers of at least 0 and below 1, such as [0.9,0.999]", lambda pair: all(0 <= x < 1 for x in pair)),
]
TopP = Annotated[float, Rule("a number greater than 0, up to 1 (1 keeps all tokens)", lambda x: 0 < x <= 1)]
Stops = Annotated[tuple[str, ...], Rule("a list of strings that are not empty, such as ['Q:']", all, unescaped)]
Targets = Annotated[
    tuple[Projection, ...],
    Rule("a list of one or more projections, none twice, such as [q_proj,v_proj]", lambda t: 0 < len(t) == len(set(t))),
]


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
class ValueConfig:
    """The target: a score for each of the ten values, given, or (`table`) those of a survey's respondent.

    `name` and `scores` are never None in an instance.
    """

    name: str | None = None
    scores: dict[str, float] | None = None
    coding: Literal["importance", "survey"] = "importance"
    table: str | None = None
    anchor: str | None = None
    rank: Count | None = None

    def __post_init__(self):
        if self.table is not None:
            missing = [f"value.{name}" for name in ("anchor", "rank") if getattr(self, name) is None]
            if missing:
                raise UserError(f"missing: {', '.join(missing)} (value.table needs it)")
            name, scores, _ = read_target(self.table, str(self.anchor), int(self.rank or 0))
            object.__setattr__(self, "name", self.name or name)
            object.__setattr__(self, "scores", scores | (self.scores or {}))
        missing = [f"value.{name}" for name in ("name", "scores") if getattr(self, name) is None]
        if missing:
            raise UserError(f"missing: {', '.join(missing)}")
        make_target(str(self.name), self.scores or {}, self.coding)

    @property
    def inverted(self) -> bool:
        """Whether the scores are those of a table of inverted people."""
        return self.table is not None and read_target(self.table, str(self.anchor), int(self.rank or 0))[2] == "raw"

    def survey_coding(self, raw_coding: bool) -> str | None:
        """Return the coding of the survey that the target is from: `raw` (inverted people) or `reversed`; None for a
        target that is from none."""
        if self.table is None and self.coding != "survey":
            return None
        return "raw" if raw_coding else "reversed"

    def target(self, raw_coding: bool = False) -> Target:
        """Return the target; `raw_coding` leaves scores in survey coding as they are."""
        return make_target(str(self.name), self.scores or {}, self.coding, raw_coding=raw_coding)


@dataclass(frozen=True)
class DatasetConfig:
    """What to train on: arguments, instructions, pairs or questions. What a key is for stands in conf/dataset/."""

    name: str
    kind: Literal["arguments", "instructions", "pairs", "questions"]
    path: str | None = None
    limit: Annotated[int, Rule("a whole number of at least 2", lambda n: n >= 2)] | None = None
    match: str | None = None
    prompt: str | None = None
    skip: bool = False
    reply: str = "({letter})"
    examples: tuple[dict, ...] = ()
    solved: Natural = 0
    train: Count | None = None
    validation: Count | None = None
    test: Count | None = None
    links: tuple[int, ...] = ()
    turned: Annotated[float, Rule("a number from 0 to 1", lambda x: 0 <= x <= 1)] = 0.0

    def __post_init__(self):
        if self.kind == "instructions" and self.prompt is None:
            raise UserError(f"missing: dataset.prompt (dataset={self.name} holds instructions)")
        if self.kind == "pairs" and self.path is None:
            raise UserError("missing: dataset.path (dataset=pairs needs it: a file of prompt, chosen and rejected)")
        if self.kind == "arguments" and self.match is not None:
            raise UserError(f"dataset.match is for instructions; dataset={self.name} holds arguments: leave it out")


@dataclass(frozen=True)
class AlignmentConfig:
    """How arguments become training examples."""

    name: Literal["injection", "roleplay"]
    argument_epochs: Positive | None
    validation_fraction: Part
    balance: bool
    positive_balance: bool
    shuffle_labels: bool
    prompts: dict[str, Any]
    roleplay: dict[str, Any] | None = None


@dataclass(frozen=True)
class BenchmarkConfig:
    """How the questionnaire is asked and read."""

    name: Literal["portraits"]
    portraits: str
    reading: Literal["likelihood", "parse", "both"]
    max_tokens: Count
    limit: Annotated[int, Rule("a whole number of at least 10 (one portrait for each value)", lambda n: n >= 10)] | None
    choice: bool
    prompts: dict[str, Any]


@dataclass(frozen=True)
class TrainingConfig:
    """The course of the training."""

    epochs: Positive
    max_steps: Count | None
    batch_size: Count
    seed: Seed
    log_every: Count
    checkpoint_every: Count
    keep_checkpoints: Count
    row_length: Count | None
    max_rows: Count | None
    packing: bool
    share_prompts: bool
    rematerialisation: Literal["projections", "full", "none"]
    validate: bool
    questionnaire: bool


@dataclass(frozen=True)
class LoraConfig:
    """The adapter's shape."""

    rank: Count
    alpha: Positive
    dropout: Share
    targets: Targets


@dataclass(frozen=True)
class OptimizerConfig:
    """The optimiser and its schedule."""

    name: Literal["adamw"]
    learning_rate: Positive
    betas: Betas
    epsilon: Positive
    weight_decay: NotNegative
    schedule: Literal["constant", "linear", "cosine"]
    warmup_steps: Natural
    clip: Positive | None


@dataclass(frozen=True)
class ObjectiveConfig:
    """What is minimised."""

    name: Literal["sft", "dpo"]
    loss: Literal["sigmoid", "ipo", "hinge"] = "sigmoid"
    beta: Positive = 0.1
    label_smoothing: Annotated[float, Rule("a number of at least 0 and below 0.5", lambda x: 0 <= x < 0.5)] = 0.0
    likelihood: NotNegative = 0.0
    batching: Literal["grouped", "paired"] = "grouped"

    def __post_init__(self):
        if self.label_smoothing and self.loss != "sigmoid":
            raise UserError(f"label_smoothing goes with loss=sigmoid, not with loss={self.loss}: leave it at 0")


@dataclass(frozen=True)
class ReleasedConfig:
    """Switches that bring back what the released code does, for reproduction."""

    label_shift: bool
    length_128: bool
    raw_coding: bool
    unmatched_budget: bool


@dataclass(frozen=True)
class TrainConfig:
    """conf/train.yaml."""

    run: RunConfig
    model: ModelConfig
    dataset: DatasetConfig
    alignment: AlignmentConfig
    benchmark: BenchmarkConfig
    training: TrainingConfig
    lora: LoraConfig
    optimizer: OptimizerConfig
    objective: ObjectiveConfig
    released: ReleasedConfig
    precision: Literal["bfloat16", "float32"]
    adapter: str | None
    inspect: Natural
    prefetch: bool
    offline: bool
    value: ValueConfig | None = None

    def __post_init__(self):
        if self.dataset.kind == "questions":
            raise UserError(f"dataset={self.dataset.name} is for python -m jaxalign.crest")
        if (self.objective.name == "dpo") != (self.dataset.kind == "pairs"):
            raise UserError("objective=dpo and dataset=pairs go together: give both, or neither")
        if self.objective.name == "dpo" and self.adapter is None:
            raise UserError("missing: adapter (objective=dpo starts from one, and holds it as the reference)")
        if self.value is not None and self.dataset.kind != "arguments":
            raise UserError(f"dataset={self.dataset.name} teaches no value: leave value={self.value.name} out")
        if self.value is not None and self.value.table and self.value.inverted != self.released.raw_coding:
            coding, switch = ("raw", "true") if self.value.inverted else ("reversed", "false")
            raise UserError(
                f"value.table={self.value.table} has coding={coding}, which goes with released.raw_coding={switch}: "
                "change the one or the other"
            )
        if self.alignment.name != "injection":
            raise UserError(
                f"alignment={self.alignment.name} trains nothing: python -m jaxalign.evaluate asks a model with it"
            )
        if self.benchmark.reading != "likelihood":
            raise UserError(
                f"benchmark.reading={self.benchmark.reading} is for python -m jaxalign.evaluate; "
                "training reads by likelihood"
            )


@dataclass(frozen=True)
class ExportConfig:
    """conf/export.yaml."""

    run: str
    out: str
    format: Literal["peft", "merged"]
    verify: bool
    prefetch: bool
    offline: bool


@dataclass(frozen=True)
class SurveyConfig:
    """conf/survey.yaml."""

    path: str
    out: str
    coding: Literal["reversed", "raw"]
    neighbours: Count
    separator: Annotated[str, Rule("one character, such as ';'", lambda text: len(text) == 1)] | None
    missing: tuple[int, ...]
    prefetch: bool
    offline: bool


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


@dataclass(frozen=True)
class EvaluateConfig:
    """conf/evaluate.yaml."""

    run: RunConfig
    model: AskedModelConfig
    alignment: AlignmentConfig
    benchmark: BenchmarkConfig
    adapter: AdapterConfig
    adapters: tuple[str, ...]
    precision: Literal["bfloat16", "float32"]
    prefetch: bool
    offline: bool
    value: ValueConfig | None = None

    def __post_init__(self):
        if self.adapter.path is not None and self.adapters:
            raise UserError("adapter and adapters are both given: name all of them in adapters=[A,B]")
        if self.alignment.name == "roleplay" and self.value is None:
            raise UserError("missing: value (alignment=roleplay needs one: add for example +value=power)")
        self.model.check_system()


@dataclass(frozen=True)
class CrestMethodConfig:
    """The method: what is sampled, kept and preferred."""

    samples: Count
    few_shot: bool
    tolerance: Natural | None
    mixing: Annotated[float, Rule("a number from 0 to 1", lambda x: 0 <= x <= 1)]
    deduplicate: bool
    label: Literal["gold", "majority"]
    hint: bool
    iterations: Natural
    continue_adapter: bool


@dataclass(frozen=True)
class SftConfig:
    """Supervised fine-tuning on what was kept."""

    epochs: Natural
    max_steps: Count | None
    batch_size: Count
    learning_rate: Positive
    schedule: Literal["constant", "linear", "cosine"]
    warmup_steps: Natural
    rationale: bool


@dataclass(frozen=True)
class DpoConfig:
    """Direct preference optimisation on the pairs."""

    rounds: Natural
    steps: Count
    batch_size: Count
    batching: Literal["grouped", "paired"]
    resample: bool
    loss: Literal["sigmoid", "ipo", "hinge"]
    beta: Positive
    label_smoothing: Annotated[float, Rule("a number of at least 0 and below 0.5", lambda x: 0 <= x < 0.5)]
    likelihood: NotNegative
    learning_rate: Positive
    schedule: Literal["constant", "linear", "cosine"]
    warmup_steps: Natural

    def __post_init__(self):
        if self.label_smoothing and self.loss != "sigmoid":
            raise UserError(f"dpo.label_smoothing goes with dpo.loss=sigmoid, not with dpo.loss={self.loss}")


@dataclass(frozen=True)
class TestConfig:
    """How a model is tested."""

    max_tokens: Count
    few_shot: bool
    samples: Count
    temperature: NotNegative
    top_p: TopP


@dataclass(frozen=True)
class SeedConfig:
    """The starting adapter, trained on solved questions."""

    epochs: Positive
    learning_rate: Positive
    batch_size: Count


@dataclass(frozen=True)
class CrestSamplingConfig:
    """How rationales are drawn."""

    temperature: NotNegative
    top_p: TopP
    top_k: Natural
    max_tokens: Count
    stop: Stops
    seed: Seed
    rows: Count


@dataclass(frozen=True)
class AdamConfig:
    """AdamW, the same for every training."""

    betas: Betas
    epsilon: Positive
    weight_decay: NotNegative
    clip: Positive | None


@dataclass(frozen=True)
class CrestTrainingConfig:
    """The course of every training."""

    seed: Seed
    log_every: Count
    checkpoint_every: Count
    keep_checkpoints: Count
    row_length: Count | None
    max_rows: Count | None
    rematerialisation: Literal["projections", "full", "none"]


@dataclass(frozen=True)
class ReleasedCrestConfig:
    """Switches that bring back what the released code does."""

    prompt_without_question: bool
    no_end_token: bool
    letters_in_words: bool
    followups_by_not: bool
    threshold: Natural | None
    examples_in_train: bool


@dataclass(frozen=True)
class CrestConfig:
    """conf/crest.yaml."""

    run: RunConfig
    model: ModelConfig
    dataset: DatasetConfig
    reasoning: dict[str, Any]
    stage: Literal["all", "seed", "rationales", "evaluate", "sft", "preferences", "dpo", "test"]
    compare: tuple[str, ...]
    crest: CrestMethodConfig
    sampling: CrestSamplingConfig
    seed: SeedConfig
    sft: SftConfig
    dpo: DpoConfig
    test: TestConfig
    lora: LoraConfig
    optimizer: AdamConfig
    training: CrestTrainingConfig
    released: ReleasedCrestConfig
    precision: Literal["bfloat16", "float32"]
    prefetch: bool
    offline: bool

    def __post_init__(self):
        if self.dataset.kind != "questions":
            raise UserError(
                f"dataset={self.dataset.name} holds {self.dataset.kind}, and crest needs questions: "
                "puzzles, arc, csqa or reclor"
            )
        if self.crest.iterations > 1 and not self.sft.epochs:
            raise UserError("crest.iterations needs fine-tuning: give sft.epochs of at least 1, or crest.iterations=1")


Config = TypeVar("Config", TrainConfig, ExportConfig, GenerateConfig, EvaluateConfig, SurveyConfig, CrestConfig)

TEXTS = ("prompt", "model.system", "dataset.reply")
"""Keys whose value is taken as it stands, commas, quotes and all."""


def read_config(kind: type[Config], raw: Mapping[str, Any]) -> Config:
    """Return the composed configuration, checked; raises UserError for all that is wrong with it."""
    return schema.read(kind, raw, also_missing=_missing_value(raw) if kind is TrainConfig else ())


def _missing_value(raw: Mapping[str, Any]) -> list[str]:
    dataset = raw.get("dataset")
    if raw.get("value") is None and isinstance(dataset, Mapping) and dataset.get("kind") == "arguments":
        return [f"value (dataset={dataset.get('name')} needs one: add for example +value=power)"]
    return []


def plain(config: Any) -> dict[str, Any]:
    """Return a configuration as nested dictionaries of what JSON and YAML can hold."""

    def convert(value: Any) -> Any:
        if isinstance(value, Mapping):
            return {key: convert(item) for key, item in value.items()}
        return [convert(item) for item in value] if isinstance(value, list | tuple) else value

    return convert(dataclasses.asdict(config))


NOT_NUMBERS = (
    *("run", "prefetch", "offline", "inspect"),
    *("training.log_every", "training.checkpoint_every", "training.keep_checkpoints", "training.rematerialisation"),
    "value.table",
    *(f"model.{name}" for name in ("name", "source", "path", "revision", "package", "version", "sha256", "file")),
    "dataset.path",
)
"""The keys that change no number of a run, or only say where a thing lies whose content stands in their place."""


def identity(config: TrainConfig, content: Mapping[str, str]) -> dict[str, Any]:
    """Return what changes the numbers of a run: the configuration without paths, logging and the like.

    Args:
        config: the configuration.
        content: fingerprints of what the paths lead to; each takes the place of its key. `model` (the identity of the
            weights) and `dataset` must be there; `adapter` and `benchmark.portraits` where those are files.
    """
    kept = plain(config)
    for key in NOT_NUMBERS:
        _drop(kept, key)
    for key in sorted({"model", "dataset", *content}):
        *parents, name = key.split(".")
        node = kept
        for parent in parents:
            node = node[parent]
        if isinstance(node.get(name), dict):
            node[name]["content"] = content[key]
        else:
            node[name] = content[key]
    return kept


def _drop(tree: dict[str, Any], key: str) -> None:
    *parents, name = key.split(".")
    for parent in parents:
        tree = tree[parent]
        if tree is None:  # a part that may be left out
            return
    del tree[name]


def readable_name(config: TrainConfig) -> str:
    """Return the readable part of a run directory's name: what is taught, from what, to which model, and the seed."""
    what = [] if config.value is None else [str(config.value.name)]
    return "-".join([*what, config.dataset.name, config.model.name, f"seed{config.training.seed}"])
