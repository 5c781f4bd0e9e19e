"""Which models an evaluation asks, in which order, and by which keys their records are found."""

import dataclasses

from jaxalign.jobs.asked import AskedModel, models_to_ask, trained_target
from jaxalign.models.adapter import BASE, Adapter
from jaxalign.values.targets import extreme_targets

POWER, SECURITY = (extreme_targets()[name] for name in ("power", "security"))


def adapter(name, target=None):
    notes = {} if target is None else {"value": target.name, "target": target.by_value}
    return Adapter(name, notes=notes)


def told(asked):
    return [(one.name, one.method, one.target and one.target.name) for one in asked]


def test_the_base_comes_first_then_its_role_then_the_adapters_target_by_target():
    adapters = [adapter("a", SECURITY), adapter("b", POWER), adapter("c")]
    assert told(models_to_ask(adapters, POWER, "You hold power dear.\n")) == [
        ("base", "base", "power"),
        ("role-play", "role-play", "power"),
        ("b", "adapter", "power"),
        ("c", "adapter", "power"),  # it has no target of its own
        ("base", "base", "security"),
        ("a", "adapter", "security"),
    ]


def test_without_any_target_the_base_and_the_adapters_are_asked_once():
    assert told(models_to_ask([adapter("a")], None, "")) == [("base", "base", None), ("a", "adapter", None)]
    assert told(models_to_ask([], None, "")) == [("base", "base", None)]


def test_the_target_of_an_adapter_is_that_of_its_notes_even_if_its_scores_are_unlike_the_names():
    mine = {**POWER.by_value, "security": 4}
    found = trained_target(Adapter("a", notes={"value": "mine", "target": mine}))
    assert found is not None and (found.name, found.by_value) == ("mine", mine)
    assert trained_target(adapter("a")) is None and trained_target(Adapter("a", notes={"value": "mine"})) is None


def test_records_are_found_by_the_adapter_and_the_role_and_not_by_the_target():
    base, role = AskedModel(BASE, "base", target=POWER), AskedModel(BASE, "role-play", "You hold power dear.\n", POWER)
    assert base.key == dataclasses.replace(base, target=SECURITY).key == "base-plain"
    assert role.key.startswith("base-") and role.key != dataclasses.replace(role, preamble="You do not.\n").key
