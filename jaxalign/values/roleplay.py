"""Role-play: a text before the prompt describes the target, and nothing is trained (Choi et al., 2025)."""

from collections.abc import Mapping
from dataclasses import dataclass

from jaxalign.data.templates import check_names, check_template
from jaxalign.errors import UserError
from jaxalign.values.schwartz import VALUES, label
from jaxalign.values.targets import Target

BASE_METHOD, ROLE_METHOD, ADAPTER_METHOD = "base", "role-play", "adapter"
"""How a model was brought to hold values, in records and tables: not at all, by a role, or by an adapter."""


@dataclass(frozen=True)
class RolePrompts:
    """The wording of the preamble (conf/alignment/roleplay.yaml); `definitions` has one line for each value."""

    question: str
    score_line: str
    definitions: Mapping[str, str]


def make_role_prompts(texts: Mapping[str, object]) -> RolePrompts:
    """Check `alignment.roleplay` and return it; UserError names the key that is wrong."""
    key = "alignment.roleplay"
    check_names(key, texts, ("question", "score_line", "definitions"))
    question = check_template(f"{key}.question", texts["question"], ("definitions", "scores"), prompt=True)
    line = check_template(f"{key}.score_line", texts["score_line"], ("value", "score"), prompt=False)
    definitions = texts["definitions"]
    if not isinstance(definitions, Mapping):
        raise UserError(f"{key}.definitions must give a line for each of {', '.join(VALUES)}")
    check_names(f"{key}.definitions", definitions, VALUES)
    for value, text in definitions.items():
        if not isinstance(text, str) or not text.strip():
            raise UserError(f"{key}.definitions.{value} is empty: define the value in a line")
    return RolePrompts(question, line, dict(definitions))


def preamble(target: Target, prompts: RolePrompts) -> str:
    """Return the text that goes before a question and describes the target.

    It ends in a newline, where texts may be cut into segments.
    """
    definitions = "\n".join(prompts.definitions[value].strip() for value in VALUES)
    scores = "\n".join(
        prompts.score_line.format(value=label(value), score=f"{score:g}")
        for value, score in zip(VALUES, target.scores, strict=True)
    )
    return prompts.question.format(definitions=definitions, scores=scores)
