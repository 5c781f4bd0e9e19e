import doctest

from jaxalign.data import templates


def test_the_examples_in_the_documentation_are_true():
    assert doctest.testmod(templates) == (0, 2)
