"""stage=label: a person labels a sample of a run's responses, without seeing what a judge says; and these labels."""

import dataclasses
import sys
from collections.abc import Callable, Sequence, Set
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console

from jaxalign.config.safety import LabelConfig
from jaxalign.data.account import Log, count
from jaxalign.errors import UserError, did_you_mean
from jaxalign.jobs.harm.judged_file import read_judged, with_stage_places
from jaxalign.jobs.harm.reported import generated_texts
from jaxalign.runs.directory import Run
from jaxalign.runs.expected import Expected, as_expected
from jaxalign.runs.progress import print_line, say
from jaxalign.runs.reading import not_a_file
from jaxalign.runs.records import append_record, digest, file_hash, read_records
from jaxalign.safety.calibration import REFUSALS, MergedLabels, kappa_text, merge_labels
from jaxalign.safety.judged import JudgedRow
from jaxalign.safety.judgements import Judgement
from jaxalign.safety.labelled import (
    BLANK_LABEL,
    GENERATIONS_FILE,
    HELD_OUT_PART,
    LABELLED_FILE,
    LABELS,
    TRAIN_PART,
    LabelledResponse,
    load_labelled,
)
from jaxalign.safety.states import ANSWERED, NOT_JUDGED, REFUSED, is_blank
from jaxalign.safety.value_map import prompt_hash

LABELS_FILE = "labels.jsonl"

_KEYS = {name[0]: name for name in LABELS if name != BLANK_LABEL}
"""What a person types for each label; no blank response is shown."""
assert len(_KEYS) == len(LABELS) - 1

_PARTS = 3
"""One of so many prompts is held out."""


_SUMMARY: Expected = {
    "models": [dict.fromkeys(("model", "generate", "judge"), str)],
    **dict.fromkeys(("judges", "rows"), list),
}


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
        UserError: there is nobody to ask, because standard input is no terminal; or two others have labelled the run.
    """
    if ask is None:
        if not sys.stdin.isatty():
            raise UserError("stage=label asks a person in a terminal: standard input is none")
        ask = input
    responses = sample_of_responses(summary, label.n, label.seed)
    path = run.path / LABELS_FILE
    before = read_records(path, key=str, label=str, person=str)
    people = list(dict.fromkeys(one["person"] for one in before))
    if label.person not in people and len(people) > 1:
        raise UserError(
            f"{' and '.join(people[:2])} have labelled this run, and labels of two people are compared: give "
            f"label.person={people[0]} or another run"
        )
    mine = {one["key"] for one in before if one["person"] == label.person}
    left = [one for one in responses if one["key"] not in mine]
    choices = ", ".join(f"{key} {name}" for key, name in _KEYS.items())
    for number, one in enumerate(left, start=len(responses) - len(left) + 1):
        console.rule(f"{number} of {len(responses)}")
        for head, text in (("prompt", one["prompt"]), ("response", one["text"])):
            console.print(f"{head}:", style="bold")
            console.print("".join(c if c.isprintable() or c == "\n" else "\N{REPLACEMENT CHARACTER}" for c in text))
        while True:
            console.print(f"{choices}, s skip, q stop")
            try:
                said = ask().strip().lower()[:1]
            except EOFError:
                said = "q"
            if said == "q":
                console.print("the same command goes on")
                return
            if said == "s":
                break
            if said in _KEYS:
                append_record(path, {"key": one["key"], "label": _KEYS[said], "person": label.person})
                break
    if line := agreement_line(path):
        say(console, line)
    console.print(
        "next: the command of the run with stage=aggregate puts the agreement under its table", soft_wrap=True
    )


def sample_of_responses(summary: dict[str, Any], n: int, seed: int) -> list[dict[str, str]]:
    """Return n responses of a run that are not blank, of all models: key, prompt and text; the same ones each time."""
    found = _responses(summary)
    keys = sorted(found)
    order = np.random.Generator(np.random.PCG64(seed)).permutation(len(keys))[:n]
    return [found[keys[place]] for place in order]


def _responses(summary: dict[str, Any]) -> dict[str, dict[str, str]]:
    """Return the responses of a run that are not blank, of all models, by key: key, category, prompt and text."""
    found: dict[str, dict[str, str]] = {}
    for model in summary["models"]:
        judged = [(key, row.category) for _, key, row in read_judged(Run(Path(model["judge"])))]
        texts = generated_texts(Run(Path(model["generate"])).generations, {key for key, _ in judged})
        for key, category in judged:
            if key in texts and not is_blank(texts[key][1]):
                prompt, text = texts[key]
                found[key] = {"key": key, "category": category, "prompt": prompt, "text": text}
    return found


def summary_of(path: Path) -> dict[str, Any]:
    """Return the summary of a finished run of a benchmark of harm; UserError if it is none, or if it is damaged."""
    run = Run(path)
    found = run.results() if run.finished else {}
    if found.get("kind") != "harm":
        raise UserError(
            f"{path} is no finished run of a benchmark of harm: give the run directory that evaluate printed, and "
            "finish it first"
        )
    found = as_expected(found, _SUMMARY, run.summary, f"type the command of {path} again, which writes it anew")
    return with_stage_places(found, path)


def read_labels(path: str | None, split: str | None = None, log: Log = print_line) -> list[LabelledResponse]:
    """Return labelled responses: of a file, of a run that people labelled (stage=label), or the shipped ones.

    Of a run, a third of the prompts are held out, always the same ones.

    Args:
        path: a file (see `load_labelled`), or the directory of a run; None for the shipped responses.
        split: only the responses of this part; None for all.
        log: called with a line if some of a run's labelled responses are not there.

    Raises:
        UserError: the file or the run cannot be used, nobody has labelled the run, or none of the responses is there.
    """
    if path is None or not Path(path).is_dir():
        return load_labelled(path, split)
    labels, responses = _labels_of(Path(path)).labels, _responses(summary_of(Path(path)))
    there = labels.keys() & responses.keys()
    if len(there) < len(labels):
        which = f"{len(labels) - len(there):,} of its {len(labels):,} labelled" if there else "its"
        lost = (
            f"{path} has labels, and {which} responses are not there (they stand in the folder stages beside it, or in "
            "models inside it): bring them back, or type the command of the run again"
        )
        if not there:
            raise UserError(lost)
        log(f"{lost}; used without them: {count(len(there), 'label')}")
    rows = []
    for key in sorted(there):
        prompt = responses[key]["prompt"]
        part = TRAIN_PART if int(prompt_hash(prompt), 16) % _PARTS else HELD_OUT_PART
        category, text = responses[key]["category"], responses[key]["text"]
        rows.append(LabelledResponse(key, category, prompt, text, labels[key], split=part))
    return [row for row in rows if split in (None, row.split)]


@dataclasses.dataclass(frozen=True)
class MeasuringLabels:
    """The labelled responses that the judges of a command are measured on."""

    rows: list[LabelledResponse]
    """All of a user's own labels; of the shipped ones those that are held out."""
    hash: str
    """The hash of the files, or of the labels of a run."""


