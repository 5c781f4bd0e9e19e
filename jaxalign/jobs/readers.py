"""The readers of data sets by name, for each kind of data. To add a data set, add its reader here."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from jaxalign.config.dataset import ArgumentsConfig, DatasetConfig, InstructionsConfig, PairsConfig, QuestionsConfig
from jaxalign.data.columns import Columns
from jaxalign.data.datasets.instructions import INSTRUCTION_SETS, load_instructions
from jaxalign.data.datasets.own import load_own_instructions
from jaxalign.data.datasets.pairs import PairText, load_pairs
from jaxalign.data.datasets.puzzles import make_puzzles
from jaxalign.data.datasets.questions import QUESTION_SETS, Questions, load_questions
from jaxalign.data.examples import Example
from jaxalign.errors import UserError, did_you_mean
from jaxalign.runs.progress import print_line
from jaxalign.values.starter import load_starter
from jaxalign.values.touche import Argument, load_arguments

FIXED_COLUMNS = {"starter", "touche23", "puzzles", *INSTRUCTION_SETS, *QUESTION_SETS} - {"jsonl"}
"""The data sets of this package whose columns have fixed names."""


def own_columns(dataset: DatasetConfig) -> Columns:
    """Return the names of the fields in the user's file."""
    return Columns(dataset.columns.given)


ARGUMENT_READERS: dict[str, Callable[[ArgumentsConfig, bool], list[Argument]]] = {
    "starter": lambda dataset, offline: load_starter(dataset.limit, dataset.path, log=print_line),
    "touche23": lambda dataset, offline: load_arguments(
        dataset.path, offline=offline, limit=dataset.limit, log=print_line
    ),
    "jsonl": lambda dataset, offline: load_starter(dataset.limit, dataset.path, own_columns(dataset), print_line),
}
"""The readers of arguments by `dataset.name`, called with (`dataset`, `offline`)."""


def _read_instructions(dataset: InstructionsConfig, offline: bool) -> list[Example]:
    return load_instructions(
        dataset.name, dataset.path, prompt=dataset.prompt or "", offline=offline, limit=dataset.limit, log=print_line
    )


INSTRUCTION_READERS: dict[str, Callable[[InstructionsConfig, bool], list[Example]]] = {
    **{name: _read_instructions for name in INSTRUCTION_SETS},
    "jsonl": lambda dataset, offline: load_own_instructions(
        str(dataset.path), dataset.limit, own_columns(dataset), print_line
    ),
}
"""The readers of instructions by `dataset.name`, called in the same way."""


def _read_pairs(dataset: PairsConfig, offline: bool) -> list[PairText]:
    return load_pairs(str(dataset.path), dataset.limit, own_columns(dataset), print_line)


PAIR_READERS: dict[str, Callable[[PairsConfig, bool], list[PairText]]] = {"pairs": _read_pairs, "jsonl": _read_pairs}
"""The readers of preference pairs by `dataset.name`, called in the same way."""


def _read_questions(dataset: QuestionsConfig, offline: bool, seed: int, exclude: Sequence[str]) -> Questions:
    return load_questions(
        dataset.name,
        dataset.path,
        seed=seed,
        limit=dataset.limit,
        exclude=exclude,
        skip=dataset.skip,
        offline=offline,
        columns=own_columns(dataset),
        log=print_line,
    )


def _read_puzzles(dataset: QuestionsConfig, offline: bool, seed: int, exclude: Sequence[str]) -> Questions:
    sizes = {name: getattr(dataset, name) or 1 for name in ("train", "validation", "test")}
    made = make_puzzles(**sizes, solved=dataset.solved, links=dataset.links, turned=dataset.turned, seed=seed)
    made = dataclasses.replace(made, **{name: getattr(made, name)[: dataset.limit] for name in sizes})
    print(f"questions: made by the program; used: {made.sizes}")
    return made


QUESTION_READERS: dict[str, Callable[[QuestionsConfig, bool, int, Sequence[str]], Questions]] = {
    "puzzles": _read_puzzles,
    **{name: _read_questions for name in QUESTION_SETS},
}
"""The readers of questions by `dataset.name`, called with (`dataset`, `offline`, `seed`, `exclude`): `training.seed`
for all random choices, and the ids of questions that are worked examples and must be left out."""


def reader_of(readers: Mapping[str, Callable[..., Any]], dataset: DatasetConfig) -> Callable[..., Any]:
    """Return the reader of a data set.

    Raises:
        UserError: there is no reader of this name, or columns are named although the data set has fixed ones.
    """
    name = dataset.name
    if name not in readers:
        raise UserError(f"dataset.name={name!r} is not known{did_you_mean(name, readers)}")
    if dataset.columns.given and name in FIXED_COLUMNS:
        raise UserError(f"dataset.columns is for a file of your own: give dataset=jsonl, not dataset={name}")
    return readers[name]
