"""What CREST's stages are made of: training adapters, keeping them, and asking models."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from rich.console import Console

from jaxalign.config.crest import CrestConfig
from jaxalign.config.identity import plain
from jaxalign.data.datasets.questions import Question
from jaxalign.data.encoding import Encoded, Encoder
from jaxalign.inference.base_model import BaseModel
from jaxalign.inference.sampling_params import SamplingParams
from jaxalign.jobs.model_card import model_card
from jaxalign.models.lora import LoraParams, adapter_hash, effective, init_adapter, stack_lora
from jaxalign.pretrained.peft import read_adapter, write_adapter
from jaxalign.reasoning import answers
from jaxalign.reasoning.released import LettersInWords
from jaxalign.reasoning.wording import Wording
from jaxalign.runs.directory import Run
from jaxalign.runs.progress import Progress
from jaxalign.runs.records import read_records
from jaxalign.training.feed import Stage, StageSettings
from jaxalign.training.loop import fit, resume_point
from jaxalign.training.optimizer import Hyperparameters


@dataclasses.dataclass(frozen=True)
class Point:
    """An adapter on the way: what it is called, its weights (None: the bare base), and what identifies it."""

    name: str
    weights: LoraParams | None = None
    identity: str = ""


@dataclasses.dataclass
class Learner:
    """A model with its wording, which trains and asks as configured."""

    config: CrestConfig
    base: BaseModel
    encoder: Encoder
    wording: Wording
    console: Console

    def __post_init__(self):
        self.few = dataclasses.replace(self.encoder, preamble=self.wording.preamble())

    @property
    def scale(self) -> float:
        """The adapter's scale, alpha / rank."""
        return self.config.lora.alpha / self.config.lora.rank

    @property
    def base_identity(self) -> str:
        """What identifies the base in records, precision included."""
        return f"{self.base.model.signature}-{self.config.precision}"

    def ask(self, run: Run, points: Sequence[Point], questions: Sequence[Question]) -> list[list[answers.Answered]]:
        """Return every model's answers to the questions."""
        c = self.config
        how = SamplingParams(
            temperature=c.test.temperature if c.test.samples > 1 else 0.0,
            top_p=c.test.top_p if c.test.samples > 1 else 1.0,
            max_tokens=c.test.max_tokens,
            stop=tuple(stop for stop in c.sampling.stop if stop != self.wording.marker),
            seed=c.sampling.seed,
        )
        found = []
        for point in points:  # one by one: the questions fill the rows, and one program serves every adapter
            with Progress(self.console) as progress:
                found += answers.ask_questions(
                    self.base.sampler(self.stacked([point]), c.sampling.rows),
                    questions,
                    self.few if c.test.few_shot else self.encoder,
                    LettersInWords.of(self.wording) if c.released.letters_in_words else self.wording,
                    how,
                    run.generations,
                    samples=c.test.samples,
                    model=self.base_identity,
                    adapters=[point.identity],
                    progress=progress.samples(f"asking {point.name}", "answer"),
                    again=progress.samples(f"asking {point.name} again", "answer"),
                )
        return found

    def asked_tokens(self, run: Run) -> int:
        """Return the tokens of the answers that a run's models gave."""
        return sum(record["tokens"] for record in read_records(run.generations))

    def response(self, question: Question, rationale: str, option: int, *, end: bool = True) -> np.ndarray:
        """Return a response's tokens, segment by segment as the readings have them, with the end token."""
        lead = [self.encoder.text(f"{rationale}\n")] if rationale else []
        parts = [
            *lead,
            self.encoder.text(self.wording.marker),
            self.encoder.text(self.wording.answer(question, option)),
        ]
        stop = [self.encoder.tokenizer.eos_id] if end else []
        return np.concatenate([*parts, np.array(stop, np.int32)]).astype(np.int32)

    def closed(self, question: Question, rationale: str, option: int, verdict: str) -> np.ndarray:
        """Return the tokens of a rationale with the closing sentence about an option, completed."""
        parts = [f"{rationale}\n", self.wording.close(question, option), verdict]
        tokens = [self.encoder.text(part) for part in parts]
        return np.concatenate([*tokens, [self.encoder.tokenizer.eos_id]]).astype(np.int32)

    def settings(
        self,
        *,
        epochs: float,
        batch_size: int,
        learning_rate: float,
        schedule: str = "linear",
        warmup_steps: int = 0,
        max_steps: int | None = None,
        dropout: float | None = None,
    ) -> StageSettings:
        """Return how a training is run."""
        c, t, o = self.config, self.config.training, self.config.optimizer
        return StageSettings(
            epochs=epochs,
            max_steps=max_steps,
            max_tokens=None,
            batch_size=batch_size,
            seed=t.seed,
            log_every=t.log_every,
            checkpoint_every=t.checkpoint_every,
            keep_checkpoints=t.keep_checkpoints,
            row_length=t.row_length or self.base.row_length,
            max_rows=t.max_rows,
            packing=True,
            share_prompts=True,
            validate=False,
            optimizer="adamw",
            schedule=schedule,
            warmup_steps=warmup_steps,
            hyper=Hyperparameters(
                learning_rate=learning_rate,
                b1=o.betas[0],
                b2=o.betas[1],
                eps=o.epsilon,
                weight_decay=o.weight_decay,
                clip=float("inf") if o.clip is None else o.clip,
                scale=self.scale,
                dropout=c.lora.dropout if dropout is None else dropout,
                beta=c.dpo.beta,
                label_smoothing=c.dpo.label_smoothing,
                likelihood=c.dpo.likelihood,
            ),
        )

    def fit(
        self,
        run: Run,
        data: Stage,
        settings: StageSettings,
        adapter: LoraParams,
        before: list[dict[str, Any]],
        *,
        key: str,
        prefix: int = 1,
        on_epoch: Callable[[int, LoraParams], None] = lambda epoch, adapter: None,
    ) -> tuple[LoraParams, dict[str, Any]]:
        """Train one stage of a run, or go on with it from its newest checkpoint; `key` is where its settings stand."""
        adapter = jax.tree.map(jnp.asarray, adapter)
        point = resume_point(run, adapter, settings.optimizer, self.console.print)
        resume = (point[0], point[1]) if point is not None and point[1].stage == data.name else None
        if resume is not None:
            self.console.print(f"resuming {data.name} after step {resume[1].step}", highlight=False)
        with Progress(self.console) as progress:
            return fit(
                self.base.network(self.config.training.rematerialisation),
                self.base.weights(False),
                adapter,
                data,
                settings,
                run=run,
                prefix=f"{prefix:03}-{data.name}",  # checkpoints sort by their names
                programs=self.base.programs,
                extra={"stages": list(before)},
                advice=f"a smaller {key}.learning_rate, optimizer.clip=1 or precision=float32",
                resume=resume,
                on_stage=progress.stage,
                on_step=lambda step, loss, speed: progress.update(step, loss=loss, tokens_per_second=speed),
                on_epoch=on_epoch,
            )

    def finished(self, run: Run, adapter: LoraParams) -> list[dict[str, Any]]:
        """Return the summaries of the stages before the one that a run's newest checkpoint belongs to."""
        point = resume_point(run, jax.tree.map(jnp.asarray, adapter), "adamw", self.console.print)
        return [] if point is None else point[2]["stages"]

    def fresh(self) -> LoraParams:
        """Return a new adapter, drawn from the seed."""
        c = self.config
        return init_adapter(jax.random.key(c.training.seed), self.base.model.architecture, c.lora.rank, c.lora.targets)

    def stacked(self, points: Sequence[Point]) -> LoraParams | None:
        """Return adapters in one, as `stack_lora` does."""
        return stack_lora([None if p.weights is None else effective(p.weights, self.scale) for p in points])

    def write(self, folder: Path, adapter: Any, summary: Mapping[str, Any] | None = None) -> None:
        """Write an adapter in PEFT's format; its card says what is in `summary`, that of the run where there is one."""
        c, model = self.config, self.base.model
        write_adapter(
            folder,
            jax.device_get(adapter),
            architecture=model.architecture,
            rank=c.lora.rank,
            alpha=c.lora.alpha,
            dropout=c.lora.dropout,
            base_name=c.model.path or c.model.name,
            base_identity=model.identity,
            prompt_format=c.model.prompt_format,
            card=model_card(plain(c), summary or {"model": {"identity": model.identity}}),
            extra={},
        )

    def point(self, name: str, folder: Path) -> Point:
        """Read an adapter."""
        return self.named(name, read_adapter(folder, self.base.model.architecture).adapter)

    def named(self, name: str, weights: LoraParams) -> Point:
        """Return an adapter with what identifies it."""
        return Point(name, weights, adapter_hash(weights, self.scale))


def encoded(prompts: list[np.ndarray], responses: list[np.ndarray]) -> Encoded:
    """Return examples of equal weight, none of them cut."""
    return Encoded(prompts, responses, [1.0] * len(prompts), [False] * len(prompts))
