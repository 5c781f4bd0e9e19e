"""Readers of benchmarks: the shipped ones, and those of others in the form in which their owners publish them."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from jaxalign.data.columns import Columns
from jaxalign.data.files import Row, csv_records, read_table
from jaxalign.data.hub import download
from jaxalign.errors import UserError
from jaxalign.runs.reading import not_a_file, read_text
from jaxalign.safety.benchmarks.benchmark import BENCHMARKS, BenchmarkPrompt, BenchmarkSource
from jaxalign.safety.benchmarks.holistic_bias import holistic_bias_prompts
from jaxalign.safety.categories import CATEGORIES, HEX_PHI, read_category
from jaxalign.safety.starter_prompts import COMPLETION, QUESTION, StarterPrompt, load_over_refusal, load_starter_prompts

TOXIC_FROM = 0.5
"""RealToxicityPrompts: the least toxicity of a prompt that is asked, and how many of them (Choi et al., 2025)."""
TOXIC_PROMPTS = 3000

_COLUMNS = Columns(published=True)


def read_benchmark(
    name: str,
    path: str | Path | None = None,
    *,
    phrases: str | None = None,
    templates: str | None = None,
    offline: bool = False,
) -> list[BenchmarkPrompt]:
    """Return all prompts of a benchmark, each with an id of its own.

    Args:
        name: a key of `BENCHMARKS`.
        path: a file (of HEx-PHI also the folder with its files) in the form in which the owner publishes the
            benchmark; None takes the shipped prompts, or those of the hub.
        phrases: for holisticbias_r without `path`: the user's file of noun phrases (see `holistic_bias`).
        templates: the same for the file of templates.
        offline: whether the hub is left alone.

    Raises:
        UserError: the prompts cannot be got (the line says how), or the file lacks a column, names a category that the
            benchmark does not have, has an id twice, or holds no prompt.
    """
    source = BENCHMARKS[name]
    if path is not None:
        place = Path(path)
        if not (place.is_dir() and name == "hex_phi") and (why := not_a_file(place)):
            raise UserError(f"benchmark.path={path} is not a file ({why}); {source.access or 'give a .jsonl file'}")
        paths = sorted(place.glob("category_*.csv")) if place.is_dir() else [place]
    elif name == "holisticbias_r" and phrases is not None and templates is not None:
        return _checked(holistic_bias_prompts(Path(phrases), Path(templates)), str(phrases))
    elif source.ships:
        paths = []
    else:
        paths = _downloaded(source, offline)
    if not paths and not source.ships:
        raise UserError(f"{path} has no files category_1.csv to category_11.csv: {source.access}")
    return _checked(_READERS[name](paths), ", ".join(map(str, paths)) or name)


def _downloaded(source: BenchmarkSource, offline: bool) -> list[Path]:
    if source.repository is None:
        raise UserError(f"benchmark={source.name} does not come with this program: {source.access}")
    try:
        return download(source.repository, source.revision, source.files, offline=offline)
    except UserError as error:
        line = str(error).replace("dataset.path", "benchmark.path")
        raise UserError(line if source.access in line else f"{line}; {source.access}") from error


def _checked(prompts: Sequence[BenchmarkPrompt], place: str) -> list[BenchmarkPrompt]:
    seen: set[str] = set()
    for prompt in prompts:
        if prompt.id in seen:
            raise UserError(f"{place} repeats the id {prompt.id!r}: give each prompt an id of its own")
        seen.add(prompt.id)
    if not prompts:
        raise UserError(f"{place} holds no prompt of this benchmark")
    return list(prompts)


def _id(row: Row, default: str) -> str:
    value = row.fields.get("id", default)
    if isinstance(value, bool) or not isinstance(value, str | int) or not str(value).strip():
        raise UserError(f"{row.place} has id={value!r}: it must be a text or a whole number")
    return str(value)


def _of_starter_prompts(
    load: Callable[[Path | None], list[StarterPrompt]],
) -> Callable[[list[Path]], list[BenchmarkPrompt]]:
    def read(paths: list[Path]) -> list[BenchmarkPrompt]:
        found = load(paths[0] if paths else None)
        return [BenchmarkPrompt(one.id, one.category, one.form, one.prompt) for one in found]

    return read


def _real_toxicity(paths: list[Path]) -> list[BenchmarkPrompt]:
    """The first 3,000 prompts of at least toxicity 0.5: prompt={text, toxicity}, filename, begin, end."""
    found: list[BenchmarkPrompt] = []
    for number, row in enumerate(read_table(paths[0]), start=1):
        prompt = _COLUMNS.get(row, "prompt")
        if not isinstance(prompt, dict) or not isinstance(prompt.get("text"), str) or "toxicity" not in prompt:
            raise UserError(f"{row.place} has no prompt with text and toxicity, as RealToxicityPrompts has them")
        score: Any = prompt["toxicity"]
        if score is not None and (isinstance(score, bool) or not isinstance(score, int | float)):
            raise UserError(f"{row.place} has toxicity={score!r}: it must be a number, or null")
        if score is not None and score >= TOXIC_FROM and prompt["text"].strip():
            where = [row.fields.get(name) for name in ("filename", "begin", "end")]
            told = f"{number}" if None in where else "-".join(map(str, where))
            found.append(BenchmarkPrompt(_id(row, told), "toxicity", COMPLETION, prompt["text"]))
            if len(found) == TOXIC_PROMPTS:
                break
    return found


def _hex_phi(paths: list[Path]) -> list[BenchmarkPrompt]:
    """The owner's files, one a category and without a header; or one table with prompt and category."""
    if not all(path.stem in {one.published for one in HEX_PHI.values()} for path in paths):
        return _with_categories("hex_phi")(paths)
    found = []
    for path in sorted(paths, key=lambda one: int(one.stem.rpartition("_")[2])):
        category = read_category(path.stem, "hex_phi", str(path))
        for number, (line, cells) in enumerate(csv_records(path, read_text(path)), start=1):
            if len(cells) != 1 or not cells[0].strip():
                raise UserError(f"{path} line {line} has {len(cells)} columns: a file of HEx-PHI has one, the prompt")
            found.append(BenchmarkPrompt(f"{category}_{number}", category, QUESTION, cells[0].strip()))
    return found


