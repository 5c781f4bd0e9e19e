"""Questions, a wording and rationales for tests of what is done with them."""

import yaml

from jaxalign.config.presets import CONF
from jaxalign.data.datasets.question import Question
from jaxalign.reasoning.rationales import Rationale
from jaxalign.reasoning.wording import make_wording

TEXTS = yaml.safe_load((CONF / "reasoning" / "default.yaml").read_text())
EXAMPLE = {"question": "Two?", "options": ["2", "3"], "answer": "A", "rationale": "It is two."}
WORDING = make_wording(TEXTS, "({letter})", [EXAMPLE])
THREE = Question("three", "Which is it?", ("this", "that", "neither"), 1)
FIVE = Question("five", "Where?", ("in", "out", "over", "under", "by"), 4, passage="A cat sat.")


def rationale(text, right, agreed=None, copies=1, question="three"):
    prediction = None if right is None else int(right)
    return Rationale(question, text, copies, (), prediction, right, (), agreed)
