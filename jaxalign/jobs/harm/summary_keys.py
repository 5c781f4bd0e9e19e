"""What is read of the summaries of a benchmark of harm and of its judge stages, and what each key must be."""

from typing import Any

from jaxalign.config.schema import LARGEST_FLOAT
from jaxalign.runs.expected import Expected, Maybe
from jaxalign.safety.states import STATES
from jaxalign.values.schwartz import VALUES


def is_number(found: Any) -> bool:
    """Return whether a value is a number that can be drawn, and so not NaN."""
    return isinstance(found, int | float) and not isinstance(found, bool) and abs(found) <= LARGEST_FLOAT


def _is_count(found: Any) -> bool:
    return isinstance(found, int) and is_number(found)


def _is_text(found: Any) -> bool:
    """Return whether a value is a text that may be a path."""
    return isinstance(found, str) and "\0" not in found


_NUMBER_OR_NULL = Maybe(is_number, missing=False)
_ESTIMATE: Expected = {**dict.fromkeys(("estimate", "low", "high"), _NUMBER_OR_NULL), "n": _is_count}
_MEANS: Expected = dict.fromkeys(VALUES, _NUMBER_OR_NULL)

DICTIONARY_VALUES: Expected = {
    **{"dictionary": _is_text, "n": _is_count, "silent": _NUMBER_OR_NULL, "means": _MEANS},
    "arguments": {
        **{"n": _is_count, "silent": _NUMBER_OR_NULL, "right": _NUMBER_OR_NULL},
        "areas": dict.fromkeys(VALUES, _ESTIMATE),
    },
}
"""What `ValueDictionary` finds in responses, and in the starter arguments."""

_MODEL: Expected = {
    **dict.fromkeys(("model", "method", "adapter"), _is_text),
    **dict.fromkeys(("scale", "perplexity", "trained_tokens"), Maybe(is_number)),
    **dict.fromkeys(("folder", "value", "control"), Maybe(_is_text)),
    **dict.fromkeys(("states", "files"), Maybe(dict)),
    **{"target": Maybe(dict.fromkeys(VALUES, is_number)), "measured": Maybe(_MEANS)},
    "text_values": Maybe({"probe": _is_text, "n": _is_count, "means": _MEANS}),
    "dictionary_values": Maybe(DICTIONARY_VALUES),
}
_FIGURE: Expected = {
    **_MODEL,
    **dict.fromkeys(("judge", "category", "metric"), _is_text),
    **_ESTIMATE,
    "states_before": Maybe(dict.fromkeys(STATES, _NUMBER_OR_NULL)),
}
_JUDGE: Expected = {
    **dict.fromkeys(("judge", "identity", "about", "line", "labels"), _is_text),
    **{"scale": (_NUMBER_OR_NULL,) * 3, "kappa": Maybe(_ESTIMATE, missing=False)},
}

JUDGING: Expected = {"judges": [_JUDGE], "states": dict.fromkeys(STATES, _is_count)}
"""What later stages read of the summary of stage=judge."""

HARM_SUMMARY: Expected = {
    "benchmark": {**dict.fromkeys(("name", "version"), _is_text), **dict.fromkeys(("prompts", "samples"), _is_count)},
    "asking": dict,
    "model": {"name": _is_text, "signature": _is_text},
    "mitigation": {"name": _is_text},
    "models": [{**_MODEL, "generate": _is_text, "judge": _is_text}],
    "judges": [_JUDGE],
    "rows": [{**_FIGURE, "missing": _is_count, "left_out": _is_count}],
    "drops": [_FIGURE],
}
"""What `safety.summary` describes, as far as a report reads it."""
