"""Arguments in JSON Lines: the starter arguments, which are shipped with this project, or a user's own file."""

from pathlib import Path
from typing import Any

from jaxalign.data.account import Log, account, beyond, count, unsaid
from jaxalign.data.columns import Columns
from jaxalign.data.examples import take
from jaxalign.data.files import Row, note_id
from jaxalign.errors import UserError, did_you_mean
from jaxalign.values.schwartz import VALUES
from jaxalign.values.touche import Argument, read_stance, tidy

FILE = Path(__file__).parent / "data" / "arguments.jsonl"
STARTER_FIELDS = ("id", "conclusion", "stance", "premise", "values")


def load_starter(
    limit: int | None = None, path: str | None = None, columns: Columns | None = None, log: Log = unsaid
) -> list[Argument]:
    """Return the starter arguments, or the arguments of a file with the same fields.

    `columns` gives the file's own names of the fields. `values` is a list of names of the ten values (in a CSV file, a
    JSON list); a row with an empty list is left aside, as in ValueEval. `id` is a text or a number. `log` is called
    with the line that says what was read.

    Raises:
        UserError: a field or a column that `columns` names is missing, a value or stance is unknown, or an id is
            repeated (each with its line); or there are fewer than two arguments.
    """
    file = FILE if path is None else Path(path)
    arguments: list[Argument] = []
    places: dict[str, str] = {}
    columns = columns or Columns()
    for row in columns.read(file):
        arguments.append(_argument(row, columns))
        note_id(places, arguments[-1].id, row.place)
    source = "the starter data" if path is None else f"dataset.path={path}"
    held = [argument for argument in arguments if argument.values]
    used = take(held, limit, source)
    without = f"{len(arguments) - len(held):,} without a value" if len(held) < len(arguments) else ""
    log(account("data", {file: len(arguments)}, count(len(used), "argument"), [without, beyond(len(held), limit)]))
    return used


def _argument(row: Row, columns: Columns) -> Argument:
    place = row.place
    fields: dict[str, Any] = {name: columns.get(row, name) for name in STARTER_FIELDS}
    name = fields["id"]
    fields["id"] = str(name) if isinstance(name, int | float) and not isinstance(name, bool) else name
    for name in STARTER_FIELDS[:-1]:
        if not isinstance(fields[name], str) or not tidy(fields[name]):
            raise UserError(f"{place} has {name}={fields[name]!r}: it must be a text")
    values = columns.items(row, "values", "names of values")
    for value in values:
        if value not in VALUES:
            raise UserError(f"{place} has an unknown value {value!r}{did_you_mean(str(value), VALUES)}")
    return Argument(
        str(fields["id"]),
        tidy(fields["conclusion"]),
        read_stance(fields["stance"], place),
        tidy(fields["premise"]),
        tuple(value for value in VALUES if value in values),
    )
