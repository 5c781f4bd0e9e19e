"""Judged responses as columns: what metrics read."""

from collections.abc import Container, Sequence
from dataclasses import dataclass, fields, replace
from typing import NamedTuple

import numpy as np

from jaxalign.errors import UserError
from jaxalign.safety.judgements import Judgement
from jaxalign.safety.states import BLANK, NOT_JUDGED, REPETITIVE, SPOKEN, STATES


class JudgedRow(NamedTuple):
    """One response to one prompt, with its judgement."""

    id: str
    """The prompt's id in its benchmark."""
    category: str
    """The prompt's category, or its axis."""
    group: str
    """What else groups prompts, such as the descriptor of HolisticBias; it may be empty."""
    sample: int
    """The number of the response among those to its prompt."""
    judgement: Judgement | None
    """None if it was never judged."""
    state: str
    """One of `STATES` (see `answer_state`)."""


@dataclass(frozen=True)
class JudgedTable:
    """The judged responses of one model to one benchmark, by one judge; the columns are [N].

    `prompt`, `category`, `group` and `label` hold the places of names in the tuples; a label of -1 is none.
    """

    prompt: np.ndarray
    category: np.ndarray
    group: np.ndarray
    label: np.ndarray
    state: np.ndarray
    """The place in `STATES`."""
    score: np.ndarray
    """On the judge's scale; NaN if there is none."""
    prompts: tuple[str, ...]
    categories: tuple[str, ...]
    groups: tuple[str, ...]
    labels: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.prompt)

    @property
    def spoken(self) -> np.ndarray:
        """[N]: whether a response says something (see `SPOKEN`)."""
        return np.isin(self.state, [STATES.index(state) for state in SPOKEN])

    @property
    def silent(self) -> np.ndarray:
        """[N]: whether a response is blank or repetitive."""
        return np.isin(self.state, [STATES.index(BLANK), STATES.index(REPETITIVE)])

    @property
    def judged(self) -> np.ndarray:
        """[N]: whether a response is judged, as far as its state says."""
        return self.state != STATES.index(NOT_JUDGED)

    def where(self, chosen: np.ndarray) -> "JudgedTable":
        """Return the rows where `chosen` [N] is true; the names stay."""
        columns = {one.name: getattr(self, one.name) for one in fields(self)}
        return replace(self, **{name: x[chosen] for name, x in columns.items() if isinstance(x, np.ndarray)})

    def of_prompts(self, ids: Container[str]) -> "JudgedTable":
        """Return the rows of some prompts."""
        return self.where(np.isin(self.prompt, [place for place, id in enumerate(self.prompts) if id in ids]))

    def of_category(self, name: str) -> "JudgedTable":
        """Return the rows of one category."""
        return self.where(self.category == self.categories.index(name))


def columns_as_table(
    ids: Sequence[str],
    categories: Sequence[str],
    groups: Sequence[str],
    samples: Sequence[int],
    scores: Sequence[float | None],
    labels: Sequence[str | None],
    states: Sequence[str],
) -> JudgedTable:
    """Return columns [N] of `JudgedRow`, with the scores and labels of judgements that are not missing, as a table.

    Raises:
        UserError: two rows are of one prompt and sample.
    """
    prompt, prompts = _places(ids, np.int32)
    category, names = _places(categories, np.int16)
    group, members = _places(groups, np.int32)
    known = {name: place for place, name in enumerate(dict.fromkeys(one for one in labels if one is not None))}
    label, state = {None: -1, **known}, {name: number for number, name in enumerate(STATES)}
    _check_unique(prompt, np.array(samples, np.int64), prompts)
    return JudgedTable(
        prompt,
        category,
        group,
        np.fromiter(map(label.__getitem__, labels), np.int16, len(labels)),
        np.fromiter(map(state.__getitem__, states), np.int8, len(states)),
        np.array(scores, np.float64),  # which makes None NaN
        prompts,
        names,
        members,
        tuple(known),
    )


def _places(names: Sequence[str], kind: type) -> tuple[np.ndarray, tuple[str, ...]]:
    """Return for each name [N] its place among the different ones, and these."""
    known = {name: place for place, name in enumerate(dict.fromkeys(names))}
    return np.fromiter(map(known.__getitem__, names), kind, len(names)), tuple(known)


def _check_unique(prompt: np.ndarray, sample: np.ndarray, prompts: Sequence[str]) -> None:
    order = np.lexsort((sample, prompt))
    same = (np.diff(prompt[order]) == 0) & (np.diff(sample[order]) == 0)
    if same.any():
        row = order[int(np.argmax(same))]
        raise UserError(
            f"two responses are sample {sample[row]} of the prompt {prompts[int(prompt[row])]!r}: "
            "judge each run by itself, and give each prompt of a benchmark its own id"
        )
