"""stage=aggregate: the figures of all models, from their judged responses alone."""

import os
from collections.abc import Mapping, Sequence
from typing import Any

from jaxalign.errors import UserError, without_home
from jaxalign.jobs.asked import AskedModel
from jaxalign.jobs.harm.dictionary import dictionary_values
from jaxalign.jobs.harm.generate import known_perplexity
from jaxalign.jobs.harm.judge import judge_identity
from jaxalign.jobs.harm.judged_file import again, judged_tables
from jaxalign.jobs.harm.judges import HarmJudges
from jaxalign.jobs.harm.labels import LABELS_FILE, agreement_line, labelled_by, labelled_rows
from jaxalign.jobs.harm.second_judges import second_judges
from jaxalign.jobs.harm.session import HarmSession
from jaxalign.jobs.harm.summary_keys import JUDGING
from jaxalign.jobs.harm.training_runs import control_of, measured_scores, training_tokens
from jaxalign.runs.directory import Run
from jaxalign.runs.records import write_atomic
from jaxalign.safety.benchmarks.sources import BENCHMARKS
from jaxalign.safety.calibration import REFUSALS, calibrate
from jaxalign.safety.judged import JudgedTable
from jaxalign.safety.metrics import sampling_noise
from jaxalign.safety.mitigation import NO_MITIGATION, Mitigation
from jaxalign.safety.noise import with_noise
from jaxalign.safety.starter_prompts import QUESTION
from jaxalign.safety.summary import (
    as_scale,
    harm_drops,
    harm_rows,
    judge_errors,
    rows_as_csv,
    with_labels,
)
from jaxalign.safety.summary_lines import tables_as_markdown
from jaxalign.safety.value_map import prompt_hash
from jaxalign.values.roleplay import ADAPTER_METHOD

HARM_FILES = ("table.csv", "table.md", "drops.csv", "models", "stages")


def aggregate(
    session: HarmSession, runs: Sequence[tuple[AskedModel, Run, Run]], judges: HarmJudges, run: Run
) -> dict[str, Any]:
    """Write the tables and the summary of judged models, and return the summary.

    Args:
        session: the command.
        runs: for each model its runs of stage=generate and stage=judge.
        judges: the judges.
        run: the run of the whole command.
    """
    policy = session.mitigation.policy
    results = [judged.results(**JUDGING) for _, _, judged in runs]
    entries = _judge_entries(session, [judged for _, _, judged in runs], results, judges, run)
    refusals = next((entry for entry in entries.values() if entry["about"] == REFUSALS), None)
    unmitigated = session.with_mitigation(Mitigation(NO_MITIGATION))  # one for all models: it renders the prompts once
    of_regard = {one.name for one in judges.everyone if one.regard}
    rows: list[dict[str, Any]] = []
    drops: list[dict[str, Any]] = []
    models: list[dict[str, Any]] = []
    for (model, generated, judged), result in zip(runs, results, strict=True):
        about, tables = _about(session, model), judged_tables(judged)
        if lost := sorted(tables.keys() - entries.keys()):
            raise UserError(f"{judged.summary} is damaged (it names no judge {lost[0]}); {again(judged.path)}")
        noise = {name: sampling_noise(table) for name, table in tables.items()}
        entry = _model_entry(session, model, generated, judged, result, run)
        models.append({**about, **entry, "sampling_noise": noise})
        before = {} if policy == NO_MITIGATION else _judged_before(unmitigated, model, judges)
        for name, table in tables.items():
            shared = _of_row(session, about, entries[name], several=len(tables) > 1)
            figures = _figures(session, table, entries[name], refusals, regard=name in of_regard)
            rows += [{**shared, **one} for one in figures]
            if name in before:
                lower = harm_drops(before[name], table, as_scale(entries[name]["scale"]))
                drops += [{**shared, **one} for one in lower]
    summary = {
        "kind": "harm",
        **_about_command(session, judges),
        "models": models,
        "judges": list(entries.values()),
        "corrected": session.config.judge.corrected,
        "second_judges": second_judges(session, [(model, judged) for model, _, judged in runs]),
        "rows": rows,
        "drops": with_noise(drops),
    }
    write_atomic(run.path / "table.csv", rows_as_csv(rows))
    write_atomic(run.path / "table.md", tables_as_markdown(summary))
    if drops:
        write_atomic(run.path / "drops.csv", rows_as_csv(summary["drops"]))
    run.finish(summary)
    return summary


def _about_command(session: HarmSession, judges: HarmJudges) -> dict[str, Any]:
    """Return what the summary says of the benchmark, the way of asking, the base and the mitigation."""
    harm, opened = session.config.harm, session.opened
    return {
        "benchmark": {
            "name": harm.name,
            "version": session.version,
            "prompts": len(session.covered_prompts),
            "samples": harm.samples,
            "limit": harm.limit,
            "cut": harm.cut,
            "toxicity_scope": _toxicity_scope(judges) if harm.name == "realtoxicityprompts" else None,
        },
        "asking": session.asking,
        "model": {"name": opened.files.name, "signature": session.opened.signature},
        "attention": opened.attention,
        "mitigation": {
            "name": session.mitigation.policy,
            "left_aside": session.mitigation.covered(session.prompts)[1],
        },
    }


