"""The registries of data sets: each kind takes a reader from outside, and refuses a name that it does not know."""

import pytest
from command_line import refused

from jaxalign.config.crest import CrestConfig
from jaxalign.config.entry_point import entry_point
from jaxalign.config.train import TrainConfig
from jaxalign.crest import main as crest
from jaxalign.data.datasets.pairs import PairText
from jaxalign.data.datasets.question import Question
from jaxalign.data.datasets.questions import Questions
from jaxalign.jobs.crest.inputs import read_questions
from jaxalign.jobs.readers import PAIR_READERS, QUESTION_READERS
from jaxalign.jobs.train.data import read_training_text
from jaxalign.reasoning.wording import make_wording
from jaxalign.train import main as train

PAIRS = [PairText("Why?\n", "So.", "No.", f"pair {number}") for number in range(4)]
TRAIN = ["model=tiny", "objective=dpo", "adapter=."]


@pytest.fixture
def conf(tmp_path):
    """A folder of configuration with the data sets `mine` (pairs) and `ours` (questions)."""
    (tmp_path / "conf" / "dataset").mkdir(parents=True)
    for name, kind in (("mine", "pairs"), ("ours", "questions")):
        (tmp_path / "conf" / "dataset" / f"{name}.yaml").write_text(f"name: {name}\nkind: {kind}\n")
    return ["--config-dir", str(tmp_path / "conf")]


def test_pairs_are_read_by_a_reader_from_outside(conf, monkeypatch):
    monkeypatch.setitem(PAIR_READERS, "mine", lambda dataset, offline: PAIRS[: dataset.limit])
    seen = []
    entry_point("train", TrainConfig)(seen.append)([*conf, "dataset=mine", "dataset.limit=3", *TRAIN])
    assert read_training_text(seen[0]).pairs == PAIRS[:3]


def test_questions_are_read_by_a_reader_from_outside(conf, monkeypatch):
    def read(dataset, offline, seed, exclude):
        found = [Question(f"q{number}", "Which?", ("this", "that"), seed % 2) for number in range(3)]
        return Questions("ours", *([one] for one in found))

    monkeypatch.setitem(QUESTION_READERS, "ours", read)
    seen = []
    entry_point("crest", CrestConfig)(seen.append)([*conf, "dataset=ours", "model=tiny", "training.seed=3"])
    found = read_questions(seen[0], make_wording(seen[0].reasoning, seen[0].questions.reply, ()))
    assert (found.name, found.train[0].gold, found.test[0].id) == ("ours", 1, "q2")


@pytest.mark.slow
def test_a_name_without_a_reader_is_refused_in_one_line(conf, capsys):
    said = refused(train, [*conf, "dataset=mine", "dataset.name=pair", *TRAIN], capsys)
    assert said == "dataset.name='pair' is not known; did you mean 'pairs'?"
    said = refused(crest, [*conf, "dataset=ours", "dataset.name=arcs", "model=tiny"], capsys)
    assert said == "dataset.name='arcs' is not known; did you mean 'arc'?"


@pytest.mark.parametrize("name", ["arc", "puzzles"])
def test_columns_of_ones_own_are_refused_for_a_data_set_with_fixed_ones(capsys, name):
    said = refused(crest, [f"dataset={name}", "+dataset.columns.answer=a", "model=tiny"], capsys)
    assert said == f"dataset.columns is for a file of your own: give dataset=jsonl, not dataset={name}"
