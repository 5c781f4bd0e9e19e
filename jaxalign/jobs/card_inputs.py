"""What a model card reads of a run, which may be somebody else's or of an older version: checked before the work."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from jaxalign.errors import UserError
from jaxalign.runs.expected import Expected, Maybe, flaw
from jaxalign.values.schwartz import VALUES
from jaxalign.values.tables import READING

_NUMBER, _SCORE = int | float, Maybe(int | float)

_SERVED: dict[str, Expected] = {"value": Maybe({"name": str}), "objective": {"name": str}}
_BASE: dict[str, Expected] = {
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
_CONFIG: dict[str, Expected] = {
    **_BASE,
    "dataset": {"name": str, "kind": str, "limit": Maybe(int)},
    **_SERVED,
    "training": {"seed": int, "epochs": _NUMBER, "batch_size": int, "max_steps": Maybe(int)},
    "lora": {"rank": int, **dict.fromkeys(("alpha", "dropout"), _NUMBER), "targets": [str], "layers": _SCORE},
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
_PREFERENCES: dict[str, Expected] = {
    "objective": {
        **dict.fromkeys(("loss", "batching"), str),
        **dict.fromkeys(("beta", "label_smoothing", "likelihood"), _NUMBER),
    }
}

_ACCURACY: dict[str, Expected] = {"accuracy": _NUMBER, "interval": (_NUMBER, _NUMBER)}
_CREST: dict[str, Expected] = {
    "questions": Maybe(dict.fromkeys(("train", "validation", "test"), int)),
    "models": Maybe([{"name": str, "test": Maybe(_ACCURACY)}]),
    "final": Maybe(str),
    "model": Maybe({"identity": Maybe(str)}),
}
_STAGE: dict[str, Expected] = {
    "name": str,
    **dict.fromkeys(("examples", "validation_examples", "positives", "cut", "tokens", "steps"), _SCORE),
    **dict.fromkeys(("pairs", "validation_pairs", "distinct_responses", "truncated_prompts"), _SCORE),
    **dict.fromkeys(("first_loss", "last_loss", "best_validation_loss"), _SCORE),
}
_SUMMARY: dict[str, Expected] = {
    "value": Maybe(str),
    "target": Maybe(dict.fromkeys(VALUES, _NUMBER)),
    "questionnaire": Maybe({"before": Maybe(READING), "after": Maybe(READING)}),
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
    checked: list[tuple[str, Any, Expected]] = [("config.yaml", config, {} if crest else _SERVED)]
    if summary is not None:
        checked.append(("config.yaml", config, _BASE if crest else _CONFIG))
        if not crest and isinstance(config.get("objective"), Mapping) and config["objective"].get("name") == "dpo":
            checked.append(("config.yaml", config, _PREFERENCES))
        checked.append(("summary.json", summary, _CREST if crest else _SUMMARY))
    for file, found, expected in checked:
        if (where := flaw(found, expected)) is not None:
            place = ".".join(map(str, where)) or "all of it"
            raise UserError(
                f"{run / file}: {place} is missing, damaged, or as another version of jaxalign wrote it; get the run "
                "again, or export it with that version"
            )
