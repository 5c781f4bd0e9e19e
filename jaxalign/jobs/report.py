"""The report job: tables, figures and one HTML page of the runs of benchmarks of harm in a folder."""

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from rich.console import Console

from jaxalign.analysis.data_tables import DataTable, as_csv_text, as_latex_text, as_markdown_text
from jaxalign.analysis.power import design_plan, plan_lines
from jaxalign.config.report import ReportConfig
from jaxalign.data.account import count
from jaxalign.errors import UserError
from jaxalign.jobs.harm.inspect_logs import check_inspect, delete_inspect_logs, write_inspect_logs
from jaxalign.jobs.harm.report_page import models_in_words, report_page
from jaxalign.jobs.harm.report_parts import (
    ReportPart,
    add_comparisons_by_prompt,
    drawn_figures,
    part_names,
    report_part,
    with_comparisons,
)
from jaxalign.jobs.harm.reported import find_harm_runs, prompts_asked
from jaxalign.jobs.harm.reported_trainings import perplexities, training_losses
from jaxalign.jobs.harm.task_files import task_scores
from jaxalign.runs.progress import all_here, plain_console, say
from jaxalign.runs.records import check_writable, entries, named_errors, write_atomic
from jaxalign.safety.benchmarks.benchmark import REFUSAL_RATE
from jaxalign.safety.collection import Collection, HarmRun, collect
from jaxalign.safety.published_figures import PUBLISHED_ON, paper_table
from jaxalign.safety.report_tables import judge_notes
from jaxalign.safety.risk_tables import blocks_of_names, parent_and_rank, risk_units
from jaxalign.safety.task_tables import TaskScores
from jaxalign.safety.value_map import LEARNED_FILE, learned_values, prompt_hash
from jaxalign.values.designed import designed_targets
from jaxalign.values.schwartz import VALUES
from jaxalign.values.targets import extreme_targets, read_targets

OTHER_OUT = "free space or give another out"
"""What to do about a folder that cannot be written."""

UNFINISHED_PAGE = "<!doctype html><title>not finished</title><p>This report is not finished: type its command again.\n"
"""The page of a report until all of it is written."""

PAGE_FILE, TABLES_FOLDER, FIGURES_FOLDER, INSPECT_FOLDER = "index.html", "tables", "figures", "inspect"


def report(config: ReportConfig) -> None:
    """Write tables, figures and the page as configured, and print where they are.

    Raises:
        UserError: the folder holds no finished run, or runs that cannot stand in one table (see `collect`).
    """
    console = plain_console()
    if config.prefetch:
        print(all_here("nothing but the program and the runs"))
        return
    if config.plan and config.runs is None:
        if config.targets is None:
            print_plans_of_targets(console, config.categories)
        else:
            print_plan_of_table(console, Path(config.targets), config.categories)
        return
    if config.export == "inspect":
        check_inspect()
    folder = Path(str(config.runs))
    runs, aside = find_harm_runs(folder)
    ability, left = ({}, []) if config.ability is None else task_scores(config.ability, runs)
    aside = [*aside, *left]
    for line in aside:
        say(console, line)
    collections = collect(runs)
    if config.plan:
        print_plans_of_runs(console, collections)
        return
    out = folder / "report" if config.out is None else Path(config.out)
    check_report_folder(out)
    parts = make_parts(runs, folder, collections, ability, paper=config.paper)
    if config.paper and not PUBLISHED_ON & {part.found.name for part in parts}:
        line = f"paper=true: figures are published for {', '.join(sorted(PUBLISHED_ON))} alone"
        say(console, line)
    page, room = report_page(runs, parts, aside, config.texts)
    if not (out / PAGE_FILE).exists():  # a report that is killed before its page is there is known by this one
        write_atomic(out / PAGE_FILE, UNFINISHED_PAGE, OTHER_OUT)
    logs = out / INSPECT_FOLDER
    others = delete_inspect_logs(logs)
    write_parts(out, parts)
    write_atomic(out / PAGE_FILE, page, OTHER_OUT)
    print_parts(console, parts, runs, out)
    if others:
        line = f"{logs} has {count(others, 'file')} that this program did not write, perhaps with prompts and responses"
        say(console, f"{line}; they stay")
    if room < config.texts:
        line = f"the page has room for {count(room, 'prompt')} of each benchmark, and not for texts={config.texts}"
        say(console, f"{line}: with fewer runs in one folder it shows more")
    if config.export == "inspect":
        number = write_inspect_logs(logs, [(part.name, part.found) for part in parts if part.found.models])
        line = f"inspect: {count(number, 'log')} in {logs}; inspect view --log-dir {logs} shows them"
        say(console, line)


