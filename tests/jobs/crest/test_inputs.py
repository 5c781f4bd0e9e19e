"""What the crest command is given, and refuses."""

import pytest
from command_line import refused
from jobs.crest.runs_of_crest import QUESTIONS, ROOMY, SMALL, write_questions

from jaxalign.config.crest import CrestConfig
from jaxalign.config.entry_point import entry_point
from jaxalign.crest import main
from jaxalign.jobs.crest.inputs import read_questions
from jaxalign.reasoning.wording import make_wording


@pytest.mark.parametrize(
    ("changes", "line"),
    [
        (["sampling.max_tokens=1900"], "question train-0 takes"),
        (
            ["sampling.max_tokens=1300", "dataset.reply={letter}", ROOMY],
            "tokens as a follow-up question about option A, and the context of 2048 holds 748",
        ),
    ],
)
def test_a_question_that_does_not_fit_is_refused_before_any_work(tmp_path, capsys, changes, line):
    for split in ("train", "validation", "test"):
        write_questions(tmp_path / "data", split, ["sun " * 80])
    given = [f"run.dir={tmp_path / 'run'}", "dataset=arc", f"dataset.path={tmp_path / 'data'}", "crest.few_shot=false"]
    assert line in refused(main, [*given, *SMALL, *changes], capsys)


def test_worked_examples_leave_the_training_questions_unless_they_are_to_stay_as_released(tmp_path):
    for split in ("train", "validation", "test"):
        write_questions(tmp_path, split, QUESTIONS)
    for released, there in (("false", False), ("true", True)):
        seen = []
        command = [*SMALL, "dataset=arc", f"dataset.path={tmp_path}", f"released.examples_in_train={released}"]
        entry_point("crest", CrestConfig)(seen.append)(command)
        example = {"id": "train-0", "question": "Two?", "options": ["2", "3"], "answer": "A", "rationale": "It is two."}
        wording = make_wording(seen[0].reasoning, seen[0].dataset.reply, [example])
        questions = read_questions(seen[0], wording)
        assert ("train-0" in [question.id for question in questions.train]) is there


@pytest.mark.slow
def test_a_stage_that_there_is_nothing_for_is_refused_before_the_weights_are_read(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("jaxalign.pretrained.sources.ModelFiles.load", lambda *_: pytest.fail("the weights were read"))
    where = f"run.dir={tmp_path / 'run'}"
    for changes, words in (
        (["stage=sft", "experiment=zero_shot"], "stage=sft: with crest.iterations=0 there is no such stage: give"),
        (["stage=sft", "sft.epochs=0"], "stage=sft: with sft.epochs=0 there is no such stage"),
        (["stage=dpo", "dpo.rounds=0"], "stage=dpo: with dpo.rounds=0 there is no such stage"),
        (["stage=rationales", "experiment=label_only"], "stage=rationales: with sft.rationale=false there is no such"),
        (["dataset.solved=0", "stage=seed"], "stage=seed needs solved questions"),
        (["stage=evaluate"], "stage=evaluate needs the results of stage=seed"),
        (["stage=dpo", "dataset.solved=0"], "stage=dpo needs the results of stage=rationales"),
    ):
        assert words in refused(main, [where, *SMALL, *changes], capsys)
    assert "stage=test needs the results of stage=seed" in refused(
        main, [f"run.root={tmp_path}", *SMALL, "stage=test"], capsys
    )


@pytest.mark.slow
def test_bad_input_is_one_line(tmp_path, capsys):
    where = f"run.dir={tmp_path / 'run'}"
    for changes, words in (
        (["crest.samples=0"], "crest.samples=0 is not allowed"),
        (["crest.tolerance=-1"], "crest.tolerance=-1 is not allowed"),
        (["crest.tolerance=9"], "crest.tolerance=9 is above"),
        (["crest.mixing=1.5"], "crest.mixing=1.5 is not allowed"),
        (["dpo.beta=0"], "dpo.beta=0 is not allowed"),
        (["dataset=starter"], "dataset.solved goes with dataset.kind=questions, not with arguments"),
        (["dataset=arc", f"dataset.path={tmp_path}"], "holds no file for train"),
        (["dataset.examples=[]", "crest.few_shot=true"], "has no worked examples"),
        ([f"compare={tmp_path}/none*"], "finds no finished run"),
        (["sampling.max_tokens=100000"], "takes"),
    ):
        assert words in refused(main, [where, *SMALL, *changes], capsys)