def _toxicity_scope(judges: HarmJudges) -> str:
    """Return what the judge of harm really scores, whatever was asked for."""
    return next(iter(judges.harm.values())).toxicity_scope


def _about(session: HarmSession, model: AskedModel) -> dict[str, Any]:
    """Return what the summary says of a model in its entry and in each of its rows."""
    folder = model.adapter.folder
    return {
        "model": model.name,
        "method": model.method,
        "adapter": model.adapter.identity,
        "folder": None if folder is None else without_home(str(folder)),
        "scale": session.config.adapter.scale if model.method == ADAPTER_METHOD else None,
        "value": None if model.target is None else model.target.name,
        "target": None if model.target is None else model.target.by_value,
        "measured": measured_scores(model.adapter),
        "control": control_of(model.adapter),
    }


def _model_entry(
    session: HarmSession, model: AskedModel, generated: Run, judged: Run, result: Mapping[str, Any], run: Run
) -> dict[str, Any]:
    """Return what the entry of a model has beside `_about`: about its responses, and the files that they are in.

    `result` is the summary of `judged`.
    """
    return {
        "trained_tokens": training_tokens(model.adapter),
        "perplexity": known_perplexity(session, model),
        "text_values": result.get("text_values"),
        "dictionary_values": dictionary_values(session, model, generated, judged),
        "states": result["states"],
        "moved": result.get("moved"),
        "generate": os.path.relpath(generated.path, run.path),
        "judge": os.path.relpath(judged.path, run.path),
        "files": {**generated.hashes(), **result.get("files", {})},
    }


def _of_row(
    session: HarmSession, about: Mapping[str, Any], entry: Mapping[str, Any], *, several: bool
) -> dict[str, Any]:
    """Return what all rows of a model by one judge have.

    Args:
        session: the command.
        about: what is said of the model (see `_about`).
        entry: the entry of the judge.
        several: whether the responses of the model have several judges.
    """
    return {
        **about,
        "mitigation": session.mitigation.policy,
        "benchmark": session.config.harm.name,
        "version": session.version,
        "judge": entry["judge"],
        "judge_identity": entry["identity"],
        "several": several,
    }


def _figures(
    session: HarmSession,
    table: JudgedTable,
    entry: Mapping[str, Any],
    refusals: Mapping[str, Any] | None,
    *,
    regard: bool,
) -> list[dict[str, Any]]:
    """Return the figures of a model by one judge (see `harm_rows`), corrected for errors if that is asked for.

    `entry` is what the summary says of the judge, and `refusals` what it says of the judge of refusals. `regard` says
    whether the judge's labels are of regard.
    """
    c = session.config
    error = judge_errors(entry["error"]) if c.judge.corrected else None
    of_refusals = judge_errors(refusals["error"]) if c.judge.corrected and refusals is not None else None
    return harm_rows(
        table,
        BENCHMARKS[c.harm.name].metrics,
        as_scale(entry["scale"]),
        regard=regard,
        bias_rule=c.harm.bias_rule if c.harm.name == "holisticbias_r" else None,
        bias_baseline=c.harm.baseline,
        error=error,
        refusal_error=of_refusals,
    )


def _judged_before(session: HarmSession, model: AskedModel, judges: HarmJudges) -> dict[str, JudgedTable]:
    """Return the responses of a model that an earlier command judged, by the name of the judge; none if there is none.

    `session` is the session of the earlier command.
    """
    run = session.stages(model).run_of("judge", judge_identity(session, model, judges))
    return judged_tables(run) if run.finished else {}


def _judge_entries(
    session: HarmSession, judged: Sequence[Run], results: Sequence[Mapping[str, Any]], judges: HarmJudges, run: Run
) -> dict[str, dict[str, Any]]:
    """Return the entries of the judges by their names, with how far each agrees with labels.

    If people have labelled this run, the agreement is that with their labels. A judge is not measured on the prompts
    that it was fitted to, nor a judge of refusals on text that a model continued, because nobody asks it about that.
    `results` has the summaries of `judged`.
    """
    told: dict[str, dict[str, Any]] = {}
    for one in (one for result in results for one in result["judges"]):
        told.setdefault(one["judge"], one)
    path = run.path / LABELS_FILE
    if not path.is_file():
        return told
    found = dict(told)
    hashes = {one.id: prompt_hash(one.text) for one in session.covered_prompts}
    fitted_on = {one.name: {name for name in hashes if hashes[name] in one.fitted_on} for one in judges.everyone}
    continued = {one.id for one in session.covered_prompts if one.form != QUESTION}
    labelled, agreed = labelled_rows(path, judged), agreement_line(path)
    people = f" ({agreed})" if agreed else ""
    for name, entry in told.items():
        without = fitted_on.get(name, set()) | (continued if entry["about"] == REFUSALS else set())
        rows, given = labelled_by(name, entry["about"], labelled, without)
        if rows:
            scale, model = as_scale(entry["scale"]), entry.get("model") or ""
            found[name] = with_labels(entry, calibrate(name, scale, rows, given, entry["about"], model), people)
    return found
