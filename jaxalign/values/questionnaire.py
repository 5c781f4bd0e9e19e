"""One reading of the questionnaire by a scorer, perplexity of plain text included."""

import dataclasses
import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from jaxalign.data.encoding import Encoder
from jaxalign.data.trees import Segment, Tree, path_lengths, predictions, radix, tree_length
from jaxalign.errors import UserError
from jaxalign.inference.scorer import Scorer
from jaxalign.parallel.compilation import Programs
from jaxalign.runs.records import digest
from jaxalign.values.injection import Prompts
from jaxalign.values.portraits import ChoicePrompts, Portrait, all_questions, portrait_question, read_questionnaire


@dataclasses.dataclass(frozen=True)
class Questionnaire:
    """What a model is asked: portraits, the wording of their questions and of the choice between two people (None: it
    is not asked), and the plain texts that perplexity is measured on."""

    portraits: list[Portrait]
    prompts: Prompts
    choice: ChoicePrompts | None
    texts: list[str]

    def content(self) -> dict[str, str]:
        """Return hashes of what is asked, for the identity of a run."""
        portraits = [(portrait.number, portrait.value, portrait.text) for portrait in self.portraits]
        return {"portraits": digest(portraits), "texts": digest(self.texts)}

    def check(self, encoder: Encoder, context: int) -> None:
        """Raise UserError for a portrait whose question does not fit into the context of the model."""
        for portrait in self.portraits:
            longest = max(path_lengths(portrait_question(portrait, self.prompts, encoder).tree))
            if longest > context:
                raise UserError(
                    f"portrait {portrait.number} takes {longest} tokens as a question with its answer, and the context "
                    f"holds {context}: shorten it, or choose a model with a longer context"
                )


def read_by_likelihood(
    scorer: Scorer,
    encoder: Encoder,
    asked: Questionnaire,
    context: int,
    target: Sequence[float] | None,
    progress: Callable[[int, int, float], None],
) -> list[dict[str, Any]]:
    """Return a reading of the questionnaire (`read_questionnaire`) for each adapter of the scorer (a stack, or the only
    one), with the `perplexity` of the plain texts, None where it is not finite.

    Args:
        scorer: who is asked.
        encoder: of the model.
        asked: the questionnaire.
        context: tokens that the model can read at most; plain texts are cut to it.
        target: ten scores in the order of `VALUES` that the reading is held against, or None.
        progress: told (questions done, all, tokens per second).
    """
    members = scorer.stacked or 1
    questions = all_questions(asked.portraits, asked.prompts, asked.choice, encoder)
    plain = [plain_tree(encoder, text, context) for text in asked.texts]
    # Plain texts are read in the same passes as the questions: one program serves all.
    read = [*(question.tree for question in questions), *plain]
    count = with_speed(read, len(questions), scorer.programs, progress, members)
    scores = scorer.score(read * members, count, adapters=[m for m in range(members) for _ in read])
    predicted = sum(predictions(tree) for tree in plain)
    readings = []
    for start in range(0, len(scores), len(read)):
        answers, rest = scores[start : start + len(questions)], scores[start + len(questions) : start + len(read)]
        perplexity = np.exp(-sum(s.sum() for s in rest) / predicted) if predicted else np.nan
        found = read_questionnaire(asked.portraits, questions, answers, target)
        readings.append({**found, "perplexity": float(perplexity) if np.isfinite(perplexity) else None})
    return readings


def with_speed(
    trees: Sequence[Tree],
    questions: int,
    programs: Programs,
    tell: Callable[[int, int, float], None],
    members: int = 1,
) -> Callable[[int, int], None]:
    """Tell (0, questions, 0), and return what turns (done, total) passes into (done, questions, tokens per second).

    All is asked of so many `members` together; the questions are told as one of them is asked.

    A pass counts as an equal part of the questions and of the trees' tokens, of which those that paths share are read
    once; compiling is not reading.
    """
    tokens = members * sum(map(tree_length, radix(trees)[0]))
    tell(0, questions, 0.0)
    since, compiled = time.perf_counter(), programs.seconds

    def count(done: int, total: int) -> None:
        seconds = time.perf_counter() - since - (programs.seconds - compiled)
        tell(-(-questions * done // total), questions, tokens * done / total / seconds)

    return count


def plain_tree(encoder: Encoder, text: str, context: int) -> Tree:
    """Return a text, up to the context, as a tree whose tokens are all read but the first, which nothing predicts."""
    tokens = encoder.root(text)[:context]
    return (Segment(tokens[:1], -1), Segment(tokens[1:], 0, True))
