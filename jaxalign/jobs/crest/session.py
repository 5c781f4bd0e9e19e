"""What CREST's stages share: the model and its wording, who is asked, and how adapters are trained and kept."""

import dataclasses
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
from rich.console import Console

from jaxalign.config.crest import CrestConfig
from jaxalign.config.identity import identity, plain
from jaxalign.config.training import ScheduleConfig
from jaxalign.data.datasets.question import Question
from jaxalign.data.datasets.questions import Questions
from jaxalign.data.encoding import Encoded, Encoder
from jaxalign.inference.base_model import BaseModel
from jaxalign.inference.sampling_params import SamplingParams
from jaxalign.jobs.model_card import model_card
from jaxalign.jobs.setup import OpenedModel, fresh_adapter, stage_settings
from jaxalign.models.adapter import Adapter, stack_adapters
from jaxalign.parallel.compilation import Programs
from jaxalign.pretrained.peft import read_adapter, write_adapter
from jaxalign.reasoning.answers import Answered, ask_questions
from jaxalign.reasoning.released import LettersInWords
from jaxalign.reasoning.wording import Wording
from jaxalign.runs.directory import Run, stored_config
from jaxalign.runs.progress import Progress
from jaxalign.runs.records import digest, read_records
from jaxalign.runs.stages import Stages
from jaxalign.training.feed import StageSettings
from jaxalign.training.stage import Trainer


