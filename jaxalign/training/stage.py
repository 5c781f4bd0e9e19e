"""The stages of one run: each is trained, or gone on with from the run's newest checkpoint, and shown as it goes."""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from rich.console import Console

from jaxalign.models.lora import LoraParams
from jaxalign.models.transformer import Transformer
from jaxalign.parallel.compilation import Programs
from jaxalign.runs.directory import Run
from jaxalign.runs.progress import Progress
from jaxalign.training.feed import Stage, StageSettings
from jaxalign.training.loop import ADVICE, fit, resume_point


@dataclasses.dataclass(frozen=True)
class Trainer:
    """What trains the stages of one run.

    Attributes:
        model: the decoder.
        params: its frozen base, its layers stacked.
        programs: compiled programs, shared between stages.
        run: where metrics and checkpoints go.
        console: where progress is shown.
        advice: what to try where the loss is not a number, in the caller's keys.
    """

    model: Transformer
    params: Any
    programs: Programs
    run: Run
    console: Console
    advice: str = ADVICE

    def train_stages(
        self, stages: Sequence[tuple[Stage, StageSettings]], adapter: LoraParams
    ) -> tuple[LoraParams, list[dict[str, Any]]]:
        """Train all stages, each from the adapter of the one before; return the last adapter and the stages' summaries.

        Stages that an earlier process finished are not trained again.

        Raises:
            UserError: the loss is not a number.
            KeyboardInterrupt: SIGTERM or Ctrl-C came; a checkpoint was written first.
        """
        summaries = self.finished(adapter, stages[0][1].optimizer) if stages else []
        for stage, settings in stages[len(summaries) :]:
            adapter, summary = self.train_stage(stage, settings, adapter, summaries)
            summaries.append(summary)
        return adapter, summaries

    def train_stage(
        self,
        stage: Stage,
        settings: StageSettings,
        adapter: LoraParams,
        before: Sequence[dict[str, Any]] = (),
        *,
        on_epoch: Callable[[int, LoraParams], None] = lambda epoch, adapter: None,
    ) -> tuple[LoraParams, dict[str, Any]]:
        """Train one stage, or go on with it; return the adapter of its best validation loss and its summary.

        Args:
            stage: its data.
            settings: how it is trained.
            adapter: what it starts from; not changed.
            before: the summaries of the stages before it, which travel in its checkpoints.
            on_epoch: given (epoch, adapter) at the end of each epoch, perhaps again after a resumption.

        Raises:
            UserError: the loss is not a number.
            KeyboardInterrupt: SIGTERM or Ctrl-C came; a checkpoint was written first.
        """
        adapter = jax.tree.map(jnp.asarray, adapter)
        found = resume_point(self.run, adapter, settings.optimizer, self.console.print)
        resume = (found[0], found[1]) if found is not None and found[1].stage == stage.name else None
        if resume is not None:
            self.console.print(f"resuming stage {stage.name} after step {resume[1].step}", highlight=False)
        with Progress(self.console) as progress:
            return fit(
                self.model,
                self.params,
                adapter,
                stage,
                settings,
                run=self.run,
                prefix=f"{len(before) + 1:03}-{stage.name}",
                programs=self.programs,
                extra={"stages": list(before)},
                advice=self.advice,
                resume=resume,
                on_stage=progress.stage,
                on_step=lambda step, loss, speed: progress.update(step, loss=loss, tokens_per_second=speed),
                on_epoch=on_epoch,
            )

    def finished(self, adapter: LoraParams, optimizer: str) -> list[dict[str, Any]]:
        """Return the summaries of the stages before the one that the run's newest checkpoint belongs to."""
        found = resume_point(self.run, jax.tree.map(jnp.asarray, adapter), optimizer, self.console.print)
        return [] if found is None else found[2]["stages"]
