"""How rationales are read."""

import dataclasses
import json

import pytest
from jobs.crest.runs_of_crest import SMALL, without
from reasoning.few_questions import THREE

from jaxalign.crest import main
from jaxalign.jobs.crest import evaluate as evaluation
from jaxalign.reasoning.rationales import distinct

TOOK = ("seconds", "compilation_seconds", "python_seconds")


def test_equal_rationales_are_read_once_where_each_counts():
    texts = ["so", "thus", " so\n", ""]
    read = [dataclasses.replace(one, prediction=1) for one in distinct(THREE, texts)]
    again = evaluation._repeated(texts, read)
    assert [one.text for one in again] == [text.strip() for text in texts]
    assert all(one.copies == 1 and one.prediction == 1 for one in again)


@pytest.mark.parametrize("torn_at", [0.4, 0.95])
def test_readings_that_a_kill_tore_are_those_of_an_unbroken_run(whole, tmp_path, monkeypatch, torn_at):
    monkeypatch.setattr(evaluation, "QUESTIONS_AT_A_TIME", 5)
    after = ("evaluate", "sft", "preferences", "dpo")
    stage = without(whole, tmp_path / "run", *after) / "stages" / "evaluate"
    command = [f"run.dir={tmp_path / 'run'}", *SMALL, "stage=evaluate", "crest.hint=true", "run.overwrite=true"]
    main(command)
    unbroken, summary = (stage / "rationales.jsonl").read_bytes(), json.loads((stage / "summary.json").read_text())
    (stage / "summary.json").unlink()
    (stage / "rationales.jsonl").write_bytes(unbroken[: int(torn_at * len(unbroken))])
    main(command[:-1])
    assert (stage / "rationales.jsonl").read_bytes() == unbroken
    resumed = json.loads((stage / "summary.json").read_text())
    assert resumed | dict.fromkeys(TOOK) == summary | dict.fromkeys(TOOK)
