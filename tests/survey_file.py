"""Files of a survey, as the European Social Survey publishes them."""

from pathlib import Path

import numpy as np

from jaxalign.values.social_survey import ALL_ITEMS


def write_survey(path, people, names=ALL_ITEMS, mark=",", encoding="utf-8", extra=("idno",)):
    """Write answers as a survey file does, with a further column; `names` are the columns' names."""
    lines = [mark.join([*extra, *names])]
    for number, person in enumerate(people):
        lines.append(mark.join([*(f"Müller {number}" for _ in extra), *(str(person[item]) for item in ALL_ITEMS)]))
    path.write_bytes(("\n".join(lines) + "\n").encode(encoding))
    return path


def forty_people(path: Path) -> Path:
    """Write a survey of forty different people, and return its path."""
    random = np.random.default_rng(1)
    people = [{item: int(random.integers(1, 7)) for item in ALL_ITEMS} for _ in range(40)]
    return write_survey(path, people)
