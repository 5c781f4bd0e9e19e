"""The training stages of a run: each is trained, or resumed from the newest checkpoint, and its progress is shown."""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from rich.console import Console

from jaxalign.models.lora import LoraParams
from jaxalign.models.transformer import Transformer
from jaxalign.parallel.compilation import Programs
from jaxalign.runs.config_file import owner
from jaxalign.runs.directory import Run
from jaxalign.runs.progress import Progress
from jaxalign.training.checkpoint import newest_meta
from jaxalign.training.feed import Stage, StageSettings
from jaxalign.training.loop import ADVICE, fit, resume_point


@dataclasses.dataclass(frozen=True)
class Trainer:
    """Trains the stages of a run.

    Attributes:
        model: the decoder.
        params: the frozen base, with its layers stacked.
        programs: compiled programs, shared between stages.
        run: where metrics and checkpoints are written.
        console: where progress is shown.
        advice: what to try if the loss is not a number, in the caller's keys.
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
        """Train all stages, each from the adapter of the one before; return the last adapter and all summaries.

        Stages that an earlier process has finished are not trained again.

        Raises:
            UserError: the loss is not a number.
            KeyboardInterrupt: SIGTERM or Ctrl-C came. A checkpoint was written first.
        """
        summaries = self.finished() if stages else []
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
        """Train or resume one stage; return the adapter with the best validation loss, and the stage's summary.

        Args:
            stage: its data.
            settings: how it is trained.
            adapter: the adapter that it starts from; it is not changed.
            before: the summaries of the stages before it, which its checkpoints carry.
            on_epoch: called with the epoch and the adapter at the end of each epoch; after a resumption perhaps again.

        Raises:
            UserError: the loss is not a number.
            KeyboardInterrupt: SIGTERM or Ctrl-C came. A checkpoint was written first.
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

    def finished(self) -> list[dict[str, Any]]:
        """Return the summaries of all stages before the stage of the run's newest checkpoint."""
        meta = newest_meta(self.run.checkpoints, self.console.print, owner(self.run.path))
        return [] if meta is None else meta["stages"]
