"""Judges are checked and opened before anything is generated, without the network."""

import json
from types import SimpleNamespace

import numpy as np
import pytest
from command_line import refused
from huggingface_hub import errors
from rich.console import Console

from jaxalign.config.presets import preset
from jaxalign.config.safety import JudgeConfig
from jaxalign.errors import UserError
from jaxalign.evaluate import main
from jaxalign.jobs.harm import judges
from jaxalign.jobs.harm.judges import JUDGES, HarmJudges, JudgeModels, OpenedJudge, unused_keys
from jaxalign.jobs.harm.labels import MeasuringLabels
from jaxalign.pretrained.sources import open_model, source_of
from jaxalign.safety.benchmarks.sources import BENCHMARKS
from jaxalign.safety.judges.probe import ProbeWeights, write_probe

HARM = ["model=tiny", "benchmark=starter_probes", "precision=float32", "judge.refusal=none", "judge.calibrate=false"]


@pytest.fixture
def opened(monkeypatch):
    """Opens a judge of regard, whose classifier is no classifier; returns the folder that it was read from."""
    monkeypatch.setattr(judges, "check_torch", lambda: None)
    monkeypatch.setattr(judges, "Regard", lambda folder, *_: SimpleNamespace(name="regard", identity=str(folder)))

    def open_regard(path, offline=False):
        models = JudgeModels(SimpleNamespace(offline=offline), Console())  # pyright: ignore[reportArgumentType]
        judge = JUDGES["regard"](JudgeConfig(name="regard", path=path), None, models)
        assert judge.regard
        return judge.key, judge.model

    return open_regard


def test_a_classifier_of_regard_comes_from_a_folder_or_from_the_hub(opened, tmp_path, monkeypatch):
    asked = []
    (tmp_path / "config.json").write_text("{}")

    def snapshot_download(name, **how):
        asked.append((name, how["local_files_only"]))
        assert "*.safetensors" in how["allow_patterns"] and not any(".bin" in one for one in how["allow_patterns"])
        return str(tmp_path)

    monkeypatch.setattr("huggingface_hub.snapshot_download", snapshot_download)
    assert opened(str(tmp_path)) == (str(tmp_path), tmp_path.name) and not asked
    assert opened("org/regard") == (str(tmp_path), "org/regard")
    assert opened("org/regard", offline=True) == (str(tmp_path), "org/regard")
    assert asked == [("org/regard", False), ("org/regard", True)]


def test_a_classifier_that_the_hub_does_not_have_is_one_line(opened, monkeypatch):
    def snapshot_download(name, **_):
        raise errors.HFValidationError("no such name")

    monkeypatch.setattr("huggingface_hub.snapshot_download", snapshot_download)
    with pytest.raises(UserError, match=r"no model 'org/none' on the Hugging Face hub.*check the name"):
        opened("org/none")


def test_scores_from_a_file_are_of_regard_if_one_of_its_labels_is_negative(tmp_path):
    models = JudgeModels(SimpleNamespace(offline=True), Console())  # pyright: ignore[reportArgumentType]
    for label, regard in (("negative", True), ("rude", False)):
        path = tmp_path / f"{label}.jsonl"
        path.write_text(json.dumps({"prompt": "a", "response": "b", "score": 0.9, "label": label}) + "\n")
        assert JUDGES["imported"](JudgeConfig(name="imported", path=str(path)), None, models).regard is regard


def test_a_scope_of_toxicity_that_no_judge_has_is_said_to_be_left_aside(tmp_path):
    (tmp_path / "a.jsonl").write_text('{"prompt": "a", "response": "b", "score": 0.9}\n')
    models = JudgeModels(SimpleNamespace(offline=True), Console())  # pyright: ignore[reportArgumentType]
    asked = SimpleNamespace(toxicity_scope="released")

    def opened(name, **keys):
        one = JUDGES[name](JudgeConfig(name=name, **keys), asked, models)  # pyright: ignore[reportArgumentType]
        return HarmJudges({name: one}, None, MeasuringLabels([], "labels"))

    assert opened("toxicity_linear").unused_scope("released") is None
    assert opened("imported", path=str(tmp_path / "a.jsonl")).unused_scope("released") is None
    probe = OpenedJudge("probe", "probe 1", load=pytest.fail)
    judges = HarmJudges({"probe": probe}, None, MeasuringLabels([], "labels"))
    assert judges.unused_scope("response") is None
    line = judges.unused_scope("released")
    assert line and line.startswith("benchmark.toxicity_scope=released is left aside: probe scores the response, and")


def test_the_usual_judge_of_every_benchmark_is_there():
    assert {one.judge for one in BENCHMARKS.values()} <= {*JUDGES, "probe_or_toxicity"}


@pytest.mark.parametrize("width", [7, 33])
def test_a_probe_of_another_width_is_refused_before_anything_is_generated(here, not_loaded, capsys, width):
    identity = open_model(source_of(preset("tiny")), offline=True, name="tiny").identify()[0]
    write_probe("wide.safetensors", ProbeWeights("harm", identity, np.ones(width, np.float32), 0.0))
    line = refused(main, [*HARM, "judge=probe", "judge.model=tiny", "judge.weights=wide.safetensors"], capsys)
    assert line.startswith(f"the probe wide.safetensors has {width} weights, and states of tiny have 32 numbers")


@pytest.mark.parametrize("way", [["--config-dir", "."], ["hydra.searchpath=[.]"]])
def test_a_model_of_ones_own_is_not_passed_over_by_a_judge_without_a_word(here, not_loaded, capsys, way):
    (here / "model").mkdir()
    own = here / "model" / "smollm2_135m.yaml"
    own.write_text("source: random\n")
    line = refused(main, [*way, *HARM, "judge=rubric_local", "judge.model=smollm2_135m"], capsys)
    assert line.startswith(f"{own} has the name of the default, conf/model/smollm2_135m.yaml")
    assert line.endswith("judges read with the shipped one: rename yours")


def test_keys_that_a_judge_does_not_read_are_named():
    assert unused_keys(JudgeConfig(name="toxicity_linear", model="tiny", rubric="flagged")) == ["model", "rubric"]
    for name in JUDGES:  # as shipped, each judge reads all of its keys
        given = {**preset(name, "judge"), "model": "m", "path": "p", "format": "f"}
        own = {key: value for key, value in given.items() if key in preset(name, "judge")}
        assert unused_keys(JudgeConfig(**own)) == []


def test_a_sweep_over_judges_says_what_one_of_them_leaves_aside(here, capsys):
    with pytest.raises(SystemExit):
        main([*HARM, "judge=imported", "judge.path=no.jsonl", "judge.model=tiny"])
    assert "judge.model is left aside: judge=imported does not read it" in capsys.readouterr().out


def test_the_folder_of_a_judge_needs_no_quotes_and_is_not_called_that_of_the_model_that_is_asked(
    here, not_loaded, capsys
):
    line = refused(main, [*HARM, "judge=rubric_local", "judge.model=./día [1],x=y {z}"], capsys)
    assert line.startswith("día [1],x=y {z} does not exist; give a model's folder") and "model.path" not in line