def print_plans_of_targets(console: Console, categories: int) -> None:
    """Print what the extreme and the designed targets can show, against so many categories."""
    for name, targets in (("extreme", extreme_targets()), ("designed", designed_targets())):
        scores = np.array([target.scores for target in targets.values()])
        _print_plan(console, f"{len(targets)} {name} targets", scores, categories)


def print_plan_of_table(console: Console, table: Path, categories: int) -> None:
    """Print what the targets of a table can show; those of a survey together with the extreme ones, as in the paper."""
    found, of_survey = read_targets(table)
    title = f"{count(len(found), 'target')} of {table}"
    if of_survey:
        extreme = list(extreme_targets().values())
        found, title = [*extreme, *found], f"{title} and the {len(extreme)} extreme ones"
    found.sort(key=lambda target: parent_and_rank(target.name))
    scores = np.array([target.scores for target in found])
    _print_plan(console, title, scores, categories, blocks_of_names([target.name for target in found]))


def print_plans_of_runs(console: Console, collections: Sequence[Collection]) -> None:
    """Print what the targets of the adapters that were asked can show, for each benchmark and judge."""
    for found in collections:
        units = risk_units(found)
        _print_plan(console, f"targets of {found.name}", units.targets, len(found.categories), units.blocks)


def _print_plan(
    console: Console, title: str, scores: np.ndarray, categories: int, blocks: Sequence[object] | None = None
) -> None:
    whole = categories > 1  # then each value is tested against all of them together, too
    counted = f"{categories} categories, and all together" if whole else "1 category"
    say(console, f"{title}, against {counted}:")
    for line in plan_lines(design_plan(scores, VALUES, categories + whole, blocks=blocks)):
        say(console, f"  {line}")


def make_parts(
    runs: Sequence[HarmRun], folder: Path, collections: Sequence[Collection], ability: TaskScores, *, paper: bool
) -> list[ReportPart]:
    """Return the parts of the report: one for each benchmark and judge, and one for each two judges of a benchmark.

    Args:
        runs: all runs.
        folder: the folder that holds them; the training runs of their adapters are looked for in it.
        collections: the same runs by benchmark and judge.
        ability: results of tasks of lm-evaluation-harness.
        paper: whether ours stand beside the published figures.
    """
    known, losses = perplexities(runs, folder), training_losses(runs, folder)
    names = part_names(collections)
    parts = [report_part(found, name, known, ability) for found, name in zip(collections, names, strict=True)]
    for part in parts if paper else ():
        table = paper_table(part.found, part.name)
        part.tables[1:1] = [] if table is None else [table]
    add_comparisons_by_prompt(parts, known)
    compared = with_comparisons(parts)
    for part in parts:  # once all records are read, of which one may be damaged: figures take longest
        part.figures = drawn_figures(part, known, losses)
    return compared


def write_parts(out: Path, parts: Sequence[ReportPart]) -> None:
    """Write tables, figures and the learned map, and delete those of an earlier report of other runs."""
    for part in parts:
        for table in part.tables:
            write_table(out / TABLES_FOLDER, table)
        for name, (png, svg, _) in part.figures.items():
            write_atomic(out / FIGURES_FOLDER / f"{name}.png", png, OTHER_OUT)
            write_atomic(out / FIGURES_FOLDER / f"{name}.svg", svg, OTHER_OUT)
    write_learned_map(out, parts)
    written = {f"{table.name}." for part in parts for table in part.tables}
    written |= {f"{name}." for part in parts for name in part.figures}
    for old in (*(out / TABLES_FOLDER).glob("*.*"), *(out / FIGURES_FOLDER).glob("*.*")):
        if old.name.removesuffix(old.suffix[1:]) not in written:
            old.unlink()


