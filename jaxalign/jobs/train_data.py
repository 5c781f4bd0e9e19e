"""The text of a run, its target and its questionnaire: what bad input can spoil, read before anything slow."""

import dataclasses
import hashlib
import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from jaxalign.config.train import TrainConfig
from jaxalign.data.datasets.instructions import load_instructions
from jaxalign.data.datasets.pairs import PairText, load_pairs
from jaxalign.data.encoding import Encoder, encode_examples
from jaxalign.data.examples import TextStage, control_stage
from jaxalign.data.examples import held_out as split_keys
from jaxalign.data.preferences import PreferencePair, Responses
from jaxalign.errors import UserError, did_you_mean
from jaxalign.training.preference import PreferenceStage
from jaxalign.training.supervised import SupervisedStage
from jaxalign.values.injection import Prompts, injection_stages, make_prompts, plain_text, split_arguments
from jaxalign.values.portraits import ChoicePrompts, Portrait, load_portraits, make_choice_prompts
from jaxalign.values.starter import load_starter
from jaxalign.values.targets import Target, extreme_targets
from jaxalign.values.touche import Argument, load_arguments

PLAIN_TEXTS = 64
"""Held-out arguments that perplexity is measured on, at most."""

RELEASED_LENGTH = 128
"""Tokens after which the released code cuts an example."""


@dataclasses.dataclass(frozen=True)
class Material:
    """All text of a run: what bad input can spoil, read before anything slow."""

    target: Target | None
    prompts: Prompts
    stages: list[TextStage]
    plain: list[str]
    portraits: list[Portrait]
    choice: ChoicePrompts | None
    fingerprint: str
    pairs: list[PairText] = dataclasses.field(default_factory=list)


CONTROL_LENGTH = 2048
"""Tokens of a benign control's example at most (Choi et al., 2025)."""


def read_material(config: TrainConfig) -> Material:
    """Read and check the target, the data and the questionnaire."""
    target = None
    if config.value is not None:
        target = config.value.target(config.released.raw_coding)
    prompts = make_prompts(config.alignment.prompts)
    portraits = load_portraits(config.benchmark.portraits)
    choice = make_choice_prompts(config.benchmark.prompts) if config.benchmark.choice else None
    pairs: list[PairText] = []
    if config.dataset.kind == "arguments":
        assert target is not None  # config.py asks for a value with arguments
        stages, held_out = injection_text(config, target, read_arguments(config))
    elif config.dataset.kind == "pairs":
        stages, pairs = [], load_pairs(str(config.dataset.path), config.dataset.limit)
        _, held_out = split_arguments(load_starter(), config.training.seed, config.alignment.validation_fraction)
    else:
        dataset = config.dataset
        examples = load_instructions(
            dataset.name, dataset.path, prompt=dataset.prompt or "", offline=config.offline, limit=dataset.limit
        )
        stages = [control_stage(examples, config.training.seed, config.alignment.validation_fraction)]
        # The texts that a value run on the starter arguments holds out, so that perplexities can be compared.
        _, held_out = split_arguments(load_starter(), config.training.seed, config.alignment.validation_fraction)
    texts = [plain_text(argument) for argument in held_out[:PLAIN_TEXTS]]
    parts = [(example.prompt, example.response, example.weight) for s in stages for example in s.train + s.validation]
    fingerprint = hashlib.sha256(json.dumps([parts, texts, *([pairs] if pairs else [])]).encode()).hexdigest()[:16]
    return Material(target, prompts, stages, texts, portraits, choice, fingerprint, pairs)


def read_arguments(config: TrainConfig) -> list[Argument]:
    """Read the configured argument data set."""
    dataset = config.dataset
    readers = {
        "starter": lambda: load_starter(limit=dataset.limit, path=dataset.path),
        "touche23": lambda: load_arguments(dataset.path, offline=config.offline, limit=dataset.limit),
    }
    if dataset.name not in readers:
        raise UserError(f"dataset.name={dataset.name!r} is not known{did_you_mean(dataset.name, readers)}")
    return readers[dataset.name]()


def injection_text(
    config: TrainConfig, target: Target, arguments: Sequence[Argument]
) -> tuple[list[TextStage], list[Argument]]:
    """Return both stages' examples, and the held-out arguments."""
    alignment = config.alignment
    return injection_stages(
        arguments,
        target,
        make_prompts(alignment.prompts),
        seed=config.training.seed,
        validation_fraction=alignment.validation_fraction,
        balance=alignment.balance,
        positive_balance=alignment.positive_balance,
        shuffle=alignment.shuffle_labels,
        label_shift=config.released.label_shift,
    )


