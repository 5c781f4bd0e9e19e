"""The page of a CREST run."""

import dataclasses

from markdown_it import MarkdownIt
from reasoning.few_questions import THREE

from jaxalign.reasoning.rationales import Rationale
from jaxalign.reasoning.report import accuracy_figure, models_markdown, page

SUMMARY = {
    "dataset": "mine <b>\n# more",
    "questions": {"train": 1, "validation": 1, "test": 1},
    "notes": ["1 of 2 train questions left out: [click](http://a.b)"],
    "model": {"name": "![tiny](x)"},
    "judge": "base `of` it",
    "models": [{"name": "round|1"}],
    "stages": {"test": {"path": "runs/`a`|b", "seconds": 1.0, "python_seconds": 0.5}},
}


def test_what_data_and_models_say_is_text_on_the_page_and_no_heading_table_link_or_html():
    question = dataclasses.replace(THREE, text="Who?\n\n# Why? <i>", options=("*a*", "[b](c)", "<c>"))
    texts = ["# Stages\n| a | b |\n|---|---|", "<script>\n```", "---\n- item\n[x]: y"]
    rationales = {question.id: [Rationale(question.id, text, 1, (), 0, False) for text in texts]}
    tokens = MarkdownIt("commonmark").enable("table").parse(page(SUMMARY, rationales, {question.id: question}))
    heads = [tokens[n + 1].content for n, token in enumerate(tokens) if token.type == "heading_open"]
    assert heads[0] == r"CREST on mine \<b> # more with !\[tiny](x)"
    assert heads[1:] == [
        "Stages",
        "Rationales of each kind",
        "Right, and every follow-up agrees (0)",
        "Right, with a contradiction (0)",
        "Wrong (3)",
        "Not read (0)",
    ]
    kinds = [token.type for token in tokens]
    assert kinds.count("table_open") == 1 and kinds.count("tr_open") == 2 and kinds.count("blockquote_open") == 3
    assert kinds.count("bullet_list_open") == 1 and not {"html_block", "fence", "hr"} & set(kinds)
    children = [child for token in tokens for child in token.children or ()]
    assert [child.attrs["src"] for child in children if child.type == "image"] == ["figures/accuracy.png"]
    assert not {"html_inline", "link_open", "em_open"} & {child.type for child in children}
    assert [child.content for child in children if child.type == "code_inline"] == ["runs/`a`|b"]


def test_a_table_of_models_has_its_numbers_to_the_right():
    assert models_markdown(SUMMARY).splitlines()[1:] == ["|---|---:|---:|---:|---:|", r"| round\|1 | – | – | – | – |"]


def test_names_are_text_and_no_formulas_in_the_figure(tmp_path):
    accuracy_figure(tmp_path / "accuracy.png", {**SUMMARY, "dataset": "a $x_{$ b"})
    assert (tmp_path / "accuracy.png").read_bytes().startswith(b"\x89PNG")
