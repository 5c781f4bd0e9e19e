"""Sets of instructions for benign controls: the everyday tasks, which are shipped with this project, and those of
Choi et al. (2025): Alpaca, Dolly, JFLEG and SAMSum."""

from dataclasses import dataclass
from pathlib import Path

from jaxalign.data.account import Log, account, beyond, count, unsaid
from jaxalign.data.examples import Example, take
from jaxalign.data.files import Row, read_table
from jaxalign.data.hub import download
from jaxalign.data.templates import check_template, fill_lines
from jaxalign.errors import UserError, did_you_mean

EVERYDAY_FILE = Path(__file__).parent / "everyday.jsonl"


@dataclass(frozen=True)
class HubFile:
    """A file of a data set on the hub (or a pattern), at a pinned revision."""

    repository: str
    revision: str
    file: str


@dataclass(frozen=True)
class InstructionSet:
    """Where a set is, and its fields: those `given` in the prompt (the first is required), and `answer`."""

    place: HubFile | Path
    given: tuple[str, ...]
    answer: str


INSTRUCTION_SETS: dict[str, InstructionSet] = {
    "everyday": InstructionSet(EVERYDAY_FILE, ("instruction", "input"), "response"),
    "alpaca": InstructionSet(
        HubFile("tatsu-lab/alpaca", "ad0d1bfba0420c623c7adafce3482ded744d4e21", "data/train-*.parquet"),
        ("instruction", "input"),
        "output",
    ),
    "dolly": InstructionSet(
        HubFile(
            "databricks/databricks-dolly-15k", "d72c16e4644a463b9c678c71d9440befd4594556", "databricks-dolly-15k.jsonl"
        ),
        ("instruction", "context"),
        "response",
    ),
    # JFLEG has no training split; its validation split is what is commonly trained on.
    "grammar": InstructionSet(
        HubFile("jhu-clsp/jfleg", "39b4958cfb3cfbf233a0724aceb3998937c6e058", "data/validation-*.parquet"),
        ("input",),
        "target",
    ),
    "samsum": InstructionSet(
        HubFile("knkarthick/samsum", "2a6b79b3e3c939aebb149d9109d7cdb78a9c2d3b", "train.csv"),
        ("dialogue",),
        "summary",
    ),
}


def load_instructions(
    name: str,
    path: str | None,
    *,
    prompt: str,
    offline: bool = False,
    limit: int | None = None,
    log: Log = unsaid,
) -> list[Example]:
    """Return the examples of a set. Rows without a task or an answer are dropped.

    Args:
        name: one of `INSTRUCTION_SETS`.
        path: a JSON, JSON Lines, CSV or Parquet file; None for the shipped file, or the hub.
        prompt: a template with the set's fields (`dataset.prompt`). A line of it whose fields are all empty is left
            out. If an example is too long, the end of its longest field may be cut off.
        offline: whether the network may not be used.
        limit: the largest number of examples; None for all.
        log: called with the line that says which files were read, and what is left aside.

    Raises:
        UserError: the name is not known, a row lacks a field (which), or there are fewer than 2 rows.
    """
    if name not in INSTRUCTION_SETS:
        raise UserError(f"dataset.name={name!r} is not known{did_you_mean(name, INSTRUCTION_SETS)}")
    form = INSTRUCTION_SETS[name]
    check_template("dataset.prompt", prompt, form.given, prompt=True)
    files, source = ([Path(path)], f"dataset.path={path}") if path else _published(form.place, offline)
    read = {file: [pair for row in read_table(file) for pair in _corrections(row)] for file in files}
    rows = [row for found in read.values() for row in found]
    examples = []
    for number, row in enumerate(rows):
        texts = _texts(row, form)
        if texts[form.given[0]] and texts[form.answer]:
            longest = max((texts[field] for field in form.given), key=len)
            example = Example(fill_lines(prompt, **texts), texts[form.answer], f"{name}-{number}", shorten=longest)
            examples.append(example)
    used = take(examples, limit, source)
    dropped = f"{len(rows) - len(examples):,} without task or answer" if len(examples) < len(rows) else ""
    sizes = {file: len(found) for file, found in read.items()}
    log(account("data", sizes, count(len(used), "example"), [dropped, beyond(len(examples), limit)]))
    return used


def _published(place: HubFile | Path, offline: bool) -> tuple[list[Path], str]:
    """Return the files of a set, and what to call them in an error line."""
    if isinstance(place, Path):
        return [place], "the shipped data"
    return download(place.repository, place.revision, (place.file,), offline=offline), place.repository


def _corrections(row: Row) -> list[Row]:
    """Return a row for each correction of a sentence (as in JFLEG), or the row itself if it has none."""
    corrections = row.fields.get("corrections")
    if "sentence" not in row.fields or not isinstance(corrections, list):
        return [row]
    return [Row(row.place, {"input": row.fields["sentence"], "target": target}) for target in corrections]


def _texts(row: Row, form: InstructionSet) -> dict[str, str]:
    texts = {}
    for field in (*form.given, form.answer):
        if field not in row.fields:
            raise UserError(f"{row.place} lacks the field {field!r}; {row.in_words}")
        text = row.fields[field]
        if text is not None and not isinstance(text, str):
            raise UserError(f"{row.place} has {field}={text!r}: it must be a text")
        texts[field] = (text or "").replace("\r\n", "\n").strip()
    return texts
