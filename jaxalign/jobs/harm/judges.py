"""The judges of a benchmark of harm: checked before anything is generated, and loaded only to judge."""

import dataclasses
import os
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from rich.console import Console

from jaxalign.config.evaluate import EvaluateConfig
from jaxalign.config.identity import counted
from jaxalign.config.model import ModelCommandConfig
from jaxalign.config.presets import CONF, preset, presets
from jaxalign.config.safety import HarmConfig, JudgeConfig
from jaxalign.config.search_path import check_not_hidden
from jaxalign.errors import UserError, did_you_mean
from jaxalign.inference.base_model import BaseModel
from jaxalign.jobs.harm.labels import MeasuringLabels, labels_hash, measuring_labels
from jaxalign.jobs.setup import OpenedModel, open_base
from jaxalign.pretrained.sources import ModelSource, fetch, is_hub_id
from jaxalign.runs.records import digest, file_hash
from jaxalign.safety.benchmarks.benchmark import BenchmarkPrompt
from jaxalign.safety.benchmarks.sources import BENCHMARKS
from jaxalign.safety.judgements import Judge, Scale
from jaxalign.safety.judges.api import MODEL_VARIABLE, RubricApi, judge_model, judge_url
from jaxalign.safety.judges.guard import Guard
from jaxalign.safety.judges.guard_formats import guard_format
from jaxalign.safety.judges.imported import Imported
from jaxalign.safety.judges.probe import HARM_PROBE, REFUSAL_PROBE, ProbeJudge, ProbeReader, probe_reader, read_probe
from jaxalign.safety.judges.regard import Regard, check_torch
from jaxalign.safety.judges.rubric import Rubric, RubricLocal
from jaxalign.safety.judges.rubrics import RUBRICS
from jaxalign.safety.judges.toxicity_linear import ToxicityJudge
from jaxalign.safety.starter_prompts import COMPLETION

RESPONSE_SCOPE, RELEASED_SCOPE = "response", "released"
"""What of a text is scored (see `OpenedJudge.toxicity_scope`)."""


@dataclasses.dataclass(frozen=True)
class OpenedJudge:
    """A judge that is checked and not loaded.

    Attributes:
        name: the judge's name.
        key: all that decides its judgements, as JSON: it names the stage.
        load: loads the judge.
        fitted_on: hashes of the prompts that it was fitted to, and is not measured on (see `ProbeWeights`).
        model: the model that judges, if the user chose it; a name or a folder.
        about_harm: whether the shipped labels can measure it; False for regard, unless the user chose it.
        regard: whether its labels say which responses are negative (see `harm_rows`).
        toxicity_scope: what it scores, as `benchmark.toxicity_scope` names it: the response (most judges read the
            prompt beside it), or, "released", prompt and response as one text.
        check: checks what is needed only where something is left to judge: that the server is there.
    """

    name: str
    key: Any
    load: Callable[[], Judge]
    fitted_on: frozenset[str] = frozenset()
    model: str = ""
    about_harm: bool = True
    regard: bool = False
    toxicity_scope: str = RESPONSE_SCOPE
    check: Callable[[], None] = lambda: None


