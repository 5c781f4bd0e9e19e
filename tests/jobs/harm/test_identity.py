"""What decides the numbers of each stage of a benchmark of harm: every key counts from the stage on that it changes."""

import dataclasses
import json
from types import SimpleNamespace

import numpy as np
import pytest
from config.test_commands import raw
from rich.console import Console

from jaxalign.config.commands import read_config
from jaxalign.config.evaluate import EvaluateConfig
from jaxalign.config.generate import EngineConfig
from jaxalign.config.identity import identity
from jaxalign.config.safety import HarmConfig, JudgeConfig, MitigationConfig
from jaxalign.data.encoding import Encoder
from jaxalign.jobs.asked import AskedModel
from jaxalign.jobs.evaluate.safety import harm_content
from jaxalign.jobs.harm.judge import judge_identity
from jaxalign.jobs.harm.judges import HarmJudges, JudgeModels, OpenedJudge, open_judges
from jaxalign.jobs.harm.labels import MeasuringLabels
from jaxalign.jobs.harm.session import HARM_STAGES, HarmSession
from jaxalign.jobs.setup import OpenedModel
from jaxalign.models.adapter import BASE, Adapter
from jaxalign.safety.benchmarks.benchmark import BenchmarkPrompt
from jaxalign.safety.judges.probe import HARM_PROBE, ProbeWeights, read_probe, write_probe
from jaxalign.safety.mitigation import Mitigation

PROMPTS = [
    BenchmarkPrompt(str(n), "malware", form, f"Is {n} good?") for n, form in enumerate(["question", "completion"])
]
MODELS = [AskedModel(BASE, "base")]


class Models(JudgeModels):
    """The models that judges read with, of which only what identities need is there."""

    def __init__(self, config, tokenizer):
        super().__init__(config, Console())
        self.tokenizer = tokenizer

    def open(self, name):
        families = {"qwen": "qwen3", "mistral": "mistral", "gemma": "gemma2"}
        files = SimpleNamespace(
            identify=lambda: (read_probe(HARM_PROBE).base, f"{name} 1"),
            architecture=SimpleNamespace(family=families.get(name, "llama"), width=576),
            tokenizer=self.tokenizer,
        )
        return SimpleNamespace(files=files, encoder=Encoder(self.tokenizer, "plain", None))


def session_of(config, tokenizer):
    files = SimpleNamespace(identify=lambda: ("base", "base 1"))
    opened = OpenedModel(config, {}, files, Encoder(tokenizer, "plain", None), Console())  # type: ignore
    return HarmSession(config, opened, PROMPTS, Mitigation(config.mitigation.name), Console())


def identities(config, tokenizer):
    """The identity of each stage of a command."""
    session = session_of(config, tokenizer)
    judges = open_judges(config, config.harm, Models(config, tokenizer))
    of_run = identity(config, harm_content(session, MODELS))
    found = session.identity(MODELS[0]), judge_identity(session, MODELS[0], judges), of_run
    return [json.loads(json.dumps(one)) for one in found]


def made(*chosen, change=""):
    return read_config(EvaluateConfig, raw("benchmark=starter_probes", *chosen, change=change, name="evaluate"))


def first_changed(one, other):
    """The first stage that two commands do not share; None if they share all. No later one may be shared."""
    same = [mine == theirs for mine, theirs in zip(one, other, strict=True)]
    assert same == sorted(same, reverse=True)
    return HARM_STAGES[same.index(False)] if False in same else None


@pytest.mark.parametrize(
    ("part", "chosen", "stage"),
    [
        ("benchmark", [], "generate"),
        ("mitigation", ["mitigation=safety_prompt"], "generate"),
        ("engine", [], "generate"),
        ("engine", ["engine=openai", "engine.url=http://localhost:1/v1"], "generate"),
        ("judge", ["judge=toxicity_linear"], "judge"),
    ],
)
def test_a_key_that_is_added_later_counts_by_itself(part, chosen, stage, tokenizer):
    config = made(*chosen)
    before = getattr(config, part)
    later = dataclasses.make_dataclass("Later", [("added", int)], bases=(type(before),), frozen=True, kw_only=True)
    fields = {field.name: getattr(before, field.name) for field in dataclasses.fields(before)}
    changed = dataclasses.replace(config, **{part: later(**fields, added=1)})
    assert first_changed(identities(config, tokenizer), identities(changed, tokenizer)) == stage


