"""A stand-in for pyvalues with the part of its interface that is used, and with words of ours."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType, SimpleNamespace

import pytest

from jaxalign.jobs.harm import dictionary
from jaxalign.safety.value_dictionary import value_dictionary
from jaxalign.values.schwartz import VALUES

MODULES = ("pyvalues", "pyvalues.dictionary_classifier")


class OriginalValuesDictionaryClassifier:
    """Finds a value by its name, and hedonism in each text with an e, for what a random model writes has no words."""

    @staticmethod
    def get_default():
        return OriginalValuesDictionaryClassifier()

    def classify_segments_for_original_values(self, segments, language):
        assert language == "en"
        for text in segments:
            words = {*text.lower().split(), *(["hedonism"] if "e" in text.lower() else [])}
            yield SimpleNamespace(**{value: float(value in words) for value in VALUES})


@contextmanager
def installed(version: str | None) -> Iterator[None]:
    """Let pyvalues be this stand-in, or with None let it be missing, whether or not the package itself is there."""
    package, inner = map(ModuleType, MODULES)
    vars(inner)[OriginalValuesDictionaryClassifier.__name__] = OriginalValuesDictionaryClassifier
    with pytest.MonkeyPatch.context() as patch:
        for name, module in zip(MODULES, (package, inner), strict=True):
            patch.setitem(sys.modules, name, None if version is None else module)
        patch.setattr("jaxalign.safety.value_dictionary.version", lambda name: version)
        _forget()
        yield
    _forget()


def _forget() -> None:
    value_dictionary.cache_clear()
    dictionary._measured.cache_clear()
