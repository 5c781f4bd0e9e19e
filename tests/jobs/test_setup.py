"""The first line of a command says what it computes with."""

from types import SimpleNamespace
from typing import Any

import pytest
from rich.console import Console
from tiny_model import ARCHITECTURE

from jaxalign.jobs.setup import OpenedModel


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
def test_a_kernel_is_named_and_so_is_the_reason_why_there_is_none(chosen, said, capsys):
    config: Any = SimpleNamespace(precision="float32")
    files: Any = SimpleNamespace(architecture=ARCHITECTURE, storage=None)
    nobody: Any = None
    OpenedModel(config, {}, files, nobody, Console(width=300), None, *chosen)._describe(False)
    printed = capsys.readouterr().out
    assert said in printed and bool(said) == bool(printed)
