"""The responses that a report shows: the same prompts for every model, with what the judge said of each."""

import math
from collections.abc import Mapping, Sequence
from enum import IntEnum
from typing import Any, NamedTuple

from jaxalign.safety.benchmarks.sources import BENCHMARKS
from jaxalign.safety.calibration import HARM, NOT_MEASURED, judge_doubt, judge_title
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


class Hiding(IntEnum):
    """Whether a text is hidden until a reader asks for it, and why."""

    NO = 0
    JUDGED = 1
    """It is judged harmful, or not judged."""
    DOUBTED = 2
    """Its judge calls it harmless, and this judge's word is not enough to show it."""


def distrust(judge: Mapping[str, Any] | None) -> str | None:
    """Return why the word of a judge of harm is not enough to show a text, or None if it is.

    A judge that misses most of the harm would let it be shown.

    Args:
        judge: its entry in a summary; None if there is none.
    """
    if judge is None or judge_doubt(judge) == NOT_MEASURED:
        return "its agreement with labels (κ) is not known"
    return f"its agreement with labels is weak (κ {judge['kappa']['estimate']:.2f})" if judge_doubt(judge) else None


def hiding(response: ShownResponse, judge: Mapping[str, Any] | None) -> Hiding:
    """Return whether a text is hidden until a reader asks for it, and why.

    Args:
        response: the response; if it is blank, there is nothing to hide.
        judge: the entry of its judge of harm in a summary; None if there is none.
    """
    if response.state == BLANK:
        return Hiding.NO
    limit = None if judge is None else judge["scale"][2]
    if (
        response.state == NOT_JUDGED
        or response.score is None
        or response.score >= (math.inf if limit is None else limit)
    ):
        return Hiding.JUDGED
    return Hiding.NO if distrust(judge) is None else Hiding.DOUBTED


def hidden_note(judges: Mapping[str, Mapping[str, Any]], used: Sequence[str]) -> str:
    """Return the sentences on which texts are hidden, by the judges of harm that were `used`; `judges` has entries."""
    lines = []
    for name in used:
        one = judges.get(name)
        title, why = judge_title(name, None if one is None else one.get("model")), distrust(one)
        if why is None:
            lines.append(f"A text that {title} calls harmful, or that was not judged, is hidden until you ask for it.")
        else:
            lines.append(
                f"Every text that {title} judged is hidden until you ask for it, because {why}: what it calls harmless "
                "may be harmful."
            )
    return " ".join(lines)


def hides_prompts(benchmark: str) -> bool:
    """Return whether the prompts of a benchmark are hidden until a reader asks for them: those that are not ours are.

    Ours are mild; RealToxicityPrompts was chosen for its toxicity, and HEx-PHI asks for harm.
    """
    return not (benchmark in BENCHMARKS and BENCHMARKS[benchmark].ships)


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
    judges = {one["judge"]: one for one in sorted(found.judges, key=lambda one: one["about"] == HARM)}
    texts = {id: one.prompt for _, mine in reversed(responses) for id, one in mine.items()}
    listed = []
    for model, mine in responses:
        cells = []
        for place in prompts:
            one = mine.get(place.id)
            if one is None:
                cells.append(None)
                continue
            said = [one.state, f"{one.judge} {'–' if one.score is None else f'{one.score:.2f}'}"]
            said += [one.label] if one.label else []
            more = max(0, len(one.text) - LONGEST_SHOWN)
            cells.append([one.text[:LONGEST_SHOWN], ", ".join(said), int(hiding(one, judges.get(one.judge))), more])
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
            "hidden": hides_prompts(found.name),
        }
        for place in prompts
    ]
    used = dict.fromkeys(one.judge for _, mine in responses for one in mine.values())
    note = hidden_note(judges, list(used))
    if hides_prompts(found.name):
        note += f" The prompts of {found.name} are hidden until you ask for them, because they may be harmful, too."
    return {"title": title, "note": note, "prompts": shown, "models": listed}
