"""What all figures share: colours, and a way to PNG and SVG without a display or pyplot's global state."""

import contextlib
import io
import warnings
from collections.abc import Iterator

import matplotlib
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure

INK, MUTED, BAND, LINK = "#222222", "#6b6b6b", "#f5f5f3", "#9a9a9a"
BEFORE, AFTER = "#0072b2", "#d55e00"
"""Blue and vermilion of Okabe and Ito, which colour-blind readers can tell apart."""
OKABE_ITO = (BEFORE, AFTER, "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#000000", "#8c6d00")
"""Eight colours for lines, in the order of their use; each line also has a marker of its own."""
MARKERS = "osD^vPX*"


@contextlib.contextmanager
def _any_letter() -> Iterator[None]:
    """Let a box stand for a character that the font lacks, without a warning for each; the tables have it."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing from font", category=UserWarning)
        yield


def as_png(figure: Figure) -> bytes:
    """Return the bytes of a figure as a PNG."""
    picture = io.BytesIO()
    with _any_letter():
        FigureCanvasAgg(figure).print_png(picture)
    return picture.getvalue()


def as_svg(figure: Figure) -> bytes:
    """Return the bytes of a figure as an SVG, which are the same each time: it has no date and no random names."""
    picture = io.BytesIO()
    with _any_letter(), matplotlib.rc_context({"svg.hashsalt": "jaxalign", "svg.fonttype": "path"}):
        FigureCanvasSVG(figure).print_svg(picture, metadata={"Date": None})
    return picture.getvalue()
