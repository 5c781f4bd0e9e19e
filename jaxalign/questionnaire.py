"""One reading of the questionnaire by a scorer, perplexity of plain text included."""

import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from jaxalign.data.encoding import Encoder
from jaxalign.data.trees import Segment, Tree, path_lengths, predictions, radix, tree_length
from jaxalign.errors import UserError
from jaxalign.inference.scorer import Scorer
from jaxalign.training.programs import Programs
from jaxalign.values.injection import Prompts
from jaxalign.values.portrait import ChoicePrompts, Portrait, ask, portrait_question


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
    progress: Callable[[int, int], None] = lambda done, total: None,
    speed: Callable[[int, int, float], None] | None = None,
) -> dict[str, Any]:
    """Return one reading of the questionnaire (`ask`), and the `perplexity` of texts, None where it is not finite.

    `progress` is told of passes (done, total); `speed`, where given, of questions instead (and of tokens per second).
    """
    plain = [plain_tree(encoder, text, context) for text in texts]
    perplexity = float("nan")

    def score(trees: Sequence[Tree]) -> list[np.ndarray]:
        # Plain texts are read in the same passes as the questions: one program serves all.
        nonlocal perplexity
        read = [*trees, *plain]
        scores = scorer.score(read, with_speed(read, len(trees), scorer.programs, speed) if speed else progress)
        predicted = sum(predictions(tree) for tree in plain)
        if predicted:
            perplexity = float(np.exp(-sum(s.sum() for s in scores[len(trees) :]) / predicted))
        return scores[: len(trees)]

    reading = ask(portraits, prompts, choice, encoder, score, target)
    return {**reading, "perplexity": perplexity if np.isfinite(perplexity) else None}


def with_speed(
    trees: Sequence[Tree], questions: int, programs: Programs, tell: Callable[[int, int, float], None]
) -> Callable[[int, int], None]:
    """Tell (0, questions, 0), and return what turns (done, total) passes into (done, questions, tokens per second).

    A pass counts as an equal part of the questions and of the trees' tokens, of which those that paths share are read
    once; compiling is not reading.
    """
    tokens = sum(map(tree_length, radix(trees)[0]))
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
