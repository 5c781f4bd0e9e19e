"""Tables of results."""

from collections.abc import Iterable, Sequence


def number(score: float | None, digits: int = 2) -> str:
    """Return a score as the text of a table cell, with `digits` decimals; None becomes a dash."""
    return "–" if score is None else f"{score:.{digits}f}"


def markdown_table(heads: Sequence[str], rows: Iterable[Iterable[str]]) -> str:
    """Return a table in Markdown, without a newline at its end.

    >>> print(markdown_table(["value", "score"], [["power", "6.00"]]))
    | value | score |
    | --- | --- |
    | power | 6.00 |
    """
    lines = [heads, ["---"] * len(heads), *rows]
    return "\n".join(f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in line)} |" for line in lines)
