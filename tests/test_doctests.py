"""The examples in docstrings, wherever they stand."""

import doctest
import importlib.util
import pkgutil
from pathlib import Path

import pytest

import jaxalign

NAMES = [module.name for module in pkgutil.walk_packages(jaxalign.__path__, "jaxalign.")]
WITH_EXAMPLES = [
    name
    for name in NAMES
    if (spec := importlib.util.find_spec(name)) is not None
    and ">>>" in Path(str(spec.origin)).read_text(encoding="utf-8")
]


@pytest.mark.slow
@pytest.mark.parametrize("name", WITH_EXAMPLES)
def test_the_examples_of_a_module_hold(name):
    found = doctest.testmod(importlib.import_module(name), optionflags=doctest.NORMALIZE_WHITESPACE)
    assert found.failed == 0
