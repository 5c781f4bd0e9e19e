"""Stages of a job as runs of their own; what they do is tested where they are used."""

import pytest

from jaxalign.errors import UserError
from jaxalign.runs.stages import SESSIONS, Stages, StageSpec


@pytest.fixture
def stages(tmp_path):
    lines = []
    settings = {"config": {"a": 1}, "dir": None, "root": str(tmp_path), "label": "x", "overwrite": False}
    return Stages(names=["first"], wanted="all", say=lines.append, in_words=lambda counts: [], **settings)


def test_times_of_earlier_processes_are_added_and_damaged_ones_are_refused_before_the_work(stages):
    def stopped(run):
        raise KeyboardInterrupt

    for _ in range(2):
        with pytest.raises(KeyboardInterrupt):
            stages.do("first", StageSpec(files=()), {}, stopped)
    times = stages.run_of("first", {}).path / SESSIONS
    whole = times.read_text()
    times.write_text('{"seconds": "9"}\n')
    with pytest.raises(UserError, match=rf"{SESSIONS}, line 1: 'seconds' is missing or damaged; remove the line"):
        stages.do("first", StageSpec(files=()), {}, lambda run: pytest.fail("it worked"))
    times.write_text(f'{whole}{{"seconds": 100}}\n{{"other": 1}}\n')
    assert 100 < stages.do("first", StageSpec(files=()), {}, lambda run: {}).results()["seconds"] < 110
