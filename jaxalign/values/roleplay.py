"""Role-play: a text before the prompt describes the target, and nothing is trained (Choi et al., 2025)."""

from collections.abc import Mapping
from dataclasses import dataclass

from jaxalign.data.templates import check_names, check_template
from jaxalign.errors import UserError
from jaxalign.values.schwartz import VALUES, label
from jaxalign.values.targets import Target

FORMS = ("question", "completion")


@dataclass(frozen=True)
class RolePrompts:
    """The wording of the preamble (conf/alignment/roleplay.yaml); `definitions` has one line for each value."""

    question: str
    completion: str
    score_line: str
    definitions: Mapping[str, str]


def make_role_prompts(texts: Mapping[str, object]) -> RolePrompts:
    """Check `alignment.roleplay` and return it; UserError names the key that is wrong."""
    key = "alignment.roleplay"
    check_names(key, texts, (*FORMS, "score_line", "definitions"))
    forms = {
        form: check_template(f"{key}.{form}", texts[form], ("definitions", "scores"), prompt=True) for form in FORMS
    }
    line = check_template(f"{key}.score_line", texts["score_line"], ("value", "score"), prompt=False)
    definitions = texts["definitions"]
    if not isinstance(definitions, Mapping):
        raise UserError(f"{key}.definitions must give a line for each of {', '.join(VALUES)}")
    check_names(f"{key}.definitions", definitions, VALUES)
    for value, text in definitions.items():
        if not isinstance(text, str) or not text.strip():
            raise UserError(f"{key}.definitions.{value} is empty: define the value in a line")
    return RolePrompts(**forms, score_line=line, definitions=dict(definitions))


def preamble(target: Target, prompts: RolePrompts, form: str) -> str:
    """Return the text that goes before a prompt and describes the target.

    `form` is `question`, or `completion` before a text that the model continues. The preamble ends in a newline, where
    texts may be cut into segments.
    """
    definitions = "\n".join(prompts.definitions[value].strip() for value in VALUES)
    scores = "\n".join(
        prompts.score_line.format(value=label(value), score=f"{score:g}")
        for value, score in zip(VALUES, target.scores, strict=True)
    )
    return getattr(prompts, form).format(definitions=definitions, scores=scores)
