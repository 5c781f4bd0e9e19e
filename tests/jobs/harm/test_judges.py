"""Judges are checked and opened before anything is generated; here without any model and without the network."""

from types import SimpleNamespace

import pytest
from huggingface_hub import errors
from rich.console import Console

from jaxalign.config.safety import JudgeConfig
from jaxalign.errors import UserError
from jaxalign.jobs.harm import judges
from jaxalign.jobs.harm.judges import JUDGES, JudgeModels
from jaxalign.safety.benchmarks.sources import BENCHMARKS


@pytest.fixture
def opened(monkeypatch):
    """Opens a judge of regard, whose classifier is no classifier; returns the folder that it was read from."""
    monkeypatch.setattr(judges, "check_torch", lambda: None)
    monkeypatch.setattr(judges, "Regard", lambda folder, *_: SimpleNamespace(name="regard", identity=str(folder)))

    def open_regard(path, offline=False):
        models = JudgeModels(SimpleNamespace(offline=offline), Console())  # pyright: ignore[reportArgumentType]
        judge = JUDGES["regard"](JudgeConfig(name="regard", path=path), None, models)
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


def test_a_classifier_that_the_hub_does_not_have_is_one_line_with_the_key_that_names_it(opened, monkeypatch):
    def snapshot_download(name, **_):
        raise errors.HFValidationError("no such name")

    monkeypatch.setattr("huggingface_hub.snapshot_download", snapshot_download)
    with pytest.raises(UserError, match=r"no model 'org/none' on the Hugging Face hub.*check judge\.path"):
        opened("org/none")


def test_the_usual_judge_of_every_benchmark_is_there():
    assert {one.judge for one in BENCHMARKS.values()} <= {*JUDGES, "probe_or_toxicity"}
