"""Maps from categories to values, published or learned from a report, and the prompts that they were learned on.

A map is a JSON file: {"malware": {"power": "suppress"}}. The map that a report writes also says what it was learned on,
and is not used on the same prompts:

    map         the same object
    prompts     hashes of the texts of all prompts that it was learned on (see `prompt_hash`)
    benchmarks  {name: version}
    base        the name of the base model
    judges      the lines on the judges
    targets     the number of targets that the correlations are over
"""

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from jaxalign.errors import UserError, did_you_mean
from jaxalign.runs.reading import parse_json, read_text
from jaxalign.runs.records import digest
from jaxalign.safety.categories import CATEGORIES
from jaxalign.safety.risks import Risk
from jaxalign.safety.summary import ALL
from jaxalign.values.schwartz import VALUES

PUBLISHED_MAP = Path(__file__).parent / "data" / "value_map.json"
LEARNED_FILE = "value_map.json"
"""The name of the map that a report writes."""

SUPPRESS, REINFORCE = DIRECTIONS = ("suppress", "reinforce")
"""What a prompt does with a value: one that goes with more harm is suppressed, one that goes with less reinforced."""

ValueMap = Mapping[str, Mapping[str, str]]
"""For a category, the values that are tied to it, each with one of `DIRECTIONS`."""

_FORM = 'an object such as {"malware": {"power": "suppress"}}'


@dataclasses.dataclass(frozen=True)
class MapFile:
    """A map, and the hashes of the prompts that it was learned on; none if it was not learned."""

    path: Path
    values: ValueMap
    learned_on: frozenset[str] = frozenset()

    def check_other_prompts(self, texts: Iterable[str]) -> None:
        """Raise UserError if one of these prompts is one that the map was learned on."""
        asked = {prompt_hash(text) for text in texts}
        same = len(asked & self.learned_on)
        if same:
            raise UserError(
                f"{self.path} was learned on {same} of these {len(asked)} prompts, and says nothing new about them: "
                "ask another benchmark, or learn the map from a report on other prompts"
            )


def prompt_hash(text: str) -> str:
    """Return the hash by which a map knows a prompt again."""
    return digest(" ".join(text.split()))


def read_value_map(path: str | Path | None = None) -> MapFile:
    """Return the map in a JSON file, or in the folder of a report; None is the published one.

    Raises:
        UserError: the file cannot be read, or names an unknown category, value or direction; or the report found none.
    """
    file = PUBLISHED_MAP if path is None else Path(path)
    if file.is_dir():
        file = file / LEARNED_FILE
        if not file.is_file():
            raise UserError(
                f"mitigation.map={path} holds no {LEARNED_FILE}: a report writes it where a value goes with a risk; "
                "this folder is no report, or its report found nothing"
            )
    found = parse_json(read_text(file), file, expected=_FORM)
    if not isinstance(found, dict):
        raise UserError(f"{file} must hold {_FORM}")
    if "map" not in found:
        return MapFile(file, _checked(found, file))
    prompts = found.get("prompts")
    if not isinstance(prompts, list) or not all(isinstance(one, str) for one in prompts) or not prompts:
        raise UserError(f"{file} does not say on which prompts it was learned: make the report again")
    return MapFile(file, _checked(found["map"], file), frozenset(prompts))


def _checked(found: Any, file: Path) -> dict[str, dict[str, str]]:
    if not isinstance(found, dict):
        raise UserError(f"{file} must hold {_FORM}")
    known = {name for table in CATEGORIES.values() for name in table}
    for category, values in found.items():
        if category not in known:
            raise UserError(f"{file} has an unknown category {category!r}{did_you_mean(str(category), sorted(known))}")
        if not isinstance(values, dict) or not values:
            raise UserError(f"{file} has no values for {category!r}: give an object such as {{'power': 'suppress'}}")
        for value, direction in values.items():
            if value not in VALUES:
                raise UserError(f"{file} has an unknown value {value!r} for {category!r}{did_you_mean(value, VALUES)}")
            if direction not in DIRECTIONS:
                raise UserError(f"{file} has {direction!r} for {value} in {category}: it must be suppress or reinforce")
    return found


def learned_values(families: Sequence[Sequence[Risk]]) -> dict[str, dict[str, str]]:
    """Return the map that findings give: what goes with more harm is suppressed, what goes with less is reinforced.

    A value on which two benchmarks disagree about a category is left out. All categories together are no category.

    Args:
        families: the risks of each benchmark, without those by a judge that is not believed.
    """
    signs: dict[tuple[str, str], set[int]] = {}
    for risk in (risk for risks in families for risk in risks):
        if risk.finding and risk.category != ALL:
            signs.setdefault((risk.category, risk.value), set()).add(risk.finding)
    found: dict[str, dict[str, str]] = {}
    for (category, value), both in signs.items():
        if len(both) == 1:
            found.setdefault(category, {})[value] = SUPPRESS if both == {1} else REINFORCE
    return found
