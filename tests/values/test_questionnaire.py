import numpy as np
import pytest

from jaxalign.data.encoding import Encoder
from jaxalign.data.trees import Segment, predictions
from jaxalign.inference.scorer import Scorer
from jaxalign.parallel.compilation import Programs
from jaxalign.pretrained.tokenizer import tiny_tokenizer
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


class Even(Scorer):
    """Gives each token the same probability."""

    def __init__(self, log_prob):
        self.log_prob = log_prob

    def score(self, trees):
        return [np.array([predictions(tree) * self.log_prob]) for tree in trees]


def test_perplexity_is_over_all_predicted_tokens_of_all_texts():
    encoder, texts = Encoder(tiny_tokenizer()), ["a short text", "one more"]
    assert questionnaire.read_perplexity(Even(np.log(1 / 7)), encoder, texts, 64) == pytest.approx(7)
    assert questionnaire.read_perplexity(Even(np.log(1 / 7)), encoder, [], 64) is None
    assert questionnaire.read_perplexity(Even(-1e6), encoder, texts, 64) is None
