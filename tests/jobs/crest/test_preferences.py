import dataclasses
import io
from types import SimpleNamespace

import pytest
from reasoning.few_questions import THREE, WORDING, rationale
from reasoning.test_preferences import some_rationales
from rich.console import Console

from jaxalign.data.datasets.pairs import load_pairs
from jaxalign.errors import UserError
from jaxalign.jobs.crest.preferences import PAIRS, read_pairs, write_pairs
from jaxalign.reasoning.preferences import PAIR_KINDS, draw, pools
from jaxalign.runs.directory import Run
from jaxalign.runs.records import read_records


def written(folder, found, **changes):
    """The summary of pairs drawn from rationales, and what was printed."""
    questions = {id: dataclasses.replace(THREE, id=id) for id in found}
    keys = {"rounds": 2, "count": 10, "mixing": 0.5, "resample": True} | changes
    config = SimpleNamespace(
        dpo=SimpleNamespace(steps=keys["count"], batch_size=1, rounds=keys["rounds"], resample=keys["resample"]),
        crest=SimpleNamespace(mixing=keys["mixing"]),
        training=SimpleNamespace(seed=0),
    )
    said = io.StringIO()
    console = Console(file=said, width=200)
    session = SimpleNamespace(config=config, wording=WORDING, by_id=questions, console=console)
    return write_pairs(session, Run(folder), found), said.getvalue()  # type: ignore[arg-type]


def test_every_round_is_written_with_its_texts_and_feeds_a_training_on_pairs(tmp_path):
    found = some_rationales(40)
    summary, said = written(tmp_path, found)
    assert said == "" and summary["there"] == {kind: pools(found).size(kind) for kind in PAIR_KINDS}
    for number, choices in enumerate(read_pairs(Run(tmp_path), 2), start=1):
        assert choices == draw(pools(found), 10, 0.5, 0, number)[0]
    lines = read_records(tmp_path / PAIRS)
    for line, pair in zip(lines, load_pairs(tmp_path / PAIRS), strict=True):
        better, other = (found[line["question"]][line[side]] for side in ("better", "other"))
        assert pair.prompt == WORDING.prompt(THREE)
        assert pair.chosen == WORDING.response(THREE, better.text, better.prediction)
        assert pair.rejected == WORDING.response(THREE, other.text, other.prediction)
    written(tmp_path / "same", found, resample=False)
    first, second = read_pairs(Run(tmp_path / "same"), 2)
    assert first == second


def test_a_shortage_is_said_and_no_pair_at_all_says_what_to_change(tmp_path):
    found = some_rationales(2)
    _, said = written(tmp_path, found, count=1000)
    there = {kind: pools(found).size(kind) for kind in PAIR_KINDS}
    assert f"there are only {there['z']} pairs by the answer, but 500 were wanted" in said
    assert f"there are only {there['z_tilde']} pairs by follow-ups, but 500 were wanted" in said
    alike = {"one": [rationale("a", True, 2), rationale("b", False), rationale("c", None)]}
    differ = {"one": [rationale("a", True, 2), rationale("b", True, 1)]}
    with pytest.raises(
        UserError, match=r"crest\.mixing=1 asks .* lower crest\.mixing \(there are 1 pairs by the answer"
    ):
        written(tmp_path, alike, mixing=1.0)
    with pytest.raises(
        UserError, match=r"crest\.mixing=0 asks .* raise crest\.mixing \(there are 1 pairs by follow-ups"
    ):
        written(tmp_path, differ, mixing=0.0)
    with pytest.raises(UserError, match="no pair to learn from"):
        written(tmp_path, {"one": [rationale("a", True, 2)], "two": [rationale("b", False)]})
