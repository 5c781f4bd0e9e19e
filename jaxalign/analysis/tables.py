"""Tables of results."""


def number(score: float | None, digits: int = 2) -> str:
    """Return a score as the text of a table cell, with `digits` decimals; None becomes a dash."""
    return "–" if score is None else f"{score:.{digits}f}"
