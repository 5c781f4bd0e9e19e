"""The target, the data and the questionnaire of a training run, all read and checked before any slow work."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path

from jaxalign.config.dataset import ArgumentsConfig, InstructionsConfig, PairsConfig
from jaxalign.config.evaluate import EvaluateConfig
from jaxalign.config.train import TrainConfig
from jaxalign.config.values import ValueConfig
from jaxalign.data.account import account, count
from jaxalign.data.conversations import PromptText
from jaxalign.data.datasets.pairs import PairText
from jaxalign.data.encoding import Encoder, encode_examples
from jaxalign.data.examples import TextStage, control_stage
from jaxalign.data.preferences import encode_pairs
from jaxalign.errors import UserError
from jaxalign.jobs.readers import ARGUMENT_READERS, INSTRUCTION_READERS, PAIR_READERS, reader_of
from jaxalign.runs.records import digest, read_json_object
from jaxalign.training.preference import PreferenceStage
from jaxalign.training.supervised import SupervisedStage
from jaxalign.values.injection import injection_stages, make_prompts, plain_text, split_arguments
from jaxalign.values.portraits import load_portraits, make_choice_prompts, portraits_file, some_portraits
from jaxalign.values.questionnaire import Questionnaire
from jaxalign.values.starter import FILE as STARTER_ARGUMENTS
from jaxalign.values.starter import load_starter
from jaxalign.values.targets import Target, extreme_targets, find_target
from jaxalign.values.touche import Argument

PLAIN_TEXTS = 64
"""The largest number of held-out arguments that perplexity is measured on."""

CONTROL_LENGTH = 2048
"""The longest example of a benign control, in tokens (Choi et al., 2025)."""

RELEASED_LENGTH = 128
"""The length at which the released code cuts an example, in tokens."""


@dataclasses.dataclass(frozen=True)
class TrainingText:
    """The target and all text of a run.

    Either `stages` or `pairs` is empty. `regularising` are the plain texts of the regulariser: (train, validation).
    `fingerprint` is a hash of the texts that are trained on.
    """

    target: Target | None
    stages: list[TextStage]
    pairs: list[PairText]
    questionnaire: Questionnaire
    regularising: tuple[list[str], list[str]]
    fingerprint: str

    @property
    def prompts(self) -> list[PromptText]:
        """All prompts that are trained on."""
        examples = [example.prompt for stage in self.stages for example in stage.train + stage.validation]
        return [*examples, *(pair.prompt for pair in self.pairs)]


def read_training_text(config: TrainConfig) -> TrainingText:
    """Read and check the target, the data and the questionnaire, and print which files gave how many rows.

    Raises:
        UserError: one of them cannot be used.
    """
    dataset, training = config.dataset, config.training
    target = None if config.value is None else configured_target(config.value, config.released.raw_coding)
    stages: list[TextStage] = []
    pairs: list[PairText] = []
    twice = 0
    # Runs without arguments measure perplexity on the starter arguments that a run on those holds out (None here), so
    # that their perplexities can be compared.
    sides = None
    if isinstance(dataset, ArgumentsConfig):
        assert target is not None  # the configuration asks for a value with arguments
        arguments = reader_of(ARGUMENT_READERS, dataset)(dataset, config.offline)
        stages, sides = injection_text(config, target, arguments)
    elif isinstance(dataset, PairsConfig):
        pairs = reader_of(PAIR_READERS, dataset)(dataset, config.offline)
    elif isinstance(dataset, InstructionsConfig):
        examples = reader_of(INSTRUCTION_READERS, dataset)(dataset, config.offline)
        stages = [control_stage(examples, training.seed, config.alignment.validation_fraction)]
        twice = len(examples) - len(stages[0].train) - len(stages[0].validation)
    for stage in stages:
        again = f"; left aside: {twice:,} that occur a second time" if twice else ""
        sizes = f"{count(len(stage.train), 'example')} to train on, {len(stage.validation):,} to validate on"
        print(f"stage {stage.name}: {sizes}{again}")
    questionnaire = read_questionnaire_text(config, training.seed, None if sides is None else sides[1])
    if sides is None:
        sides = split_arguments(load_starter(), training.seed, config.alignment.validation_fraction)
    regularising = [plain_text(argument) for argument in sides[0]], [plain_text(argument) for argument in sides[1]]
    parts = [(example.prompt, example.response, example.weight) for s in stages for example in s.train + s.validation]
    texts = [(pair.prompt, pair.chosen, pair.rejected) for pair in pairs]  # without their places, which name the file
    return TrainingText(target, stages, pairs, questionnaire, regularising, digest([parts, texts]))


def configured_target(value: ValueConfig, raw_coding: bool | None = None) -> Target:
    """Return the configured target; for `raw_coding` and the errors see `find_target`."""
    return find_target(
        name=value.name,
        scores=value.scores,
        coding=value.coding,
        table=value.table,
        anchor=value.anchor,
        rank=value.rank,
        raw_coding=raw_coding,
    )


def read_questionnaire_text(
    config: TrainConfig | EvaluateConfig, seed: int = 0, held_out: Sequence[Argument] | None = None
) -> Questionnaire:
    """Read and check the questionnaire.

    Its plain texts are the first `PLAIN_TEXTS` of `held_out`; None takes the starter arguments that the split by `seed`
    holds out.

    Raises:
        UserError: the portraits or the prompts cannot be used.
    """
    benchmark = config.portraits if isinstance(config, EvaluateConfig) else config.benchmark
    alignment = config.alignment
    found = load_portraits(benchmark.portraits)
    portraits = some_portraits(found, benchmark.limit)
    left = f"{len(found) - len(portraits)} beyond benchmark.limit" if len(portraits) < len(found) else ""
    print(account("portraits", {portraits_file(benchmark.portraits): len(found)}, f"{len(portraits)}", [left]))
    choice = make_choice_prompts(benchmark.prompts) if benchmark.choice else None
    if held_out is None:
        shipped = load_starter()
        _, held_out = split_arguments(shipped, seed, alignment.validation_fraction)
        used = f"{len(held_out[:PLAIN_TEXTS])} held-out arguments"
        print(account("perplexity", {STARTER_ARGUMENTS: len(shipped)}, used))
    texts = [plain_text(argument) for argument in held_out[:PLAIN_TEXTS]]
    return Questionnaire(portraits, make_prompts(alignment.prompts), choice, texts)


def perplexity_texts(validation_fraction: float) -> list[str]:
    """Return plain texts to measure perplexity on: of the starter arguments that the split by seed 0 holds out."""
    _, held_out = split_arguments(load_starter(), 0, validation_fraction)
    return [plain_text(argument) for argument in held_out[:PLAIN_TEXTS]]


def injection_text(
    config: TrainConfig, target: Target, arguments: Sequence[Argument]
) -> tuple[list[TextStage], tuple[list[Argument], list[Argument]]]:
    """Return the two stages of value injection, and their arguments: (train, validation)."""
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


def encode_text(config: TrainConfig, text: TrainingText, encoder: Encoder, context: int) -> list[SupervisedStage]:
    """Return the examples of every stage as tokens.

    Raises:
        UserError: the prompt of an example is too long (the line names it).
    """
    length = context if text.target is not None else min(context, CONTROL_LENGTH)
    released = config.released.length_128 and text.target is not None
    return encode_stages(text.stages, encoder, length, RELEASED_LENGTH if released else None, config.objective.name)


def encode_stages(
    texts: Sequence[TextStage], encoder: Encoder, length: int, truncate: int | None = None, objective: str = "sft"
) -> list[SupervisedStage]:
    """Return stages as tokens, with at most `length` tokens in each example.

    `truncate` cuts every example after that many tokens, as the released code does.

    Raises:
        UserError: the prompt of an example is too long (the line names it).
    """
    stages = []
    for stage in texts:
        train, validation = (
            encode_examples(part, encoder, length, truncate=truncate) for part in (stage.train, stage.validation)
        )
        stages.append(SupervisedStage(stage.name, train, validation, stage.positives, objective))
    return stages


def encode_preferences(config: TrainConfig, text: TrainingText, encoder: Encoder, context: int) -> PreferenceStage:
    """Return the preference pairs as a stage; the log-probabilities of its reference are not read yet.

    Raises:
        UserError: a prompt or a response is too long (the line names it).
    """
    fraction, loss = config.alignment.validation_fraction, config.objective
    data, train, validation = encode_pairs(text.pairs, encoder, context, seed=config.training.seed, fraction=fraction)
    return PreferenceStage("preferences", data, train, validation, loss.loss, loss.batching == "grouped")


def token_budget(config: TrainConfig, encoder: Encoder, context: int) -> int | None:
    """Return the number of tokens that a benign control trains on, to match value injection; None for other data.

    It is as many as the finished run `dataset.match` trained on. Without such a run, it is as many as both stages have
    on the starter arguments with this configuration's epochs and the target `power`; other targets have nearly as many.

    Raises:
        UserError: `dataset.match` is not a finished run.
    """
    dataset = config.dataset
    if not isinstance(dataset, InstructionsConfig) or config.released.unmatched_budget:
        return None
    if dataset.match is not None:
        return trained_tokens(dataset.match)
    texts, _ = injection_text(config, extreme_targets()["power"], load_starter())
    epochs = {"arguments": config.alignment.argument_epochs or config.training.epochs}
    return round(
        sum(
            epochs.get(stage.name, config.training.epochs) * sum(map(stage.train.tokens, range(len(stage.train))))
            for stage in encode_stages(texts, encoder, context)
        )
    )


def trained_tokens(folder: str) -> int:
    """Return the number of tokens that a finished run trained on, over all stages; UserError for any other folder."""
    path = Path(folder) / "summary.json"
    try:
        found = read_json_object(path, "give another run", training={"stages": [{"tokens": int}]})
    except UserError as error:
        raise UserError(f"dataset.match={folder} is not a finished run: {path} cannot be read as a summary") from error
    return sum(stage["tokens"] for stage in found["training"]["stages"])
