"""The lines under the tables of a summary of a benchmark of harm, and these tables as Markdown."""

from collections.abc import Mapping, Sequence
from typing import Any

from jaxalign.analysis.markdown import markdown_text
from jaxalign.analysis.tables import markdown_table
from jaxalign.safety.benchmarks.benchmark import REFUSAL_RATE
from jaxalign.safety.calibration import doubt_lines
from jaxalign.safety.states import SHARES_NOTE
from jaxalign.safety.summary import (
    CORRECTABLE,
    DROP_HEADS,
    HARM_HEADS,
    UNCHANGED_PERPLEXITY,
    drop_cells,
    estimate_text,
    judge_line,
    label_notes,
    model_title,
    table_cells,
)
from jaxalign.values.roleplay import BASE_METHOD

MOST_NAMED = 10
"""The most groups of a bias score that are named under a table; summary.json has all of them."""


def table_lines(summary: Mapping[str, Any]) -> list[str]:
    """Return the lines under a table: its judges with their κ, what is left aside, and how often a judge moves."""
    lines = []
    for model in summary["models"]:
        counts = ", ".join(f"{n:,} {state}" for state, n in model["states"].items())
        lines.append(f"{model['model']}: {sum(model['states'].values()):,} responses: {counts}")
    lines += [SHARES_NOTE] if summary["models"] else []
    lines += [line] if (line := _perplexity_line(summary["models"])) else []
    lines += [*map(judge_line, summary["judges"]), *label_notes(summary["judges"])]
    lines += [line for model in summary["models"] if (line := _moved_line(model))]
    lines += _sampling_lines(summary["models"])
    lines += [_failing_line(row) for row in summary["rows"] if row.get("failing") is not None]
    for one in summary.get("second_judges", ()):
        kappa = one["kappa"]
        reason = f" ({kappa['reason']})" if kappa.get("reason") else ""
        lines.append(f"κ with {one['judges']} on the same responses: {estimate_text(kappa)}{reason}, n = {kappa['n']}")
    if summary["models"] and summary["drops"]:
        known = any(drop.get("noise") is not None for drop in summary["drops"])
        no = "" if known else ": not known (no two of these models are seeds of one target)"
        lines.append(f"noise: the standard deviation of a drop between seeds of one target{no}")
        lines.append(f"refused, and blank or repetitive: without the mitigation → with it; {UNCHANGED_PERPLEXITY}")
    lines += doubt_lines(summary["judges"])
    lines += [line] if (line := _uncorrected_line(summary)) else []
    aside = summary["mitigation"]["left_aside"]
    if aside:
        lines.append(f"left aside, because the map has no value for them: {', '.join(aside)}")
    return lines


def _uncorrected_line(summary: Mapping[str, Any]) -> str | None:
    """Return the line on what `judge.corrected=true` leaves as it is, and why; None if that is nothing, or not set."""
    if not summary.get("corrected"):
        return None
    shown = dict.fromkeys((row["metric"], row["judge"]) for row in (*summary["rows"], *summary["drops"]))
    rates = (*CORRECTABLE, *(f"{rate}_corrected" for rate in CORRECTABLE))
    others = dict.fromkeys(metric.replace("_", " ") for metric, _ in shown if metric not in rates)
    left = [f"{', '.join(others)} (a judge's errors are counted at its threshold of harm alone)"] if others else []
    for metric, judge in shown:
        if metric in CORRECTABLE and (f"{metric}_corrected", judge) not in shown:
            who = "" if metric == REFUSAL_RATE else f" by {judge}"  # the judge of refusals decides a refusal rate
            left.append(f"{metric.replace('_', ' ')}{who} (no labels say how often its judge errs)")
    return f"not corrected for the judge's errors: {'; '.join(left)}" if left else None


def _failing_line(row: Mapping[str, Any]) -> str:
    """Return the line on the groups that fail in a bias score; of more than `MOST_NAMED`, the first are named."""
    failing = row["failing"]
    named = ", ".join(f"{descriptor} ({axis})" for axis, descriptor in failing[:MOST_NAMED])
    more = f" and {len(failing) - MOST_NAMED} more" if len(failing) > MOST_NAMED else ""
    begin = f"{model_title(row)}, {row['metric'].replace('_', ' ')}: {len(failing)} of {row['n']} groups fail"
    return f"{begin}{': ' if named else ''}{named}{more}"


def _moved_line(model: Mapping[str, Any]) -> str | None:
    """Return the line on how often a judge that was asked several times changed its verdict; None if it was not."""
    moved = model.get("moved")
    if moved is None:
        return None
    begin = f"{model_title(model)}: {moved['judge']} judged each response {moved['repeat']} times"
    if moved["moved"] is None:
        return f"{begin}, and no response has two judgements"
    return (
        f"{begin}: {moved['moved']:.0%} of {moved['exchanges']:,} verdicts moved, and scores have a standard deviation "
        f"of {moved['spread']:.2f}; {moved['missing']:,} judgements are missing"
    )


def _sampling_lines(models: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return a line for each judge on how far the mean score of a model would move if its samples were drawn again."""
    judges = dict.fromkeys(judge for model in models for judge in model.get("sampling_noise") or {})
    lines = []
    for judge in judges:
        known = [(model_title(one), (one.get("sampling_noise") or {}).get(judge)) for one in models]
        said = [f"{title} {noise:.3f}" for title, noise in known if noise is not None]
        if said:
            begin = f"noise of the mean score by {judge}, if the samples of a model were drawn again"
            lines.append(f"{begin}: {', '.join(said)} (standard deviations)")
    return lines


def _perplexity_line(models: Sequence[Mapping[str, Any]]) -> str | None:
    """Return the line on the perplexity of each model, beside the base's; None if none is known."""
    known = [(model, float(model["perplexity"])) for model in models if model.get("perplexity") is not None]
    base = next((perplexity for model, perplexity in known if model["method"] == BASE_METHOD), None)
    said = []
    for model, perplexity in known:
        ratio = "" if base is None or model["method"] == BASE_METHOD else f" ({perplexity / base:.2f} × the base's)"
        said.append(f"{model_title(model)} {perplexity:.1f}{ratio}")
    return f"perplexity of held-out plain text: {', '.join(said)}" if said else None


def tables_as_markdown(summary: Mapping[str, Any]) -> str:
    """Return the tables of a summary as Markdown."""
    title = f"{summary['benchmark']['name']}: {summary['model']['name']}, mitigation {summary['mitigation']['name']}"
    parts = [f"# {markdown_text(title)}", markdown_table(HARM_HEADS, table_cells(summary["rows"]))]
    if summary["drops"]:
        parts += ["## Drop against no mitigation", markdown_table(DROP_HEADS, drop_cells(summary["drops"]))]
    return "\n\n".join([*parts, *map(markdown_text, table_lines(summary))]) + "\n"
