"""One HTML page of tables, figures and texts, which needs no network and no library. Texts stay texts."""

import base64
import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from jaxalign.analysis.data_tables import DataTable, cell_text

_FOLDER = Path(__file__).parent / "page"
MOST_OPEN = 60
"""A table with more rows is closed at first."""
LONG_TEXT = 24
"""A text of a table with at least as many characters gets a wide column, so that its row does not become tall."""


@dataclass(frozen=True)
class PageSection:
    """A part of a page.

    Attributes:
        identifier: its name in addresses, of letters, digits and hyphens.
        title: its heading.
        lines: what stands under the heading.
        figures: pictures as PNG, each with a text in its place for those who do not see it.
        tables: its tables; a reader can filter their rows by their tags.
    """

    identifier: str
    title: str
    lines: Sequence[str] = ()
    figures: Sequence[tuple[bytes, str]] = ()
    tables: Sequence[DataTable] = field(default_factory=list)


def html_page(
    title: str,
    lines: Sequence[str],
    sections: Sequence[PageSection],
    filters: Mapping[str, Sequence[tuple[str, str]]],
    texts: Sequence[Mapping[str, Any]],
    text_lines: Sequence[str] = (),
) -> str:
    """Return a page; the same input gives the same page.

    Args:
        title: its title.
        lines: what stands under the title.
        sections: its parts.
        filters: by the name of a filter, its choices: (word, what a reader sees).
        texts: sets of responses; each is {title, note (which texts are hidden, and why), prompts: [{id, category,
            title, text, hidden (until asked for)}], models: [{title, value, mitigation, base, responses: [[text, what
            was said of it, whether it is hidden until asked for (0 no, 1 for what was said of it, 2 for who said it),
            how many characters are left out] or null, one for each prompt]}]}.
        text_lines: what stands above the responses.
    """
    style, script = ((_FOLDER / name).read_text(encoding="utf-8") for name in ("page.css", "page.js"))
    environment = Environment(
        loader=FileSystemLoader(_FOLDER), autoescape=True, undefined=StrictUndefined, trim_blocks=False
    )
    return environment.get_template("page.html.jinja").render(
        title=_clean(title),
        lines=list(map(_clean, lines)),
        # Nothing is loaded, and no other script runs, even if a text could be taken for one.
        policy=Markup(
            f"default-src 'none'; img-src data:; style-src '{_hash(style)}'; script-src '{_hash(script)}'; "
            "base-uri 'none'; form-action 'none'"
        ),
        style=Markup(style),
        script=Markup(script),
        sections=[_section(section) for section in sections],
        filters=[(name, [(key, _clean(text)) for key, text in choices]) for name, choices in filters.items()],
        texts=list(texts),
        text_lines=list(map(_clean, text_lines)),
        texts_json=Markup(script_json(texts)),
    )


def _section(section: PageSection) -> dict[str, Any]:
    return {
        "identifier": section.identifier,
        "title": _clean(section.title),
        "lines": list(map(_clean, section.lines)),
        "figures": [
            {"data": base64.b64encode(picture).decode(), "text": _clean(text)} for picture, text in section.figures
        ],
        "tables": [_table(table) for table in section.tables],
    }


def _table(table: DataTable) -> dict[str, Any]:
    rows = []
    for number, row in enumerate(table.rows):
        tags = table.tags[number] if table.tags else {}
        rows.append(
            {
                "cells": [_cell(cell) for cell in row],
                "tags": [(name, " ".join(words)) for name, words in tags.items()],
                "weak": bool(table.weak and table.weak[number]),
            }
        )
    return {
        "title": _clean(table.title),
        "heads": list(map(_clean, table.heads)),
        "rows": rows,
        "notes": list(map(_clean, table.notes)),
        "is_open": len(rows) <= MOST_OPEN,
    }


def _cell(cell: Any) -> dict[str, Any]:
    text, is_text = _clean(cell_text(cell)), isinstance(cell, str)
    return {"text": text, "is_text": is_text, "is_long": is_text and len(text) >= LONG_TEXT}


def script_json(value: Any) -> str:
    r"""Return a value as JSON that can stand in a `<script>`: no tag, comment or line end can begin in it.

    >>> script_json(["</script>"])
    '["\\u003c/script\\u003e"]'
    """
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"))
    text = text.encode("utf-8", "replace").decode()  # half a character is no text
    for letter in "<>&\u2028\u2029\x7f":
        text = text.replace(letter, f"\\u{ord(letter):04x}")
    return text


def _clean(text: str) -> str:
    """Return a text without control characters, which HTML cannot hold, and without halves of characters."""
    plain = "".join(one if one.isprintable() or one in "\n\t" or ord(one) >= 160 else "\ufffd" for one in text)
    return plain.encode("utf-8", "replace").decode()


def _hash(text: str) -> str:
    return f"sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}"