@dataclasses.dataclass(frozen=True)
class HarmJudges:
    """The judges of one run.

    Attributes:
        harm: the judges of harm by name; each prompt has one of them.
        refusal: who looks for refusals among answers to questions; None for nobody.
        labels: the labelled responses that they are measured on, read once.
    """

    harm: dict[str, OpenedJudge]
    refusal: OpenedJudge | None
    labels: MeasuringLabels

    def judge_of(self, prompt: BenchmarkPrompt) -> str:
        """Return the name of the judge of responses to a prompt."""
        toxic = prompt.form == COMPLETION and prompt.category == "toxicity"
        if len(self.harm) > 1:
            return "toxicity_linear" if toxic else "probe"
        return next(iter(self.harm))

    def check(self) -> None:
        """Check that judges can be asked; UserError if a server is not there (see `OpenedJudge.check`)."""
        for one in self.everyone:
            one.check()

    def is_measured(self, one: OpenedJudge, config: JudgeConfig) -> bool:
        """Return whether labelled responses measure a judge.

        They always measure a judge of refusals, because it is local. They measure a judge of harm if the user gave
        labels, or if `judge.calibrate` says so and the shipped ones can.
        """
        return one is self.refusal or config.labels is not None or (config.calibrate and one.about_harm)

    @property
    def content(self) -> dict[str, Any]:
        """What decides all judgements, for identities."""
        return {
            "judges": {name: one.key for name, one in self.harm.items()},
            "refusal": None if self.refusal is None else self.refusal.key,
        }

    def unused_scope(self, wanted: str) -> str | None:
        """Return the line that says that no judge scores what `benchmark.toxicity_scope` names; None if one does."""
        if wanted == RESPONSE_SCOPE or any(one.toxicity_scope == wanted for one in self.harm.values()):
            return None
        names = " and ".join(self.harm)
        instead = "judge=toxicity_linear can score both as one text"
        return f"benchmark.toxicity_scope={wanted} is left aside: {names} scores the response, and {instead}"

    @property
    def everyone(self) -> list[OpenedJudge]:
        """All judges."""
        return [*self.harm.values(), *([] if self.refusal is None else [self.refusal])]


class JudgeModels:
    """The models that judges read with: each is opened once, and loaded once when a judge needs it."""

    def __init__(self, config: ModelCommandConfig, console: Console):
        self._config, self._console = config, console
        self._opened: dict[str, OpenedModel] = {}
        self._loaded: dict[str, BaseModel] = {}
        self._readers: dict[str, ProbeReader] = {}

    def open(self, name: str) -> OpenedModel:
        """Return the files of a model: an option of conf/model, an id on the hub or a folder."""
        if name not in self._opened:
            none = dict.fromkeys(("system", "date"))
            if name in presets():
                check_not_hidden("model", name, "judges read with the shipped one: rename yours")
            keys = preset(name) if name in presets() else {"name": name, "source": "hub", "path": name, **none}
            keys = {**keys, "prompt_format": "plain"}
            opened = open_base(dataclasses.replace(self._config, prefetch=False), self._console, keys)
            assert opened is not None
            self._opened[name] = opened
        return self._opened[name]

    def load(self, name: str) -> BaseModel:
        """Return a model with its weights."""
        if name not in self._loaded:
            self._loaded[name] = self.open(name).load()
        return self._loaded[name]

    def reader(self, name: str) -> ProbeReader:
        """Return what reads responses for probes: all probes of one base share what they read."""
        if name not in self._readers:
            self._readers[name] = probe_reader(self.load(name))
        return self._readers[name]

    def folder(self, path: str) -> Path:
        """Return the local folder of a classifier: the path itself, or what an id on the hub stands for, fetched once.

        Raises:
            UserError: it cannot be fetched.
        """
        if not is_hub_id(path):
            return Path(path)
        return fetch(ModelSource("hub", path), offline=self._config.offline, log=self._console.print)

    def signature(self, name: str) -> list[str]:
        """Return what decides the answers of a model, without its weights in memory: signature and number format."""
        return [self.open(name).files.identify()[1], self._config.precision]


def open_judges(config: EvaluateConfig, benchmark: HarmConfig, models: JudgeModels) -> HarmJudges:
    """Check and return the configured judges. Whether a server is there, `HarmJudges.check` checks.

    Raises:
        UserError: a judge lacks what it needs (a key, a package, a file, a checkpoint that fits), or the labels that it
            is measured on cannot be used.
    """
    source, judge = BENCHMARKS[benchmark.name], config.judge
    labels = measuring_labels(judge.labels)
    names = [judge.name]
    if judge.name == "auto":
        names = ["probe", "toxicity_linear"] if source.judge == "probe_or_toxicity" else [source.judge]
        if names == ["regard"] and judge.path is None:
            raise UserError(
                f"benchmark={benchmark.name} is judged by a classifier of regard: give judge.path=, an id "
                "on the hub such as sasha/regardv3 or a folder, or choose another judge"
            )
    harm = {name: JUDGES[name](judge, benchmark, models) for name in names}
    return HarmJudges(harm, _open_refusal(judge, source.refusals, models), labels)


