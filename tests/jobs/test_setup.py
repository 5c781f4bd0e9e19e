"""The first line of a command says what it computes with, and a kernel is tried only before it computes."""

from types import SimpleNamespace
from typing import Any

import pytest
from rich.console import Console
from runs_of_tiny import write_arguments
from tiny_model import ARCHITECTURE

from jaxalign.jobs import setup
from jaxalign.jobs.setup import OpenedModel, without_paths
from jaxalign.train import main


@pytest.mark.parametrize(
    ("chosen", "said"),
    [
        (("splash", None), "attention: splash; base: float32"),
        (
            ("blocks", "splash refuses this model (no)"),
            "attention: blocks (splash refuses this model (no)); base: float32",
        ),
        (("blocks", None), ""),
    ],
)
def test_a_kernel_is_named_and_so_is_the_reason_why_there_is_none(chosen, said, capsys, monkeypatch):
    monkeypatch.setattr(setup, "choose_attention", lambda *asked: chosen)
    config: Any = SimpleNamespace(precision="float32", attention="auto")
    files: Any = SimpleNamespace(architecture=ARCHITECTURE, storage=None)
    nobody: Any = None
    OpenedModel(config, {}, files, nobody, Console(width=300))._describe(False)
    printed = capsys.readouterr().out
    assert said in printed and bool(said) == bool(printed)


def test_no_kernel_is_tried_for_a_command_that_runs_no_model(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(setup, "choose_attention", lambda *asked: pytest.fail("a kernel was tried"))
    data = write_arguments(tmp_path / "arguments.jsonl")
    main(["+value=power", "model=tiny", "precision=float32", f"dataset.path={data}", "inspect=1"])
    assert "segment 0" in capsys.readouterr().out


def test_paths_may_differ_between_hosts_and_no_other_setting():
    run = {"dir": "here", "root": "there", "overwrite": True}
    settings = {"stage": "all", "run": run, "dataset": {"path": "/data/a.jsonl", "limit": 3}, "adapters": ["a/b", "c"]}
    assert without_paths(settings) == {"stage": "all", "run.overwrite": True, "dataset.limit": 3}
