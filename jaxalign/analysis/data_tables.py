"""Tables of figures with their intervals, as CSV, Markdown and LaTeX. A cell stays a figure until it is written."""

import csv
import io
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from jaxalign.analysis.estimates import Estimate
from jaxalign.analysis.markdown import markdown_text
from jaxalign.analysis.tables import markdown_table

Cell = str | int | float | Estimate | None
"""A text, a number, a figure with its interval, or nothing."""

DASH = "–"
MOST_COLUMNS = 6
"""A wider table is written as several tables, each with the first column."""


@dataclass(frozen=True)
class DataTable:
    """A table.

    Attributes:
        name: the name of its files.
        title: one line above it.
        heads: the names of its columns.
        rows: its cells.
        notes: lines under it.
        tags: for each row, what a reader can filter it by: the name of a filter, and the row's words in it. A row
            without a filter's name is never filtered by it. Empty: no row has tags.
        weak: for each row, whether its figures say little; empty: none.
        is_wide: whether Markdown and LaTeX split it by columns (see `MOST_COLUMNS`).
        for_files: whether it is written as Markdown and LaTeX; CSV is always written.
    """

    name: str
    title: str
    heads: Sequence[str]
    rows: Sequence[Sequence[Cell]]
    notes: Sequence[str] = ()
    tags: Sequence[dict[str, Sequence[str]]] = field(default_factory=list)
    weak: Sequence[bool] = field(default_factory=list)
    is_wide: bool = False
    for_files: bool = True


def cell_text(cell: Cell) -> str:
    """Return a cell as text.

    >>> cell_text(Estimate(estimate=0.25, low=0.1, high=0.43, n=9)), cell_text(None), cell_text(0.5)
    ('0.25 [0.10, 0.43]', '–', '0.50')
    """
    if isinstance(cell, Estimate):
        if cell.estimate is None:
            return DASH
        limits = "" if cell.low is None or cell.high is None else f" [{cell.low:.2f}, {cell.high:.2f}]"
        return f"{cell.estimate:.2f}{limits}"
    if isinstance(cell, float):
        return f"{cell:.2f}" if abs(cell) >= 0.01 or cell == 0 else f"{cell:.1g}"
    return DASH if cell is None else str(cell)


def as_csv_text(table: DataTable) -> str:
    """Return a table as CSV; a figure with an interval has three columns, and nothing is an empty cell."""
    figures = [any(isinstance(row[n], Estimate) for row in table.rows) for n in range(len(table.heads))]
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n")

    def wide(cells: Iterable[tuple[bool, list[Cell]]]) -> list[Cell]:
        return [one for is_figure, three in cells for one in (three if is_figure else three[:1])]

    pairs = list(zip(figures, table.heads, strict=True))
    writer.writerow(wide((is_figure, [head, f"{head} low", f"{head} high"]) for is_figure, head in pairs))
    for row in table.rows:
        writer.writerow(wide((is_figure, _three(cell)) for is_figure, cell in zip(figures, row, strict=True)))
    return file.getvalue()


def _three(cell: Cell) -> list[Cell]:
    if isinstance(cell, Estimate):
        return ["" if one is None else one for one in (cell.estimate, cell.low, cell.high)]
    return ["" if cell is None else cell, "", ""]


def as_markdown_text(table: DataTable) -> str:
    """Return a table as Markdown, with its title and its notes."""
    parts = [f"## {markdown_text(table.title)}"]
    parts += [markdown_table(heads, [map(cell_text, row) for row in rows]) for heads, rows in _blocks(table)]
    return "\n\n".join([*parts, *(markdown_text(note) for note in table.notes)]) + "\n"


def as_latex_text(table: DataTable) -> str:
    r"""Return a table as LaTeX for the packages booktabs and longtable, with its title and its notes."""
    parts = [f"% {_comment(table.title)}"]
    for heads, rows in _blocks(table):
        lines = [" & ".join(latex_text(cell_text(cell)) for cell in cells) + r" \\" for cells in (heads, *rows)]
        lines[0] = f"\\toprule\n{lines[0]}\n\\midrule\n\\endhead"
        body = "\n".join(lines)
        form = "l" * len(heads)
        parts.append(f"\\begin{{longtable}}{{{form}}}\n{body}\n\\bottomrule\n\\end{{longtable}}")
    return "\n\n".join([*parts, *(f"\\noindent {latex_text(note)}" for note in table.notes)]) + "\n"


def _blocks(table: DataTable) -> list[tuple[list[str], list[list[Cell]]]]:
    """Return a wide table as several with at most `MOST_COLUMNS` columns after the first."""
    width = len(table.heads) - 1
    step = MOST_COLUMNS if table.is_wide else max(width, 1)
    return [
        (
            [table.heads[0], *table.heads[start : start + step]],
            [[row[0], *row[start : start + step]] for row in table.rows],
        )
        for start in range(1, max(width, 1) + 1, step)
    ]


_LATEX = {
    **{mark: f"\\{mark}" for mark in "&%$#_{}"},
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    '"': r"\textquotedbl{}",
    "[": "{[}",
    "]": "{]}",
    "–": "--",
    "−": "$-$",
    "×": r"$\times$",
    "κ": r"$\kappa$",
    "ρ": r"$\rho$",
    "≤": r"$\le$",
}


def latex_text(text: str) -> str:
    r"""Return a text as one line of LaTeX that shows it as it is.

    >>> print(latex_text("50 % of {x}_1"))
    50 \% of \{x\}\_1
    """
    return "".join(_LATEX.get(letter, letter) for letter in " ".join(text.split()))


def _comment(text: str) -> str:
    return re.sub(r"\s+", " ", text)
