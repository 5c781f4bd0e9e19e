"""A training stage from its first step to its last: steps, validation, checkpoints.

A feed (feed.py) gives the batch of each step, and `fit` takes the steps. What a step does follows from the data, the
settings, the seed and its number alone. So a stage that was stopped goes on, bit for bit, as if it had not been.
"""

import contextlib
import dataclasses
import math
import signal
import time
import zlib
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any

import jax
import numpy as np

from jaxalign.errors import UserError
from jaxalign.models.lora import LoraParams
from jaxalign.models.precision import Number
from jaxalign.models.transformer import Transformer
from jaxalign.objectives.forward import divergence_program, reader
from jaxalign.parallel.compilation import Programs
from jaxalign.parallel.distributed import by_first, several, stop_agreed
from jaxalign.parallel.interruption import STOP_SIGNALS, second_ends
from jaxalign.parallel.placing import placed
from jaxalign.runs.config_file import owner
from jaxalign.runs.directory import Run
from jaxalign.runs.records import append_record, read_records, write_records
from jaxalign.training import checkpoint
from jaxalign.training.base_states import BaseReader
from jaxalign.training.feed import Feed, Stage, StageSettings
from jaxalign.training.optimizer import learning_rates
from jaxalign.training.state import init_state
from jaxalign.training.step import Metrics, step_batch, train_program

ADVICE = "a smaller optimizer.learning_rate, optimizer.clip=1, more optimizer.warmup_steps or precision=float32"
"""What to try if the loss is not a number, in the keys of jaxalign.train."""

PROGRESS_KEY = "progress"
"""The key of `StageProgress` in a checkpoint's JSON."""


@dataclasses.dataclass
class StageProgress:
    """How far a stage has come: a part of the checkpoint's JSON.

    `tokens` counts the tokens of the examples, `stored` the tokens in the rows (a shared prompt once), and `computed`
    the padding, too.
    `seconds` is the time of the steps alone, without compilation and validation.
    """

    stage: str
    step: int = 0
    tokens: int = 0
    computed: int = 0
    stored: int = 0
    seconds: float = 0.0
    first_loss: float | None = None
    last_loss: float | None = None
    best_validation_loss: float | None = None
    finished: bool = False


@contextlib.contextmanager
def stop_signals() -> Iterator[Callable[[], bool]]:
    """Yield a function that tells whether one of the `STOP_SIGNALS` has come.

    A second one raises KeyboardInterrupt; in a command it ends the process (see `interruption.interruptible`). At the
    end the handlers from before are back, and the one of the signal that came is called. It raises KeyboardInterrupt in
    a command of ours, and requeues the job under submitit. Several processes agree on a step (see
    `distributed.stop_agreed`), and have other handlers.
    """
    if several():
        yield stop_agreed
        return
    received: list[signal.Signals] = []

    def note(number: int, _frame: Any) -> None:
        if received and not second_ends():
            raise KeyboardInterrupt
        received.append(signal.Signals(number))

    try:
        before = {number: signal.signal(number, note) for number in STOP_SIGNALS}
    except ValueError:  # not the main thread: a notebook's worker, a test
        yield lambda: False
        return
    try:
        yield lambda: bool(received)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        if received and callable(handler := before[received[0]]):
            handler(received[0], None)


@dataclasses.dataclass
class MetricLogger:
    """Logs the metrics of steps. It leaves them on the device until then, so that the steps need not wait for them."""

    progress: StageProgress
    learning_rates: Sequence[float]
    run: Run
    programs: Programs
    on_step: Callable[[int, float, float], None]
    advice: str
    pending: list[tuple[int, Metrics]] = dataclasses.field(default_factory=list)
    tokens_logged: int = 0

    def restart_timer(self) -> None:
        """Measure time from now on, because the time since the last `flush` was not spent on steps."""
        self.started, self.compiled_before = time.perf_counter(), self.programs.seconds

    def flush(self) -> None:
        """Fetch the pending metrics from the device and log them.

        Raises:
            UserError: a loss or a gradient is not a finite number.
        """
        if not self.pending:
            return
        progress, run = self.progress, self.run
        fetched = jax.device_get([metrics for _, metrics in self.pending])
        seconds = time.perf_counter() - self.started - (self.programs.seconds - self.compiled_before)
        for (step, _), metrics in zip(self.pending, fetched, strict=True):
            loss = metrics.loss_sum / metrics.loss_count
            if step == 0 and not math.isfinite(loss):  # no step has been taken, so none was too long
                raise UserError(
                    f"stage {progress.stage}, step 1: the loss is {loss:g} before anything was learned in this stage, "
                    "so the logits of the model are not finite: get its weights again, or try precision=float32"
                )
            if not math.isfinite(loss) or not math.isfinite(metrics.gradient_norm):
                raise UserError(
                    f"stage {progress.stage}, step {step + 1}: the loss is {loss:g} and the norm of the gradient "
                    f"{metrics.gradient_norm:g} at learning rate {self.learning_rates[step]:g}; try {self.advice}"
                )
            if progress.first_loss is None:
                progress.first_loss = float(loss)
        count = sum(m.loss_count for m in fetched)
        means = {name: float(sum(m.sums[name] for m in fetched) / count) for name in fetched[0].sums}
        progress.last_loss = float(sum(m.loss_sum for m in fetched) / count)
        progress.seconds += seconds
        speed = (progress.tokens - self.tokens_logged) / seconds
        step = self.pending[-1][0]
        run.log(
            {
                "stage": progress.stage,
                "step": step + 1,
                "loss": progress.last_loss,
                **means,
                "learning_rate": self.learning_rates[step],
                "tokens": progress.tokens,
                "tokens_per_second": speed,
                "seconds": progress.seconds,
                "gradient_norm": float(fetched[-1].gradient_norm),
            }
        )
        self.on_step(step + 1, progress.last_loss, speed)
        self.pending.clear()
        self.tokens_logged = progress.tokens
        self.restart_timer()


