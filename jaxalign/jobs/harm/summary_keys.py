"""What is read of the summaries of a benchmark of harm and of its judge stages, and what each key must be."""

from collections.abc import Mapping
from typing import Any

from jaxalign.config.schema import LARGEST_FLOAT
from jaxalign.runs.expected import Besides, Each, Expected, Maybe
from jaxalign.safety.states import STATES
from jaxalign.values.schwartz import VALUES


def is_number(found: Any) -> bool:
    """Return whether a value is a number that can be drawn, and so not NaN."""
    return isinstance(found, int | float) and not isinstance(found, bool) and abs(found) <= LARGEST_FLOAT


def _is_count(found: Any) -> bool:
    return isinstance(found, int) and is_number(found) and found >= 0


def _half_interval(found: Mapping[str, Any]) -> str | None:
    """Return the limit of an estimate that is missing, or is on the wrong side of the other one; None if both fit."""
    low, high = found["low"], found["high"]
    if low is None or high is None:
        return None if low is high else "high" if high is None else "low"
    return None if low <= high else "high"


def _empty_scale(found: Mapping[str, Any]) -> str | None:
    low, high, _ = found["scale"]
    return None if low is None or high is None or low < high else "scale"


def _is_name(found: Any) -> bool:
    """Return whether a value is a text of one line, which may be printed."""
    return _is_text(found) and found.isprintable()


def _is_text(found: Any) -> bool:
    """Return whether a value is a text that may be a path."""
    return isinstance(found, str) and "\0" not in found


_NUMBER_OR_NULL = Maybe(is_number, missing=False)
_ESTIMATE = {**dict.fromkeys(("estimate", "low", "high"), _NUMBER_OR_NULL), "n": _is_count}
_MEANS: Expected = dict.fromkeys(VALUES, _NUMBER_OR_NULL)

DICTIONARY_VALUES: Expected = {
    **{"dictionary": _is_text, "n": _is_count, "silent": _NUMBER_OR_NULL, "means": _MEANS},
    "arguments": {
        **{"n": _is_count, "silent": _NUMBER_OR_NULL, "right": _NUMBER_OR_NULL},
        "areas": dict.fromkeys(VALUES, Besides(_ESTIMATE, _half_interval)),
    },
}
"""What `ValueDictionary` finds in responses, and in the starter arguments."""

_MODEL: Expected = {
    **dict.fromkeys(("model", "method", "adapter"), _is_text),
    **dict.fromkeys(("scale", "perplexity", "trained_tokens"), Maybe(is_number)),
    **dict.fromkeys(("folder", "value", "control"), Maybe(_is_text)),
    **{"states": Maybe(Each(_NUMBER_OR_NULL)), "files": Maybe(Each(_is_text))},
    **{"target": Maybe(dict.fromkeys(VALUES, is_number)), "measured": Maybe(_MEANS)},
    "text_values": Maybe({"probe": _is_text, "n": _is_count, "means": _MEANS}),
    "dictionary_values": Maybe(DICTIONARY_VALUES),
}
_FIGURE = {
    **_MODEL,
    **dict.fromkeys(("judge", "category", "metric"), _is_text),
    **_ESTIMATE,
    "states_before": Maybe(dict.fromkeys(STATES, _NUMBER_OR_NULL)),
}
_JUDGE: Expected = Besides(
    {
        **dict.fromkeys(("judge", "identity", "about", "line", "labels"), _is_text),
        **{"scale": (_NUMBER_OR_NULL,) * 3, "kappa": Maybe(Besides(_ESTIMATE, _half_interval), missing=False)},
    },
    _empty_scale,
)

JUDGING: Expected = {"judges": [_JUDGE], "states": dict.fromkeys(STATES, _is_count)}
"""What later stages read of the summary of stage=judge."""


def _nothing_in_it(found: Mapping[str, Any]) -> str | None:
    return next((key for key in ("models", "judges", "rows") if not found[key]), None)


_HARM: Expected = {
    "benchmark": {**dict.fromkeys(("name", "version"), _is_name), **dict.fromkeys(("prompts", "samples"), _is_count)},
    "asking": dict,
    "model": {"name": _is_text, "signature": _is_text},
    "mitigation": {"name": _is_name},
    "models": [{**_MODEL, "generate": _is_text, "judge": _is_text}],
    "judges": [_JUDGE],
    "rows": [Besides({**_FIGURE, "missing": _is_count, "left_out": _is_count}, _half_interval)],
    "drops": [Besides(_FIGURE, _half_interval)],
}
HARM_SUMMARY: Expected = Besides(_HARM, _nothing_in_it)
"""What `safety.summary` describes, as far as a report reads it."""
