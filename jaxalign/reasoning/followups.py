"""Follow-up questions: does a rationale agree with every option's being right or wrong?"""

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
    """Return for each option a tree option -> rationales -> closing -> the two completions, and for each rationale the
    places of its affirming and denying segment (the same in every tree).

    What the options' prompts begin with alike, the question, is computed once by the scorer.
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
    """Return the rationales with their follow-ups' log-probabilities and z~; only those with z = 1 are asked about
    (`everyone`: all that were read).

    `labels` says which option counts as right.
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
    """Return a rationale with its follow-ups (affirming, denying): one is judged right where the likelier completion
    says of the option what is so. Equally likely ones deny."""
    agreed = sum((affirm > deny) == (option == label) for option, (affirm, deny) in enumerate(pairs))
    return dataclasses.replace(rationale, followups=tuple(pairs), agreed=agreed)