@dataclasses.dataclass(frozen=True)
class CrestSession:
    """A model with its wording and its questions, which asks and trains as configured."""

    config: CrestConfig
    base: BaseModel
    opened: OpenedModel
    wording: Wording
    questions: Questions
    stages: Stages
    console: Console

    @property
    def encoder(self) -> Encoder:
        """The encoder of the plain question."""
        return self.opened.encoder

    @property
    def few_shot_encoder(self) -> Encoder:
        """The encoder that puts the worked examples before a question."""
        return dataclasses.replace(self.encoder, preamble=self.wording.preamble())

    @property
    def by_id(self) -> dict[str, Question]:
        """The training questions by their ids."""
        return {question.id: question for question in self.questions.train}

    # Identities

    def identity(self, without: Sequence[str], *, few_shot: bool, **content: Any) -> dict[str, Any]:
        """Return what decides the numbers of a stage: all keys that count but those named, and the content given.

        `few_shot`: whether the worked examples are shown to anyone; they count only then.
        """
        without = [*without, *([] if few_shot else ["dataset.examples"])]
        return identity(self.config, {"model": self.base.model.signature, **content}, without)

    def questions_hash(self, *splits: str) -> str:
        """Return a hash of the questions of splits: seed, train, validation, test."""
        return digest([_texts(getattr(self.questions, split)) for split in splits])

    # Asking

    def sampler(self, model: Adapter):
        """Return what samples from a model, as many samples at a time as configured."""
        return self.base.sampler(stack_adapters([model]), self.config.sampling.rows)

    def scorer(self, model: Adapter):
        """Return what reads log-probabilities of a model."""
        return self.base.scorer(model.params, model.scale)

    def ask(self, run: Run, models: Sequence[Adapter], questions: Sequence[Question]) -> list[list[Answered]]:
        """Return every model's answers to the questions; what the run's generations hold is not asked again."""
        c = self.config
        sampling = SamplingParams(
            temperature=c.test.temperature if c.test.samples > 1 else 0.0,
            top_p=c.test.top_p if c.test.samples > 1 else 1.0,
            max_tokens=c.test.max_tokens,
            stop=tuple(stop for stop in c.sampling.stop if stop != self.wording.marker),
            seed=c.sampling.seed,
        )
        found = []
        for model in models:  # one by one: the questions fill the rows, and one program serves every adapter
            with Progress(self.console) as progress:
                found += ask_questions(
                    self.sampler(model),
                    questions,
                    self.few_shot_encoder if c.test.few_shot else self.encoder,
                    LettersInWords.of(self.wording) if c.released.letters_in_words else self.wording,
                    sampling,
                    run.generations,
                    samples=c.test.samples,
                    model=self.base.signature,
                    adapters=[model.identity],
                    progress=progress.samples(f"asking {model.name}", "answer"),
                    again=progress.samples(f"asking {model.name} again", "answer"),
                )
        return found

    def response(self, question: Question, rationale: str, option: int, *, end: bool = True) -> np.ndarray:
        """Return a response's tokens int32 [n], segment by segment as the readings have them; `end`: with the EOS."""
        lead = [self.encoder.text(f"{rationale}\n")] if rationale else []
        answer = self.encoder.text(self.wording.answer(question, option))
        stop = [self.encoder.tokenizer.eos_id] if end else []
        parts = [*lead, self.encoder.text(self.wording.marker), answer, np.array(stop, np.int32)]
        return np.concatenate(parts).astype(np.int32)

    def tokens(self, *segments: str) -> np.ndarray:
        """Return the tokens int32 [n] of a text that is given segment by segment, with the EOS."""
        parts = [self.encoder.text(segment) for segment in segments]
        return np.concatenate([*parts, [self.encoder.tokenizer.eos_id]]).astype(np.int32)

    # Training

    def trainer(self, run: Run, key: str) -> Trainer:
        """Return what trains the stages of a run; `key` is where their settings stand in the configuration."""
        network = self.base.network(self.config.training.rematerialisation)
        advice = f"a smaller {key}.learning_rate, optimizer.clip=1 or precision=float32"
        return Trainer(network, self.base.weights(False), self.base.programs, run, self.console, advice)

    def settings(
        self, schedule: ScheduleConfig, adapter: Adapter, *, dropout: float | None = None, **settings: Any
    ) -> StageSettings:
        """Return how a stage is trained that starts from an adapter; `settings`: more fields of `StageSettings`."""
        c = self.config
        return stage_settings(
            c.training,
            c.optimizer,
            schedule,
            c.dpo,
            scale=adapter.scale,
            dropout=c.lora.dropout if dropout is None else dropout,
            row_length=self.base.row_length,
            validate=False,
            **settings,
        )

    # Adapters

    def fresh(self) -> Adapter:
        """Return a new adapter, drawn from the seed."""
        return fresh_adapter(self.config.lora, self.base.model, self.config.training.seed)

    def read(self, folder: Path, name: str) -> Adapter:
        """Return an adapter that `write` wrote."""
        return read_adapter(folder, self.base.model.architecture, name)

    def write(self, folder: Path, adapter: Adapter, summary: Mapping[str, Any] | None = None) -> None:
        """Write an adapter in PEFT's format; its card says what is in `summary`, that of the run where there is one."""
        c, model = self.config, self.base.model
        written = dataclasses.replace(
            adapter,
            params=jax.device_get(adapter.params),
            base_name=self.opened.load_name,
            base_identity=model.identity,
            prompt_format=c.model.prompt_format,
            notes={},
        )
        card = model_card(plain(c), summary or {"model": {"identity": model.identity}})
        write_adapter(folder, written, dropout=c.lora.dropout, card=card)


def encoded(prompts: list[np.ndarray], responses: list[np.ndarray]) -> Encoded:
    """Return examples of equal weight, none of them cut."""
    return Encoded(prompts, responses, [1.0] * len(prompts), [False] * len(prompts))


def tokens_of_answers(run: Run) -> int:
    """Return the tokens of the answers that a run's models gave."""
    return sum(record["tokens"] for record in read_records(run.generations))


def identity_hash(run: Run) -> str:
    """Return a hash of the identity that a run's directory was made for: what stands for it in later stages' own."""
    return digest(stored_config(run.path)["identity"])


def clock(programs: Programs) -> dict[str, float]:
    """Return what was spent so far: seconds without compilation; those of compilation; and of the former this program's
    own Python (the processor's seconds of its thread), which the model's passes are no part of."""
    return {
        "seconds": time.perf_counter() - programs.seconds,
        "compilation_seconds": programs.seconds,
        "python_seconds": time.thread_time() - programs.thread_seconds,
    }


def _texts(questions: Sequence[Question]) -> list[list[Any]]:
    return [[q.id, q.passage, q.text, list(q.options), q.gold, q.solution] for q in questions]
