"""What the summary of a CREST run holds, and that of each of its stages: all that reports and tables read of them."""

from collections.abc import Mapping
from typing import Any

from jaxalign.reasoning.preferences import PAIR_KIND_NAMES
from jaxalign.runs.expected import Each, Expected, Maybe, flaw

_NUMBER: Expected = int | float

COUNTED = {
    "sampled": "sampled",
    "distinct": "distinct",
    "unread": "unread",
    "right": "with z = 1",
    "hinted": "sampled with a hint",
    "hinted_kept": "of those added",
    "hinted_tokens": "tokens of hinted samples",
    "kept": "kept",
    "distinct_responses": "distinct responses",
    "tokens": "tokens",
}
"""Keys of a stage's summary, and the words that follow their number."""


def _counts(found: Any) -> bool:
    """Return whether a value has a count for each whole number from 0 on."""
    return flaw(found, Each(int)) is None and all(key.isascii() and key.isdecimal() for key in found)


def _histograms(found: Any) -> bool:
    return isinstance(found, Mapping) and all(map(_counts, found.values()))


def _pair_counts(found: Any) -> bool:
    return flaw(found, Each(int)) is None and set(found) <= set(PAIR_KIND_NAMES)


def _measures(found: Any) -> bool:
    """Return whether a value has the measures of a model on a split: a consistency, if there is one, has an interval.

    `accuracy` and its `interval` are always there.
    """
    shares = ("all_agreed", "right_with_contradiction", "second_reading", "never_read")
    consistency: dict[str, Expected] = {"consistency": _NUMBER, "consistency_interval": (_NUMBER, _NUMBER)}
    known = isinstance(found, Mapping) and found.get("consistency") is not None
    expected = {"accuracy": _NUMBER, "interval": (_NUMBER, _NUMBER), **dict.fromkeys(shares, Maybe(_NUMBER))}
    return flaw(found, expected | (consistency if known else {"consistency": Maybe(_NUMBER)})) is None


STAGE_SUMMARY: dict[str, Expected] = {
    **dict.fromkeys(("seconds", "compilation_seconds", "python_seconds"), _NUMBER),
    **{key: Maybe(int) for name in COUNTED for key in (name, f"{name}_samples")},
    **dict.fromkeys(("best_epoch", "best_round"), Maybe(int)),
    "z_tilde": Maybe(_histograms),
    "there": Maybe(_pair_counts),
    "followups_alike": Maybe(_NUMBER),
}

CREST_SUMMARY: dict[str, Expected] = {
    "dataset": str,
    "questions": dict.fromkeys(("train", "validation", "test"), int),
    "notes": [str],
    "model": {"name": str, "identity": str},
    "asked": Maybe(str),
    "judge": str,
    "judge_identity": Maybe(str),
    "models": [{"name": str, "validation": Maybe(_measures), "test": Maybe(_measures)}],
    "stages": Each({"path": str, **STAGE_SUMMARY}),
    "final": Maybe(str, missing=False),
}


def _graded_models(found: Any) -> bool:
    """Return whether a value has, for each of some models, its grades by the same rubrics."""
    if flaw(found, [{"name": str}]) is not None or not found:
        return False
    rubrics = [key for key in found[0] if key != "name"]
    return bool(rubrics) and flaw(found, [dict.fromkeys(rubrics, _is_grade)]) is None


def _is_grade(found: Any) -> bool:
    if flaw(found, {"estimate": Maybe(_NUMBER), "left_out": int, "missing": int}) is not None:
        return False
    limits = Maybe(_NUMBER) if found.get("low") is None and found.get("high") is None else _NUMBER
    return flaw(found, {"low": limits, "high": limits}) is None


GRADINGS: Expected = [{"key": str, "judge": str, "missing": int, "models": _graded_models}]
"""What grades.json holds: the grades that each judge gave the rationales of a run."""
