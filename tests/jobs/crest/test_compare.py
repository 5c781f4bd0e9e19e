"""A sweep from the command line, and its runs side by side."""

import re

import pytest
from jobs.crest.runs_of_crest import SMALL

from jaxalign.crest import main


@pytest.mark.slow
def test_a_sweep_shares_what_comes_before_and_compare_says_what_differs(tmp_path, capsys):
    root = tmp_path / "outputs"
    for changes in (
        ["dpo.rounds=0"],
        ["dpo.rounds=1"],
        ["experiment=zero_shot", "test.max_tokens=12"],
        ["experiment=zero_shot"],
    ):
        main([f"run.root={root}", *SMALL, *changes])
    shown = capsys.readouterr().out
    assert shown.count("seed: done before") == 3 and shown.count("rationales: done before") == 1
    for stage in ("seed", "rationales", "evaluate", "sft", "dpo"):
        assert len(list((root / "stages").glob(f"{stage}-*"))) == 1
    main([f"compare={root}/crest-*"])
    shown = capsys.readouterr().out
    assert shown.count("round 1") == 1 and shown.count("base") == 2  # where nothing was trained, all that were asked
    for settings in ("=1 dpo.rounds=0 test.max_tokens=16", "=1 dpo.rounds=1 test.max_tokens=16", "=0 dpo.rounds=2"):
        assert f": crest.iterations{settings}" in shown
    assert "do not compare" not in shown
    # Other questions, and another judge.
    main([f"run.root={root}", *SMALL, "experiment=zero_shot", "dataset.test=5", "seed.learning_rate=0.02"])
    capsys.readouterr()
    main([f"compare={root}/crest-*"])
    alike, other = r"\d \d \d \d", r"\d"
    apart = rf"({alike} \| {other}|{other} \| {alike})"
    shown = capsys.readouterr().out
    assert re.search(rf"^{apart}: different questions, so do not compare their accuracies$", shown, re.MULTILINE)
    assert re.search(rf"^{apart}: different judges of the follow-ups, so do not compare", shown, re.MULTILINE)
