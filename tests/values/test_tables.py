import csv
import io
import json

import pytest
from rich.console import Console

from jaxalign.values.schwartz import VALUES
from jaxalign.values.tables import TableRow, as_csv, as_markdown, fitting_table
from jaxalign.values.targets import extreme_targets

POWER = extreme_targets()["power"]
RESULTS = {
    "scores": {**dict.fromkeys(VALUES, 2.0), "power": 4.256},
    "argmax_scores": {**dict.fromkeys(VALUES, 1.0), "power": 5.0},
    "choice_scores": {**dict.fromkeys(VALUES, 0.5), "power": 0.625},
    **{"nmse": 0.0314, "nmse_centred": 0.02, "pearson": 0.914, "spearman": 0.5},
    **{"missing": 0, "named_value_accuracy": 0.3, "perplexity": 12.3},
}


def row(name="power", method="adapter", reading="likelihood", target=POWER, scale=1.0, **changes):
    return TableRow(name, method, reading, target, {**RESULTS, **changes}, scale)


BASE = row("base", "base", scale=None)


def printed(rows, width=80):
    console = Console(width=width, color_system=None)
    with console.capture() as capture:
        console.print(fitting_table(rows, width))
    return capture.get()


def test_the_rows_of_a_sweep_over_the_scale_can_be_told_apart():
    rows = [BASE, row(scale=0.5), row(), row(scale=2.0)]
    assert [one.title for one in rows] == ["base", "power × 0.5", "power", "power × 2"]
    for text in (as_markdown(rows, "tiny"), printed(rows)):
        assert all(one.title in text for one in rows)
    cells = list(csv.DictReader(io.StringIO(as_csv(rows))))
    assert [(one["name"], one["scale"]) for one in cells] == [
        ("base", ""),
        *(("power", n) for n in ("0.5", "1.0", "2.0")),
    ]


@pytest.mark.parametrize("one", [BASE, row(scale=0.5), row(target=None)])
def test_a_row_survives_its_way_through_json(one):
    assert TableRow.from_dict(json.loads(json.dumps(one.as_dict()))) == one


def cells(line, mark=None):
    return [cell.strip() for cell in line.split(mark)]


def test_markdown_and_csv_have_the_most_probable_scores_and_those_of_the_choice_beside_the_expected_ones():
    parsed = row(reading="parse", argmax_scores=None, choice_scores=None)
    page = as_markdown([row(), parsed], "tiny").splitlines()
    table = [cells(line.strip("|"), "|") for line in page[page.index("", page.index("") + 5) :] if line.startswith("|")]
    power = table[0].index("Power")
    assert [(line[1], line[2], line[power]) for line in table[2:]] == [
        ("likelihood", "expected", "4.26"),
        ("likelihood", "argmax", "5.00"),
        ("likelihood", "choice", "0.62"),
        ("parse", "stated", "4.26"),
    ]
    first, second = csv.DictReader(io.StringIO(as_csv([row(), parsed])))
    assert (first["argmax_power"], first["choice_power"], first["argmax_hedonism"]) == ("5.0", "0.625", "1.0")
    assert (second["argmax_power"], second["choice_power"]) == ("", "")


def test_the_terminal_shows_both_for_the_highest_value_where_they_fit():
    def heads(width, rows):
        text = printed(rows, width)
        assert max(map(len, text.splitlines())) <= width
        return cells(text.splitlines()[1].replace("read by", "read_by"))

    start = ["read_by", "NMSE", "Pearson", "perplexity", "highest"]
    assert heads(91, [BASE, row()]) == [*start, "argmax", "choice"]
    line = next(line for line in printed([row()], 91).splitlines() if "4.26" in line)
    assert line.split()[-3:] == ["4.26", "5.00", "0.62"]
    assert heads(77, [BASE, row()]) == [*start, "choice"]
    assert heads(69, [BASE, row()]) == start
    assert heads(80, [row(argmax_scores=None, choice_scores=None)]) == start


def test_perplexity_stands_in_each_row_that_was_asked():
    constant = TableRow(
        "best constant", "constant", "none", POWER, {"scores": dict.fromkeys(VALUES, 1.5), "nmse": 0.09}
    )
    lines = printed([constant, row("base", "base", perplexity=160.04), row(perplexity=None)]).splitlines()
    base, tuned = (next(line for line in lines if line.split()[:1] == [name]) for name in ("base", "power"))
    assert "160.0" in base
    assert "12.3" not in tuned and "–" in tuned
    assert next(line for line in lines if "constant" in line).count("–") == 1  # Pearson's; nothing was asked


def test_missing_has_a_column_where_anything_is():
    assert "missing" not in printed([BASE, row()])
    assert "missing" in printed([BASE, row(missing=2)])