def _with_categories(name: str) -> Callable[[list[Path]], list[BenchmarkPrompt]]:
    """Return the reader of tables with prompt, category and maybe id."""

    def read(paths: list[Path]) -> list[BenchmarkPrompt]:
        rows = [row for path in paths for row in read_table(path)]
        found = []
        for number, row in enumerate(rows, start=1):
            category = read_category(_COLUMNS.text(row, "category"), name, row.place)
            found.append(BenchmarkPrompt(_id(row, str(number)), category, QUESTION, _COLUMNS.text(row, "prompt")))
        return found

    return read


def _xstest(paths: list[Path]) -> list[BenchmarkPrompt]:
    """The safe prompts of XSTest (Röttger et al., 2023, arXiv 2308.01263): id, prompt, type, and maybe label."""
    found = []
    for number, row in enumerate(read_table(paths[0]), start=1):
        kind = _COLUMNS.text(row, "type")
        if kind not in CATEGORIES["xstest"] and not kind.startswith("contrast_"):
            raise UserError(f"{row.place} has an unknown type {kind!r}: XSTest has {', '.join(CATEGORIES['xstest'])}")
        if not kind.startswith("contrast_") and row.fields.get("label", "safe") == "safe":
            found.append(BenchmarkPrompt(_id(row, str(number)), kind, QUESTION, _COLUMNS.text(row, "prompt")))
    return found


def _holistic(paths: list[Path]) -> list[BenchmarkPrompt]:
    """Prompts that are made already: prompt, axis, descriptor and maybe id."""
    found = []
    for number, row in enumerate(read_table(paths[0]), start=1):
        axis = read_category(_COLUMNS.text(row, "axis"), "holisticbias_r", row.place)
        text, group = _COLUMNS.text(row, "prompt"), _COLUMNS.text(row, "descriptor")
        found.append(BenchmarkPrompt(_id(row, str(number)), axis, COMPLETION, text, group))
    return found


_READERS: dict[str, Callable[[list[Path]], list[BenchmarkPrompt]]] = {
    "starter_probes": _of_starter_prompts(load_starter_prompts),
    "over_refusal": _of_starter_prompts(load_over_refusal),
    "realtoxicityprompts": _real_toxicity,
    "holisticbias_r": _holistic,
    "hex_phi": _hex_phi,
    "beavertails": _with_categories("beavertails"),
    "xstest": _xstest,
}
