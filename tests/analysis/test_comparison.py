import csv
import io
import json

import pytest
from rich.console import Console

from jaxalign.analysis.comparison import Row, as_csv, as_markdown, table_of
from jaxalign.values.schwartz import VALUES
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
    return Row(name, method, reading, target, {**RESULTS, **changes}, scale)


BASE = row("base", "base", scale=None)


def printed(rows, width=80):
    console = Console(width=width, color_system=None)
    with console.capture() as capture:
        console.print(table_of(rows))
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
    assert Row.from_dict(json.loads(json.dumps(one.as_dict()))) == one
