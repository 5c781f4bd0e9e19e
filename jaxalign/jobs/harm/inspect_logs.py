"""Logs of Inspect (inspect-ai): one file for each benchmark, set of judges, model and mitigation.

`inspect view` shows them. The package is an extra; its own classes write the files.
"""

import re
from collections.abc import Sequence
from datetime import UTC, datetime
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from jaxalign.errors import UserError
from jaxalign.jobs.harm.judged_file import read_judged
from jaxalign.jobs.harm.reported import stage_folder, texts_of
from jaxalign.runs.directory import Run
from jaxalign.runs.records import entries, named_errors
from jaxalign.safety.benchmarks.benchmark import cut_response
from jaxalign.safety.collection import Collection, ReportedModel
from jaxalign.safety.report_tables import judge_notes
from jaxalign.safety.summary import ALL

LOGS_LIST = "jaxalign-logs.txt"
"""The file beside the logs that names those of this program, a line each: no others are deleted."""


def check_inspect() -> None:
    """Raise UserError if the package is missing."""
    if find_spec("inspect_ai") is None:
        raise UserError("export=inspect needs the package inspect-ai: pip install 'jaxalign[inspect]'")


def write_inspect_logs(folder: Path, collections: Sequence[tuple[str, Collection]]) -> int:
    """Write a log for each model whose responses are there, and return how many.

    Args:
        folder: the folder of the logs.
        collections: the figures, each with a name that begins the names of its files.

    Raises:
        UserError: a file cannot be written.
    """
    from inspect_ai.log import write_eval_log  # pyright: ignore[reportMissingImports]

    with named_errors(folder, "write", "give another out"):
        folder.mkdir(parents=True, exist_ok=True)
        written = 0
        for name, found in collections:
            for number, model in enumerate(found.models):
                log = _log(found, model)
                if log is not None:
                    title = re.sub(r"[^\w.-]+", "-", f"{name}-{model.mitigation}-{model.title}")
                    file = f"{title}-{number}.eval"
                    with (folder / LOGS_LIST).open("a", encoding="utf-8") as listed:  # first: no log is unlisted
                        listed.write(f"{file}\n")
                    write_eval_log(log, str(folder / file), format="eval")
                    written += 1
    return written


def delete_inspect_logs(folder: Path) -> int:
    """Delete the logs in a folder that `write_inspect_logs` wrote, and return how many other files are in it.

    A folder that is empty then is deleted, too.

    Raises:
        UserError: something cannot be deleted.
    """
    listed = folder / LOGS_LIST
    with named_errors(folder, "delete the older logs in", "give another out"):
        names = listed.read_text(encoding="utf-8", errors="replace").splitlines() if listed.is_file() else []
        for name in names:
            if name.endswith(".eval") and name == Path(name).name:
                (folder / name).unlink(missing_ok=True)
        listed.unlink(missing_ok=True)
        others = len(entries(folder))
        if folder.is_dir() and not folder.is_symlink() and not any(folder.iterdir()):
            folder.rmdir()
    return others


def _log(found: Collection, model: ReportedModel) -> Any:
    """Return the log of a model; None if its responses are not there."""
    from inspect_ai.log import EvalConfig, EvalDataset, EvalLog, EvalResults, EvalSample, EvalSpec, EvalStats  # pyright: ignore[reportMissingImports]
    from inspect_ai.model import ModelOutput  # pyright: ignore[reportMissingImports]
    from inspect_ai.scorer import Score  # pyright: ignore[reportMissingImports]

    folder = stage_folder(model, "judge")
    judged = [] if folder is None else read_judged(Run(folder))
    texts = texts_of(model, {key for _, key, _ in judged})
    name = f"jaxalign/{found.base}+{model.title}"
    samples = []
    for judge, key, row in judged:
        if key not in texts:
            continue
        prompt, text = texts[key]
        said, scores = row.judgement, {}
        response = cut_response(text, str(found.benchmark.get("cut") or "whole"))
        if said is not None and said.score is not None:
            more = {"label": said.label, "state": row.state}
            scores = {judge: Score(value=said.score, answer=response, explanation=said.label, metadata=more)}
        samples.append(
            EvalSample(
                id=row.id,
                epoch=row.sample + 1,
                input=prompt,
                target="",
                output=ModelOutput.from_content(name, response),
                scores=scores,
                metadata={
                    "category": row.category,
                    "group": row.group,
                    "state": row.state,
                    "missing": None if said is None else said.missing,
                },
            )
        )
    if not samples or folder is None:
        return None
    judged_at = datetime.fromtimestamp((folder / "summary.json").stat().st_mtime, UTC).isoformat(timespec="seconds")
    about = {key: model.about.get(key) for key in ("adapter", "scale", "value", "target", "perplexity", "control")}
    return EvalLog(
        status="success",
        eval=EvalSpec(
            created=judged_at,
            task=f"jaxalign/{found.name}",
            task_version=str(found.benchmark["version"]),
            dataset=EvalDataset(name=found.name, samples=len({sample.id for sample in samples})),
            model=name,
            config=EvalConfig(epochs=int(found.benchmark["samples"])),
            metadata={**about, "mitigation": model.mitigation, "judges": judge_notes(found)},
        ),
        results=EvalResults(total_samples=len(samples), completed_samples=len(samples), scores=_scores(found, model)),
        stats=EvalStats(started_at=judged_at, completed_at=judged_at),
        samples=samples,
    )


def _scores(found: Collection, model: ReportedModel) -> list[Any]:
    """Return the figures of all categories together, by judge."""
    from inspect_ai.log import EvalMetric, EvalScore  # pyright: ignore[reportMissingImports]

    by_judge: dict[str, dict[str, Any]] = {}
    for row in model.rows:
        if row["category"] == ALL and row["estimate"] is not None:
            more = {key: row.get(key) for key in ("low", "high", "n", "missing", "left_out")}
            metric = EvalMetric(name=row["metric"], value=row["estimate"], metadata=more)
            by_judge.setdefault(row["judge"], {})[row["metric"]] = metric
    return [EvalScore(name=judge, scorer=judge, metrics=metrics) for judge, metrics in by_judge.items()]
