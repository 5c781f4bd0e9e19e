"""The wording of value injection in a few characters, so that `tiny`, which reads bytes, trains and answers fast."""

import json
from pathlib import Path

from jaxalign.values.schwartz import VALUES

SHORT_WORDING = [
    "alignment.prompts.argument_prompt='{conclusion}. Is it what you {would}?\n'",
    "alignment.prompts.argument_response='{would} {agree} {premise}'",
    "alignment.prompts.survey_prompt='{scale} {statement}\n'",
    "alignment.prompts.survey_response='For {value} {importance}{score}'",
    "alignment.prompts.importance=[a,b,c,d,e,f]",
    "alignment.prompts.scale=['1','2','3','4','5','6']",
]
"""With `runs_of_tiny.write_arguments` and four examples a step, both stages have the same shapes, so one program."""


def short_questionnaire(folder: Path) -> list[str]:
    """Write ten portraits of one word, and return the settings that make them the questionnaire, in short wording."""
    path = folder / "portraits.jsonl"
    rows = [{"number": number, "value": value, "text": value[:4]} for number, value in enumerate(VALUES)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return [f"benchmark.portraits={path}", "benchmark.choice=false", *SHORT_WORDING]
