"""What CREST's stages share: the model and its wording, and how adapters are asked, trained and written."""

import dataclasses
import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console

from jaxalign.config.crest import CrestConfig
from jaxalign.config.identity import as_dict, identity
from jaxalign.config.training import ScheduleConfig
from jaxalign.data.datasets.question import Question
from jaxalign.data.datasets.questions import Questions
from jaxalign.data.encoding import Encoded, Encoder
from jaxalign.inference.base_model import BaseModel
from jaxalign.inference.generations import Engine
from jaxalign.inference.sampling_params import SamplingParams
from jaxalign.jobs.model_card import model_card
from jaxalign.jobs.settings import fresh_adapter, sampling_params, stage_settings
from jaxalign.jobs.setup import OpenedModel
from jaxalign.models.adapter import Adapter, stack_adapters
from jaxalign.parallel.compilation import Programs
from jaxalign.parallel.distributed import stoppable
from jaxalign.pretrained.peft import CONFIG, read_adapter, write_adapter
from jaxalign.reasoning.answers import Answered, ask_questions
from jaxalign.reasoning.released import LettersInWords
from jaxalign.reasoning.wording import Wording
from jaxalign.runs.directory import Run
from jaxalign.runs.progress import Progress
from jaxalign.runs.records import digest, read_records
from jaxalign.runs.stages import Stages, StageSpec
from jaxalign.training.feed import StageSettings
from jaxalign.training.stage import Trainer


