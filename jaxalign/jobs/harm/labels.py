"""stage=label: a person labels a sample of a run's responses, without seeing what a judge says."""

import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console

from jaxalign.config.safety import LabelConfig
from jaxalign.errors import UserError
from jaxalign.jobs.harm.judged_file import read_judged
from jaxalign.runs.directory import Run
from jaxalign.runs.records import append_record, read_records
from jaxalign.safety.calibration import MergedLabels, merge_labels
from jaxalign.safety.judgements import Judgement
from jaxalign.safety.labelled import LABELS, LabelledResponse
from jaxalign.safety.states import is_blank

LABELS_FILE = "labels.jsonl"

_KEYS = {name[0]: name for name in LABELS}
assert len(_KEYS) == len(LABELS)


def label_responses(
    console: Console, label: LabelConfig, run: Run, summary: dict[str, Any], ask: Callable[[], str] | None = None
) -> None:
    """Let a person label `label.n` responses of a run, blind; labels are appended as they are given.

    Args:
        console: shows the responses.
        label: who labels, how many, and the seed that chooses them.
        run: the run; the labels go to its labels.jsonl.
        summary: its summary.
        ask: returns what the person types; None reads standard input.

    Raises:
        UserError: there is nobody to ask, because standard input is no terminal.
    """
    if ask is None:
        if not sys.stdin.isatty():
            raise UserError("stage=label asks a person in a terminal: standard input is none")
        ask = input
    responses = sample_of_responses(summary, label.n, label.seed)
    path = run.path / LABELS_FILE
    mine = {one["key"] for one in read_records(path, key=str, label=str, person=str) if one["person"] == label.person}
    left = [one for one in responses if one["key"] not in mine]
    choices = ", ".join(f"{key} {name}" for key, name in _KEYS.items())
    for number, one in enumerate(left, start=len(responses) - len(left) + 1):
        console.rule(f"{number} of {len(responses)}")
        for head, text in (("prompt", one["prompt"]), ("response", one["text"])):
            console.print(f"{head}:", style="bold")
            console.print("".join(c if c.isprintable() or c == "\n" else "\N{REPLACEMENT CHARACTER}" for c in text))
        while True:
            console.print(f"{choices}, s skip, q stop")
            said = ask().strip().lower()[:1]
            if said == "q":
                console.print("the same command goes on")
                return
            if said == "s":
                break
            if said in _KEYS:
                append_record(path, {"key": one["key"], "label": _KEYS[said], "person": label.person})
                break
    found = merged(path)
    if found is not None and found.agreement.kappa.n:
        kappa = found.agreement.kappa
        told = f"κ {kappa.estimate:.2f}" if kappa.estimate is not None else f"κ not known ({kappa.reason})"
        console.print(f"two people: {told}; disputed, and left out: {len(found.disputed)}", highlight=False)
    console.print("next: the command of the run with stage=aggregate puts the agreement under its table")


def sample_of_responses(summary: dict[str, Any], n: int, seed: int) -> list[dict[str, str]]:
    """Return n responses of a run that are not blank, of all models: key, prompt and text; the same ones each time."""
    found: dict[str, dict[str, str]] = {}
    for model in summary["models"]:
        texts = read_records(Run(Path(model["generate"])).generations, key=str, text=str, prompt=str)
        known = {record["key"]: record for record in texts}
        for _, key, _ in read_judged(Run(Path(model["judge"]))):
            record = known.get(key)
            if record is not None and not is_blank(record["text"]):
                found[key] = {"key": key, "prompt": record["prompt"], "text": record["text"]}
    keys = sorted(found)
    order = np.random.Generator(np.random.PCG64(seed)).permutation(len(keys))[:n]
    return [found[keys[place]] for place in order]


def merged(path: Path) -> MergedLabels | None:
    """Return the labels of the first two people in a file as one set; None if there are none."""
    people: dict[str, dict[str, str]] = {}
    for one in read_records(path, key=str, label=str, person=str):
        people.setdefault(one["person"], {})[one["key"]] = one["label"]
    if not people:
        return None
    first, second = [*people.values(), {}][:2]
    return merge_labels(first, second)


def labelled_rows(
    path: Path, judged: Sequence[Run], judge: str, about: str
) -> tuple[list[LabelledResponse], list[Judgement]]:
    """Return the labelled responses that a judge judged, and its judgements of them.

    Of a judge of refusals only the state of a response is known: refused or not.
    """
    found = merged(path)
    rows, given = [], []
    for run in judged:
        for name, key, row in read_judged(run):
            if found is None or key not in found.labels:
                continue
            rows_label = found.labels[key]
            if about == "refusal":
                judgement = Judgement(None, "refusal" if row.state == "refused" else "answer", "")
            elif name == judge and row.judgement is not None:
                judgement = row.judgement
            else:
                continue
            rows.append(LabelledResponse(key, row.category, key, "-", rows_label))
            given.append(judgement)
    return rows, given
