"""What a report reads from run directories: finished runs, and their responses."""

import os
from collections.abc import Collection as Names
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from jaxalign.errors import UserError, without_home
from jaxalign.inference.sampling_params import ENDS
from jaxalign.jobs.harm.judged_file import (
    JUDGED_FILE,
    again,
    harm_labels,
    judged_records,
    judged_records_of,
    judged_tables,
    shared_labels,
    stage_place,
)
from jaxalign.jobs.harm.summary_keys import HARM_SUMMARY
from jaxalign.runs.config_file import stored_config
from jaxalign.runs.directory import Run
from jaxalign.runs.expected import Expected, as_expected, flaw
from jaxalign.runs.records import named_errors, parse_record, read_records
from jaxalign.safety.benchmarks.benchmark import cut_response
from jaxalign.safety.collection import Collection, HarmRun, ReportedModel
from jaxalign.safety.judged import JudgedTable
from jaxalign.safety.shown_responses import PromptPlace, ShownResponse

_RESPONSE: dict[str, Expected] = dict.fromkeys(("key", "prompt", "text"), str)

RUN_PARTS = ("stages", "models", "checkpoints", "adapter")
"""Folders of a run's parts, which are no runs that a report takes by themselves."""


def find_harm_runs(folder: Path, key: str = "runs") -> tuple[list[HarmRun], list[str]]:
    """Return the finished runs of benchmarks of harm in a folder and below, and a line for each that is left aside.

    That is one that is unfinished, or that an older version wrote without what decides whether it may be mixed. `key`
    is how the folder was given.

    Raises:
        UserError: there is no finished run, or a summary is damaged.
    """
    if not folder.is_dir():
        raise UserError(f"{key}={folder} is not a folder: give the folder that holds the runs, such as {key}=outputs")
    runs, aside, seen = [], [], set()
    for path in sorted(_run_folders(folder)):
        run, name = Run(path), without_home(str(path))
        if run.finished:
            summary = run.results()
            if summary.get("kind") == "harm" and "asking" not in summary:
                why = "does not say how its models were asked (an older version wrote it)"
                aside.append(f"{name} {why}, and is left aside: type its command again to write that down")
            elif summary.get("kind") == "harm":
                _check(run, summary, seen)
                runs.append(HarmRun(str(path), summary))
        elif _is_harm(path):
            aside.append(f"{name} is unfinished, and left aside: type its command again to finish it")
    if not runs:
        command = "make one with python -m jaxalign.evaluate benchmark=starter_probes"
        why = f" ({aside[0]})" if aside else ""
        raise UserError(f"{key}={folder} holds no finished run of a benchmark of harm{why}: {command}")
    return runs, aside


def _run_folders(folder: Path) -> Iterator[Path]:
    for place, folders, files in os.walk(folder):
        if "config.yaml" in files:
            yield Path(place)
            folders.clear()
        folders[:] = sorted(one for one in folders if one not in RUN_PARTS and not one.startswith("."))


def _check(run: Run, found: Mapping[str, Any], seen: set[Path]) -> None:
    """Check the summary of a finished run, and that its stages hold the files that they wrote, if they are there.

    Stages in `seen`, which other runs share, are not read again; those that are read are added to it.

    Raises:
        UserError: a part of the summary is missing or damaged; a stage's file was changed or lost; or the stage was
            done again since the run added up its records.
    """
    as_expected(found, HARM_SUMMARY, run.summary, f"type the command of {run.path} again, which writes it anew")
    for about in found["models"]:
        for stage in ("generate", "judge"):
            place = stage_place(run.path, about[stage])
            if place is not None:
                if place.resolve() not in seen:
                    mend = again(place, run.path)
                    written = {"generate": Run(place).generations.name, "judge": JUDGED_FILE}[stage]
                    Run(place).results(mend, files={written: str})  # else no change of it would be seen
                    Run(place).check_files(mend)
                    seen.add(place.resolve())
                _check_added_up(run, place, about.get("files") or {})


def _check_added_up(run: Run, stage: Path, added_up: Mapping[str, Any]) -> None:
    """Raise UserError if a stage has other records than those with the hashes `added_up`, which a run added up."""
    for name, now in Run(stage).hashes().items():
        if added_up.get(name, now) != now:
            raise UserError(
                f"{run.path} added up other records than {stage / name} holds now, because that stage was done again: "
                f"type the command of {run.path} again, which adds them up anew"
            )


