"""Where a run is kept and copied to: what is refused before anything is computed."""

import pytest
from command_line import refused

from jaxalign.config.crest import CrestConfig
from jaxalign.config.entry_point import entry_point
from jaxalign.config.evaluate import EvaluateConfig
from jaxalign.config.generate import GenerateConfig
from jaxalign.config.train import TrainConfig

COMMANDS = {"train": TrainConfig, "crest": CrestConfig, "generate": GenerateConfig, "evaluate": EvaluateConfig}


def line(capsys, *arguments, name="train"):
    """Return the error line of a command that would do nothing else."""
    given = [*(["+value=power"] if name == "train" else []), *arguments]
    return refused(entry_point(name, COMMANDS[name])(lambda config: None), given, capsys, silent=True)


@pytest.mark.parametrize("name", COMMANDS)
@pytest.mark.parametrize("key", ["run.dir", "run.root"])
def test_a_run_is_local_and_the_line_names_the_key_that_copies_it(capsys, name, key):
    found = line(capsys, f"{key}=gs://bucket/runs", name=name)
    assert found == (
        f"{key}=gs://bucket/runs is no folder of this machine: a run is local, and run.mirror=gs://bucket/runs copies "
        "it there"
    )


@pytest.mark.parametrize("address", ["gs://", "gs:/bucket/runs", "http://bucket/runs", "hdfs://bucket"])
def test_an_address_that_no_mirror_can_have_is_refused(capsys, address):
    found = line(capsys, f"run.mirror={address}")
    assert found == f"run.mirror={address} is no gs://BUCKET/PATH, s3://BUCKET/PATH or mounted folder"


def test_an_address_with_a_secret_is_refused_and_not_shown(capsys):
    found = line(capsys, "run.mirror=s3://key:secret@bucket/runs")
    assert found.startswith("run.mirror holds @, ? or #") and "secret@" not in found


@pytest.mark.parametrize(
    ("place", "mirror"),
    [("run.root=runs", "runs"), ("run.dir=runs/mine", "./runs"), ("run.dir=runs/mine", "runs/mine/copy")],
)
def test_a_run_is_not_its_own_mirror(capsys, place, mirror):
    found = line(capsys, place, f"run.mirror={mirror}")
    assert found == f"run.mirror={mirror} is where {place} keeps the run: give a folder of another disk"
    given = ["+value=power", place, "run.mirror=copies"]
    entry_point("train", TrainConfig)(lambda config: None)(given)


@pytest.mark.parametrize("stage", ["label", "fit_judge"])
def test_a_stage_that_keeps_no_run_has_no_mirror(capsys, stage):
    found = line(capsys, "benchmark=starter_probes", f"stage={stage}", "run.dir=x", "run.mirror=y", name="evaluate")
    assert found == f"stage={stage} writes to this machine alone: leave run.mirror out"
