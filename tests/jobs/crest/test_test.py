import dataclasses
import io

import numpy as np
import pytest
from reasoning.few_questions import FIVE, THREE, WORDING
from rich.console import Console
from tiny_model import CONFIG, Killed, random_adapter, random_weights

from jaxalign.data.encoding import Encoder
from jaxalign.inference.scorer import Scorer
from jaxalign.jobs.crest.session import CrestSession
from jaxalign.jobs.crest.test import JUDGED, judge_answers
from jaxalign.models.adapter import Adapter
from jaxalign.models.architecture import from_config
from jaxalign.models.transformer import Transformer
from jaxalign.parallel.compilation import Programs
from jaxalign.reasoning import answers
from jaxalign.reasoning.filtering import consistency
from jaxalign.reasoning.followups import read_followups
from jaxalign.reasoning.rationales import Rationale
from jaxalign.runs.directory import Run
from jaxalign.runs.records import read_records

SHORT = dataclasses.replace(THREE, id="short", text="Who?")
SPLITS = {
    "validation": {
        "base": [
            answers.Answered(THREE, "It is that. " * 9, 1, True),
            answers.Answered(FIVE, "It sat.", None, False),
            answers.Answered(SHORT, "", 0, True),
        ],
        "sft": [
            answers.Answered(THREE, "So it is.", 2, True),
            answers.Answered(FIVE, "By it.", 4, True),
            answers.Answered(SHORT, "I am.", 1, True),
        ],
    },
    "test": {"sft": [answers.Answered(dataclasses.replace(SHORT, id="test", text="What?"), "It is.", 1, True)]},
}
"""Four questions with something to judge, the first one's rationales the longest."""

ARCHITECTURE = from_config({**CONFIG, "vocab_size": 260})
PROGRAMS = Programs()


@dataclasses.dataclass
class Base:
    """A base with one scorer."""

    one: Scorer
    signature: str = "tiny"

    def scorer(self, _adapter, _scale):
        return self.one


@dataclasses.dataclass
class Opened:
    """A model of which there is only what encodes."""

    encoder: Encoder


def model(name, identity):
    """An adapter of which there is only the identity."""
    found = Adapter(name)
    found.__dict__["identity"] = identity
    return found


@pytest.fixture
def judging(tokenizer, monkeypatch):
    """Judge in parts of one question; return the parts that were read, and what was shown."""
    monkeypatch.setattr("jaxalign.jobs.crest.test.QUESTIONS_AT_A_TIME", 1)
    network = Transformer(ARCHITECTURE, np.float32)
    weights, adapter = random_weights(ARCHITECTURE), random_adapter(architecture=ARCHITECTURE)

    def session(after=99):
        scorer = Killed(network, weights, adapter, 1.0, PROGRAMS, 2048, after=after)
        parts = (None, Base(scorer), Opened(Encoder(tokenizer)), WORDING, None, None, Console(file=io.StringIO()))
        return CrestSession(*parts)  # type: ignore[arg-type]

    return session


@pytest.mark.slow
def test_a_judging_that_a_kill_tore_goes_on_and_comes_to_the_same(judging, tmp_path):
    unbroken, torn, resumed, again = judging(), judging(after=2), judging(), judging()
    judge, whole, run = model("seed", "s"), Run(tmp_path / "whole"), Run(tmp_path / "torn")
    found = judge_answers(unbroken, whole, judge, SPLITS)
    with pytest.raises(KeyboardInterrupt):
        judge_answers(torn, run, judge, SPLITS)
    assert judge_answers(resumed, run, judge, SPLITS) == found
    parts = [one.base.one.parts for one in (torn, resumed, unbroken)]
    assert len(parts[2]) == 4 and parts[0] + parts[1] == parts[2]  # nothing twice, and all in the same shapes
    assert (run.path / JUDGED).read_bytes() == (whole.path / JUDGED).read_bytes()
    assert judge_answers(again, run, judge, SPLITS) == found and again.base.one.parts == []
    # A line that is half written, in a part of two rationales, is written anew.
    first, second, *_ = (run.path / JUDGED).read_bytes().splitlines(keepends=True)
    (run.path / JUDGED).write_bytes(first + second[:-9])
    assert judge_answers(again, run, judge, SPLITS) == found and again.base.one.parts == parts[2]
    assert (run.path / JUDGED).read_bytes() == (whole.path / JUDGED).read_bytes()
    # Another judge is another reading.
    judge_answers(judging(), run, model("sft", "t"), SPLITS)
    assert len(read_records(run.path / JUDGED)) == 2 * len(read_records(whole.path / JUDGED))


def test_judging_tells_questions_tokens_per_second_and_time_left(judging, tmp_path):
    session = judging()
    judge_answers(session, Run(tmp_path), model("seed", ""), SPLITS)
    first, *_, last = session.console.file.getvalue().splitlines()
    assert first == "judging: 4 questions"
    assert last.startswith("judging: question 4/4 · ") and last.endswith(" tokens/s · 0 s left")


@pytest.mark.slow
def test_what_is_judged_is_the_consistency_of_each_models_own_rationales(judging, tmp_path):
    session = judging()
    found = judge_answers(session, Run(tmp_path), model("seed", ""), SPLITS)
    for split, models in SPLITS.items():
        for name, tested in models.items():
            read = [one for one in tested if one.option is not None and one.rationale]
            questions = [one.question for one in read]
            given = [[Rationale(one.question.id, one.rationale, 1, (), one.option, one.right)] for one in read]
            labels: list[int | None] = [question.gold for question in questions]
            scorer = session.base.one
            alone = read_followups(scorer, questions, given, labels, session.encoder, WORDING, everyone=True)
            options = {question.id: len(question.options) for question in questions}
            assert found[split][name] == consistency([mine[0] for mine in alone], options)
