"""What holds a training near its base: plain texts, and chats in which the base itself has answered."""

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console

import jaxalign.values
from jaxalign.config.train import TrainConfig
from jaxalign.data.encoding import Encoder
from jaxalign.data.prompts import read_prompts
from jaxalign.data.trees import Tokens
from jaxalign.errors import UserError
from jaxalign.inference.base_model import BaseModel
from jaxalign.inference.generations import PromptRequest, sample_missing
from jaxalign.inference.sampling_params import SamplingParams
from jaxalign.jobs.engines import InTurns
from jaxalign.jobs.train.data import TrainingText
from jaxalign.models.adapter import BASE
from jaxalign.parallel.distributed import stoppable
from jaxalign.runs.progress import Progress
from jaxalign.runs.records import append_record, digest
from jaxalign.training.regularising_texts import RegularisingTexts

QUESTIONS = Path(jaxalign.values.__file__).parent / "data" / "everyday_questions.txt"
"""Everyday questions of ours, one a line. None asks about values by name."""

CHATS = "chats.jsonl"
"""The file of a run that keeps the base's answers."""

CHAT_TOKENS = 96
"""The largest number of tokens of an answer."""

HELD_OUT_EACH = 8
"""One in this many chats is for the validation."""

_ANSWERED: dict[str, list[dict[str, Any]]] = {}
"""The records of a base's answers, by what was asked. They are kept because jobs of a sweep need the same."""


def held_questions(config: TrainConfig, text: TrainingText, encoder: Encoder) -> list[PromptRequest]:
    """Return the everyday questions that the base answers before the training, in the model's chat format.

    The training keeps the model near these answers. There are none for preferences, where the reference does that, and
    for a model without a chat template.

    Raises:
        UserError: `alignment.regulariser.chats` is 1, or more than there are.
    """
    regulariser = config.alignment.regulariser
    if not regulariser.weight or not regulariser.chats or text.pairs or not encoder.tokenizer.has_template:
        return []
    found = [prompt.text for prompt in read_prompts(QUESTIONS)]
    if regulariser.chats > len(found) or regulariser.chats == 1:
        raise UserError(
            f"alignment.regulariser.chats={regulariser.chats}: give 0 for none, or a number from 2 to {len(found)}"
        )
    chat = dataclasses.replace(encoder, prompt_format="chat")  # whatever the format of the training
    return [PromptRequest(question, chat.prompt(question)) for question in found[: regulariser.chats]]


def answered_by_base(
    base: BaseModel,
    questions: list[PromptRequest],
    encoder: Encoder,
    seed: int,
    row: int,
    path: Path,
    console: Console,
) -> list[Tokens]:
    """Return the base's answers to questions as chats; only those that the file does not hold are drawn.

    An answer is no longer than `CHAT_TOKENS`, and not much longer than what a row of `row` tokens has room for, because
    a chat is cut there.
    """
    if not questions:
        return []
    room = row + 1 - min(len(one.tokens) for one in questions)  # a text's last token takes no place in a row
    sampling = SamplingParams(max_tokens=min(CHAT_TOKENS, max(1, room)), seed=seed)
    key = digest([base.signature, seed, sampling.max_tokens, [one.tokens.tolist() for one in questions]])
    if key in _ANSWERED and not path.exists():
        append_record(path, *_ANSWERED[key])
    with Progress(console) as progress:
        records = sample_missing(
            InTurns(base, [BASE], len(questions)),
            questions,
            1,
            sampling,
            path,
            model=base.signature,
            progress=stoppable(progress.samples("the base's own answers", "question")),
        )
    _ANSWERED[key] = [record for (record,) in records]
    chat = dataclasses.replace(encoder, prompt_format="chat")
    chats = []
    for one, (record,) in zip(questions, records, strict=True):
        trunk, (answer,) = chat.branches(one.text, [record["text"]], end=record["end"] == "eos")
        chats.append(np.concatenate([trunk, answer]))
    return chats


def regularising_texts(
    config: TrainConfig, text: TrainingText, encoder: Encoder, context: int, chats: list[Tokens]
) -> RegularisingTexts | None:
    """Return the texts that hold the training near its base as tokens; None without a regulariser.

    Preferences have none, because their reference holds the model.
    """
    regulariser = config.alignment.regulariser
    if not regulariser.weight or text.pairs:
        return None
    train, held_out = ([[encoder.root(one)[:context] for one in side]] for side in text.regularising)
    if chats:
        train.append([chat[:context] for number, chat in enumerate(chats) if number % HELD_OUT_EACH])
        held_out.append([chat[:context] for chat in chats[::HELD_OUT_EACH]])
    return RegularisingTexts(train, held_out, min(regulariser.tokens, context))
