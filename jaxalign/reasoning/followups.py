"""Follow-up questions: after a rationale, does the model judge each option correctly as right or wrong?"""

import dataclasses
from collections.abc import Sequence

from jaxalign.data.datasets.question import Question
from jaxalign.data.encoding import Encoder
from jaxalign.data.trees import Segment, Tree
from jaxalign.inference.scorer import Scorer
from jaxalign.reasoning.rationales import Rationale
from jaxalign.reasoning.wording import Wording


def followup_trees(
    question: Question, rationales: Sequence[Rationale], encoder: Encoder, wording: Wording
) -> tuple[list[Tree], list[tuple[int, int]]]:
    """Return one tree for each option, and the indices of each rationale's two completions.

    A tree has the follow-up question as its root, the rationales as its branches, and after each rationale the closing
    with the affirming and the denying completion. The indices (affirming, denying) are the same in every tree. The
    scorer computes the beginning that the trees share, the question, only once.
    """
    affirm, deny = encoder.text(wording.affirm), encoder.text(wording.deny)
    trees = []
    for option in range(len(question.options)):
        segments = [Segment(encoder.prompt(wording.ask(question, option)), -1)]
        closing = encoder.text(wording.close(question, option))
        for rationale in rationales:
            segments.append(Segment(encoder.text(f"{rationale.text}\n"), 0))
            segments.append(Segment(closing, len(segments) - 1))
            here = len(segments) - 1
            segments += [Segment(affirm, here, True), Segment(deny, here, True)]
        trees.append(tuple(segments))
    return trees, [(3 + 4 * number, 4 + 4 * number) for number in range(len(rationales))]


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
    places: list[tuple[list[tuple[int, int]], int]] = []
    for question, mine in zip(questions, asked, strict=True):
        built, found = followup_trees(question, mine, encoder, wording) if mine else ([], [])
        places.append((found, len(trees)))
        trees += built
    scores = scorer.score(trees)
    read = []
    for question, mine, label, (found, first), members in zip(
        questions, rationales, labels, places, asked, strict=True
    ):
        done, number = [], 0
        for one in mine:
            if number < len(members) and one is members[number]:
                affirm, deny = found[number]
                pairs = [
                    (float(scores[first + o][affirm]), float(scores[first + o][deny]))
                    for o in range(len(question.options))
                ]
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
