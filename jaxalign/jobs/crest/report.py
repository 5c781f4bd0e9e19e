"""The results of a CREST run for a reader: files in its directory, and lines in the terminal."""

from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Console

from jaxalign.data.datasets.question import Question
from jaxalign.jobs.crest.evaluate import RATIONALES
from jaxalign.jobs.crest.preferences import PAIRS
from jaxalign.reasoning.rationales import Rationale
from jaxalign.reasoning.report import (
    accuracy_figure,
    grading_in_words,
    histogram_figure,
    last_evaluation,
    models_csv,
    models_markdown,
    page,
    stages_in_words,
    table_of_grades,
    table_of_models,
)
from jaxalign.reasoning.summary import CREST_SUMMARY, GRADINGS
from jaxalign.runs.directory import Run
from jaxalign.runs.progress import say
from jaxalign.runs.records import read_json, write_atomic

GRADES = "grades.json"


def write_report(
    run: Run,
    summary: Mapping[str, Any],
    rationales: Mapping[str, Sequence[Rationale]],
    questions: Mapping[str, Question],
) -> None:
    """Write table.csv, table.md, the figures and report.md into the directory of a run.

    Args:
        run: the whole run.
        summary: its summary.
        rationales: the rationales of the last iteration with their readings, by the ids of the questions.
        questions: the training questions by their ids.
    """
    write_atomic(run.path / "table.csv", models_csv(summary))
    write_atomic(run.path / "table.md", models_markdown(summary))
    accuracy_figure(run.figures / "accuracy.png", summary)
    histogram = last_evaluation(summary).get("z_tilde")
    if histogram:
        histogram_figure(run.figures / "z_tilde.png", histogram)
    write_page(run, summary, rationales, questions)


def write_page(
    run: Run,
    summary: Mapping[str, Any],
    rationales: Mapping[str, Sequence[Rationale]],
    questions: Mapping[str, Question],
) -> None:
    """Write report.md, with the grades of stage=grade if there are any; for the arguments see `write_report`."""
    write_atomic(run.path / "report.md", page(summary, rationales, questions, read_gradings(run)))


def read_gradings(run: Run) -> list[dict[str, Any]]:
    """Return what each judge of stage=grade gave the rationales of a run, as grades.json has it."""
    path = run.path / GRADES
    if not path.is_file():
        return []
    again = "remove it, and grade the rationales again with stage=grade"
    return read_json(path, again, GRADINGS)


def report_crest(console: Console, run: Run) -> None:
    """Print the stages of a finished run, its table, and where its files are."""
    summary = run.results(**CREST_SUMMARY)
    run.check_files()
    for name, words in stages_in_words(summary).items():
        say(console, f"{name}: {', '.join(words)}")
    console.print(table_of_models(summary))
    console.print(
        "accuracy over all questions; intervals: 95 %, bootstrap; consistency: mean share of follow-ups that agree "
        f"with the right answer, all judged by {summary['judge']}; of all rounds only the best is tested",
        style="dim",
    )
    for grading in read_gradings(run):
        console.print(table_of_grades(summary, grading))
        console.print(grading_in_words(grading), style="dim")
    files = ("report.md", "table.csv", GRADES, RATIONALES, PAIRS, "figures/accuracy.png", "adapter")
    for name in files:
        if (run.path / name).exists():
            say(console, f"{name.partition('.')[0]}: {run.path / name}")
    if run.adapter.exists():
        say(console, f"next: python -m jaxalign.generate adapter={run.path}")
