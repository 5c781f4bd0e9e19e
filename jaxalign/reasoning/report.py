"""The report of a CREST run: a table of its models, two figures, and a page with rationales of each kind."""

import csv
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure
from rich.table import Table

from jaxalign.analysis.figures import AFTER, BEFORE, INK, MUTED, as_png
from jaxalign.analysis.markdown import markdown_code, markdown_quote, markdown_text
from jaxalign.analysis.tables import markdown_row, markdown_table, number, terminal_table
from jaxalign.data.datasets.question import Question
from jaxalign.reasoning.preferences import PAIR_KIND_NAMES
from jaxalign.reasoning.rationales import Rationale
from jaxalign.reasoning.summary import COUNTED
from jaxalign.runs.progress import duration
from jaxalign.runs.records import write_atomic

SHOWN = 3
"""The largest number of rationales of each kind on the page."""

COLUMNS = (
    "accuracy",
    "interval",
    "consistency",
    "consistency_interval",
    "all_agreed",
    "right_with_contradiction",
    "second_reading",
    "never_read",
)
"""The columns of table.csv for each split."""

RATIONALE_KINDS = {
    "Right, and every follow-up agrees": lambda one, f: bool(one.right) and one.agreed == f,
    "Right, with a contradiction": lambda one, f: bool(one.right) and one.agreed != f,
    "Wrong": lambda one, f: one.right is False,
    "Not read": lambda one, f: one.right is None,
}


def counts_in_words(stage: Mapping[str, Any]) -> list[str]:
    """Return the counts in a stage's summary in words: samples, tokens, the histogram of z~ for each number of options,
    pairs of each kind, and the best epoch or round."""
    words = []
    for key, what in COUNTED.items():
        if stage.get(key) is not None:
            of_samples = stage.get(f"{key}_samples")
            samples = "" if of_samples is None else f" ({of_samples:,} of the samples)"
            words.append(f"{stage[key]:,} {what}{samples}")
    for options, found in (stage.get("z_tilde") or {}).items():
        words.append(f"z~ 0 to {options}: {' '.join(str(found[key]) for key in sorted(found, key=int))}")
    words += [f"{count:,} pairs {PAIR_KIND_NAMES[kind]}" for kind, count in (stage.get("there") or {}).items()]
    if stage.get("followups_alike") is not None:
        words.append(f"follow-ups all alike on {stage['followups_alike']:.0%} of the questions")
    words += [f"best {key[5:]} {stage[key]}" for key in ("best_epoch", "best_round") if stage.get(key) is not None]
    return words


