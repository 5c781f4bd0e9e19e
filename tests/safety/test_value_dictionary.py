"""The dictionary of pyvalues, by a stand-in with words of ours; and the package itself, where it is installed."""

import importlib.util

import pytest
import pyvalues_stand_in as stand_in

from jaxalign.safety.value_dictionary import value_dictionary
from jaxalign.values.schwartz import VALUES
from jaxalign.values.starter import load_starter
from jaxalign.values.touche import Argument


@pytest.fixture
def dictionary():
    with stand_in.installed("0.11.9"):
        found = value_dictionary()
        assert found is not None
        yield found


def test_shares_are_over_all_texts_and_a_text_without_any_word_is_silent(dictionary):
    read = dictionary.read(["power and tradition", "POWER", "nothing at all", ""])
    assert (read["dictionary"], read["n"], read["silent"]) == ("pyvalues 0.11.9", 4, 0.5)
    there = {value: share for value, share in read["means"].items() if share}
    assert there == {"power": 0.5, "tradition": 0.25, "hedonism": 0.5}
    assert list(read["means"]) == list(VALUES)


def test_no_text_has_no_share(dictionary):
    read = dictionary.read([])
    assert read["n"] == 0 and read["silent"] is None and set(read["means"].values()) == {None}


def test_it_is_measured_on_the_premises_of_arguments(dictionary):
    told = [
        ("power", "power"),
        ("power", "tradition"),
        ("tradition", "tradition"),
        ("no", "power"),
        ("no", "tradition"),
    ]
    arguments = [Argument(f"{n}", "power", "against", premise, (value,)) for n, (premise, value) in enumerate(told * 4)]
    found = dictionary.measure(arguments)
    # "power" has an e, as hedonism has in the stand-in, and "tradition" has none; the conclusion is not read.
    assert (found["n"], found["silent"], found["right"]) == (20, pytest.approx(0.4), pytest.approx(2 / 3))
    # Of 8 with power, 4 have its word; of 12 without, 4 have: ½ × ⅔ + ½ (½ × ⅓ + ½ × ⅔) = 7/12.
    assert found["areas"]["power"]["estimate"] == pytest.approx(7 / 12)
    assert found["areas"]["security"]["estimate"] is None  # no argument has it


def test_without_the_package_there_is_no_dictionary():
    with stand_in.installed(None):
        assert value_dictionary() is None


def test_the_package_itself_has_the_figures_that_the_documentation_gives():
    """Those in docs/safety.md; with `-s`, pytest prints them."""
    if importlib.util.find_spec("pyvalues") is None:
        pytest.skip("pyvalues is not installed (pip install 'jaxalign[values]')")
    dictionary = value_dictionary()
    assert dictionary is not None
    if dictionary.name != "pyvalues 0.11.1":
        pytest.skip(f"the documentation has the figures of pyvalues 0.11.1, and {dictionary.name} is installed")
    found = dictionary.measure(load_starter())
    areas = sorted(area["estimate"] for area in found["areas"].values())
    said = f"silent on {found['silent']:.0%}, right in {found['right']:.0%}, area {areas[0]:.2f} to {areas[-1]:.2f}"
    print(said)
    assert said == "silent on 35%, right in 61%, area 0.56 to 0.68"
