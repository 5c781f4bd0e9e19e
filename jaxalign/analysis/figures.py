"""What all figures share: colours, and a way to PNG without a display or pyplot's global state."""

import io

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

INK, MUTED, BAND, LINK = "#222222", "#6b6b6b", "#f5f5f3", "#9a9a9a"
BEFORE, AFTER = "#0072b2", "#d55e00"
"""Blue and vermilion of Okabe and Ito, which colour-blind readers can tell apart."""


def as_png(figure: Figure) -> bytes:
    """Return the bytes of a figure as a PNG."""
    picture = io.BytesIO()
    FigureCanvasAgg(figure).print_png(picture)
    return picture.getvalue()