def last_evaluation(summary: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the summary of the last evaluation, whose rationales the run holds; empty if there was none."""
    found = [stage for name, stage in summary["stages"].items() if name.partition("-")[0] == "evaluate"]
    return found[-1] if found else {}


HEADS = ("model", "validation accuracy", "consistency", "test accuracy", "consistency")


def rows(summary: Mapping[str, Any]) -> list[list[str]]:
    """Return the rows of a run's table, one for each model, with the columns `HEADS`."""
    found_rows = []
    for model in summary["models"]:
        row = [model["name"]]
        for split in ("validation", "test"):
            found = model.get(split)
            row += [_measured(found, "accuracy", "interval"), _measured(found, "consistency", "consistency_interval")]
        found_rows.append(row)
    return found_rows


def table_of_models(summary: Mapping[str, Any]) -> Table:
    """Return a run's table for the terminal."""
    return terminal_table(HEADS, rows(summary), tight=False)


def table_of_grades(summary: Mapping[str, Any], grading: Mapping[str, Any]) -> Table:
    """Return the grades that a judge gave the rationales of a run, in two lines a row for a narrow terminal."""
    heads, cells = _grades(summary, grading)
    cells = [[cell.replace(" (", "\n(") for cell in row] for row in cells]
    return terminal_table([head.replace(" ", "\n") for head in heads], cells)


def _grades(summary: Mapping[str, Any], grading: Mapping[str, Any]) -> tuple[list[str], list[list[str]]]:
    """Return the heads and the rows of a table of grades: one row for each model, beside its accuracy on the test."""
    tested = {model["name"]: model.get("test") for model in summary["models"]}
    rubrics, cells = [name for name in grading["models"][0] if name != "name"], []
    for model in grading["models"]:
        found = [model[rubric] for rubric in rubrics]
        counts = str(found[0]["left_out"]), str(sum(one["missing"] for one in found))
        accuracy = _measured(tested.get(model["name"]), "accuracy", "interval")
        cells.append([model["name"], accuracy, *map(_graded, found), *counts])
    heads = ["model", "test accuracy", *(rubric.replace("_", " ") for rubric in rubrics), "no rationale", "not judged"]
    return heads, cells


def _graded(found: Mapping[str, Any]) -> str:
    interval = "" if found["low"] is None else f" ({found['low']:.2f}–{found['high']:.2f})"
    return f"{number(found['estimate'])}{interval}"


def grading_in_words(grading: Mapping[str, Any]) -> str:
    """Return what stands under a table of grades."""
    return (
        f"grades of the test rationales, from 1 to 5, by {grading['judge']}, whose agreement with people is not known; "
        "intervals: 95 %, bootstrap by question; not judged: missing judgements of all rubrics, which enter no mean"
    )


def _measured(found: Mapping[str, Any] | None, name: str, interval: str) -> str:
    if found is None or found[name] is None:
        return "–"
    low, high = found[interval]
    return f"{found[name]:.2f} ({low:.2f}–{high:.2f})"


def stages_in_words(summary: Mapping[str, Any]) -> dict[str, list[str]]:
    """Return for each stage: its time, its share of the whole time, the share of this program's own Python in it, and
    its counts."""
    total = sum(stage["seconds"] for stage in summary["stages"].values())
    return {
        name: [
            f"{duration(stage['seconds'])} ({stage['seconds'] / max(total, 1e-9):.0%} of the time, "
            f"{stage['python_seconds'] / max(stage['seconds'], 1e-9):.0%} of it in Python)",
            *counts_in_words(stage),
        ]
        for name, stage in summary["stages"].items()
    }


def models_csv(summary: Mapping[str, Any]) -> str:
    """Return a run's measures as CSV, one row for each model, with the columns of both splits."""
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(["model", *(f"{split}_{name}" for split in ("validation", "test") for name in COLUMNS)])
    for model in summary["models"]:
        cells = [model["name"]]
        for split in ("validation", "test"):
            found = model.get(split) or {}
            cells += ["" if found.get(name) is None else found[name] for name in COLUMNS]
        writer.writerow(cells)
    return file.getvalue()


def models_markdown(summary: Mapping[str, Any]) -> str:
    """Return a run's table as Markdown."""
    lines = [markdown_row(HEADS), "|---|" + "---:|" * (len(HEADS) - 1), *map(markdown_row, rows(summary))]
    return "\n".join(lines) + "\n"


def page(
    summary: Mapping[str, Any],
    rationales: Mapping[str, Sequence[Rationale]],
    questions: Mapping[str, Question],
    gradings: Sequence[Mapping[str, Any]] = (),
) -> str:
    """Return the text of report.md: the tables, the figures, what each stage did, and rationales of each kind.

    `gradings` has the grades that each judge gave the rationales, if there are any.
    """
    sizes, judge = summary["questions"], markdown_text(summary["judge"])
    lines = [
        f"# CREST on {markdown_text(summary['dataset'])} with {markdown_text(summary['model']['name'])}",
        "",
        f"{sizes['train']} questions to train on, {sizes['validation']} to choose by, {sizes['test']} to report.",
        *map(markdown_text, summary["notes"]),
        "",
        models_markdown(summary),
        "Accuracy is over all questions; intervals are 95 % bootstrap intervals. Consistency is the mean share of "
        f"follow-up questions that agree with the right answer, all judged by the same model ({judge}).",
        "",
        "![accuracy](figures/accuracy.png)",
        "",
        *(line for one in gradings for line in _grades_on_page(summary, one)),
        "## Stages",
        "",
        *(
            f"- **{name}**: {', '.join(words)}; in {markdown_code(summary['stages'][name]['path'])}"
            for name, words in stages_in_words(summary).items()
        ),
        "",
    ]
    if any(rationales.values()):
        if last_evaluation(summary).get("z_tilde"):
            lines += ["![follow-ups](figures/z_tilde.png)", ""]
        lines += ["## Rationales of each kind", ""]
        for title, belongs in RATIONALE_KINDS.items():
            found = [one for id, mine in rationales.items() for one in mine if belongs(one, len(questions[id].options))]
            lines += [f"### {title} ({len(found)})", ""]
            stride = max(len(found) // SHOWN, 1)
            for one in found[::stride][:SHOWN]:
                lines += _shown(one, questions[one.question])
    return "\n".join(lines)


def _grades_on_page(summary: Mapping[str, Any], grading: Mapping[str, Any]) -> list[str]:
    title, words = f"## Grades by {markdown_text(grading['judge'])}", markdown_text(grading_in_words(grading))
    return [title, "", markdown_table(*_grades(summary, grading)), "", f"{words[0].upper()}{words[1:]}.", ""]


def _shown(one: Rationale, question: Question) -> list[str]:
    options = "; ".join(
        f"**({letter}) {markdown_text(text)}**" if place == question.gold else f"({letter}) {markdown_text(text)}"
        for place, (letter, text) in enumerate(zip(question.letters, question.options, strict=True))
    )
    answer = "nothing" if one.prediction is None else f"({question.letters[one.prediction]})"
    agreed = "" if one.agreed is None else f"; {one.agreed} of {len(question.options)} follow-ups agree"
    return [
        f"{markdown_text(question.text)} {options}",
        "",
        *markdown_quote(one.text or "(empty)"),
        "",
        f"It leads to {answer}{agreed}.",
        "",
    ]


def accuracy_figure(path: Path, summary: Mapping[str, Any]) -> None:
    """Draw the accuracy of each model with its interval, on validation and, if the model was tested, on the test."""
    models = summary["models"]
    figure = Figure(figsize=(max(6.4, 1.5 * len(models) + 2), 4.8), dpi=150, facecolor="white", layout="constrained")
    axes = figure.add_subplot()
    for split, colour, shift in (("validation", BEFORE, -0.08), ("test", AFTER, 0.08)):
        places = [place for place, model in enumerate(models) if model.get(split)]
        means = [models[place][split]["accuracy"] for place in places]
        spread = [[], []]
        for place, mean in zip(places, means, strict=True):
            low, high = models[place][split]["interval"]
            spread[0].append(mean - low)
            spread[1].append(high - mean)
        xs = [place + shift for place in places]
        axes.errorbar(xs, means, yerr=spread, fmt="o", color=colour, capsize=4, markersize=8, label=split)
        for x, mean in zip(xs, means, strict=True):
            offset = (-8, 0) if shift < 0 else (8, 0)
            align = "right" if shift < 0 else "left"
            axes.annotate(
                f"{mean:.2f}", (x, mean), offset, textcoords="offset points", color=colour, ha=align, va="center"
            )
    axes.set_xticks(range(len(models)), [model["name"] for model in models])
    axes.set_xlim(-0.5, len(models) - 0.5)
    axes.set_ylim(-0.03, 1.02)
    axes.set_ylabel("accuracy", color=INK)
    title = f"{summary['dataset']} · {summary['model']['name']}"
    axes.set_title(title, color=INK, loc="left", fontweight="bold", parse_math=False)
    axes.legend(frameon=False, loc="lower right")
    axes.grid(axis="y", color="#dedede")
    axes.spines[["top", "right"]].set_visible(False)
    axes.tick_params(colors=MUTED)
    write_atomic(path, as_png(figure))


def histogram_figure(path: Path, histogram: Mapping[str, Mapping[str, int]]) -> None:
    """Draw the histogram of z~ of the rationales with z = 1, in a panel for each number of options."""
    figure = Figure(figsize=(max(6.4, 3.6 * len(histogram)), 4.2), dpi=150, facecolor="white", layout="constrained")
    for place, (options, found) in enumerate(histogram.items(), start=1):
        axes = figure.add_subplot(1, len(histogram), place)
        bars = axes.bar([int(key) for key in found], list(found.values()), color=BEFORE, width=0.7)
        axes.bar_label(bars, fmt="{:,.0f}", color=INK)
        axes.set_xticks([int(key) for key in found])
        axes.set_title(f"{options} options", loc="left", color=INK)
        axes.set_xlabel("follow-ups that agree", color=INK)
        axes.spines[["top", "right"]].set_visible(False)
        axes.tick_params(colors=MUTED)
        if place == 1:
            axes.set_ylabel("rationales with z = 1", color=INK)
    write_atomic(path, as_png(figure))
