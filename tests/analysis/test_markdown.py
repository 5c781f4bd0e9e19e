"""Text in Markdown, read back by a parser of CommonMark and of GitHub's tables."""

import itertools
import re

import pytest
from markdown_it import MarkdownIt

from jaxalign.analysis.markdown import markdown_code, markdown_quote, markdown_text
from jaxalign.analysis.tables import markdown_table

PARSER = MarkdownIt("commonmark").enable(["table", "strikethrough"])

COMMENT = "<!-- -->"

HOSTILE = [
    "# head",
    "#",
    "a\n# head\n\n## two",
    "a\n===",
    "---",
    "- - -",
    "***",
    "___",
    "=",
    "- item",
    "+ item",
    "* item",
    "+",
    "1. item",
    "12) item",
    "> quote",
    "    indented",
    "```\nfence\n```",
    "~~~\nfence",
    "`code` ``more``",
    "a | b | c",
    "a \\| b",
    "| --- | --- |",
    "<script>alert(1)</script>",
    "<!-- a -->",
    "<http://a.b>",
    "[text](http://a.b)",
    "![picture](http://a.b/c.png)",
    "[text][1]",
    "[1]: http://a.b",
    "&lt;b&gt; &#60; &#x3c; &copy;",
    "*a* **b** _c_ __d__ a_b _c",
    "~~gone~~ ~gone~",
    "ends in \\",
    "\\# \\<b> \\\\",
    "** a ** __ b __",
    "$x$ and $$y$$",
    "me@home.org, a.b+c@d-e.fr",
    "@someone @org/team @1 @_x",
    "@<!-- --> a@<b>",
]


def inline(tokens):
    """What a reader sees of the one inline token among these, and the kinds of what it holds."""
    (one,) = (token for token in tokens if token.type == "inline")
    return "".join(pieces(one)), {child.type for child in one.children or () if child.content != COMMENT}


def pieces(token):
    """The texts of an inline token between empty comments, which nobody sees."""
    texts = [""]
    for child in token.children or ():
        if (child.type, child.content) == ("html_inline", COMMENT):
            texts.append("")
        else:
            texts[-1] += child.content
    return texts


@pytest.mark.parametrize("text", HOSTILE)
@pytest.mark.parametrize(("before", "kind"), [("", "paragraph"), ("# The ", "heading"), ("> ", "paragraph")])
def test_a_text_is_shown_as_it_is_wherever_it_stands(text, before, kind):
    tokens = PARSER.parse(before + markdown_text(text))
    assert [token.type for token in tokens if not token.type.startswith(("inline", "blockquote"))] == [
        f"{kind}_open",
        f"{kind}_close",
    ]
    wanted = before.lstrip("#> ") + " ".join(text.split())
    assert inline(tokens) == (wanted, {"text"})


@pytest.mark.parametrize("text", HOSTILE)
def test_code_holds_a_text_as_it_is(text):
    found, kinds = inline(PARSER.parse(markdown_code(text)))
    assert (found, kinds) == (" ".join(text.split()), {"code_inline"})


def test_a_table_has_the_cells_that_it_was_given():
    rows = [[one, other, "6.00"] for one, other in itertools.pairwise(HOSTILE)]
    tokens = PARSER.parse(f"above\n\n{markdown_table(['a|b', '*c*', 'score'], rows)}\n\nbelow")
    cells = [token for token in tokens if token.type == "inline"][1:-1]
    texts = ["".join(pieces(cell)) for cell in cells]
    assert texts == ["a|b", "*c*", "score", *(" ".join(cell.split()) for row in rows for cell in row)]
    kinds = {child.type for cell in cells for child in cell.children or () if child.content != COMMENT}
    assert kinds == {"text"}


def test_a_quotation_has_the_lines_of_the_text_and_ends_with_it():
    text = "# one\n\n\n- two\n    three\x0bfour\n<b>"
    tokens = PARSER.parse("\n".join(["before", "", *markdown_quote(text), "", "after"]))
    assert [token.content for token in tokens if token.type == "inline"][0::3] == ["before", "after"]
    assert {token.type.rpartition("_")[0] for token in tokens if token.type != "inline"} == {"paragraph", "blockquote"}


def test_addresses_do_not_become_links_by_themselves():
    assert markdown_text("see http://a.b, HTTPS://a.b and www.a.b") == r"see http\://a.b, HTTPS\://a.b and www\.a.b"


@pytest.mark.parametrize("text", ["me@home.org", "ask @someone or @org/team", "a.b+c@d-e.fr, @1", "mailto:x@y.z @ 5"])
def test_addresses_and_mentions_do_not_become_links_by_themselves(text):
    (token,) = (token for token in PARSER.parse(markdown_text(text)) if token.type == "inline")
    assert "".join(pieces(token)) == text
    # GitHub looks for both in each text between two tags.
    assert not any(re.search(r"@\w", piece) for piece in pieces(token))


def test_ordinary_names_numbers_and_sentences_stay_as_they_are():
    for text in ("smollm2_135m", "org/some-Model.v1", "-0.51", "3.50 → 1.25", "5e-05", "A & B: (c), #2!", "a -> b?"):
        assert markdown_text(text) == text


def test_a_text_steers_no_terminal_in_which_its_file_is_shown():
    for write in (markdown_text, markdown_code):
        shown = write("one\x1b[31mred\x1b]0;title\x07\x9b\x0btwo")
        assert shown.isprintable() and "31mred" in shown and "title two" in shown
