import struct
import subprocess
import sys

import pytest

from jaxalign.errors import UserError
from jaxalign.values.figures import comparison_figure, profile_figure
from jaxalign.values.schwartz import VALUES
from jaxalign.values.tables import TableRow

TARGET = {value: 6.0 if value == "power" else 1.0 for value in VALUES}
BEFORE = {value: 5.0 for value in VALUES}
AFTER = {**TARGET, "power": 4.4, "hedonism": None}


def size(path):
    data = path.read_bytes()
    assert data[:8] == b"\x89PNG\r\n\x1a\n"
    return struct.unpack(">II", data[16:24])


@pytest.mark.parametrize("target", [TARGET, None])
def test_the_profile_is_a_png_of_slide_size_with_or_without_a_target(tmp_path, target):
    path = tmp_path / "figures" / "profile.png"

    profile_figure(path, target, BEFORE, AFTER, "power: $1 and 50 % [a]")

    assert size(path) == (1920, 1080)
    assert [entry.name for entry in path.parent.iterdir()] == ["profile.png"]


def test_the_profile_shows_what_it_is_given(tmp_path):
    pictures = []
    for after in (AFTER, {**AFTER, "power": 2.0}, AFTER):
        profile_figure(tmp_path / "profile.png", TARGET, BEFORE, after, "power")
        pictures.append((tmp_path / "profile.png").read_bytes())

    assert pictures[0] == pictures[2]
    assert pictures[0] != pictures[1]


def test_names_are_text_and_no_formulas(tmp_path):
    row = TableRow("a $x_{$ b", "adapter", "parse", None, {"scores": BEFORE})
    comparison_figure(tmp_path / "table.png", [row], "$y^{$")
    assert size(tmp_path / "table.png")[0] == 1920


def test_drawing_leaves_pyplot_alone(tmp_path):
    code = (
        "import sys; from jaxalign.values.figures import profile_figure; from jaxalign.values.schwartz import VALUES;"
        f"s = dict.fromkeys(VALUES, 3.0); profile_figure({str(tmp_path / 'p.png')!r}, s, s, s, 'x');"
        "assert 'matplotlib.pyplot' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_a_figure_that_cannot_be_written_names_its_path(tmp_path):
    (tmp_path / "figures").write_text("a file, not a folder")

    with pytest.raises(UserError, match="figures"):
        profile_figure(tmp_path / "figures" / "profile.png", TARGET, BEFORE, AFTER, "power")
