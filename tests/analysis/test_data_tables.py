import csv
import io

from jaxalign.analysis.data_tables import DataTable, as_csv_text, as_latex_text, as_markdown_text
from jaxalign.analysis.estimates import Estimate

FIGURE = Estimate(estimate=0.25, low=0.1, high=0.43, n=9)
TABLE = DataTable("t", "A & B", ("name", "rate", "n"), [["x_1 | y", FIGURE, 9], ["z", None, 0]], ["κ 0.5"])


def test_csv_has_three_columns_for_a_figure_and_nothing_for_nothing():
    rows = list(csv.reader(io.StringIO(as_csv_text(TABLE))))
    assert rows == [
        ["name", "rate", "rate low", "rate high", "n"],
        ["x_1 | y", "0.25", "0.1", "0.43", "9"],
        ["z", "", "", "", "0"],
    ]


def test_markdown_and_latex_show_texts_as_they_are():
    assert "| x_1 \\| y | 0.25 \\[0.10, 0.43] | 9 |" in as_markdown_text(TABLE)
    latex = as_latex_text(TABLE)
    assert r"x\_1 \textbar{} y & 0.25 {[}0.10, 0.43{]} & 9 \\" in latex and r"\noindent $\kappa$ 0.5" in latex
    assert latex.count(r"\begin{longtable}{lll}") == latex.count(r"\end{longtable}") == 1


def test_a_wide_table_is_split_by_columns_and_keeps_the_first_one():
    heads = ("category", *(f"m{n}" for n in range(13)))
    wide = DataTable("t", "wide", heads, [["all", *range(13)]], is_wide=True)
    text = as_markdown_text(wide)
    assert text.count("| category |") == 3 and "| all | 12 |" in text
    assert as_csv_text(wide).splitlines()[0].count(",") == 13