def _is_harm(path: Path) -> bool:
    try:
        return flaw(stored_config(path), {"benchmark": {"kind": {"harm"}}}) is None
    except UserError:
        return False


def stage_folder(model: ReportedModel, stage: str) -> Path | None:
    """Return the directory of a model's stage, generate or judge (see `stage_place`)."""
    return stage_place(Path(model.run), model.about[stage])


def judged_places(model: ReportedModel) -> list[PromptPlace]:
    """Return the prompts of a model's judged responses, each once; none if they are not there."""
    folder = stage_folder(model, "judge")
    records = [] if folder is None else judged_records(folder)
    return list(dict.fromkeys(PromptPlace(one["id"], one["category"]) for one in records))


def shown_responses(model: ReportedModel, wanted: Names[str], cut: str) -> dict[str, ShownResponse]:
    """Return the first response to each wanted prompt by the prompt's id; none that are not there.

    Args:
        model: the model.
        wanted: the ids of prompts.
        cut: what of a response was judged (see `cut_response`).
    """
    judged, generated = stage_folder(model, "judge"), stage_folder(model, "generate")
    if judged is None or generated is None:
        return {}
    rows = [one for one in judged_records_of(judged, wanted) if not one["sample"]]
    texts = generated_texts(Run(generated).generations, {one["key"] for one in rows})
    return {
        one["id"]: ShownResponse(
            *texts[one["key"]][:1],
            cut_response(texts[one["key"]][1], cut),
            one["judge"],
            one["score"],
            one["label"],
            one["state"],
        )
        for one in rows
        if one["key"] in texts
    }


def texts_of(model: ReportedModel, keys: Names[str]) -> dict[str, tuple[str, str]]:
    """Return (prompt, text) of a model's generations with these keys; none that are not there."""
    folder = stage_folder(model, "generate")
    return {} if folder is None else generated_texts(Run(folder).generations, keys)


def generated_texts(path: Path, keys: Names[str]) -> dict[str, tuple[str, str]]:
    """Return (prompt, text) of the generations with these keys; other lines are not parsed.

    Of several with one key, the first whole one counts (see `read_whole`); if there is none, the first.
    """
    start = b'{"key": "'
    cut: dict[str, tuple[str, str]] = {}
    found: dict[str, tuple[str, str]] = {}
    if not path.is_file():
        return found
    with named_errors(path, "read"), path.open("rb") as file:
        for number, line in enumerate(file, start=1):
            if line.startswith(start) and line[len(start) : len(start) + 32].decode("ascii", "replace") not in keys:
                continue
            if line.endswith(b"\n"):  # else it is what a killed process left, and its response was drawn again
                record = parse_record(line, path, number, again(path.parent), _RESPONSE)
                mine = found if record.get("end") in ENDS else cut
                mine.setdefault(record["key"], (record["prompt"], record["text"]))
    return cut | found


def prompts_asked(found: Collection) -> set[str]:
    """Return the texts of all prompts that the models of a collection were asked; none if a model's are missing."""
    texts: set[str] = set()
    for model in found.under():
        folder = stage_folder(model, "generate")
        asked = [] if folder is None else read_records(Run(folder).generations, again(folder), **_RESPONSE)
        if not asked:
            return set()
        texts |= {one["prompt"] for one in asked}
    return texts


def tables_of(model: ReportedModel) -> dict[str, JudgedTable]:
    """Return the judged responses of a model by the name of the judge; none if they are not there."""
    folder = stage_folder(model, "judge")
    return {} if folder is None else judged_tables(Run(folder))


def labels_of_both(
    first: Collection, mine: ReportedModel, second: Collection, theirs: ReportedModel
) -> tuple[list[str | None], list[str | None]]:
    """Return what two judges say of the same responses of a model, "harmful" or "fine"; None if it is missing."""
    by_key = []
    for found, model in ((first, mine), (second, theirs)):
        folder = stage_folder(model, "judge")
        by_key.append({} if folder is None else harm_labels(Run(folder), found.judges))
    return shared_labels(*by_key)
