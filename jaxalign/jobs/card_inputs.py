"""What a model card reads of a run, which may be somebody else's or of an older version: checked before the work."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import UnionType
from typing import Any

from jaxalign.errors import UserError
from jaxalign.runs.reading import is_cut
from jaxalign.values.schwartz import VALUES

Wanted = Any
"""What a value must be: a type, one of a set of texts, the keys of an object, [each item of a list], or `Maybe`;
a tuple for a list of that length."""


@dataclass(frozen=True)
class Maybe:
    """A value that may also be null or missing."""

    shape: Wanted


_NUMBER, _SCORE = int | float, Maybe(int | float)
_TEN_SCORES: dict[str, Wanted] = dict.fromkeys(VALUES, int | float | None)

_SERVED: dict[str, Wanted] = {"value": Maybe({"name": str}), "objective": {"name": str}}
_BASE: dict[str, Wanted] = {
    "model": {
        **{"name": str, "source": {"package", "hub", "random"}, "prompt_format": {"plain", "chat"}},
        "path": str | None,
        **dict.fromkeys(("revision", "package", "version", "file", "system", "storage"), Maybe(str)),
    },
    "dataset": {"name": str},
    "training": {"seed": int},
    "lora": {"rank": int},
    "precision": {"bfloat16", "float32"},
}
_CONFIG: dict[str, Wanted] = {
    **_BASE,
    "dataset": {"name": str, "kind": str, "limit": Maybe(int)},
    **_SERVED,
    "training": {"seed": int, "epochs": _NUMBER, "batch_size": int, "max_steps": Maybe(int)},
    "lora": {"rank": int, **dict.fromkeys(("alpha", "dropout"), _NUMBER), "targets": [str]},
    "optimizer": {
        **dict.fromkeys(("name", "schedule"), str),
        **dict.fromkeys(("weight_decay", "learning_rate", "warmup_steps"), _NUMBER),
    },
    "alignment": {
        "shuffle_labels": bool,
        "argument_epochs": _SCORE,
        "regulariser": Maybe({"weight": _NUMBER, "tokens": int}),
    },
    "released": dict,
}
_PREFERENCES: dict[str, Wanted] = {
    "objective": {
        **dict.fromkeys(("loss", "batching"), str),
        **dict.fromkeys(("beta", "label_smoothing", "likelihood"), _NUMBER),
    }
}

_ACCURACY: dict[str, Wanted] = {"accuracy": _NUMBER, "interval": (_NUMBER, _NUMBER)}
_CREST: dict[str, Wanted] = {
    "questions": Maybe(dict.fromkeys(("train", "validation", "test"), int)),
    "models": Maybe([{"name": str, "test": Maybe(_ACCURACY)}]),
    "final": Maybe(str),
    "model": Maybe({"identity": Maybe(str)}),
}
_READING: dict[str, Wanted] = {
    "scores": _TEN_SCORES,
    "choice_scores": Maybe(_TEN_SCORES),
    **dict.fromkeys(("nmse", "nmse_centred", "pearson", "spearman", "missing"), _SCORE),
    **dict.fromkeys(("perplexity", "named_value_accuracy"), _SCORE),
}
_STAGE: dict[str, Wanted] = {
    "name": str,
    **dict.fromkeys(("examples", "validation_examples", "positives", "cut", "tokens", "steps"), _SCORE),
    **dict.fromkeys(("pairs", "validation_pairs", "distinct_responses", "truncated_prompts"), _SCORE),
    **dict.fromkeys(("first_loss", "last_loss", "best_validation_loss"), _SCORE),
}
_SUMMARY: dict[str, Wanted] = {
    "value": Maybe(str),
    "target": Maybe(dict.fromkeys(VALUES, _NUMBER)),
    "questionnaire": Maybe({"before": Maybe(_READING), "after": Maybe(_READING)}),
    "best_constant_nmse": _SCORE,
    "training": {"stages": [_STAGE], "held_chats": Maybe(int)},
    "model": Maybe({"identity": Maybe(str)}),
}


def check_card_inputs(config: Mapping[str, Any], summary: Mapping[str, Any] | None, run: Path) -> None:
    """Check all that `model_card` reads of a run's config.yaml and summary.json.

    Without a summary, only what `served_name` reads is checked.

    Raises:
        UserError: a key is missing or damaged (which), so that this version cannot describe the run.
    """
    crest = "crest" in config
    checked: list[tuple[str, Any, Wanted]] = [("config.yaml", config, {} if crest else _SERVED)]
    if summary is not None:
        checked.append(("config.yaml", config, _BASE if crest else _CONFIG))
        if not crest and isinstance(config.get("objective"), Mapping) and config["objective"].get("name") == "dpo":
            checked.append(("config.yaml", config, _PREFERENCES))
        checked.append(("summary.json", summary, _CREST if crest else _SUMMARY))
    for file, found, shape in checked:
        if (where := _flaw(found, shape)) is not None:
            raise UserError(
                f"{run / file}: {where or 'all of it'} is missing, damaged, or as another version of jaxalign wrote "
                "it; get the run again, or export it with that version"
            )


def _flaw(found: Any, shape: Wanted) -> str | None:
    """Return the key of the first value that is not as `shape` says; None if all are."""
    if isinstance(shape, Maybe):
        return None if found is None else _flaw(found, shape.shape)
    if isinstance(shape, dict):
        if not isinstance(found, Mapping):
            return ""
        absent = {key for key, one in shape.items() if key not in found and not isinstance(one, Maybe)}
        inner = ((key, "" if key in absent else _flaw(found.get(key), one)) for key, one in shape.items())
    elif isinstance(shape, list):
        if not isinstance(found, list):
            return ""
        inner = ((str(number), _flaw(one, shape[0])) for number, one in enumerate(found, start=1))
    elif isinstance(shape, tuple):
        if not isinstance(found, list | tuple) or len(found) != len(shape):
            return ""
        inner = ((str(number), _flaw(*both)) for number, both in enumerate(zip(found, shape, strict=True), start=1))
    else:
        return None if _is(found, shape) else ""
    return next((f"{key}.{below}".rstrip(".") for key, below in inner if below is not None), None)


def _is(found: Any, shape: type | UnionType | set[str]) -> bool:
    if isinstance(shape, set):
        return isinstance(found, str) and found in shape
    if not isinstance(found, shape) or (isinstance(found, bool) and shape is not bool):
        return False
    if isinstance(found, str):
        return not is_cut(found)
    try:
        return not isinstance(found, int) or math.isfinite(float(found))
    except OverflowError:  # a whole number that no program computes with, and none can write with decimals
        return False