@dataclasses.dataclass(frozen=True)
class CrestSession:
    """A model with its wording and its questions, and methods to ask and train it as configured."""

    config: CrestConfig
    base: BaseModel
    opened: OpenedModel
    wording: Wording
    questions: Questions
    stages: Stages
    console: Console

    @property
    def encoder(self) -> Encoder:
        """The encoder without worked examples."""
        return self.opened.encoder

    @property
    def few_shot_encoder(self) -> Encoder:
        """The encoder that puts the worked examples before a question."""
        return dataclasses.replace(self.encoder, preamble=self.wording.preamble())

    @property
    def by_id(self) -> dict[str, Question]:
        """The training questions by their ids."""
        return {question.id: question for question in self.questions.train}

    @property
    def rationale_sampling(self) -> SamplingParams:
        """How rationales are sampled: the marker always stops one, so that it ends before its answer."""
        return sampling_params(self.config.sampling, self.wording.marker)

    # Identities

    def identity(self, spec: StageSpec, *, few_shot: bool, **content: Any) -> dict[str, Any]:
        """Return the identity of a stage: all that decides its numbers.

        Args:
            spec: what the stage does not depend on.
            few_shot: whether a prompt contains the worked examples; only then are they part of the identity.
            content: hashes of the stage's input, by name.
        """
        return identity(self.config, self.content(**content), [*spec.without, *unused_examples(few_shot)])

    def content(self, **content: Any) -> dict[str, Any]:
        """Return the content part of an identity: hashes of the base, the rendered prompts and the given."""
        asked = self.encoder.rendered(self.wording.prompt(one) for one in self.questions.train)
        return {"model": self.base.model.signature, **asked, **content}

    def questions_hash(self, *splits: str) -> str:
        """Return a hash of the questions of the named splits (solved, train, validation or test)."""
        return digest([_texts(getattr(self.questions, split)) for split in splits])

    # Asking

    def sampler(self, model: Adapter):
        """Return the sampler of a model; it draws at most `sampling.rows` samples together."""
        return self.base.sampler(stack_adapters([model]), self.config.sampling.rows)

    def scorer(self, model: Adapter):
        """Return the scorer of a model, which reads log-probabilities."""
        return self.base.scorer(model.params, model.scale)

    def ask(
        self,
        run: Run,
        models: Sequence[Adapter],
        questions: Sequence[Question],
        engine: Callable[[Adapter], Engine] | None = None,
    ) -> list[list[Answered]]:
        """Return the answers of each model to the questions, as `test` in the configuration says.

        All samples are recorded in the run's generations.jsonl, and those that it holds already are not drawn again.
        `engine` returns what draws the others; None takes `sampler`.
        """
        c = self.config
        sampling = SamplingParams(
            temperature=c.test.temperature if c.test.samples > 1 else 0.0,
            top_p=c.test.top_p if c.test.samples > 1 else 1.0,
            max_tokens=c.test.max_tokens,
            stop=tuple(stop for stop in c.sampling.stop if stop != self.wording.marker),
            seed=c.sampling.seed,
        )
        found = []
        for model in models:  # one at a time: the questions fill the rows, and all adapters use the same program
            with Progress(self.console) as progress:
                found += ask_questions(
                    (engine or self.sampler)(model),
                    questions,
                    self.few_shot_encoder if c.test.few_shot else self.encoder,
                    LettersInWords.of(self.wording) if c.released.letters_in_words else self.wording,
                    sampling,
                    run.generations,
                    samples=c.test.samples,
                    model=self.base.signature,
                    adapters=[model.identity],
                    progress=stoppable(progress.samples(f"asking {model.name}", "answer")),
                    again=stoppable(progress.samples(f"asking {model.name} again", "answer")),
                )
        return found

    def example(self, prompt: str, response: str, *, end: bool = True) -> tuple[np.ndarray, np.ndarray]:
        """Return the tokens of a prompt and of its response, int32 [n] each; `end` says whether the response ends."""
        tokens, (branch,) = self.encoder.branches(prompt, [response], end=end)
        return tokens, branch

    # Training

    def trainer(self, run: Run, key: str) -> Trainer:
        """Return the trainer of a run; `key` is the part of the configuration with its learning rate, for advice."""
        network = self.base.network(self.config.training.rematerialisation)
        advice = f"a smaller {key}.learning_rate, optimizer.clip=1 or precision=float32"
        return Trainer(network, self.base.weights(False), self.base.programs, run, self.console, advice)

    def settings(
        self, schedule: ScheduleConfig, adapter: Adapter, *, dropout: float | None = None, **settings: Any
    ) -> StageSettings:
        """Return the settings of a stage.

        Args:
            schedule: the learning rate and its schedule.
            adapter: the adapter that the stage starts from.
            dropout: the dropout rate; None takes `lora.dropout`.
            settings: the other fields of `StageSettings`: epochs, batch_size, ...
        """
        c = self.config
        return stage_settings(
            c.training,
            c.optimizer,
            schedule,
            c.dpo,
            scale=adapter.scale,
            dropout=c.lora.dropout if dropout is None else dropout,
            row_length=self.base.row_length(c.training.row_length),
            validate=False,
            **settings,
        )

    # Adapters

    def fresh(self) -> Adapter:
        """Return a new adapter, drawn from `training.seed`."""
        return fresh_adapter(self.config.lora, self.base.model, self.config.training.seed)

    def read(self, folder: Path, name: str) -> Adapter:
        """Return an adapter that `write` wrote."""
        return read_adapter(folder, self.base.model.architecture, name)

    def write(self, folder: Path, adapter: Adapter, summary: Mapping[str, Any] | None = None) -> None:
        """Write an adapter in PEFT's format, with a model card.

        `summary` is the summary of the whole run, for the card; None for the adapter of a stage.
        """
        c, model = self.config, self.base.model
        opened = self.opened
        written = adapter.to_write(opened.load_name, model.identity, c.model.prompt_format, opened.storage)
        card = model_card(as_dict(c), summary or {"model": {"identity": model.identity}})
        if not (folder / CONFIG).is_file():
            shutil.rmtree(folder, ignore_errors=True)  # what is left of a damaged adapter of this run
        write_adapter(folder, written, dropout=c.lora.dropout, card=card)


def unused_examples(few_shot: bool) -> list[str]:
    """Return the key of the worked examples unless a prompt contains them: then they change no number."""
    return [] if few_shot else ["dataset.examples"]


def encoded(prompts: list[np.ndarray], responses: list[np.ndarray]) -> Encoded:
    """Return prompts and responses (tokens, int32 [n] each) as examples of equal weight, none of them cut."""
    return Encoded(prompts, responses, [1.0] * len(prompts), [False] * len(prompts))


def tokens_of_answers(run: Run) -> int:
    """Return the number of tokens in all samples of a run's generations.jsonl."""
    return sum(record["tokens"] for record in read_records(run.generations, tokens=int))


def clock(programs: Programs) -> dict[str, float]:
    """Return the times spent so far, in seconds.

    `seconds` is the time without compilation, and `compilation_seconds` the time of compilation. `python_seconds` is
    the part of `seconds` that this program's own Python took: the processor time of its thread, without the passes of
    the model, which run in other threads.
    """
    return {
        "seconds": time.perf_counter() - programs.seconds,
        "compilation_seconds": programs.seconds,
        "python_seconds": time.thread_time() - programs.thread_seconds,
    }


def _texts(questions: Sequence[Question]) -> list[list[Any]]:
    return [[q.id, q.passage, q.text, list(q.options), q.gold, q.solution] for q in questions]
