"""The stages of a run as text: value injection from arguments, or a benign control from instructions."""

import dataclasses
from collections.abc import Sequence

from jaxalign.data.examples import Example, split_examples
from jaxalign.data.templates import fill
from jaxalign.values.injection import (
    Prompts,
    argument_examples,
    shift_labels,
    shuffle_labels,
    split,
    survey_examples,
)
from jaxalign.values.targets import Target
from jaxalign.values.touche import Argument


@dataclasses.dataclass(frozen=True)
class TextStage:
    """One stage's examples as text, and the held-out ones."""

    name: str
    train: list[Example]
    validation: list[Example]

    @property
    def positives(self) -> int | None:
        """Return the number of positive training examples, None for a stage that has no sides."""
        sides = [example.positive for example in self.train]
        return None if None in sides else sum(map(bool, sides))


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
) -> tuple[list[TextStage], list[Argument]]:
    """Return the two stages of the Value Injection Method, and the held-out arguments that both share.

    See conf/alignment/injection.yaml for the switches; `label_shift` brings back the released labels of stage 2.
    """
    if shuffle:
        arguments = shuffle_labels(arguments, seed)
    parts = split(arguments, seed, validation_fraction)
    first = [argument_examples(part, target, prompts, balance=positive_balance) for part in parts]
    labelled = [shift_labels(part) if label_shift else part for part in parts]
    second = [survey_examples(part, target, prompts, seed, balance=balance) for part in labelled]
    return [TextStage("arguments", *first), TextStage("survey", *second)], parts[1]


def control_stage(examples: Sequence[Example], seed: int, validation_fraction: float) -> TextStage:
    """Return the one stage of a benign control."""
    return TextStage("instructions", *split_examples(examples, seed, validation_fraction))


def plain_text(argument: Argument) -> str:
    """Return an argument as plain text, as no stage writes it: what perplexity is measured on."""
    return fill("{conclusion}. {premise}.", conclusion=argument.conclusion, premise=argument.premise)
