"""Tables of results."""


def number(score: float | None, digits: int = 2) -> str:
    """Return a number for a cell, or a dash for None."""
    return "–" if score is None else f"{score:.{digits}f}"
