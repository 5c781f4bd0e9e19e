"""One reading of the questionnaire by a scorer, perplexity of plain text included."""

import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from jaxalign.data.encoding import Encoder
from jaxalign.data.trees import Segment, Tree, path_lengths, predictions, radix, tree_length
from jaxalign.errors import UserError
from jaxalign.inference.scorer import Scorer
from jaxalign.parallel.compilation import Programs
from jaxalign.values.injection import Prompts
from jaxalign.values.portraits import ChoicePrompts, Portrait, all_questions, portrait_question, read_questionnaire


def check_questions(portraits: Sequence[Portrait], prompts: Prompts, encoder: Encoder, context: int) -> None:
    """Raise UserError for a portrait whose question does not fit into the context of the model."""
    for portrait in portraits:
        longest = max(path_lengths(portrait_question(portrait, prompts, encoder).tree))
        if longest > context:
            raise UserError(
                f"portrait {portrait.number} takes {longest} tokens as a question with its answer, and the context "
                f"holds {context}: shorten it, or choose a model with a longer context"
            )


def read_by_likelihood(
    scorer: Scorer,
    encoder: Encoder,
    portraits: Sequence[Portrait],
    prompts: Prompts,
    choice: ChoicePrompts | None,
    texts: Sequence[str],
    context: int,
    target: Sequence[float] | None,
    progress: Callable[[int, int, float], None],
) -> list[dict[str, Any]]:
    """Return a reading of the questionnaire (`read_questionnaire`) for each adapter of the scorer (a stack, or the only
    one), with the `perplexity` of texts, None where it is not finite.

    `progress` is told (questions done, all, tokens per second).
    """
    members = scorer.stacked or 1
    questions = all_questions(portraits, prompts, choice, encoder)
    plain = [plain_tree(encoder, text, context) for text in texts]
    # Plain texts are read in the same passes as the questions: one program serves all.
    read = [*(question.tree for question in questions), *plain]
    count = with_speed(read, len(questions), scorer.programs, progress, members)
    scores = scorer.score(read * members, count, adapters=[m for m in range(members) for _ in read])
    predicted = sum(predictions(tree) for tree in plain)
    readings = []
    for start in range(0, len(scores), len(read)):
        asked, rest = scores[start : start + len(questions)], scores[start + len(questions) : start + len(read)]
        perplexity = np.exp(-sum(s.sum() for s in rest) / predicted) if predicted else np.nan
        found = read_questionnaire(portraits, questions, asked, target)
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
