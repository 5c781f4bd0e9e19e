"""Judged responses as columns: what metrics read."""

from collections.abc import Iterable
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

    def of_category(self, name: str) -> "JudgedTable":
        """Return the rows of one category."""
        return self.where(self.category == self.categories.index(name))


def judged_table(rows: Iterable[JudgedRow]) -> JudgedTable:
    """Return rows, in any order, as columns.

    Raises:
        UserError: two rows are of one prompt and sample.
    """
    prompts: dict[str, int] = {}
    categories, groups, labels = prompts.copy(), prompts.copy(), prompts.copy()
    place = {state: number for number, state in enumerate(STATES)}
    columns: list[tuple[int, int, int, int, int, int, float]] = []
    for identifier, category, group, sample, judgement, state in rows:
        known = None if judgement is None or judgement.missing is not None else judgement
        score, label = (None, None) if known is None else (known.score, known.label)
        columns.append(
            (
                prompts.setdefault(identifier, len(prompts)),
                categories.setdefault(category, len(categories)),
                groups.setdefault(group, len(groups)),
                -1 if label is None else labels.setdefault(label, len(labels)),
                place[state],
                sample,
                float("nan") if score is None else score,
            )
        )
    kinds = (np.int32, np.int16, np.int32, np.int16, np.int8, np.int64, np.float64)
    parts = list(zip(*columns, strict=True)) or [()] * len(kinds)
    prompt, area, member, said, now, number, value = (np.array(*pair) for pair in zip(parts, kinds, strict=True))
    _check_unique(prompt, number, list(prompts))
    return JudgedTable(
        prompt, area, member, said, now, value, tuple(prompts), tuple(categories), tuple(groups), tuple(labels)
    )


def _check_unique(prompt: np.ndarray, sample: np.ndarray, prompts: list[str]) -> None:
    order = np.lexsort((sample, prompt))
    same = (np.diff(prompt[order]) == 0) & (np.diff(sample[order]) == 0)
    if same.any():
        row = order[int(np.argmax(same))]
        raise UserError(
            f"two responses are sample {sample[row]} of the prompt {prompts[prompt[row]]!r}: "
            "judge each run by itself, and give each prompt of a benchmark its own id"
        )
