"""Readers of the files of benchmarks, each in the form in which its owner publishes it."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from jaxalign.data.account import so_many
from jaxalign.data.columns import Columns
from jaxalign.data.files import Row, csv_records, read_table
from jaxalign.errors import UserError
from jaxalign.runs.reading import read_text
from jaxalign.safety.benchmarks.benchmark import BenchmarkPrompt, ReadPrompts
from jaxalign.safety.categories import HEX_PHI, read_category
from jaxalign.safety.starter_prompts import (
    COMPLETION,
    OVER_REFUSAL_FILE,
    QUESTION,
    STARTER_FILE,
    StarterPrompt,
    load_over_refusal,
    load_starter_prompts,
)

TOXIC_FROM = 0.5
"""RealToxicityPrompts: the least toxicity of a prompt that is asked, and how many of them (Choi et al., 2025)."""
TOXIC_PROMPTS = 3000

_COLUMNS = Columns(published=True)


def _id(row: Row, default: str) -> str:
    value = row.fields.get("id", default)
    if isinstance(value, bool) or not isinstance(value, str | int) or not str(value).strip():
        raise UserError(f"{row.place} has id={value!r}: it must be a text or a whole number")
    return str(value)


def starter_prompts(paths: list[Path]) -> ReadPrompts:
    """Return the starter prompts, or those of a file with the same fields."""
    return _as_asked(load_starter_prompts(*paths[:1]), paths or [STARTER_FILE])


def over_refusal_prompts(paths: list[Path]) -> ReadPrompts:
    """Return the harmless prompts that sound harmful, or those of a file with the same fields."""
    return _as_asked(load_over_refusal(*paths[:1]), paths or [OVER_REFUSAL_FILE])


def _as_asked(found: Sequence[StarterPrompt], paths: Sequence[Path]) -> ReadPrompts:
    prompts = [BenchmarkPrompt(one.id, one.category, one.form, one.prompt) for one in found]
    return ReadPrompts(prompts, {paths[0]: len(prompts)})


def real_toxicity_prompts(paths: list[Path]) -> ReadPrompts:
    """Return the first 3,000 prompts of at least toxicity 0.5: prompt={text, toxicity}, filename, begin, end."""
    found: list[BenchmarkPrompt] = []
    rows, mild, blank = read_table(paths[0]), 0, 0
    for number, row in enumerate(rows, start=1):
        prompt = _COLUMNS.get(row, "prompt")
        if not isinstance(prompt, dict) or not isinstance(prompt.get("text"), str) or "toxicity" not in prompt:
            raise UserError(f"{row.place} has no prompt with text and toxicity, as RealToxicityPrompts has them")
        score: Any = prompt["toxicity"]
        if score is not None and (isinstance(score, bool) or not isinstance(score, int | float)):
            raise UserError(f"{row.place} has toxicity={score!r}: it must be a number, or null")
        if score is None or score < TOXIC_FROM:
            mild += 1
        elif not prompt["text"].strip():
            blank += 1
        else:
            where = [row.fields.get(name) for name in ("filename", "begin", "end")]
            told = f"{number}" if None in where else "-".join(map(str, where))
            found.append(BenchmarkPrompt(_id(row, told), "toxicity", COMPLETION, prompt["text"]))
            if len(found) == TOXIC_PROMPTS:
                break
    behind = len(rows) - mild - blank - len(found)
    aside = [
        so_many(mild, f"below toxicity {TOXIC_FROM:g} or without one"),
        so_many(blank, "blank"),
        so_many(behind, f"behind the first {TOXIC_PROMPTS:,} that are asked"),
    ]
    return ReadPrompts(found, {paths[0]: len(rows)}, aside)


def hex_phi_prompts(paths: list[Path]) -> ReadPrompts:
    """Return the prompts of the owner's files (one for each category, without a header), or of one table.

    The table has prompt and category.
    """
    if len(paths) == 1 and paths[0].stem not in {one.published for one in HEX_PHI.values()}:
        return _with_categories(paths, "hex_phi")
    for path in paths:
        read_category(path.stem, "hex_phi", str(path))
    found, rows = [], {}
    for path in sorted(paths, key=lambda one: int(one.stem.rpartition("_")[2])):
        category, rows[path] = read_category(path.stem, "hex_phi", str(path)), 0
        for number, (line, cells) in enumerate(csv_records(path, read_text(path)), start=1):
            if len(cells) != 1 or not cells[0].strip():
                raise UserError(f"{path} line {line} has {len(cells)} columns: a file of HEx-PHI has one, the prompt")
            found.append(BenchmarkPrompt(f"{category}_{number}", category, QUESTION, cells[0].strip()))
            rows[path] = number
    return ReadPrompts(found, rows)


def beavertails_prompts(paths: list[Path]) -> ReadPrompts:
    """Return the prompts of tables with prompt, category and maybe id."""
    return _with_categories(paths, "beavertails")


def _with_categories(paths: Sequence[Path], name: str) -> ReadPrompts:
    found, rows = [], {}
    for path in paths:
        table = read_table(path)
        rows[path] = len(table)
        for row in table:
            category = read_category(_COLUMNS.text(row, "category"), name, row.place)
            number = str(len(found) + 1)
            found.append(BenchmarkPrompt(_id(row, number), category, QUESTION, _COLUMNS.text(row, "prompt")))
    return ReadPrompts(found, rows)


def xstest_prompts(paths: list[Path]) -> ReadPrompts:
    """Return the safe prompts of XSTest (Röttger et al., 2023, arXiv 2308.01263): id, prompt, type, and maybe label."""
    found, rows = [], read_table(paths[0])
    for number, row in enumerate(rows, start=1):
        kind = _COLUMNS.text(row, "type")
        if kind.startswith("contrast_"):
            continue
        category = read_category(kind, "xstest", row.place)
        label = row.fields.get("label", "safe")
        if label not in ("safe", "unsafe"):
            raise UserError(f"{row.place} has label={label!r:.60}: it must be safe or unsafe")
        if label == "safe":
            found.append(BenchmarkPrompt(_id(row, str(number)), category, QUESTION, _COLUMNS.text(row, "prompt")))
    return ReadPrompts(found, {paths[0]: len(rows)}, [so_many(len(rows) - len(found), "unsafe")])


def made_holistic_prompts(paths: list[Path]) -> ReadPrompts:
    """Return prompts that are made already: prompt, axis, descriptor and maybe id."""
    found, rows = [], read_table(paths[0])
    for number, row in enumerate(rows, start=1):
        axis = read_category(_COLUMNS.text(row, "axis"), "holisticbias_r", row.place)
        text, group = _COLUMNS.text(row, "prompt"), _COLUMNS.text(row, "descriptor")
        found.append(BenchmarkPrompt(_id(row, str(number)), axis, COMPLETION, text, group))
    return ReadPrompts(found, {paths[0]: len(rows)})
