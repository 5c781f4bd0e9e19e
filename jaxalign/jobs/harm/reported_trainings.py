"""What a report reads of the training runs of its adapters: perplexities and losses."""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from jaxalign.errors import UserError
from jaxalign.jobs.harm.summary_keys import is_number
from jaxalign.runs.directory import Run
from jaxalign.runs.expected import Maybe
from jaxalign.runs.records import read_records
from jaxalign.safety.collection import HarmRun, ModelKey
from jaxalign.safety.summary import is_whole
from jaxalign.values.roleplay import BASE_METHOD


def perplexities(runs: Sequence[HarmRun], folder: Path) -> dict[ModelKey, tuple[float | None, float | None]]:
    """Return the perplexity of each adapter, and of its base, by base and adapter, whose hash counts its scale.

    They come from the runs themselves, or else, at scale 1, from the adapter's training run.
    """
    found: dict[ModelKey, tuple[float | None, float | None]] = {}
    for run in runs:
        models = run.summary["models"]
        base = next((_positive(one.get("perplexity")) for one in models if one["method"] == BASE_METHOD), None)
        measured = [one for one in models if _positive(one.get("perplexity")) is not None]
        if base is not None:
            found |= {_key(run, one): (one["perplexity"], base) for one in measured}
    for run in runs:
        for about in run.summary["models"]:
            if not is_whole(about) or about.get("folder") is None or _key(run, about) in found:
                continue
            place = _training_run(about, folder)
            if place is not None:
                found[_key(run, about)] = _perplexity(place)
    return found


def _key(run: HarmRun, about: Mapping[str, Any]) -> ModelKey:
    return str(run.summary["model"]["signature"]), str(about["adapter"])


def training_losses(runs: Sequence[HarmRun], folder: Path) -> dict[str, list[tuple[str, int, float]]]:
    """Return the logged steps of the training runs of all adapters, by the adapter's hash (see `TrainingLosses`)."""
    found: dict[str, list[tuple[str, int, float]]] = {}
    for about in (about for run in runs for about in run.summary["models"]):
        if about.get("folder") is None or about["adapter"] in found:
            continue
        place = _training_run(about, folder)
        if place is not None and Run(place).metrics.is_file():
            steps = read_records(Run(place).metrics, stage=str, step=int, loss=Maybe(int | float))
            found[about["adapter"]] = [
                (one["stage"], one["step"], one["loss"]) for one in steps if one.get("loss") is not None
            ]
    return found


def _positive(perplexity: Any) -> float | None:
    """Return a perplexity if it is one, which is finite and above 0."""
    return perplexity if is_number(perplexity) and perplexity > 0 else None


def _training_run(about: Mapping[str, Any], folder: Path) -> Path | None:
    """Return the directory of the training run of a model, also where the runs were moved; None if it is not there."""
    training = Path(os.path.expanduser(about["folder"])).parent
    places = [training, *(folder / Path(*training.parts[-n:]) for n in (1, 2)), folder.parent / training.name]
    return next((one for one in places if (one / "summary.json").is_file()), None)


def _perplexity(training: Path) -> tuple[float | None, float | None]:
    try:
        readings = Run(training).results().get("questionnaire")
    except UserError:
        return None, None
    readings = readings if isinstance(readings, dict) else {}
    both = [readings.get(when) for when in ("after", "before")]
    after, before = (one.get("perplexity") if isinstance(one, dict) else None for one in both)
    return _positive(after), _positive(before)
