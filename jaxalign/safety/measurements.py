"""Which measurement of a judge counts, where several runs have measured it."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from jaxalign.runs.records import digest
from jaxalign.safety.calibration import NOT_MEASURED, judge_doubt
from jaxalign.safety.summary import OWN_LABELS


def counted_judges(
    runs: Mapping[str, Sequence[Mapping[str, Any]]],
) -> tuple[list[Mapping[str, Any]], list[Mapping[str, Any]]]:
    """Return the judges of runs, each with the measurement that counts, and their other measurements.

    Runs have different measurements of one judge if people have labelled one of them, or if the judges were measured on
    different labels. The lowest κ counts, whatever the order of the runs; of equal ones, that of the most labels. A run
    in which the judge was not measured says nothing about it, if another one measured it.

    Args:
        runs: by the directory of each run, what its summary says of its judges. All have the same judges.
    """
    counted, passed_over = [], []
    for judge in next(iter(runs.values())):
        mine: dict[str, Mapping[str, Any]] = {}
        for run, judges in runs.items():
            for one in judges:
                if (one["identity"], one["about"]) == (judge["identity"], judge["about"]):
                    labels = f"of {Path(run).name}" if one["labels"] == OWN_LABELS else one["labels"]
                    mine.setdefault(digest([one["kappa"], labels]), {**one, "labels": labels})
        known = [one for one in mine.values() if judge_doubt(one) != NOT_MEASURED]
        first, *others = sorted(known, key=_rank) or [judge]
        counted.append(first)
        passed_over += others
    return counted, passed_over


def _rank(judge: Mapping[str, Any]) -> tuple[Any, ...]:
    return judge["kappa"]["estimate"], -judge["kappa"]["n"], judge["labels"]