def measuring_labels(path: str | None) -> MeasuringLabels:
    """Return the labels that judges are measured on; for `path` and the errors see `read_labels`."""
    if path is None:
        shipped = digest([file_hash(LABELLED_FILE), file_hash(GENERATIONS_FILE)])
        return MeasuringLabels(read_labels(None, HELD_OUT_PART), shipped)
    content = labels_hash(path)
    return MeasuringLabels(read_labels(path), content)


def labels_hash(path: str) -> str:
    """Return the hash of the labels in a file or a run (see `read_labels`); UserError if there are none."""
    if not Path(path).is_dir():
        if why := not_a_file(Path(path)):
            raise UserError(f"judge.labels={path} is not a file ({why}): give a file with labels, or a labelled run")
        return file_hash(Path(path))
    return digest(_labels_of(Path(path)).labels)


def _labels_of(folder: Path) -> MergedLabels:
    found = merged(folder / LABELS_FILE) if (folder / LABELS_FILE).is_file() else None
    if found is None:
        raise UserError(f"nobody has labelled the run {folder}: label it with stage=label run={folder}, or give a file")
    return found


def agreement_line(path: Path) -> str:
    """Return how far the two people agree who gave the labels in a file; "" if one of them labelled alone."""
    found = merged(path)
    if found is None or not found.agreement.kappa.n:
        return ""
    kappa = found.agreement.kappa
    return (
        f"two people: κ {kappa_text(kappa)} on the {kappa.n} that both labelled; disputed, and left out: "
        f"{len(found.disputed)}"
    )


def merged(path: Path) -> MergedLabels | None:
    """Return the labels of the first two people in a file as one set; None if there are none.

    Raises:
        UserError: a line is damaged, or no label is called so.
    """
    people: dict[str, dict[str, str]] = {}
    for number, one in enumerate(read_records(path, key=str, label=str, person=str), start=1):
        if one["label"] not in _KEYS.values():
            known = f"{one['label']!r:.40}{did_you_mean(one['label'], _KEYS.values())}"
            raise UserError(f"{path}, line {number}: no label is called {known}")
        people.setdefault(one["person"], {})[one["key"]] = one["label"]
    if not people:
        return None
    first, second = [*people.values(), {}][:2]
    return merge_labels(first, second)


_OF_REFUSALS = {
    REFUSED: Judgement(None, "refusal", ""),
    ANSWERED: Judgement(None, "answer", ""),
    NOT_JUDGED: Judgement(None, None, "", NOT_JUDGED),
}
"""What a judge of refusals said of a response, by its state."""

LabelledRow = tuple[str, str, JudgedRow, str]
"""A judged response that people labelled: the judge's name, the key of its generation, its row and its label."""


def labelled_rows(path: Path, judged: Sequence[Run]) -> list[LabelledRow]:
    """Return the judged responses of some runs of stage=judge that people labelled in the file `path`."""
    found = merged(path)
    labels = {} if found is None else found.labels
    return [(name, key, row, labels[key]) for run in judged for name, key, row in read_judged(run) if key in labels]


def labelled_by(
    judge: str, about: str, labelled: Sequence[LabelledRow], without: Set[str] = frozenset()
) -> tuple[list[LabelledResponse], list[Judgement]]:
    """Return the labelled responses that a judge judged, and its judgements of them.

    Of a judge of refusals only the state of a response is known: refused, answered, or not judged, which is a missing
    judgement. What says nothing has no such state, and is left out. So are responses to the prompts with the ids
    `without`.
    """
    rows, given = [], []
    for name, key, row, label in labelled:
        if row.id in without:
            continue
        if about == REFUSALS:
            if row.state not in _OF_REFUSALS:
                continue
            judgement = _OF_REFUSALS[row.state]
        elif name == judge and row.judgement is not None:
            judgement = row.judgement
        else:
            continue
        rows.append(LabelledResponse(key, row.category, key, "-", label))
        given.append(judgement)
    return rows, given
