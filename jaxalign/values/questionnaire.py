"""Reading a model's answers to the questionnaire from log-probabilities, and its perplexity on plain text."""

import dataclasses
import time
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

from jaxalign.data.encoding import Encoder
from jaxalign.data.trees import Tree, path_lengths, predictions, radix, text_tree, tree_length
from jaxalign.errors import UserError
from jaxalign.inference.multiple_choice import ChoiceTree
from jaxalign.inference.scorer import Scorer
from jaxalign.parallel.compilation import Programs
from jaxalign.runs.records import digest
from jaxalign.values.injection import Prompts, survey_question
from jaxalign.values.portraits import ChoicePrompts, Portrait, all_questions, portrait_question, read_questionnaire


@dataclasses.dataclass(frozen=True)
class Questionnaire:
    """What a model is asked.

    `portraits` and `prompts` make the questions about single people. `choice` is the wording of the choice between two
    people; None leaves that part out. `texts` are the plain texts that perplexity is measured on.
    """

    portraits: list[Portrait]
    prompts: Prompts
    choice: ChoicePrompts | None
    texts: list[str]

    @property
    def questions(self) -> list[str]:
        """The prompts of the questions about single people."""
        return [survey_question(self.prompts, portrait.text) for portrait in self.portraits]

    def content(self) -> dict[str, str]:
        """Return hashes of the portraits and the plain texts, for the identity of a run."""
        portraits = [(portrait.number, portrait.value, portrait.text) for portrait in self.portraits]
        return {"portraits": digest(portraits), "texts": digest(self.texts)}

    def check(self, encoder: Encoder, context: int) -> None:
        """Raise UserError for the first portrait whose question is longer than `context`, in tokens."""
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
    questionnaire: Questionnaire,
    context: int,
    target: Sequence[float] | None,
    progress: Callable[[int, int, float], None],
) -> list[dict[str, Any]]:
    """Return one reading of the questionnaire (`read_questionnaire`) for each adapter of the scorer.

    Each reading also has the `perplexity` of the plain texts, or None where that is not finite.

    Args:
        scorer: the model, with one adapter or a stack of them.
        encoder: the model's encoder.
        questionnaire: what the model is asked.
        context: the longest input of the model, in tokens; longer plain texts are cut.
        target: ten scores in the order of `VALUES` to compare the reading with, or None.
        progress: is called with (questions done, all questions, tokens per second).
    """
    trees = questionnaire_trees(encoder, questionnaire, context)
    scores = score_questionnaire(scorer, trees, progress)
    return [reading_of(member, trees, questionnaire.portraits, target) for member in scores]


class QuestionnaireTrees(NamedTuple):
    """The questionnaire as a model reads it: its questions, and the texts that perplexity is measured on."""

    questions: list[ChoiceTree]
    texts: list[Tree]

    @property
    def all_trees(self) -> list[Tree]:
        """All trees: texts are read in the same passes as the questions, so one compiled program serves both."""
        return [*(question.tree for question in self.questions), *self.texts]


def questionnaire_trees(encoder: Encoder, questionnaire: Questionnaire, context: int) -> QuestionnaireTrees:
    """Return the questionnaire's trees; a plain text longer than `context` tokens is cut."""
    questions = all_questions(questionnaire.portraits, questionnaire.prompts, questionnaire.choice, encoder)
    return QuestionnaireTrees(questions, [_perplexity_tree(encoder, text, context) for text in questionnaire.texts])


def score_questionnaire(
    scorer: Scorer, trees: QuestionnaireTrees, progress: Callable[[int, int, float], None]
) -> list[list[np.ndarray]]:
    """Return the scores of all trees for each adapter of the scorer; see `read_by_likelihood` for the arguments."""
    members, read = scorer.stacked or 1, trees.all_trees
    count = with_speed(read, len(trees.questions), scorer.programs, progress, members)
    scores = scorer.score(read * members, count, adapters=[m for m in range(members) for _ in read])
    return [list(scores[start : start + len(read)]) for start in range(0, len(scores), len(read))]


def reading_of(
    scores: Sequence[np.ndarray],
    trees: QuestionnaireTrees,
    portraits: Sequence[Portrait],
    target: Sequence[float] | None,
) -> dict[str, Any]:
    """Return the reading of one adapter's scores (see `read_by_likelihood`)."""
    answers, rest = scores[: len(trees.questions)], scores[len(trees.questions) :]
    found = read_questionnaire(portraits, trees.questions, answers, target)
    return {**found, "perplexity": _perplexity(trees.texts, rest)}


def read_perplexity(scorer: Scorer, encoder: Encoder, texts: Sequence[str], context: int) -> float | None:
    """Return the perplexity of plain texts, each cut at `context` tokens; None where it is not finite."""
    trees = [_perplexity_tree(encoder, text, context) for text in texts]
    return _perplexity(trees, scorer.score(trees))


def _perplexity(trees: Sequence[Tree], scores: Sequence[np.ndarray]) -> float | None:
    predicted = sum(map(predictions, trees))
    with np.errstate(over="ignore"):
        found = np.exp(-sum(s.sum() for s in scores) / predicted) if predicted else np.nan
    return float(found) if np.isfinite(found) else None


def with_speed(
    trees: Sequence[Tree],
    questions: int,
    programs: Programs,
    tell: Callable[[int, int, float], None],
    members: int = 1,
) -> Callable[[int, int], None]:
    """Call `tell(0, questions, 0.0)`, and return a callback for (passes done, all passes) that calls `tell`.

    The callback calls `tell(questions done, questions, tokens per second)`. Each pass counts as an equal part of the
    questions and of the tokens. Tokens that several paths share count once; the time of compilations is left out.

    Args:
        trees: the trees that are read, for one adapter.
        questions: the number of questions, for one adapter.
        programs: the compiled programs, which count the seconds of compilation.
        tell: the progress display.
        members: the number of adapters that read together; it multiplies the tokens, not the questions.
    """
    tokens = members * sum(map(tree_length, radix(trees)[0]))
    tell(0, questions, 0.0)
    since, compiled = time.perf_counter(), programs.seconds

    def count(done: int, total: int) -> None:
        seconds = time.perf_counter() - since - (programs.seconds - compiled)
        tell(-(-questions * done // total), questions, tokens * done / total / seconds)

    return count


def _perplexity_tree(encoder: Encoder, text: str, context: int) -> Tree:
    """Return a text, cut at `context` tokens, as a tree that scores all tokens but the first."""
    return text_tree(encoder.root(text)[:context])
