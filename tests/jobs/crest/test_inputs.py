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
