import dataclasses

import jax
import numpy as np
import pytest
from tiny_model import MODEL, packed, random_adapter, random_tokens, random_tree, random_weights

from jaxalign.data.trees import Segment, path_lengths, radix, tree_length
from jaxalign.errors import UserError
from jaxalign.inference import passes
from jaxalign.inference.passes import pack_for_reading
from jaxalign.inference.scorer import Scorer
from jaxalign.models.lora import effective
from jaxalign.objectives.forward import batch_log_probs
from jaxalign.parallel.compilation import Programs


@pytest.fixture(scope="module")
def scorer():
    """A scorer of the tiny model with an adapter."""
    return Scorer(MODEL, random_weights(), random_adapter(targets=("k_proj", "up_proj")), 0.7, Programs(), 96, 400)


@pytest.fixture(scope="module")
def alone(scorer):
    """Score each branch by itself: its whole path as one text in one row, no tree anywhere."""

    params = scorer.weights.get(layered=False)

    @jax.jit
    def read(batch):
        return batch_log_probs(scorer.network, params, effective(scorer.adapter, scorer.scale), batch)

    def score(tree):
        values = np.zeros(len(tree))
        for index, segment in enumerate(tree):
            if segment.scored:
                parts, node = [], segment.parent
                while node >= 0:
                    parts.insert(0, tree[node].tokens)
                    node = tree[node].parent
                text = (Segment(np.concatenate(parts), -1), Segment(segment.tokens, 0, True))
                batch = packed([text, (Segment(np.zeros(160 - tree_length(text), np.int32), -1),)], 160)
                batch = dataclasses.replace(
                    batch,
                    **{
                        name: np.pad(getattr(batch, name), ((0, 0), (0, 40 - batch.weight.shape[1])))
                        for name in ("source", "target", "branch", "weight")
                    },
                )
                values[index] = (np.asarray(read(batch)) * batch.weight).sum()
        return values

    return score


def unweighted(tree):
    return tuple(segment._replace(weight=1.0) for segment in tree)


def some_trees(seed, count=7):
    random = np.random.default_rng(seed)
    return [unweighted(random_tree(random, int(random.integers(2, 9)))) for _ in range(count)]


@pytest.mark.slow
def test_a_tree_scores_as_each_of_its_branches_alone(scorer, alone):
    trees = some_trees(0)
    for tree, scores in zip(trees, scorer.score(trees), strict=True):
        assert scores.shape == (len(tree),)
        np.testing.assert_allclose(scores, alone(tree), atol=1e-4)
        assert [score != 0 for score in scores] == [segment.scored for segment in tree]


def test_nested_answers_sum_to_the_answer_in_one_piece(scorer):
    random = np.random.default_rng(1)
    prompt, first, second = (random_tokens(random, 4, 9) for _ in range(3))
    nested = (Segment(prompt, -1), Segment(first, 0, True), Segment(second, 1, True))
    whole = (Segment(prompt, -1), Segment(np.concatenate([first, second]), 0, True))
    by_parts, at_once = scorer.score([nested, whole])
    assert by_parts[1:].sum() == pytest.approx(at_once[1], abs=1e-4)


@pytest.mark.slow
def test_a_tree_too_long_for_a_row_is_cut_and_scored_as_before(scorer, alone):
    random = np.random.default_rng(2)
    prompt = random_tokens(random, 30, 30)
    tree = (Segment(prompt, -1), Segment(random_tokens(random, 9, 9), 0, True))
    tree += tuple(Segment(random_tokens(random, 4, 9), int(parent), True) for parent in (1, 1, *[0] * 10))
    assert tree_length(tree) > scorer.row_length >= max(path_lengths(tree))
    _, long = scorer.score([some_trees(3, 1)[0], tree])
    np.testing.assert_allclose(long, alone(tree), atol=1e-4)


@pytest.mark.slow
def test_many_trees_take_several_passes_of_one_shape_and_keep_their_order(scorer):
    trees = some_trees(4, 60)
    batches = [one for (one,) in pack_for_reading([radix(trees)[0]], 96, 400)]
    assert len(batches) > 1
    assert len({batch.tokens.shape + batch.target.shape for batch, _ in batches}) == 1
    seen = []
    scorer = dataclasses.replace(scorer, shapes=[])
    together = scorer.score(trees, lambda done, total: seen.append((done, total)))
    assert seen == [(n + 1, len(batches)) for n in range(len(batches))]
    backwards = scorer.score(trees[::-1])[::-1]
    for one, other in zip(together, backwards, strict=True):
        np.testing.assert_array_equal(one, other)