def control_budget(config: TrainConfig, encoder: Encoder, length: int) -> int | None:
    """Return the tokens that a benign control trains on, as many as value injection; None for anything else.

    They are those of the finished run `dataset.match`, or else of both stages on the starter arguments with this
    configuration's epochs (whose number of tokens hardly depends on the target).
    """
    if config.dataset.kind != "instructions" or config.released.unmatched_budget:
        return None
    if config.dataset.match is not None:
        return trained_tokens(config.dataset.match)
    target = extreme_targets()["power"]
    texts, _ = injection_text(config, target, load_starter())
    stages = encode_stages(texts, encoder, length, False)
    epochs = {"arguments": config.alignment.argument_epochs or config.training.epochs}
    return round(
        sum(
            epochs.get(stage.name, config.training.epochs) * sum(map(stage.train.tokens, range(len(stage.train))))
            for stage in stages
        )
    )


def trained_tokens(folder: str) -> int:
    """Return the tokens that a finished run trained on, over its stages."""
    path = Path(folder) / "summary.json"
    try:
        stages = json.loads(path.read_text())["training"]["stages"]
        return sum(int(stage["tokens"]) for stage in stages)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"dataset.match={folder} is no finished run: {path} cannot be read as a summary") from error


def encode_stages(texts: Sequence[TextStage], encoder: Encoder, length: int, released: bool) -> list[SupervisedStage]:
    """Encode every stage's examples, to `length` tokens at most; `released` cuts them as the released code does.

    Raises:
        UserError: an example's prompt is too long (which).
    """
    truncate = RELEASED_LENGTH if released else None
    stages = []
    for stage in texts:
        train, validation = (
            encode_examples(part, encoder, length, truncate=truncate) for part in (stage.train, stage.validation)
        )
        stages.append(SupervisedStage(stage.name, train, validation, stage.positives))
    return stages


def encode_pairs(
    pairs: Sequence[PairText], encoder: Encoder, context: int, *, seed: int, fraction: float, loss: str, grouped: bool
) -> PreferenceStage:
    """Return pairs as a stage whose reference is not read yet: each prompt and each distinct response to it once.

    A share `fraction` of the prompts is held out for validation. Where a prompt and a response are longer than the
    context, the prompt loses its beginning, never the response.

    Raises:
        UserError: a prompt alone is longer than the context, or a response leaves no room for it (which).
    """
    numbers: dict[str, int] = {}
    prompts: list[np.ndarray] = []
    responses: list[np.ndarray] = []
    prompt_of: list[int] = []
    place: dict[tuple[int, str], int] = {}
    sides = split_keys([pair.prompt for pair in pairs], seed, fraction)
    train, validation, longest = [], [], {}
    for pair, out in zip(pairs, sides, strict=True):
        if pair.prompt not in numbers:
            numbers[pair.prompt] = len(prompts)
            prompts.append(encoder.prompt(pair.prompt))
            if len(prompts[-1]) > context:
                raise UserError(
                    f"{pair.place}: its prompt takes {len(prompts[-1])} tokens, and the context holds {context}: "
                    "shorten it, or choose a model with a longer context"
                )
        prompt = numbers[pair.prompt]
        ends = []
        for text in (pair.chosen, pair.rejected):
            if (prompt, text) not in place:
                place[prompt, text] = len(responses)
                responses.append(encoder.response(text))
                prompt_of.append(prompt)
                longest[prompt] = max(longest.get(prompt, 0), len(responses[-1]))
                if len(responses[-1]) > context - 2:
                    size = len(responses[-1])
                    raise UserError(
                        f"{pair.place}: a response takes {size} tokens, and the context holds {context}, of which the "
                        "prompt needs 2: shorten it, leave the pair out, or choose a model with a longer context"
                    )
            ends.append(place[prompt, text])
        (validation if out else train).append(PreferencePair(*ends))
    cut = []
    for number, prompt in enumerate(prompts):
        room = context - longest[number]
        cut.append(len(prompt) > room)
        if cut[-1]:  # the first token, which may be the model's BOS, stays
            prompts[number] = np.concatenate([prompt[:1], prompt[len(prompt) - room + 1 :]])
    data = Responses(prompts, responses, prompt_of, np.zeros(len(responses)), tuple(cut))
    return PreferenceStage("preferences", data, train, validation, loss, grouped)
