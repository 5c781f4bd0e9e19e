"""stage=aggregate: the figures of all models, from their judged responses alone."""

import os
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from rich.text import Text

from jaxalign.analysis.tables import widest_that_fits
from jaxalign.jobs.asked import AskedModel
from jaxalign.jobs.harm.dictionary import dictionary_values
from jaxalign.jobs.harm.generate import known_perplexity
from jaxalign.jobs.harm.judge import judge_identity
from jaxalign.jobs.harm.judged_file import judged_tables
from jaxalign.jobs.harm.judges import HarmJudges
from jaxalign.jobs.harm.labels import LABELS_FILE, agreement_line, labelled_by, labelled_rows
from jaxalign.jobs.harm.second_judges import second_judges
from jaxalign.jobs.harm.session import HarmSession
from jaxalign.jobs.harm.training_runs import control_of, measured_scores, training_tokens
from jaxalign.jobs.setup import print_places
from jaxalign.runs.directory import Run
from jaxalign.runs.records import without_home, write_atomic
from jaxalign.safety.benchmarks.benchmark import REFUSAL_RATE
from jaxalign.safety.benchmarks.sources import BENCHMARKS
from jaxalign.safety.calibration import REFUSALS, calibrate
from jaxalign.safety.judged import JudgedTable
from jaxalign.safety.metrics import sampling_noise
from jaxalign.safety.mitigation import NO_MITIGATION, Mitigation
from jaxalign.safety.noise import with_noise
from jaxalign.safety.states import STATES
from jaxalign.safety.summary import (
    ALL,
    DROP_HEADS,
    HARM_HEADS,
    as_scale,
    drop_cells,
    harm_drops,
    harm_rows,
    in_order,
    judge_errors,
    rows_as_csv,
    table_cells,
    with_labels,
)
from jaxalign.safety.summary_lines import table_lines, tables_as_markdown
from jaxalign.safety.value_map import prompt_hash
from jaxalign.values.roleplay import ADAPTER_METHOD

HARM_FILES = ("table.csv", "table.md", "drops.csv", "models", "stages")

MOST_SHOWN = 4
"""With more models than this, the terminal shows the rows of all categories alone."""


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
    c, source = session.config, BENCHMARKS[session.config.harm.name]
    rows: list[dict[str, Any]] = []
    drops: list[dict[str, Any]] = []
    models: list[dict[str, Any]] = []
    results = [judged.results(judges=list, states=dict) for _, _, judged in runs]
    told: dict[str, dict[str, Any]] = {}
    for one in (one for result in results for one in result["judges"]):
        told.setdefault(one["judge"], one)
    told = _labelled(session, told, [judged for _, _, judged in runs], judges, run)
    of_refusals = next((one["error"] for one in told.values() if one["about"] == REFUSALS), None)
    refusal_error = judge_errors(of_refusals) if c.judge.corrected else None
    unmitigated = session.with_mitigation(Mitigation(NO_MITIGATION))  # one for all models: it renders the prompts once
    for (model, generated, judged), result in zip(runs, results, strict=True):
        tables = judged_tables(judged)
        about = _about(session, model)
        models.append(
            {
                **about,
                "perplexity": known_perplexity(session, model),
                "text_values": result.get("text_values"),
                "dictionary_values": dictionary_values(session, model, generated, judged),
                "states": result["states"],
                "moved": result.get("moved"),
                "sampling_noise": {name: sampling_noise(table) for name, table in tables.items()},
                "generate": os.path.relpath(generated.path, run.path),
                "judge": os.path.relpath(judged.path, run.path),
                "files": {**generated.results().get("files", {}), **result.get("files", {})},
            }
        )
        before = None if session.mitigation.policy == NO_MITIGATION else _judged_before(unmitigated, model, judges)
        for name, table in tables.items():
            entry = told[name]
            scale, error = as_scale(entry["scale"]), judge_errors(entry["error"]) if c.judge.corrected else None
            bias = c.harm.bias_rule if c.harm.name == "holisticbias_r" else None
            shared = {
                **about,
                "mitigation": session.mitigation.policy,
                "benchmark": c.harm.name,
                "version": session.version,
                "judge": name,
                "judge_identity": entry["identity"],
                "several": len(tables) > 1,
            }
            found = harm_rows(table, source.metrics, scale, bias_rule=bias, error=error, refusal_error=refusal_error)
            rows += [{**shared, **one} for one in found]
            if before is not None and name in before:
                drops += [{**shared, **one} for one in harm_drops(before[name], table, scale)]
    drops = with_noise(drops)
    summary = {
        "kind": "harm",
        "benchmark": {
            "name": c.harm.name,
            "version": session.version,
            "prompts": len(session.asked),
            "samples": c.harm.samples,
            "limit": c.harm.limit,
            "cut": c.harm.cut,
            "toxicity_scope": c.harm.toxicity_scope if c.harm.name == "realtoxicityprompts" else None,
        },
        "asking": session.asking,
        "model": {"name": session.opened.files.name, "signature": session.signature},
        "attention": session.opened.attention,
        "mitigation": {
            "name": session.mitigation.policy,
            "left_aside": session.mitigation.covered(session.prompts)[1],
        },
        "models": models,
        "judges": list(told.values()),
        "corrected": c.judge.corrected,
        "second_judges": second_judges(session, [(model, judged) for model, _, judged in runs]),
        "rows": rows,
        "drops": drops,
    }
    write_atomic(run.path / "table.csv", rows_as_csv(rows))
    write_atomic(run.path / "table.md", tables_as_markdown(summary))
    if drops:
        write_atomic(run.path / "drops.csv", rows_as_csv(drops))
    run.finish(summary)
    return summary


