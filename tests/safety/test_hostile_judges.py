"""Files that judges read: any bytes are what they should be, or one line; and a judge that judges nothing is one."""

import json
import tempfile
from pathlib import Path

import numpy as np
import pytest
from hostile import VALUES, damaged, few, survives, tables
from hypothesis import given
from hypothesis import strategies as st

from jaxalign.errors import UserError
from jaxalign.jobs.harm.judge import check_judged
from jaxalign.jobs.harm.labels import merged
from jaxalign.safety.judgements import TOO_LONG, Judgement, Scale
from jaxalign.safety.judges.guard_formats import GUARD_FORMATS, with_texts
from jaxalign.safety.judges.imported import Imported
from jaxalign.safety.judges.probe import ProbeWeights, read_probe, write_probe

SCORES = {"prompt": "p", "response": "r", "score": 0.5, "label": "fine", "missing": "no"}


@few
@given(data=st.data())
def test_any_bytes_are_scores_or_one_line(data):
    suffix = data.draw(st.sampled_from((".json", ".jsonl", ".csv", ".tsv")))
    content = data.draw(tables(SCORES, suffix))
    survives(lambda path: Imported(path, Scale(0, 1, 0.5)), f"f{suffix}", content)


@pytest.mark.parametrize("score", ["9" * 400, "1e400", "-" + "9" * 309, "NaN"])
def test_a_score_of_any_size_is_one_line(tmp_path, score):
    survives(
        lambda path: Imported(path, Scale(0, 1, 0.5)),
        tmp_path / "f.jsonl",
        f'{{"prompt": "p", "response": "r", "score": {score}}}\n'.encode(),
    )


@few
@given(content=damaged(VALUES.map(json.dumps) | st.just("Asked: {prompt} Said: {response}")))
def test_any_bytes_are_what_the_owner_of_a_guard_publishes_or_one_line(content):
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "f"
        survives(lambda path: with_texts(GUARD_FORMATS["wildguard"], template=path), path, content)
        survives(lambda path: with_texts(GUARD_FORMATS["shieldgemma"], policies=path), path, content)


@few
@given(content=tables({"key": "k", "label": "fine", "person": "me"}, ".jsonl"))
def test_any_bytes_are_the_labels_of_people_or_one_line(content):
    survives(merged, "labels.jsonl", content)


@few
@given(place=st.integers(0, 400), byte=st.integers(0, 255), size=st.integers(0, 500))
def test_a_damaged_probe_is_a_probe_or_one_line(place, byte, size):
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "f.safetensors"
        write_probe(path, ProbeWeights("harm", "base", np.ones(8, np.float32), 0.5))
        content = bytearray(path.read_bytes())
        content[min(place, len(content) - 1)] = byte
        survives(read_probe, path, bytes(content[:size]) if size < 400 else bytes(content))


def test_a_judge_that_judges_nothing_at_all_is_an_error_and_no_table_of_dashes():
    def missing(*reasons):
        return [Judgement(None, None, "", reason) for reason in reasons]

    for good in (
        [],
        missing(TOO_LONG, TOO_LONG),
        [*missing("unreadable"), Judgement(0.5, None, "")],
    ):
        check_judged("guard", "base", good)
    with pytest.raises(UserError) as error:
        check_judged("imported", "power", missing("not in s.jsonl", "not in s.jsonl", TOO_LONG))
    assert str(error.value).startswith(
        "imported judged none of the 3 responses of power that say something (2: not in s.jsonl): mend"
    )