def test_the_passes_of_a_call_differ_by_no_more_than_halves_of_the_widest_list_of_blocks():
    trees = [tree for size in (20, 60, 150, 900) for tree in some_trees(size, 12)]
    trees += [
        (Segment(np.arange(length, dtype=np.int32), -1), Segment(np.arange(3, dtype=np.int32), 0, True))
        for length in (200, 500, 1500)
    ]
    batches = [one for ((one, _),) in pack_for_reading([radix(trees)[0]], 2048, 2048)]
    widths = [batch.blocks.shape[2] for batch in batches]
    assert set(widths) <= {max(widths) >> n for n in range(8)}
    for batch, width in zip(batches, widths, strict=True):
        needed = (batch.blocks < batch.tokens.shape[1] / 32).sum(2).max()
        assert needed <= width and (width == max(widths) or width < 2 * needed + 8)


def test_a_scale_of_zero_reads_the_base(scorer):
    trees = some_trees(5)
    base = dataclasses.replace(scorer, scale=0.0).score(trees)
    other = dataclasses.replace(scorer, scale=0.0, adapter=jax.tree.map(lambda x: -x, scorer.adapter)).score(trees)
    for one, two, adapted in zip(base, other, scorer.score(trees), strict=True):
        np.testing.assert_array_equal(one, two)
        assert not np.any(adapted) or np.abs(one - adapted).max() > 1e-3


def test_nothing_to_score_is_scored_as_nothing(scorer):
    assert scorer.score([]) == []
    (scores,) = scorer.score([(Segment(np.arange(5, dtype=np.int32), -1),)])
    assert scores.tolist() == [0.0]


def test_a_path_longer_than_a_row_makes_the_row_longer(scorer, alone):
    random = np.random.default_rng(6)
    tree = (Segment(random_tokens(random, 110, 110), -1), Segment(random_tokens(random, 5, 5), 0, True))
    np.testing.assert_allclose(scorer.score([tree])[0], alone(tree), atol=1e-4)


def questions(seed, count, preamble=40):
    """Trees that begin alike, some of them twice, with answers that begin alike, some of them twice."""
    random = np.random.default_rng(seed)
    start = random_tokens(random, preamble, preamble)
    trees = []
    for _ in range(count):
        prompt = np.concatenate([start, random_tokens(random, 3, 9)])
        answers = [random_tokens(random, 1, 5) for _ in range(3)]
        answers += [answers[0], np.concatenate([answers[1], random_tokens(random, 1, 3)])]
        trees.append((Segment(prompt, -1), *(Segment(answer, 0, True) for answer in answers)))
    return trees + trees[::3]


def test_sharing_what_trees_begin_with_changes_no_score(scorer, alone):
    trees = some_trees(7, 40) + questions(8, 12)
    shared, apart = scorer.score(trees), dataclasses.replace(scorer, share=False).score(trees)
    for one, other in zip(shared, apart, strict=True):
        np.testing.assert_allclose(one, other, atol=2e-5)
    for tree, scores in zip(trees[-3:], shared[-3:], strict=True):
        np.testing.assert_allclose(scores, alone(tree), atol=2e-5)


def test_equal_trees_and_equal_answers_are_read_once_and_score_the_same(scorer):
    (tree,) = questions(9, 1)[:1]
    tree = tree[:5]
    once, thrice = radix([tree[:4]])[0], radix([tree, tree[:4], tree])[0]
    assert sum(map(tree_length, once)) == sum(map(tree_length, thrice)) < tree_length(tree)
    first, second, third = scorer.score([tree, tree[:4], tree])
    np.testing.assert_array_equal(first, third)
    np.testing.assert_array_equal(first[:4], second)
    assert first[1] == first[4] != 0


def test_a_preamble_is_computed_once_a_row(scorer):
    trees = questions(10, 30)
    batches = [one for (one,) in pack_for_reading([radix(trees)[0]], 192, 400)]
    rows = sum(int((batch.weight != 0).any(1).sum()) for batch, _ in batches)
    starts = sum(int((batch.positions[:, 1:] == 1).sum()) for batch, _ in batches)
    assert starts == rows < len(trees) / 2


def test_a_later_call_takes_a_shape_that_does_for_it_too(scorer):
    fresh = dataclasses.replace(scorer, shapes=[])
    trees = some_trees(4, 60)
    first = fresh.score(trees)
    assert len(fresh.shapes) == 1
    again = fresh.score(trees[:50])
    assert len(fresh.shapes) == 1
    for one, other in zip(first, again, strict=False):
        np.testing.assert_allclose(one, other, atol=1e-4)


def stack(*adapters):
    return jax.tree.map(lambda *leaves: np.stack(leaves), *adapters)


