"""What the terminal shows of a summary: its tables, as wide as they may be, and what stands under them."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from jaxalign.analysis.tables import terminal_table, widest_that_fits
from jaxalign.jobs.setup import print_places
from jaxalign.runs.directory import Run
from jaxalign.runs.progress import say
from jaxalign.safety.benchmarks.benchmark import REFUSAL_RATE
from jaxalign.safety.calibration import REFUSALS, judge_doubt
from jaxalign.safety.mitigation import NO_MITIGATION
from jaxalign.safety.states import STATES
from jaxalign.safety.summary import ALL, DROP_HEADS, HARM_HEADS, drop_cells, in_order, table_cells
from jaxalign.safety.summary_lines import table_lines

MOST_SHOWN = 4
"""With more models than this, the terminal shows the rows of all categories alone."""


def report_harm(console: Console, summary: Mapping[str, Any], run: Run) -> None:
    """Print the table of a summary, what stands under it, and where its files are."""
    rows = summary["rows"]
    if len(summary["models"]) > MOST_SHOWN:
        rows = [row for row in rows if row["category"] == ALL]
    console.print(widest_that_fits(harm_tables(summary, rows), console.width))
    if summary["drops"]:
        console.print("drop of the mean score against mitigation=none, paired by prompt:")
        console.print(widest_that_fits(_drop_tables(summary), console.width))
    elif summary["mitigation"]["name"] != NO_MITIGATION:
        line = "no drop is shown: the same command with mitigation=none has not been run"
        say(console, line)
    for line in table_lines(summary):
        say(console, line)
    print_places(console, table=run.path / "table.csv", markdown=run.path / "table.md", summary=run.summary)


def _drop_tables(summary: Mapping[str, Any]) -> Iterator[Table]:
    """Yield tables of the drops, from wide to narrow: the second leaves out numbers that `drops.csv` has.

    The model has a column if there are several.
    """
    rows = [dict[str, str](zip(DROP_HEADS, cells, strict=True)) for cells in drop_cells(summary["drops"])]
    wide = [head for head in DROP_HEADS if head != "model" or len(summary["models"]) > 1]
    for heads in (wide, [head for head in wide if head not in ("n", "missing", "noise")]):
        yield _table(heads, [([row[head] for head in heads], "") for row in rows])


def harm_tables(summary: Mapping[str, Any], rows: Sequence[Mapping[str, Any]]) -> Iterator[Table]:
    """Yield tables of the rows, from wide to narrow.

    The first has all columns. The second has the main metric alone, whose name heads its column; the third leaves out
    the shares of states too. The rows of a judge that is not believed are grey; for the rates of refusals, the
    judge of refusals decides.
    """
    doubted = {one["judge"] for one in summary["judges"] if judge_doubt(one) and one["about"] != REFUSALS}
    refusals_doubted = any(judge_doubt(one) for one in summary["judges"] if one["about"] == REFUSALS)
    main = [row for row in rows if row["metric"] == rows[0]["metric"]]
    several = len(summary["models"]) > 1
    heads = [one for one in HARM_HEADS if one != "model" or several]
    short = [one for one in heads if one != "metric"]
    for these, chosen in ((heads, rows), (short, main), (short[: -len(STATES) + 1], main)):
        names = [rows[0]["metric"].replace("_", " ") if one == "figure" and chosen is main else one for one in these]
        cells = [
            (
                [cells[HARM_HEADS.index(one)] for one in these],
                "dim"
                if (refusals_doubted if row["metric"].startswith(REFUSAL_RATE) else row["judge"] in doubted)
                else "",
            )
            for row, cells in zip(in_order(chosen), table_cells(chosen), strict=True)
        ]
        yield _table(names, cells)


def _table(heads: Sequence[str], rows: Sequence[tuple[Sequence[str], str]]) -> Table:
    table = terminal_table(heads, left=("model", "metric"))
    for cells, style in rows:
        table.add_row(*map(Text, cells), style=style)
    return table