def fit(
    model: Transformer,
    params: Any,
    adapter: LoraParams,
    data: Stage,
    settings: StageSettings,
    *,
    run: Run,
    prefix: str,
    programs: Programs,
    extra: dict[str, Any],
    advice: str = ADVICE,
    resume: tuple[Any, StageProgress] | None = None,
    on_stage: Callable[[str, int, int], None] = lambda name, total, done: None,
    on_step: Callable[[int, float, float], None] = lambda step, loss, speed: None,
    on_epoch: Callable[[int, LoraParams], None] = lambda epoch, adapter: None,
) -> tuple[LoraParams, dict[str, Any]]:
    """Train one stage; return the adapter with the best validation loss, and the stage's summary.

    Args:
        model: the decoder.
        params: the frozen base.
        adapter: the adapter that the stage starts from; it is not changed.
        data: the examples.
        settings: how they are trained.
        run: where metrics and checkpoints are written.
        prefix: checkpoints are named prefix-step; prefixes sort in the order of the stages.
        programs: compiled programs, shared between stages.
        extra: JSON that each checkpoint carries (the summaries of the stages before).
        advice: what to try if the loss is not a number, in the caller's keys.
        resume: (arrays, progress) of a checkpoint of this stage.
        on_stage: called with the stage's name, its steps, and the steps done.
        on_step: called for each logged step with its number, its loss, and tokens per second.
        on_epoch: called with the epoch and the adapter at the end of each epoch; after a resumption perhaps again.

    Raises:
        UserError: the loss is not a number (which step, what to try).
        KeyboardInterrupt: one of the `STOP_SIGNALS` came. A checkpoint was written first.
    """
    placement = model.placement
    settings = settings.shared_on(placement)
    feed = data.feed(settings)
    steps = feed.steps
    peak = float(settings.hyper.learning_rate)  # type: ignore[arg-type]
    rates = learning_rates(settings.schedule, peak, settings.warmup_steps, len(steps))
    arrays, progress = resume or (initial_arrays(adapter, settings, data.name), StageProgress(data.name))
    # Copies, because a step donates the memory of its state, and the caller may still use these arrays.
    state, best = placed(placement, arrays["state"]), arrays["best"]
    static = (model, settings.optimizer, feed.objective, float(settings.hyper.dropout) > 0)  # type: ignore[arg-type]
    texts = settings.regularising
    base = None if texts is None else BaseReader(model, params, texts, settings.seed, programs)
    logger = MetricLogger(progress, rates, run, programs, on_step, advice, tokens_logged=progress.tokens)
    on_stage(data.name, len(steps), progress.step)

    def save() -> None:
        logger.flush()
        meta = {**extra, checkpoint.OWNER: owner(run.path), PROGRESS_KEY: dataclasses.asdict(progress)}
        name = f"{prefix}-{progress.step:07d}"
        checkpoint.save(run.checkpoints, name, {"state": state, "best": best}, meta, settings.keep_checkpoints)
        run.save_copy()

    def improved() -> bool:
        """Validate, and return whether the adapter is the best so far. Without validation data the last one is.

        What counts is what the steps minimise: the loss, and the divergence from the base with its weight.
        """
        measured = measure_validation(model, params, state.adapter, feed, settings.hyper.scale, base, programs)
        if measured is None:
            return True
        append_record(run.validation, {"stage": data.name, "step": progress.step, **measured})
        loss = measured["validation_loss"]
        if "divergence" in measured:
            loss += float(settings.hyper.divergence) * measured["divergence"]  # type: ignore[arg-type]
        if not math.isfinite(loss):
            raise UserError(f"stage {data.name}, step {progress.step}: the validation loss is {loss:g}; try {advice}")
        agreed = by_first(partial(float, loss))  # what is kept hangs on its last bits
        if progress.best_validation_loss is not None and agreed >= progress.best_validation_loss:
            return False
        progress.best_validation_loss = agreed
        return True

    with stop_signals() as stopped:
        logger.restart_timer()
        for number in range(progress.step, len(steps)):
            epoch, members = steps[number]
            stacked, stored = feed.batch(members)
            hyper = jax.tree.map(np.float32, dataclasses.replace(settings.hyper, learning_rate=rates[number]))
            held = () if base is None else (base.of_step(number),)
            arguments = (params, state, hyper, step_batch(model, stacked), *held)
            state, metrics = programs.get("train step", train_program, static, arguments)(*arguments)
            logger.pending.append((number, metrics))
            progress.step = number + 1
            progress.tokens += feed.tokens(members)
            progress.stored += stored
            progress.computed += stacked.tokens.size
            last = progress.step == len(steps)
            if progress.step % settings.log_every == 0:
                logger.flush()
            if last or steps[progress.step][0] != epoch:
                logger.flush()
                if improved():
                    best = jax.tree.map(np.array, state.adapter)  # a copy: the next step donates the state
                on_epoch(epoch, state.adapter)
                logger.restart_timer()
            if stopped() and not last:
                save()
                raise KeyboardInterrupt
            if progress.step % settings.checkpoint_every == 0 and not last:
                save()
                logger.restart_timer()
        if not progress.finished:
            progress.finished = True
            save()
        if stopped():
            raise KeyboardInterrupt
    return best, stage_summary(progress, feed)


