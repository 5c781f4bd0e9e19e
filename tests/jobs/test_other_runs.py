"""A whole run of another command is called that, and not a damaged one whose summary should be removed."""

import pytest
from command_line import refused
from synthetic_harm import Lab

from jaxalign.crest import main as crest
from jaxalign.export import main as export
from jaxalign.jobs.crest.compare import is_crest
from jaxalign.runs.directory import open_run


@pytest.fixture
def harm(tmp_path):
    """A finished run of a benchmark of harm."""
    lab = Lab(tmp_path / "runs", prompts=1)
    path = lab.run([lab.base()], "one")
    config = path / "config.yaml"
    config.write_text(config.read_text() + "model: {name: tiny, source: random}\n")
    return path


def test_export_says_that_a_run_made_no_adapter(harm, capsys):
    line = refused(export, [f"run={harm}", "out=out"], capsys)
    assert line == f"run={harm} is finished and made no adapter: give a run that trains one"


def test_compare_says_that_a_run_is_none_of_crest(harm, capsys):
    line = refused(crest, [f"compare=[{harm}]"], capsys)
    assert line == f"compare={harm} finds no finished run of jaxalign.crest"


def test_a_stage_of_crest_is_no_whole_run(tmp_path):
    whole, stage = tmp_path / "whole", tmp_path / "stage"
    open_run({"seed": 0}, {"crest": {}}, dir=whole)
    open_run({"seed": 0, "stage": "sft"}, {"crest": {}}, dir=stage)
    assert is_crest(whole) and not is_crest(stage) and not is_crest(tmp_path)