def test_stacked_adapters_score_as_one_at_a_time(scorer):
    targets = ("k_proj", "up_proj")
    adapters = [scorer.adapter, random_adapter(seed=5, targets=targets), jax.tree.map(np.zeros_like, scorer.adapter)]
    scales = np.array([0.7, 1.3, 1.0])
    together = dataclasses.replace(scorer, adapter=stack(*adapters), scale=scales, shapes=[])
    trees = some_trees(11, 40) + questions(12, 4)
    # The last adapter is asked least, and one tree of two different adapters.
    members = [0 if n % 3 else 1 for n in range(len(trees))]
    members[7], trees[8] = 2, trees[7]
    found = together.score(trees, adapters=members)
    for member, (adapter, scale) in enumerate(zip(adapters, scales, strict=True)):
        places = [n for n, one in enumerate(members) if one == member]
        alone = dataclasses.replace(scorer, adapter=adapter, scale=scale).score([trees[n] for n in places])
        for n, scores in zip(places, alone, strict=True):
            np.testing.assert_allclose(found[n], scores, atol=1e-4)
    assert np.abs(found[7] - found[8]).max() > 1e-3


@pytest.mark.slow
def test_a_stack_of_which_one_is_asked_scores_as_that_one(scorer):
    both = dataclasses.replace(
        scorer, adapter=stack(scorer.adapter, scorer.adapter), scale=np.array([0.0, 0.7]), shapes=[]
    )
    trees = some_trees(13, 3)
    for one, other in zip(both.score(trees, adapters=[1, 1, 1]), scorer.score(trees), strict=True):
        np.testing.assert_allclose(one, other, atol=1e-4)


def test_logits_that_are_not_finite_are_an_error_and_no_score(scorer):
    # The squares in the norms overflow. Without a test of them all tokens would be equally probable.
    tree = random_tree(np.random.default_rng(0), 6)
    with pytest.raises(UserError, match="the model's logits are NaN or infinite, so there is no answer"):
        dataclasses.replace(scorer, scale=1e25).score([tree])


@pytest.mark.slow
@pytest.mark.parametrize(("layers", "adapted"), [(None, None), (1, None), (1, 1)])
def test_mean_states_are_those_of_each_text_alone(scorer, layers, adapted):
    scorer = dataclasses.replace(scorer, shapes=[])
    if adapted:
        scorer = dataclasses.replace(scorer, adapter=jax.tree.map(lambda leaf: leaf[-adapted:], scorer.adapter))
    single = (Segment(np.array([5, 6, 7], np.int32), -1), Segment(np.array([8], np.int32), 0, True))
    trees = [*questions(14, 3), single]
    found = scorer.mean_states(trees, layers)
    params, lora = scorer.weights.get(layered=False), effective(scorer.adapter, scorer.scale)
    network = scorer.network
    if layers:
        few = dataclasses.replace(network.architecture, layers=1, windows=network.architecture.windows[:1])
        network = network.clone(architecture=few)
        params = {**params, "layers": jax.tree.map(lambda leaf: leaf[:1], params["layers"])}
        lora = {"layers": {}} if adapted else jax.tree.map(lambda leaf: leaf[:1], lora)
    places = np.arange(64, dtype=np.int32)[None]

    @jax.jit
    def read(tokens, ends):
        return network.apply({"params": params, "lora": lora}, tokens, places, ends)

    for tree, means in zip(trees, found, strict=True):
        assert not means[0].any()
        prompt, *answers = [segment.tokens for segment in tree]
        for answer, mean in zip(answers, means[1:], strict=True):
            length = len(prompt) + len(answer) - 1
            tokens = np.zeros((1, 64), np.int32)
            tokens[0, :length] = np.concatenate([prompt, answer])[:-1]
            states = read(tokens, np.where(places < length, length, places + 1))
            np.testing.assert_allclose(mean, states[0, len(prompt) - 1 : length].mean(0), atol=1e-4)


@pytest.mark.parametrize(("cpu", "count"), [(True, 1), (False, 2)])
def test_on_a_cpu_a_single_row_may_be_half_as_long_again_as_a_pass(cpu, count, monkeypatch):
    monkeypatch.setattr(passes, "on_cpu", lambda: cpu)
    random = np.random.default_rng(0)
    rubric = random_tokens(random, 300, 300)
    trees = [(Segment(rubric, -1), Segment(random_tokens(random, 85, 85), 0, True)) for _ in range(28)]  # 2,652 tokens
    batches = [one for ((one, _),) in pack_for_reading([radix(trees)[0]], 10**6, 2048)]
    assert [len(one.tokens) for one in batches] == [1] * count
    assert (batches[0].tokens.shape[1] > 2048) == cpu
    short = [one for ((one, _),) in pack_for_reading([radix(trees)[0]], 512, 2048)]
    assert all(one.tokens.size <= 2048 for one in short)
