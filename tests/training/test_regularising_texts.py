import jax
import numpy as np
from tiny_model import random_tokens

from jaxalign.training.regularising_texts import HELD_OUT_ROWS, RegularisingTexts


def some_texts(seed, count=20):
    random = np.random.default_rng(seed)
    return [random_tokens(random, 5, 12) for _ in range(count)]


TEXTS = RegularisingTexts([some_texts(0)], [some_texts(1, 6)], 32)


def read(batch):
    """Return the texts of a batch: the first token of each, and what is predicted after it."""
    texts = []
    for row in range(len(batch.tokens)):
        for branch in np.unique(batch.branch[row][batch.weight[row] > 0]):
            mine = (batch.branch[row] == branch) & (batch.weight[row] > 0)
            first = batch.tokens[row, batch.source[row][mine][0]]
            texts.append((first, *batch.target[row][mine]))
    return texts


def test_a_step_fills_its_row_with_whole_texts_and_cuts_the_last():
    batch = TEXTS.batch(0, 3)
    assert batch.tokens.shape == batch.weight.shape == (1, 32)
    assert np.all(batch.weight == 1)
    *whole, last = read(batch)
    known = [tuple(text) for text in TEXTS.train[0]]
    assert set(whole) <= set(known)
    assert any(text[: len(last)] == last for text in known)
    assert len(set(whole)) == len(whole) > 2


def test_the_texts_of_a_step_depend_on_seed_and_step_alone():
    same, others = TEXTS.batch(0, 3), [TEXTS.batch(0, 4), TEXTS.batch(1, 3)]
    jax.tree.map(np.testing.assert_array_equal, TEXTS.batch(0, 3), same)
    assert all(not np.array_equal(other.tokens, same.tokens) for other in others)


def test_a_validation_reads_held_out_texts_in_their_order_as_far_as_they_fit():
    assert read(TEXTS.validation())[0] == tuple(TEXTS.held_out[0][0])
    few, many = (RegularisingTexts([[]], [some_texts(1, count)], 32).validation() for count in (2, 50))
    assert read(few) == [tuple(text) for text in some_texts(1, 2)]
    assert many.weight.sum() == HELD_OUT_ROWS * 32


def test_steps_of_all_kinds_have_one_shape_so_that_they_share_a_program():
    random = np.random.default_rng(0)
    short, long = ([random_tokens(random, low, high) for _ in range(40)] for low, high in ((12, 40), (60, 140)))
    for tokens in (64, 256, 512):
        texts = RegularisingTexts([short, long], [short, long], tokens)
        shapes = {str(jax.tree.map(np.shape, texts.batch(0, step))) for step in range(20)}
        assert len(shapes) == 1


def test_steps_read_each_kind_of_text_in_turn_and_a_validation_reads_rows_of_all():
    both = RegularisingTexts([some_texts(0), some_texts(2)], [some_texts(1, 2), some_texts(3, 50)], 32)
    np.testing.assert_array_equal(both.batch(0, 4).tokens, TEXTS.batch(0, 4).tokens)
    *whole, _ = read(both.batch(0, 3))
    assert both.batch(0, 3).weight.sum() == 32 and set(whole) <= {tuple(text) for text in both.train[1]}
    few, many = both.validation().weight.sum(1)[:1], both.validation().weight.sum(1)[1:]
    assert len(few) == 1 and len(many) == HELD_OUT_ROWS and few[0] < 32 and np.all(many == 32)