def measure_validation(
    model: Transformer,
    params: Any,
    adapter: LoraParams,
    feed: Feed,
    scale: Number,
    base: BaseReader | None,
    programs: Programs,
) -> dict[str, float] | None:
    """Return `validation_loss`, and with a regulariser the `divergence` from the base on held-out texts.

    `scale` is alpha / rank, and `base` reads the texts. Without validation data, the result is None.
    """
    loss = feed.validation_loss(reader(model, params, adapter, scale, programs))
    if loss is None:
        return None
    found = {"validation_loss": loss}
    if base is not None:
        arguments = (params, adapter, np.float32(scale), *base.held_out)
        program = programs.get("divergence", divergence_program, (model,), arguments)
        found["divergence"] = float(program(*arguments))
    return found


def initial_arrays(adapter: LoraParams, settings: StageSettings, stage: str) -> dict[str, Any]:
    """Return the arrays of a stage's checkpoint before its first step: the state, and the best adapter so far."""
    state = init_state(adapter, settings.seed, settings.optimizer, zlib.crc32(stage.encode()))
    return jax.device_get({"state": state, "best": adapter})


def stage_summary(progress: StageProgress, feed: Feed) -> dict[str, Any]:
    """Return a stage's entry of summary.json.

    `padding_share` is the share of padding in the computed tokens. `shared_share` is the share of the examples' tokens
    that took no place in a row: another example has the same beginning, or the token is the last of its response, which
    nothing reads. It is negative if trees were cut, and their trunks repeated more often than they were shared.
    """
    return {
        "name": progress.stage,
        **feed.summary(),
        "tokens": progress.tokens,
        "steps": progress.step,
        "first_loss": progress.first_loss,
        "last_loss": progress.last_loss,
        "best_validation_loss": progress.best_validation_loss,
        "seconds": progress.seconds,
        "tokens_per_second": progress.tokens / progress.seconds if progress.seconds else None,
        "padding_share": 1 - progress.stored / progress.computed if progress.computed else 0.0,
        "shared_share": 1 - progress.stored / progress.tokens if progress.tokens else 0.0,
    }


def resume_point(
    run: Run, adapter: LoraParams, optimizer: str, say: Callable[[str], None]
) -> tuple[Any, StageProgress, dict[str, Any]] | None:
    """Return (arrays, progress, meta) of the newest whole checkpoint of a run, or None if there is none.

    The records of steps after it, which will be taken again, are removed from metrics.jsonl and validation.jsonl.
    """
    like = jax.eval_shape(lambda: {"state": init_state(adapter, 0, optimizer), "best": adapter})
    found = checkpoint.load_newest(run.checkpoints, lambda meta: like, say, owner(run.path))
    arrays, meta = found or (None, {"stages": [], PROGRESS_KEY: {"stage": ""}})
    progress = StageProgress(**meta[PROGRESS_KEY])
    done = [stage["name"] for stage in meta["stages"]]
    for path in (run.metrics, run.validation):
        records = read_records(path, stage=str, step=int)
        kept = [
            r for r in records if r["stage"] in done or (r["stage"] == progress.stage and r["step"] <= progress.step)
        ]
        if len(kept) < len(records):
            write_records(path, kept)
    return None if found is None else (arrays, progress, meta)
