import dataclasses

import pytest
from few_examples import SETTINGS, STAGE

from jaxalign.training.supervised import Packer, supervised_steps


def test_epochs_take_every_example_once_each_and_differ():
    steps = supervised_steps(STAGE.train, dataclasses.replace(SETTINGS, epochs=3, batch_size=5))
    assert [epoch for epoch, _ in steps] == [0, 0, 0, 1, 1, 1, 2, 2, 2]
    orders = [[index for e, step in steps if e == epoch for index in step] for epoch in range(3)]
    assert all(sorted(order) == list(range(12)) for order in orders)
    assert orders[0] != orders[1] != orders[2]


def test_a_number_of_steps_ends_a_stage_early():
    everything = supervised_steps(STAGE.train, SETTINGS)
    assert supervised_steps(STAGE.train, dataclasses.replace(SETTINGS, max_steps=3)) == everything[:3]
    assert supervised_steps(STAGE.train, dataclasses.replace(SETTINGS, max_steps=100)) == everything


@pytest.mark.parametrize(("epochs", "count"), [(0.01, 1), (0.7, 2), (1, 3), (1.5, 4), (1.7, 5)])
def test_epochs_may_be_a_fraction(epochs, count):
    steps = [supervised_steps(STAGE.train, dataclasses.replace(SETTINGS, epochs=e, batch_size=5)) for e in (epochs, 2)]
    assert steps[0] == steps[1][:count]


@pytest.mark.parametrize("budget", [1, 100, 1000])
def test_a_budget_of_tokens_ends_a_stage_as_soon_as_it_is_spent_whatever_the_epochs(budget):
    settings = dataclasses.replace(SETTINGS, max_tokens=budget)
    steps = supervised_steps(STAGE.train, settings)
    spent = [sum(STAGE.train.tokens(index) for index in step) for _, step in steps]
    assert sum(spent[:-1]) < budget <= sum(spent)
    assert len(steps) > 4 or budget < 1000  # the largest takes more than two epochs


@pytest.mark.parametrize("share", [True, False])
@pytest.mark.parametrize("max_rows", [None, 1, 2])
def test_every_batch_of_a_step_holds_its_examples_and_nothing_else(share, max_rows):
    packer = Packer(STAGE.train, share=share, alone=False, limit=64, max_rows=max_rows)
    steps = [step for _, step in supervised_steps(STAGE.train, SETTINGS)]
    packer.plan(steps[:2])
    for step in [*steps, list(range(12))]:  # the last fits no planned shape
        batch, stored = packer.batch(step)
        assert max_rows is None or batch.tokens.shape[1] <= max_rows
        expected = sorted(token for index in step for token in STAGE.train.responses[index].tolist())
        assert sorted(batch.target[batch.weight > 0].tolist()) == expected
        assert batch.weight.sum() == sum(len(STAGE.train.responses[i]) * STAGE.train.weights[i] for i in step)
        assert stored <= batch.tokens.size
        assert share or stored == sum(STAGE.train.tokens(index) - 1 for index in step)  # the last is read by nothing
