"""Does a text carry values? The dictionary of pyvalues, which finds words of each of the ten values in it.

pyvalues (MIT) is by the organisers of ValueEval, and is not part of this project: pip install 'jaxalign[values]'. Its
English dictionary has about 100 words a value; a text without any of them is silent. It was fitted to nothing, so all
arguments are held out. N texts, V = 10 values.
"""

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import numpy as np
from jaxtyping import Bool

from jaxalign.analysis.agreement import area_under_curve
from jaxalign.runs.records import Fields
from jaxalign.values.schwartz import VALUES
from jaxalign.values.touche import Argument

PACKAGE = "pyvalues"
INSTALL_VALUES = "pip install 'jaxalign[values]'"


@dataclasses.dataclass(frozen=True)
class ValueDictionary:
    """A dictionary of words of values."""

    name: str
    """The package and its version."""
    found: Callable[[Sequence[str]], Bool[np.ndarray, "N V"]]
    """Returns of which values a text has at least one word."""

    def read(self, texts: Sequence[str]) -> dict[str, Any]:
        """Return what is found in texts; the shares are None without a text.

        The result is {dictionary (its name), n (texts), silent (share of the texts without any of its words), means
        ({value: share of the texts with a word of it})}.
        """
        there = self.found(texts)
        means = [float(share) for share in there.mean(0)] if len(texts) else [None] * len(VALUES)
        silent = float((~there.any(1)).mean()) if len(texts) else None
        return {
            "dictionary": self.name,
            "n": len(texts),
            "silent": silent,
            "means": dict(zip(VALUES, means, strict=True)),
        }

    def measure(self, arguments: Sequence[Argument]) -> dict[str, Any]:
        """Return how well it does on the premises of arguments with known values.

        The result is {n, silent (share of the premises), right (the share of the others in which it finds a value that
        the argument has), areas ({value: how often it finds more of the value in an argument with it than in one
        without, ties counting half})}.
        """
        there = self.found([one.premise for one in arguments])
        true = np.array([[value in one.values for value in VALUES] for one in arguments], bool)
        says = there.any(axis=1)
        right = (there & true).any(axis=1)
        areas = {value: area_under_curve(there[:, n], true[:, n]) for n, value in enumerate(VALUES)}
        return {
            "n": len(arguments),
            "silent": float((~says).mean()),
            "right": float(right.sum() / says.sum()) if says.any() else None,
            "areas": {value: dataclasses.asdict(area) for value, area in areas.items()},
        }


@cache
def value_dictionary() -> ValueDictionary | None:
    """Return the English dictionary of pyvalues; None if the package is not installed."""
    try:
        from pyvalues.dictionary_classifier import (  # pyright: ignore[reportMissingImports]
            OriginalValuesDictionaryClassifier,
        )

        name = f"{PACKAGE} {version(PACKAGE)}"
    except (ImportError, PackageNotFoundError):
        return None
    classifier = OriginalValuesDictionaryClassifier.get_default()

    def found(texts: Sequence[str]) -> Bool[np.ndarray, "N V"]:
        scores = classifier.classify_segments_for_original_values(texts, "en")
        return np.array([[getattr(one, value) > 0 for value in VALUES] for one in scores], bool).reshape(
            -1, len(VALUES)
        )

    return ValueDictionary(name, found)


_NUMBER = int | float | None
_FOUND: Fields = {"dictionary": str, "n": int, "silent": _NUMBER, "means": dict, "arguments": dict}
_ARGUMENTS: Fields = {"n": int, "silent": _NUMBER, "right": _NUMBER, "areas": dict}
_AREA: Fields = {**dict.fromkeys(("estimate", "low", "high"), _NUMBER), "n": int}


def dictionary_parts(found: Any) -> Iterator[tuple[str, Any, Fields]]:
    """Yield what to check of what was found, each before what is in it: its name, itself, and the keys it must have."""
    yield "dictionary_values", found, _FOUND
    yield "dictionary_values, means", found["means"], dict.fromkeys(VALUES, _NUMBER)
    yield "dictionary_values, arguments", found["arguments"], _ARGUMENTS
    areas = found["arguments"]["areas"]
    yield "dictionary_values, areas", areas, dict.fromkeys(VALUES, dict)
    for area in areas.values():
        yield "dictionary_values, areas", area, _AREA