LOCAL, SERVED = ["judge=rubric_local", "judge.model=m"], ["judge=rubric_api"]
GUARD = ["judge=guard", "judge.model=qwen", "judge.format=qwen3guard"]
WILDGUARD = ["judge=guard", "judge.model=mistral", "judge.format=wildguard", "judge.template=TEMPLATE"]
SHIELDGEMMA = ["judge=guard", "judge.model=gemma", "judge.format=shieldgemma", "judge.policies=POLICIES"]
IMPORTED = ["judge=imported", "judge.path=SCORES"]
ENGINE = ["engine=openai", "engine.url=http://localhost:1/v1"]

COUNTED = [
    *[([], f"benchmark.{change}", "generate") for change in ("name=over_refusal", "samples=2", "max_tokens=9")],
    *[([], f"benchmark.{change}", "generate") for change in ("temperature=0.5", "top_p=0.5", "stop=['.']", "seed=1")],
    ([], "benchmark.question='{prompt}'", "generate"),
    ([], "benchmark.cut=line", "judge"),
    ([], "benchmark.toxicity_scope=released", "judge"),
    ([], "benchmark.bias_rule=released", "aggregate"),
    ([], "benchmark.baseline=0.1", "aggregate"),
    ([], "mitigation.name=safety_prompt", "generate"),
    (ENGINE, "engine.url=http://localhost:2/v1", "generate"),
    (ENGINE, "engine.models=[a]", "generate"),
    (ENGINE, "engine.send=text", "generate"),
    (ENGINE, "engine.strict=true", "generate"),
    ([], "judge.name=probe", "judge"),
    ([], "judge.model=other", "judge"),
    ([], "judge.weights=HARM", "judge"),
    ([], "judge.refusal=none", "judge"),
    ([], "judge.refusal_model=other", "judge"),
    ([], "judge.refusal_weights=REFUSAL", "judge"),
    ([], "judge.calibrate=false", "judge"),
    ([], "judge.labels=LABELS", "judge"),
    ([], "judge.corrected=true", "aggregate"),
    (GUARD, "judge.strict=false", "judge"),
    (WILDGUARD, "judge.template=OTHER", "judge"),
    (WILDGUARD, "judge.format=harmbench", "judge"),
    (SHIELDGEMMA, "judge.policies=OTHERS", "judge"),
    (LOCAL, "judge.rubric=flagged", "judge"),
    (LOCAL, "judge.expected=true", "judge"),
    (SERVED, "judge.rubric=flagged", "judge"),
    (SERVED, "judge.temperature=0.5", "judge"),
    (SERVED, "judge.max_tokens=9", "judge"),
    (SERVED, "judge.repeat=2", "judge"),
    (IMPORTED, "judge.path=SCORED", "judge"),
    (IMPORTED, "judge.scale=[0,1,0.25]", "judge"),
]
UNCHANGED = [
    ([], "benchmark.rows=3"),
    *[(ENGINE, f"engine.{name}=3") for name in ("concurrency", "retries", "timeout")],
    *[(SERVED, f"judge.{name}=3") for name in ("concurrency", "tries", "timeout", "max_requests")],
]
OTHERWISE = {
    *("benchmark.kind", "engine.name", "engine.check"),  # they have one value here
    *("benchmark.path", "benchmark.limit", "benchmark.phrases", "benchmark.templates"),  # the prompts count
    "mitigation.map",  # the texts that it leads to count
    *("judge.negative", "judge.joined"),  # of regard, which PyTorch runs; see its `identity`
}