def _open_refusal(judge: JudgeConfig, wanted: bool, models: JudgeModels) -> OpenedJudge | None:
    if not wanted or judge.refusal == "none":
        return None
    if judge.name == "guard" and judge.refusal != "probe":
        family = models.open(str(judge.model)).files.architecture.family
        known = guard_format(str(judge.format), family, judge.template, judge.policies)
        if known.refusal is not None or judge.refusal == "guard":
            return _guard(judge, None, models, about="refusal")
    return _probe_of(judge.refusal_model, judge.refusal_weights or REFUSAL_PROBE, models, "refusal")


def _probe(judge: JudgeConfig, benchmark: HarmConfig | None, models: JudgeModels) -> OpenedJudge:
    return _probe_of(str(judge.model), judge.weights or HARM_PROBE, models, "harm")


def _probe_of(model: str, file: str | Path, models: JudgeModels, about: str) -> OpenedJudge:
    weights = read_probe(file)
    if weights.about != about:
        raise UserError(f"{file} is a probe for {weights.about}, and one for {about} is needed: give another file")
    files = models.open(model).files
    base = files.identify()[0]
    if base != weights.base:
        raise UserError(
            f"the probe {file} was fitted on another base than {model}: give the base that it was fitted on, or fit "
            "one on this base with stage=fit_judge"
        )
    if weights.weights.shape != (files.architecture.width,):
        raise UserError(
            f"the probe {file} has {len(weights.weights)} weights, and states of {model} have "
            f"{files.architecture.width} numbers: fit it again with stage=fit_judge"
        )
    name = "probe" if about == "harm" else "refusal_probe"
    key = [name, file_hash(Path(file)), *models.signature(model)]
    return OpenedJudge(name, key, lambda: ProbeJudge(weights, models.reader(model)), weights.fitted_on)


def _toxicity(judge: JudgeConfig, benchmark: HarmConfig | None, models: JudgeModels) -> OpenedJudge:
    scope = _scope(benchmark)
    made = ToxicityJudge(joined=scope == RELEASED_SCOPE)
    return OpenedJudge(made.name, made.identity, lambda: made, toxicity_scope=scope)


def _scope(benchmark: HarmConfig | None) -> str:
    return RESPONSE_SCOPE if benchmark is None else benchmark.toxicity_scope


def _rubric(judge: JudgeConfig, benchmark: HarmConfig | None, models: JudgeModels) -> OpenedJudge:
    return open_rubrics(judge, [RUBRICS[judge.rubric]], models)[0]


def open_rubrics(judge: JudgeConfig, rubrics: Sequence[Rubric], models: JudgeModels) -> list[OpenedJudge]:
    """Check `judge`, rubric_local or rubric_api, and return it once for each rubric.

    Judges at a server share the budget of requests. Its address is needed only to check or load them.

    Raises:
        UserError: the model is missing.
    """
    read = _rubrics_api if judge.name == "rubric_api" else _rubrics_local
    return read(judge, rubrics, models)


def _rubrics_local(judge: JudgeConfig, rubrics: Sequence[Rubric], models: JudgeModels) -> list[OpenedJudge]:
    name = str(judge.model)
    opened = models.open(name)
    tokenizer = opened.files.tokenizer
    encoder = dataclasses.replace(opened.encoder, prompt_format=tokenizer.prompt_format)

    def load(rubric: Rubric) -> Judge:
        base = models.load(name)
        return RubricLocal(rubric, base.scorer(None, 0.0), encoder, base.signature, judge.expected)

    read = [judge.expected, tokenizer.has_template, *models.signature(name)]
    keys = [["rubric_local", digest(dataclasses.asdict(rubric)), *read] for rubric in rubrics]
    return [
        OpenedJudge("rubric_local", key, partial(load, rubric), model=_short(name))
        for key, rubric in zip(keys, rubrics, strict=True)
    ]


