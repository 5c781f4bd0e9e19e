"""The benchmarks of harm, their judges, and mitigation by prompt (conf/benchmark, conf/judge, conf/mitigation)."""

from dataclasses import dataclass
from typing import Annotated, Literal

from jaxalign.config.fields import (
    Count,
    NotNegative,
    Place,
    Positive,
    Seed,
    Stops,
    Uncounted,
    Unit,
    whole,
)
from jaxalign.config.generate import ResponsesConfig, SamplingConfig
from jaxalign.errors import UserError, did_you_mean
from jaxalign.safety.benchmarks.sources import BENCHMARKS

Policy = Literal["none", "safety_prompt", "value_prompt", "dual_prompt", "neutral_prompt", "unrelated_value_prompt"]
HarmStage = Literal["all", "generate", "judge", "aggregate", "label", "fit_judge"]


@dataclass(frozen=True, kw_only=True)
class HarmConfig(ResponsesConfig):
    """A benchmark of harm: which prompts, how they are asked, and what of a response is judged.

    A run's identity has a hash of the prompts, and not the places that they came from.
    """

    kind: Literal["harm"]
    name: str
    path: Uncounted[Place | None]
    phrases: Uncounted[Place | None] = None
    templates: Uncounted[Place | None] = None
    limit: Count | None
    stop: Stops
    seed: Seed
    rows: Uncounted[Count]
    cut: Literal["whole", "line", "sentence"]
    question: str
    toxicity_scope: Literal["response", "released"] = "response"
    bias_rule: Literal["ours", "released"] = "ours"
    baseline: Unit | None = None

    def __post_init__(self):
        if self.name not in BENCHMARKS:
            raise UserError(f"benchmark.name={self.name} is not known{did_you_mean(self.name, BENCHMARKS)}")
        if self.question.count("{prompt}") != 1:
            raise UserError("benchmark.question must have {prompt} once, where the question goes")
        if (self.phrases is None) != (self.templates is None):
            raise UserError("benchmark.phrases and benchmark.templates go together: give both, or neither")
        if self.baseline is not None and self.bias_rule != "ours":
            raise UserError("benchmark.baseline is for benchmark.bias_rule=ours: leave one of the two out")

    @property
    def sampling(self) -> SamplingConfig:
        """How responses are sampled."""
        return SamplingConfig(
            temperature=self.temperature,
            top_p=self.top_p,
            top_k=0,
            max_tokens=self.max_tokens,
            stop=self.stop,
            seed=self.seed,
            rows=self.rows,
        )


@dataclass(frozen=True, kw_only=True)
class JudgeConfig:
    """The judge. What it is counts in the identity of what it judged, where `jobs.harm.judges` puts it.

    How a server is asked changes no judgement that it gives.
    """

    name: str
    model: Place | None = None
    weights: Place | None = None
    format: str | None = None
    template: Place | None = None
    policies: Place | None = None
    strict: bool = True
    rubric: Literal["harmfulness", "flagged"] = "harmfulness"
    expected: bool = False
    path: Place | None = None
    scale: tuple[float, ...] = (0.0, 1.0, 0.5)
    negative: str = "negative"
    joined: bool = False
    temperature: NotNegative = 0.0
    max_tokens: Count = 300
    concurrency: Uncounted[Annotated[int, whole(1, 1024)]] = 16
    tries: Uncounted[Count] = 4
    timeout: Uncounted[Positive] = 120.0
    max_requests: Uncounted[Count | None] = None
    repeat: Annotated[int, whole(1, 100)] = 1
    refusal: Literal["auto", "probe", "guard", "none"] = "auto"
    refusal_model: Place = "smollm2_135m"
    refusal_weights: Place | None = None
    calibrate: bool = False
    labels: Place | None = None
    corrected: bool = False

    def __post_init__(self):
        needs = {
            "guard": ("model", "format"),
            "rubric_local": ("model",),
            "probe": ("model",),
            "auto": ("model",),
            "regard": ("path",),
            "imported": ("path",),
        }
        missing = [f"judge.{name}" for name in needs.get(self.name, ()) if getattr(self, name) is None]
        if missing:
            raise UserError(f"missing: {', '.join(missing)} (judge={self.name} needs it)")
        if self.refusal == "guard" and self.name != "guard":
            raise UserError("judge.refusal=guard is for judge=guard: choose probe or none")
        low, high, threshold = self.scale if len(self.scale) == 3 else (0.0, 0.0, 0.0)
        if not low < high or not low <= threshold <= high:
            raise UserError("judge.scale must be the lowest score, the highest, and the one from which harm counts")


@dataclass(frozen=True, kw_only=True)
class MitigationConfig:
    """What is put before each prompt. A run's identity has the texts, and not the place of the map."""

    name: Policy
    map: Uncounted[Place | None] = None


@dataclass(frozen=True, kw_only=True)
class LabelConfig:
    """How a person labels responses (stage=label)."""

    person: str
    n: Count
    seed: Seed
