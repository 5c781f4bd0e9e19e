"""The commands that README.md tells users to type are accepted as they stand there."""

import re
import shlex
from pathlib import Path

import pytest

from jaxalign.config.crest import CrestConfig
from jaxalign.config.entry_point import entry_point
from jaxalign.config.evaluate import EvaluateConfig
from jaxalign.config.export import ExportConfig
from jaxalign.config.generate import GenerateConfig
from jaxalign.config.report import ReportConfig
from jaxalign.config.study import StudyConfig
from jaxalign.config.survey import SurveyConfig
from jaxalign.config.train import TrainConfig

README = (Path(__file__).parents[1] / "README.md").read_text(encoding="utf-8")
KINDS = {
    **{"train": TrainConfig, "generate": GenerateConfig, "evaluate": EvaluateConfig, "crest": CrestConfig},
    **{"survey": SurveyConfig, "export": ExportConfig, "report": ReportConfig, "study": StudyConfig},
}
TYPED = [
    typed
    for line in README.splitlines()
    if line.startswith("| ")
    for typed in re.findall(r"`([^`]+)`", line.split(" | ", 1)[-1])
    if typed.split()[0] in KINDS
]


def test_the_table_of_commands_is_found():
    assert len(TYPED) >= 25 and {typed.split()[0] for typed in TYPED} == set(KINDS)


@pytest.mark.slow
@pytest.mark.parametrize("typed", TYPED)
def test_a_command_of_the_table_is_accepted(typed):
    name, *arguments = shlex.split(typed)
    jobs: list[object] = []
    entry_point(name, KINDS[name])(jobs.append)(arguments)
    assert jobs and all(isinstance(job, KINDS[name]) for job in jobs)
