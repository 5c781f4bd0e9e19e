"""Tables of results."""

from collections.abc import Container, Iterable, Sequence

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from rich.text import Text

from jaxalign.analysis.markdown import markdown_text


def number(score: float | None, digits: int = 2) -> str:
    """Return a score as the text of a table cell, with `digits` decimals; None becomes a dash."""
    return "–" if score is None else f"{score:.{digits}f}"


def markdown_table(heads: Sequence[str], rows: Iterable[Iterable[str]]) -> str:
    """Return a table in Markdown, without a newline at its end. The cells are texts, not Markdown.

    >>> print(markdown_table(["value", "score"], [["power", "6.00"]]))
    | value | score |
    | --- | --- |
    | power | 6.00 |
    """
    lines = [markdown_row(heads), f"| {' | '.join(['---'] * len(heads))} |", *map(markdown_row, rows)]
    return "\n".join(lines)


def markdown_row(cells: Iterable[str]) -> str:
    """Return a row of a table in Markdown; the cells are texts."""
    return f"| {' | '.join(map(markdown_text, cells))} |"


def terminal_table(
    heads: Sequence[str], rows: Iterable[Sequence[str]] = (), *, left: Container[str] = (), tight: bool = True
) -> Table:
    """Return a table for the terminal.

    Args:
        heads: the names of the columns.
        rows: the cells, which are texts and no markup; more rows can be added.
        left: the heads of columns that begin at the left, beside the first one; numbers end at the right.
        tight: whether columns stand one space apart, and not two.
    """
    table = Table(box=SIMPLE_HEAD, header_style="bold", pad_edge=False, collapse_padding=tight)
    for place, head in enumerate(heads):
        table.add_column(head, justify="left" if place == 0 or head in left else "right")
    for cells in rows:
        table.add_row(*map(Text, cells))
    return table


def widest_that_fits(tables: Iterable[Table], width: int) -> Table:
    """Return the first table that fits into a terminal of `width` characters, or the last one if none of them does.

    The tables go from wide to narrow, and there is at least one.
    """
    measuring = Console(width=10_000)  # wide enough to measure a table at its full width
    table = Table()
    for table in tables:
        if measuring.measure(table).maximum <= width:
            break
    return table