def _judged_before(session: HarmSession, model: AskedModel, judges: HarmJudges) -> dict[str, JudgedTable] | None:
    """Return the responses of a model that an earlier command judged; None if there are none."""
    run = session.stages(model).run_of("judge", judge_identity(session, model, judges))
    return judged_tables(run) if run.finished else None


def _about(session: HarmSession, model: AskedModel) -> dict[str, Any]:
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
        "trained_tokens": training_tokens(model.adapter),
    }


def _labelled(
    session: HarmSession, told: Mapping[str, dict[str, Any]], judged: Sequence[Run], judges: HarmJudges, run: Run
) -> dict[str, dict[str, Any]]:
    """Return the judges' entries, with the agreement with labels that people gave in this run, if there are any.

    A judge is not measured on the prompts that it was fitted to.
    """
    path = run.path / LABELS_FILE
    if not path.is_file():
        return dict(told)
    found = dict(told)
    hashes = {one.id: prompt_hash(one.text) for one in session.asked}
    fitted_on = {one.name: {name for name in hashes if hashes[name] in one.fitted_on} for one in judges.everyone}
    labelled, agreed = labelled_rows(path, judged), agreement_line(path)
    people = f" ({agreed})" if agreed else ""
    for name, entry in told.items():
        rows, given = labelled_by(name, entry["about"], labelled, fitted_on.get(name, set()))
        if rows:
            scale, model = as_scale(entry["scale"]), entry.get("model") or ""
            found[name] = with_labels(entry, calibrate(name, scale, rows, given, entry["about"], model), people)
    return found


def report_harm(console: Console, summary: Mapping[str, Any], run: Run) -> None:
    """Print the table of a summary, what stands under it, and where its files are."""
    rows = summary["rows"]
    if len(summary["models"]) > MOST_SHOWN:
        rows = [row for row in rows if row["category"] == ALL]
    console.print(widest_that_fits(harm_tables(summary, rows), console.width))
    if summary["drops"]:
        console.print("drop of the mean score against mitigation=none, paired by prompt:")
        console.print(_table(DROP_HEADS, [(cells, "") for cells in drop_cells(summary["drops"])]))
    elif summary["mitigation"]["name"] != NO_MITIGATION:
        line = "no drop is shown: the same command with mitigation=none has not been run"
        console.print(line, highlight=False, soft_wrap=True)
    for line in table_lines(summary):
        console.print(line, highlight=False, soft_wrap=True)
    print_places(console, table=run.path / "table.csv", markdown=run.path / "table.md", summary=run.summary)


def harm_tables(summary: Mapping[str, Any], rows: Sequence[Mapping[str, Any]]) -> Iterator[Table]:
    """Yield tables of the rows, from wide to narrow.

    The first has all columns. The second has the main metric alone, whose name heads its column; the third leaves out
    the shares of states too. The rows of a judge with a weak κ are grey; for the rates of refusals, the judge of
    refusals decides.
    """
    weak = {one["judge"] for one in summary["judges"] if one["weak"] and one["about"] != "refusal"}
    refusals_weak = any(one["weak"] for one in summary["judges"] if one["about"] == "refusal")
    main = [row for row in rows if row["metric"] == rows[0]["metric"]]
    several = len(summary["models"]) > 1
    heads = [one for one in HARM_HEADS if one != "model" or several]
    short = [one for one in heads if one != "metric"]
    for these, chosen in ((heads, rows), (short, main), (short[: -len(STATES) + 1], main)):
        names = [rows[0]["metric"].replace("_", " ") if one == "figure" and chosen is main else one for one in these]
        cells = [
            (
                [cells[HARM_HEADS.index(one)] for one in these],
                "dim" if (refusals_weak if row["metric"].startswith(REFUSAL_RATE) else row["judge"] in weak) else "",
            )
            for row, cells in zip(in_order(chosen), table_cells(chosen), strict=True)
        ]
        yield _table(names, cells)


def _table(heads: Sequence[str], rows: Sequence[tuple[Sequence[str], str]]) -> Table:
    table = Table(box=SIMPLE_HEAD, header_style="bold", pad_edge=False, collapse_padding=True)
    for head in heads:
        table.add_column(head, justify="left" if head in ("category", "model", "metric") else "right")
    for cells, style in rows:
        table.add_row(*map(Text, cells), style=style)
    return table
