from jaxalign.values.schwartz import CIRCLE, GROUPS, LEVEL2, VALUES, label, phrase
from jaxalign.values.touche import HUB_ORDER


def test_the_ten_values_stand_in_alphabetical_order():
    assert len(VALUES) == 10
    assert list(VALUES) == sorted(VALUES)


def test_the_groups_share_out_the_ten_values():
    members = [value for group in GROUPS.values() for value in group]
    assert sorted(members) == list(VALUES)


def test_the_circle_holds_each_value_once_between_those_that_are_compatible_with_it():
    assert sorted(CIRCLE) == list(VALUES)
    assert CIRCLE[:5] == ("self_direction", "stimulation", "hedonism", "achievement", "power")
    assert CIRCLE[5:] == ("security", "conformity", "tradition", "benevolence", "universalism")


def test_every_category_but_face_and_humility_belongs_to_a_value():
    assert set(HUB_ORDER) - set(LEVEL2) == {"Face", "Humility"}
    assert set(LEVEL2.values()) == set(VALUES)
    assert all(column.lower().replace("-", "_").startswith(value) for column, value in LEVEL2.items())


def test_names_read_well_in_a_sentence_and_as_a_heading():
    assert phrase("self_direction") == "self-direction"
    assert phrase("self_enhancement") == "self-enhancement"
    assert phrase("openness_to_change") == "openness to change"
    assert label("self_direction") == "Self-direction"
    assert label("openness_to_change") == "Openness to change"
