"""Follow-up questions: after a rationale, does the model judge each option correctly as right or wrong?"""

import dataclasses
from collections.abc import Sequence

from jaxalign.data.datasets.question import Question
from jaxalign.data.encoding import Encoder
from jaxalign.data.trees import Tree
from jaxalign.inference.scorer import Scorer
from jaxalign.reasoning.rationales import Rationale, reading_tree
from jaxalign.reasoning.wording import Wording


def followup_trees(
    question: Question, rationales: Sequence[Rationale], encoder: Encoder, wording: Wording
) -> tuple[list[Tree], list[list[list[int]]]]:
    """Return one tree for each option, and for each option the indices of each rationale's two completions.

    A tree has the follow-up question as its root, the rationales with the closing as its branches, and after each of
    them the affirming and the denying completion. The scorer computes the beginning that the trees share, the question,
    only once.
    """
    verdicts = [wording.affirm, wording.deny]
    trees, places = [], []
    for option in range(len(question.options)):
        prompt, closing = wording.ask(question, option), wording.close(question, option)
        read = [encoder.branches(prompt, verdicts, f"{one.text}\n{closing}") for one in rationales]
        tree, found = reading_tree(encoder.prompt(prompt), read)
        trees.append(tree)
        places.append(found)
    return trees, places


def read_followups(
    scorer: Scorer,
    questions: Sequence[Question],
    rationales: Sequence[Sequence[Rationale]],
    labels: Sequence[int | None],
    encoder: Encoder,
    wording: Wording,
    *,
    everyone: bool = False,
) -> list[list[Rationale]]:
    """Return the rationales with the log-probabilities of their follow-ups and z~, question by question.

    Only rationales with z = 1 are judged; with `everyone`, all that lead to an option. `labels` holds the option that
    counts as right for each question.
    """
    asked = [[one for one in mine if one.right or (everyone and one.prediction is not None)] for mine in rationales]
    trees: list[Tree] = []
    places: list[tuple[list[list[list[int]]], int]] = []
    for question, mine in zip(questions, asked, strict=True):
        built, found = followup_trees(question, mine, encoder, wording) if mine else ([], [])
        places.append((found, len(trees)))
        trees += built
    scores = scorer.score(trees)
    read = []
    for mine, label, (found, first), members in zip(rationales, labels, places, asked, strict=True):
        done, number = [], 0
        for one in mine:
            if number < len(members) and one is members[number]:
                verdicts = [scores[first + option][theirs[number]] for option, theirs in enumerate(found)]
                pairs = [(float(affirm), float(deny)) for affirm, deny in verdicts]
                one = judged(one, pairs, label)
                number += 1
            done.append(one)
        read.append(done)
    return read


def judged(rationale: Rationale, pairs: Sequence[tuple[float, float]], label: int | None) -> Rationale:
    """Return a rationale with its follow-ups, the log-probabilities (affirming, denying) for each option, and z~.

    z~ counts the options that are judged correctly: the likelier completion affirms the label, or denies another
    option. If both completions are equally likely, the option is denied.
    """
    agreed = sum((affirm > deny) == (option == label) for option, (affirm, deny) in enumerate(pairs))
    return dataclasses.replace(rationale, followups=tuple(pairs), agreed=agreed)