def _rubrics_api(judge: JudgeConfig, rubrics: Sequence[Rubric], models: JudgeModels) -> list[OpenedJudge]:
    model = judge_model()
    first = RubricApi(
        rubrics[0],
        "",  # the address is read when something is missing
        model,
        temperature=judge.temperature,
        max_tokens=judge.max_tokens,
        concurrency=judge.concurrency,
        tries=judge.tries,
        timeout=judge.timeout,
        max_requests=judge.max_requests,
    )

    def load(rubric: Rubric) -> RubricApi:
        return dataclasses.replace(first, rubric=rubric, url=judge_url())

    def opened(rubric: Rubric) -> OpenedJudge:
        key = [dataclasses.replace(first, rubric=rubric).identity, judge.repeat]
        return OpenedJudge(first.name, key, partial(load, rubric), model=model, check=lambda: load(rubric).check())

    return [opened(rubric) for rubric in rubrics]


def _short(model: str) -> str:
    """Return the name of a model, of a folder the last part."""
    return Path(model).name if Path(model).is_dir() else model


def _guard(judge: JudgeConfig, benchmark: HarmConfig | None, models: JudgeModels, about: str = "harm") -> OpenedJudge:
    name = str(judge.model)
    opened = models.open(name)
    known = guard_format(str(judge.format), opened.files.architecture.family, judge.template, judge.policies)

    def load() -> Judge:
        base = models.load(name)
        return Guard(known, base.scorer(None, 0.0), opened.files.tokenizer, base.signature, about, judge.strict)

    template = opened.files.tokenizer.hf.chat_template
    texts = digest([known.template, dict(known.policies), template if isinstance(template, str) else str(template)])
    key = ["guard", known.name, about, judge.strict, texts, *models.signature(name)]
    return OpenedJudge("guard" if about == "harm" else "guard (refusals)", key, load, model=_short(name))


def _regard(judge: JudgeConfig, benchmark: HarmConfig | None, models: JudgeModels) -> OpenedJudge:
    check_torch()
    made = Regard(models.folder(str(judge.path)), judge.negative, judge.joined)
    about_harm, model = judge.name == "regard", _short(str(judge.path))
    scope = RELEASED_SCOPE if judge.joined else RESPONSE_SCOPE
    return OpenedJudge(
        *(made.name, made.identity, lambda: made),
        model=model,
        about_harm=about_harm,
        regard=True,
        toxicity_scope=scope,
    )


def _imported(judge: JudgeConfig, benchmark: HarmConfig | None, models: JudgeModels) -> OpenedJudge:
    low, high, threshold = judge.scale
    made = Imported(Path(str(judge.path)), Scale(low, high, threshold))
    # What the scores are of is known to the user alone.
    return OpenedJudge(
        *(made.name, made.identity, lambda: made), regard=made.tells_regard, toxicity_scope=_scope(benchmark)
    )


JUDGES: dict[str, Callable[[JudgeConfig, HarmConfig | None, JudgeModels], OpenedJudge]] = {
    "probe": _probe,
    "toxicity_linear": _toxicity,
    "rubric_local": _rubric,
    "rubric_api": _rubric,
    "guard": _guard,
    "regard": _regard,
    "imported": _imported,
}
"""What checks and returns a judge, by `judge.name`. To add a judge, add it here."""


def check_judge(name: str) -> None:
    """Raise UserError if there is no judge of this name; "auto" stands for the one that fits the benchmark."""
    if name not in JUDGES and name != "auto":
        raise UserError(f"judge.name={name} is not known{did_you_mean(name, [*JUDGES, 'auto'])}")


def unused_keys(judge: JudgeConfig) -> list[str]:
    """Return the names of the keys that were set, and that a judge of conf/judge does not read: its file lacks them."""
    if not (CONF / "judge" / f"{judge.name}.yaml").is_file():
        return []  # a judge of the user's own
    read = preset(judge.name, "judge")
    others = (field for field in dataclasses.fields(judge) if field.name not in read)
    return [field.name for field in others if getattr(judge, field.name) != field.default]


def judge_content(config: EvaluateConfig) -> dict[str, Any]:
    """Return what the configuration says of the judge, for the identity of a whole run: files are hashed."""
    told = counted(config.judge)
    told["labels"] = None if config.judge.labels is None else labels_hash(config.judge.labels)
    for name in ("weights", "template", "policies", "path", "refusal_weights"):
        if told[name] is not None and Path(told[name]).is_file():
            told[name] = file_hash(Path(told[name]))
    if config.judge.name == "rubric_api":
        told["served"] = os.environ.get(MODEL_VARIABLE)
    return told
