import numpy as np

from jaxalign.data.trees import Segment
from jaxalign.parallel.compilation import Programs
from jaxalign.values import questionnaire


def segment(*tokens, parent=-1, scored=False):
    return Segment(np.array(tokens, np.int32), parent, scored)


def test_speed_counts_shared_tokens_once_and_no_compilation(monkeypatch):
    now = [100.0]
    monkeypatch.setattr(questionnaire.time, "perf_counter", lambda: now[0])
    answer = segment(7, 8, parent=0, scored=True)
    # Four different tokens are read: a path's last, here 8 and 9, is only predicted.
    trees = [(segment(1, 2, 3), answer), (segment(1, 2, 3), segment(9, parent=0, scored=True))]
    programs, told = Programs(seconds=5.0), []
    count = questionnaire.with_speed(trees, 2, programs, lambda *what: told.append(what))
    now[0], programs.seconds = 103.0, 7.0  # of three seconds two went into compiling
    count(1, 3)
    now[0] = 105.0
    count(3, 3)
    assert told == [(0, 2, 0.0), (1, 2, 4 / 3), (2, 2, 4 / 3)]
