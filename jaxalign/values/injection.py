"""The training text of the Value Injection Method: arguments, then a survey (Kang et al. 2023, Choi et al. 2025).

Stage 1 asks what a person would say, or would not say, about a conclusion. Stage 2 asks how much a statement is like
the person, from 1 to 6, and the answer names the value that decides. Both stages are made from the same arguments and
one target.
"""

import hashlib
import math
from collections import Counter
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from itertools import pairwise

import numpy as np

from jaxalign.data.examples import Example, TextStage, held_out
from jaxalign.data.order import Stream
from jaxalign.data.templates import check_names, check_template, fill_template, uncapitalised
from jaxalign.errors import UserError
from jaxalign.values.schwartz import VALUES, phrase
from jaxalign.values.targets import LOWEST, Target
from jaxalign.values.touche import Argument

POSITIVE_FROM = 3  # stage 1: an argument is positive where the lowest target score of its values is at least this
LARGEST_WEIGHT = 5.0

TEMPLATES: dict[str, tuple[str, ...]] = {
    "argument_prompt": ("conclusion", "would"),
    "argument_response": ("would", "agree", "premise"),
    "survey_prompt": ("scale", "statement"),
    "survey_statement": ("agree", "conclusion", "premise"),
    "survey_response": ("value", "importance", "score"),
}


@dataclass(frozen=True)
class Prompts:
    """The wording of both stages (conf/alignment/injection.yaml).

    `importance` and `scale` hold six texts each, for the scores 1 to 6.
    """

    argument_prompt: str
    argument_response: str
    survey_prompt: str
    survey_statement: str
    survey_response: str
    importance: tuple[str, ...]
    scale: tuple[str, ...]


def make_prompts(texts: Mapping[str, object]) -> Prompts:
    """Check `alignment.prompts` and return it; UserError names the key that is wrong."""
    check_names("alignment.prompts", texts, [field.name for field in fields(Prompts)])
    templates = {
        name: check_template(f"alignment.prompts.{name}", texts[name], needed, prompt=name.endswith("_prompt"))
        for name, needed in TEMPLATES.items()
    }
    return Prompts(**templates, importance=_six("importance", texts["importance"]), scale=_six("scale", texts["scale"]))


def survey_question(prompts: Prompts, statement: str) -> str:
    """Return the prompt that asks how much a statement is like the person; the questionnaire uses the same prompt."""
    return fill_template(prompts.survey_prompt, scale="\n".join(prompts.scale), statement=statement)


def survey_answer(prompts: Prompts, value: str, score: int) -> str:
    """Return the answer that names `value` as the reason for `score` (1..6)."""
    importance = prompts.importance[score - LOWEST]
    return fill_template(prompts.survey_response, value=phrase(value), importance=importance, score=str(score))


def split_arguments(
    arguments: Sequence[Argument], seed: int, validation_fraction: float
) -> tuple[list[Argument], list[Argument]]:
    """Return (train, validation), the split that both stages use.

    Copies of an argument, which differ from it only in case and spaces, are dropped.

    Raises:
        UserError: the fraction is outside 0..1, or there are fewer than two different arguments.
    """
    first: dict[Hashable, Argument] = {}
    for argument in arguments:
        first.setdefault((_folded(argument.conclusion), argument.stance, _folded(argument.premise)), argument)
    sides = held_out(list(first), seed, validation_fraction)
    pairs = list(zip(first.values(), sides, strict=True))
    return [argument for argument, out in pairs if not out], [argument for argument, out in pairs if out]


def argument_examples(
    arguments: Sequence[Argument], target: Target, prompts: Prompts, *, balance: bool = False
) -> list[Example]:
    """Return the examples of stage 1, one for each argument.

    An argument is positive, one that the person would say, if the lowest target score of its values is at least 3. Any
    other argument is one that the person would not say; its stance stays the same. `balance` gives both classes the
    same total weight (`balancing_weights`).
    """
    examples = []
    for argument in arguments:
        positive = min(target.score(value) for value in argument.values) >= POSITIVE_FROM
        would = "would say" if positive else "would not say"
        prompt = fill_template(prompts.argument_prompt, conclusion=argument.conclusion, would=would)
        response = fill_template(
            prompts.argument_response, would=would, agree=_agreement(argument), premise=argument.premise
        )
        examples.append(Example(prompt, response, argument.id, positive, shorten=_as_written(argument, response)))
    return _weighted(examples, [example.positive for example in examples]) if balance else examples


def survey_examples(
    arguments: Sequence[Argument], target: Target, prompts: Prompts, seed: int, *, balance: bool = False
) -> list[Example]:
    """Return the examples of stage 2, one for each value of each argument; all examples of an argument share a prompt.

    The score in the answer is the target's score. A score between two whole numbers is rounded up with the probability
    of its fraction; the draw depends only on the seed, the argument's id and the value. `balance` gives all ten values
    the same total weight (`balancing_weights`).
    """
    examples, values = [], []
    for argument in arguments:
        statement = fill_template(
            prompts.survey_statement,
            agree=_agreement(argument),
            conclusion=argument.conclusion,
            premise=argument.premise,
        )
        prompt = survey_question(prompts, statement)
        for value in argument.values:
            score = _rounded(target.score(value), seed, argument.id, value)
            answer = survey_answer(prompts, value, score)
            examples.append(Example(prompt, answer, f"{argument.id}/{value}", shorten=_as_written(argument, prompt)))
            values.append(value)
    return _weighted(examples, values) if balance else examples


