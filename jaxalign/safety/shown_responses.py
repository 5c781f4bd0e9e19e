"""The responses that a report shows: the same prompts for every model, with what the judge said of each."""

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from jaxalign.safety.collection import Collection, ReportedModel
from jaxalign.safety.report_tables import category_name
from jaxalign.safety.states import BLANK, NOT_JUDGED

LONGEST_SHOWN = 1500
"""The longest text that is shown of a prompt or a response, in characters."""


class ShownResponse(NamedTuple):
    """A response with its judgement."""

    prompt: str
    """The text of the prompt."""
    text: str
    """What was judged of the response."""
    judge: str
    score: float | None
    label: str | None
    state: str


class PromptPlace(NamedTuple):
    """A prompt of a benchmark."""

    id: str
    category: str


def is_hidden(response: ShownResponse, threshold: float) -> bool:
    """Return whether a text is hidden until a reader asks for it: it is judged harmful, or nobody knows."""
    if response.state == BLANK:
        return False
    return response.state == NOT_JUDGED or response.score is None or response.score >= threshold


def shown_set(
    title: str,
    found: Collection,
    prompts: Sequence[PromptPlace],
    responses: Sequence[tuple[ReportedModel, Mapping[str, ShownResponse]]],
) -> dict[str, Any]:
    """Return a set of responses for `html_page`.

    Args:
        title: its title.
        found: the figures, which know the scales of the judges.
        prompts: the prompts that are shown.
        responses: for each model its responses by the id of the prompt.
    """
    thresholds = {one["judge"]: one["scale"][2] for one in found.judges}
    texts = {id: one.prompt for _, mine in reversed(responses) for id, one in mine.items()}
    listed = []
    for model, mine in responses:
        cells = []
        for place in prompts:
            one = mine.get(place.id)
            if one is None:
                cells.append(None)
                continue
            limit = thresholds.get(one.judge)
            said = [one.state, f"{one.judge} {'–' if one.score is None else f'{one.score:.2f}'}"]
            said += [one.label] if one.label else []
            hidden = is_hidden(one, math.inf if limit is None else float(limit))
            more = max(0, len(one.text) - LONGEST_SHOWN)
            cells.append([one.text[:LONGEST_SHOWN], ", ".join(said), int(hidden), more])
        name = model.title if model.mitigation == "none" else f"{model.title}, {model.mitigation}"
        values = " ".join(model.high_values)
        about = {"title": name, "value": values, "mitigation": model.mitigation, "base": model.is_base}
        listed.append({**about, "responses": cells})
    shown = [
        {
            "id": place.id,
            "category": place.category,
            "title": category_name(place.category),
            "text": texts.get(place.id, "")[:LONGEST_SHOWN],
        }
        for place in prompts
    ]
    return {"title": title, "prompts": shown, "models": listed}