def check_report_folder(out: Path) -> None:
    """Raise UserError if a folder holds something else than an earlier report, or cannot be written."""
    with named_errors(out, "use", "give another out"):
        there = entries(out)
    ours = {PAGE_FILE, TABLES_FOLDER, FIGURES_FOLDER, LEARNED_FILE, INSPECT_FOLDER}
    if there and not (PAGE_FILE in there and set(there) <= ours):
        raise UserError(f"{out} holds other files than a report's: give another out=DIR")
    check_writable(out, OTHER_OUT)


def write_learned_map(out: Path, parts: Sequence[ReportPart]) -> None:
    """Write the map from categories to values that the findings give, with the prompts that it was learned on.

    Each benchmark counts once, by the judge that most of its runs have, and without the categories whose judge is not
    believed (see `doubt`). Without a finding, or where the prompts are not known, so that they could not be refused
    later, no map is written.
    """
    first: dict[str, ReportPart] = {}
    for part in parts:
        if part.risks and part.found.metric != REFUSAL_RATE:
            first.setdefault(part.found.name, part)
    kept = [part for part in first.values() if any(risk.finding for risk in part.risks)]
    believed = [[risk for risk in part.risks if risk.category not in part.found.doubted_categories] for part in kept]
    values = learned_values(believed)
    prompts = [prompts_asked(part.found) for part in kept]
    (out / LEARNED_FILE).unlink(missing_ok=True)  # of an earlier report of other runs
    if not values or not all(prompts):
        return
    told = {
        "map": values,
        "benchmarks": {part.found.name: part.found.benchmark["version"] for part in kept},
        "base": kept[0].found.base,
        "judges": [line for part in kept for line in judge_notes(part.found)],
        "targets": max(len(risk_units(part.found).names) for part in kept),
        "prompts": sorted({prompt_hash(text) for mine in prompts for text in mine}),
    }
    write_atomic(out / LEARNED_FILE, json.dumps(told, ensure_ascii=False, indent=1) + "\n", OTHER_OUT)


def write_table(folder: Path, table: DataTable) -> None:
    """Write a table as CSV, and if it is for files, as Markdown and LaTeX."""
    write_atomic(folder / f"{table.name}.csv", as_csv_text(table), OTHER_OUT)
    if table.for_files:
        write_atomic(folder / f"{table.name}.md", as_markdown_text(table), OTHER_OUT)
        write_atomic(folder / f"{table.name}.tex", as_latex_text(table), OTHER_OUT)


def print_parts(console: Console, parts: Sequence[ReportPart], runs: Sequence[HarmRun], out: Path) -> None:
    """Print for each part how many models and findings it has, and its judges; then where the files are."""
    for part in (one for one in parts if one.found.models):
        findings = sum(risk.finding != 0 for risk in part.risks)
        silent = [str(risk.target.reason) for risk in part.risks if risk.target.p is None]
        why = "; ".join(dict.fromkeys(silent))
        said = ""
        if part.risks and len(silent) == len(part.risks):
            said = f"value × risk: no p-value ({why})"
        elif part.risks:
            said = f"{count(findings, 'finding')} among {len(part.risks)} pairs of a value and a category"
            said += f"; {len(silent)} of these pairs have no p-value ({why})" if silent else ""
        models = models_in_words(part.found)
        say(console, "; ".join(one for one in (f"{part.title}: {models}", said) if one))
        for line in judge_notes(part.found):
            say(console, f"  {line}")
    console.print(f"{count(len(runs), 'run')} read", highlight=False)
    places = (("page", PAGE_FILE), ("tables", TABLES_FOLDER), ("figures", FIGURES_FOLDER), ("map", LEARNED_FILE))
    for name, place in places:
        if (out / place).exists():
            say(console, f"{name + ':':9}{out / place}")