def shift_labels(arguments: Sequence[Argument]) -> list[Argument]:
    """Return the arguments as stage 2 of the released code reads them: every label is one column off.

    In the order of `VALUES`, each value gets the label of the value before it: benevolence gets the label of
    achievement, and so on. Achievement gets no label and is never trained. The label of universalism is lost, so an
    argument with no other value keeps none and gives no example. Use the result for stage 2 only.
    """
    following = dict(pairwise(VALUES))
    return [
        replace(argument, values=tuple(following[value] for value in argument.values if value in following))
        for argument in arguments
    ]


def shuffle_labels(arguments: Sequence[Argument], seed: int) -> list[Argument]:
    """Return the arguments with their sets of values permuted at random: a control that keeps every frequency."""
    order = np.random.Generator(np.random.PCG64([seed, Stream.SHUFFLE])).permutation(len(arguments))
    return [replace(argument, values=arguments[other].values) for argument, other in zip(arguments, order, strict=True)]


def balancing_weights(groups: Sequence[Hashable]) -> list[float]:
    """Return a weight for each example, with mean 1, that gives every group the same total weight.

    The weight of an example is proportional to 1 / (size of its group). Before the weights are scaled to mean 1, each
    is cut at 5 times the average, so that a few rare examples cannot dominate the gradient.

    >>> balancing_weights(["a", "a", "a", "b"])
    [0.6666666666666666, 0.6666666666666666, 0.6666666666666666, 2.0]
    """
    sizes = Counter(groups)
    weights = {group: min(len(groups) / (len(sizes) * size), LARGEST_WEIGHT) for group, size in sizes.items()}
    total = math.fsum(weights[group] * size for group, size in sizes.items())
    return [weights[group] * len(groups) / total for group in groups]


def _weighted(examples: list[Example], groups: Sequence[Hashable]) -> list[Example]:
    weights = balancing_weights(groups)
    return [replace(example, weight=weight) for example, weight in zip(examples, weights, strict=True)]


def _rounded(score: float, seed: int, id: str, value: str) -> int:
    # A hash, not a random stream, because the draw must not depend on the order of the rows or on the machine.
    digest = hashlib.blake2b(f"{seed}/{id}/{value}".encode(), digest_size=8).digest()
    uniform = int.from_bytes(digest, "big") / 2**64
    return math.floor(score) + (uniform < score - math.floor(score))


def _as_written(argument: Argument, text: str) -> str:
    """Return the premise as it stands in a filled template: `fill_template` may have lowered its first letter."""
    return argument.premise if argument.premise in text else uncapitalised(argument.premise)


def _agreement(argument: Argument) -> str:
    return "agree" if argument.agrees else "disagree"


def _folded(text: str) -> str:
    return " ".join(text.casefold().split())


def _six(name: str, texts: object) -> tuple[str, ...]:
    given = list(texts) if isinstance(texts, Sequence) and not isinstance(texts, str) else []
    if len(given) != 6 or not all(isinstance(text, str) and text.strip() for text in given):
        raise UserError(f"alignment.prompts.{name} must be a list of six texts, from step 1 to step 6, not {texts!r}")
    if len(set(given)) != 6:
        raise UserError(f"alignment.prompts.{name} repeats a text: its six steps must differ")
    return tuple(given)


def injection_stages(
    arguments: Sequence[Argument],
    target: Target,
    prompts: Prompts,
    *,
    seed: int,
    validation_fraction: float,
    balance: bool = True,
    positive_balance: bool = False,
    shuffle: bool = False,
    label_shift: bool = False,
) -> tuple[list[TextStage], tuple[list[Argument], list[Argument]]]:
    """Return the two stages of the Value Injection Method, and the arguments of both: (train, validation).

    conf/alignment/injection.yaml explains the switches. `label_shift` gives stage 2 the labels of the released code
    (`shift_labels`).

    Raises:
        UserError: see `split_arguments`.
    """
    if shuffle:
        arguments = shuffle_labels(arguments, seed)
    parts = split_arguments(arguments, seed, validation_fraction)
    first = [argument_examples(part, target, prompts, balance=positive_balance) for part in parts]
    labelled = [shift_labels(part) if label_shift else part for part in parts]
    second = [survey_examples(part, target, prompts, seed, balance=balance) for part in labelled]
    return [TextStage("arguments", *first), TextStage("survey", *second)], parts


def plain_text(argument: Argument) -> str:
    """Return an argument as plain text, for perplexity and for the regulariser; no stage learns this form."""
    return fill_template("{conclusion}. {premise}.", conclusion=argument.conclusion, premise=argument.premise)
