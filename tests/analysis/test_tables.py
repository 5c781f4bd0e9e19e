import pytest
from rich.console import Console
from rich.table import Table

from jaxalign.analysis.tables import number, widest_that_fits
from jaxalign.values.schwartz import VALUES
from jaxalign.values.tables import hardly_learnt, profile_table, summary_lines

TARGET = {value: 6.0 if value in ("power", "hedonism") else 1.0 for value in VALUES}
BEFORE = {
    "scores": {value: 5.0 for value in VALUES},
    **{"nmse": 0.9, "nmse_centred": 0.16, "pearson": None, "spearman": None, "missing": 0, "perplexity": 160.0},
}
AFTER = {
    "scores": {**TARGET, "power": 4.256, "hedonism": None},
    **{"nmse": 0.0314, "nmse_centred": 0.02, "pearson": 0.914, "spearman": 0.5, "missing": 3, "perplexity": 200.0},
}


def rows(table):
    console = Console(width=100, color_system=None)
    with console.capture() as capture:
        console.print(table)
    return capture.get().strip().splitlines()


def test_a_row_gives_value_target_before_and_after():
    lines = rows(profile_table(TARGET, BEFORE, AFTER))

    power = next(line for line in lines if "Power" in line)
    assert power.split() == ["Power", "←", "6.00", "5.00", "4.26"]
    assert next(line for line in lines if "Hedonism" in line).split()[-1] == "–"
    assert lines[0].split() == ["value", "target", "before", "after"]


def test_only_the_highest_values_of_a_target_stand_out():
    marked = [line for line in rows(profile_table(TARGET, BEFORE, AFTER)) if "←" in line]
    assert [line.split()[0] for line in marked] == ["Hedonism", "Power"]

    flat = dict.fromkeys(VALUES, 4.0)
    assert not any("←" in line for line in rows(profile_table(flat, BEFORE, AFTER)))


def test_without_a_target_the_table_has_no_target_column():
    lines = rows(profile_table(None, BEFORE, AFTER))

    assert not any("target" in line or "←" in line for line in lines)
    assert next(line for line in lines if "Power" in line).split() == ["Power", "5.00", "4.26"]


def test_the_summary_puts_the_best_constant_beside_both_errors_and_tells_what_is_missing():
    error, shape, correlation, language, missing = summary_lines(BEFORE, AFTER, 0.16)

    assert "before 0.900 · after 0.031 · best constant 0.160" in error
    assert "before 0.160 · after 0.020" in shape
    assert "before – (rank –) · after 0.91 (rank 0.50)" in correlation
    assert "before 160.0 · after 200.0 (1.25 times as high)" in language
    assert missing == "Portraits that could not be read after: 3"


def test_a_value_is_hardly_learnt_where_a_constant_answer_is_nearly_as_near():
    assert hardly_learnt({"nmse": 0.085}, 0.09) and not hardly_learnt({"nmse": 0.049}, 0.09)
    assert not hardly_learnt({"nmse": 0.085}, None) and not hardly_learnt({"nmse": None}, 0.09)


def test_without_a_target_the_summary_says_nothing_of_a_fit():
    (language,) = summary_lines(BEFORE, {**AFTER, "missing": 0}, None)
    assert language.startswith("Perplexity")


def test_a_perplexity_that_is_not_finite_is_a_dash_without_a_ratio():
    (language,) = summary_lines(BEFORE, {**AFTER, "missing": 0, "perplexity": None}, None)
    assert language.endswith("before 160.0 · after –")


def test_none_is_a_dash():
    assert (number(None), number(1.005, 1)) == ("–", "1.0")


@pytest.mark.parametrize(("width", "columns"), [(40, 3), (30, 2), (13, 1), (1, 1)])
def test_a_terminal_gets_the_widest_table_that_fits_and_else_the_narrowest(width, columns):
    tables = (Table(*["a heading"] * size) for size in (3, 2, 1))
    assert len(widest_that_fits(tables, width).columns) == columns