def test_every_key_is_known_to_count_or_to_change_nothing():
    parts = (("benchmark", HarmConfig), ("mitigation", MitigationConfig), ("engine", EngineConfig))
    parts = (*parts, ("judge", JudgeConfig))
    every = {f"{name}.{field.name}" for name, kind in parts for field in dataclasses.fields(kind)}
    tried = {change.partition("=")[0] for _, change, *_ in [*COUNTED, *UNCHANGED]}
    assert tried | OTHERWISE == every and not tried & OTHERWISE


@pytest.fixture
def texts(tmp_path, monkeypatch):
    """Replaces words in capitals by the files that they stand for."""
    monkeypatch.setenv("JAXALIGN_JUDGE_URL", "http://localhost:1/v1")
    monkeypatch.setenv("JAXALIGN_JUDGE_MODEL", "m")
    label = {"id": "1", "category": "malware", "prompt": "A?", "response": "B.", "label": "fine"}
    score = {"prompt": "A?", "response": "B.", "score": 0.5}
    files = {
        "TEMPLATE": "{prompt} and {response}",
        "OTHERS": json.dumps({"hate_speech": "Do not hate."}),
        "OTHER": "{prompt}, then {response}",
        "POLICIES": json.dumps({"hate_speech": "No hate."}),
        "LABELS": json.dumps(label),
        "SCORES": json.dumps(score),
        "SCORED": json.dumps({**score, "score": 0.25}),
    }
    for name, text in files.items():
        (tmp_path / f"{name}.jsonl").write_text(text)
    for about in ("harm", "refusal"):
        probe = ProbeWeights(about, read_probe(HARM_PROBE).base, np.ones(576, np.float32), 0.0)
        write_probe(tmp_path / f"{about.upper()}.jsonl", probe)

    def replaced(text):
        key, _, value = text.partition("=")
        return f"{key}={tmp_path}/{value}.jsonl" if value.isupper() else text

    return replaced


@pytest.mark.parametrize(("chosen", "change", "stage"), COUNTED, ids=lambda one: one if isinstance(one, str) else None)
def test_a_key_counts_from_the_stage_on_that_it_changes(chosen, change, stage, texts, tokenizer):
    chosen = list(map(texts, chosen))
    one, other = made(*chosen), made(*chosen, change=texts(change))
    assert first_changed(identities(one, tokenizer), identities(other, tokenizer)) == stage


@pytest.mark.parametrize(("chosen", "change"), UNCHANGED, ids=lambda one: one if isinstance(one, str) else None)
def test_how_fast_and_how_often_a_server_is_asked_is_no_part_of_a_stage(chosen, change, texts, tokenizer):
    one, other = made(*chosen), made(*chosen, change=change)
    assert first_changed(identities(one, tokenizer), identities(other, tokenizer)) is None


def test_prompts_are_rendered_once_for_all_models_that_get_them_alike(tokenizer, monkeypatch):
    session, rendered = session_of(made(), tokenizer), []
    render = Encoder.render
    monkeypatch.setattr(Encoder, "render", lambda self, text: rendered.append(text) or render(self, text))
    models = [*MODELS, AskedModel(Adapter("a"), "adapter", number=1), AskedModel(BASE, "role-play", "You like power. ")]
    found = [session.identity(model)["prompts"] for model in models * 2]
    assert found[0] == found[1] != found[2] and found[:3] == found[3:] and len(rendered) == 2 * len(PROMPTS)


def test_a_judge_that_labels_do_not_measure_unless_it_is_chosen_has_a_stage_of_its_own_where_it_is(tokenizer):
    def stage(about_harm, *chosen):
        regard = OpenedJudge("regard", "regard 1", load=pytest.fail, about_harm=about_harm)
        judges = HarmJudges({"regard": regard}, None, MeasuringLabels([], "labels"))
        return judge_identity(session_of(made(*chosen), tokenizer), MODELS[0], judges)

    chosen, by_itself = ["judge=regard", "judge.path=folder"], stage(False)
    assert by_itself == stage(True, *chosen) != stage(True, *chosen, "judge.calibrate=true")
