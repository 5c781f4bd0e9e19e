"""A training stage from its first step to its last: order, packing, validation, checkpoints.

Reads top to bottom: `steps_of` says which examples each step takes, `Packer` turns them into batches of few shapes,
`fit` runs the steps. Everything a step does follows from (data, settings, seed, its number), so that a stage which
was stopped anywhere goes on bitwise as if it had not been.
"""

import contextlib
import dataclasses
import itertools
import json
import math
import signal
import time
import zlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxalign.data.encoding import Encoded
from jaxalign.data.order import batches, epoch_order
from jaxalign.data.trees import PackedBatch, Segment, Shape, Tree, cost, measure, merge, pack, plan, split_all
from jaxalign.errors import UserError
from jaxalign.models.lora import Adapter
from jaxalign.models.transformer import Transformer
from jaxalign.runs import Run, append_record, read_records, write_atomic
from jaxalign.training import checkpoint
from jaxalign.training.optimizer import Hyperparameters, learning_rates
from jaxalign.training.programs import Programs
from jaxalign.training.state import init_state
from jaxalign.training.step import Metrics, log_probs_program, train_program

PLANNED_STEPS = 48
"""Steps that the shapes are planned on, spread over the stage; a step that fits none of them gets its own."""


@dataclasses.dataclass(frozen=True)
class StageData:
    """One stage's examples: encoded, for training and for validation, and how many are positive (None: no sides)."""

    name: str
    train: Encoded
    validation: Encoded
    positives: int | None = None


@dataclasses.dataclass(frozen=True)
class Settings:
    """How a stage is run. See conf/train.yaml, `training` and `optimizer`, for each field.

    `max_tokens` ends the stage after so many non-padding tokens instead of after its epochs.
    """

    epochs: float
    max_steps: int | None
    max_tokens: int | None
    batch_size: int
    seed: int
    log_every: int
    checkpoint_every: int
    keep_checkpoints: int
    row_length: int
    max_rows: int | None
    packing: bool
    share_prompts: bool
    validate: bool
    optimizer: str
    schedule: str
    warmup_steps: int
    hyper: Hyperparameters


@dataclasses.dataclass
class Course:
    """Where a stage stands; travels in the checkpoint's JSON. Seconds and tokens count the steps alone."""

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


def steps_of(data: Encoded, settings: Settings) -> list[tuple[int, list[int]]]:
    """Return (epoch, indices of the examples) of every step of a stage."""
    groups = [prompt.tobytes() for prompt in data.prompts]
    together = max(settings.batch_size // 2, 1) if settings.share_prompts else 1
    steps: list[tuple[int, list[int]]] = []
    tokens, most = 0, math.inf if settings.max_steps is None else settings.max_steps
    if settings.max_tokens is None:
        most = min(most, max(round(settings.epochs * math.ceil(len(data) / settings.batch_size)), 1))
    for epoch in itertools.count():
        for batch in batches(epoch_order(groups, settings.seed, epoch, together), settings.batch_size):
            if len(steps) == most or (settings.max_tokens is not None and tokens >= settings.max_tokens):
                return steps
            steps.append((epoch, batch))
            tokens += sum(data.tokens(index) for index in batch)
    raise AssertionError("itertools.count() has no end")


@dataclasses.dataclass
class Packer:
    """Turns the examples of a step into one packed batch; a pure function of the step, once planned."""

    data: Encoded
    share: bool
    alone: bool
    limit: int
    max_rows: int | None
    shapes: list[Shape] = dataclasses.field(default_factory=list)

    def plan(self, steps: Sequence[list[int]], programs: int = 2) -> None:
        """Choose the shapes from a sample of the steps."""
        stride = max(len(steps) // PLANNED_STEPS, 1)
        longest = max(self.data.tokens(index) for index in range(len(self.data)))
        sample = [self.trees(step) for step in steps[::stride]]
        self.shapes = sorted(set(plan(sample, max(self.limit, longest), programs, longest=longest, alone=self.alone)))

    def trees(self, step: Sequence[int]) -> list[Tree]:
        """Return the trees of a step's examples."""
        take = [(self.data.prompts[i], self.data.responses[i], self.data.weights[i]) for i in step]
        if self.share:
            prompts, responses, weights = zip(*take, strict=True)
            return merge(prompts, responses, weights)
        return [(Segment(prompt, -1), Segment(response, 0, True, weight)) for prompt, response, weight in take]

    def batch(self, step: Sequence[int]) -> tuple[PackedBatch, int]:
        """Return a step's micro-batches stacked to [M, B, ...], and how many tokens they hold, padding apart."""
        whole = self.trees(step)
        for shape in sorted(self.shapes, key=cost):
            trees = split_all(whole, shape.tokens)
            tight = measure(trees, shape.tokens, alone=self.alone)
            if shape.rows >= tight.rows and shape.predictions >= tight.predictions:
                break
        else:  # unlike any step that was planned: a shape of its own
            trees = split_all(whole, self.shapes[-1].tokens)
            tight = measure(trees, self.shapes[-1].tokens, alone=self.alone)
            shape = dataclasses.replace(tight, predictions=-(-tight.predictions // 64) * 64)
        rows = shape.rows if self.max_rows is None else min(shape.rows, self.max_rows)
        count = -(-shape.rows // rows)
        packed = pack(trees, dataclasses.replace(shape, rows=count * rows), alone=self.alone)
        stacked = jax.tree.map(lambda x: np.asarray(x).reshape(count, rows, *x.shape[1:]), packed)
        return stacked, sum(len(segment.tokens) for tree in trees for segment in tree)


@contextlib.contextmanager
def stop_signals() -> Iterator[Callable[[], bool]]:
    """Yield a function that says whether SIGTERM or Ctrl-C came; a second Ctrl-C stops at once."""
    received: list[int] = []

    def note(number: int, _frame: Any) -> None:
        if received:
            raise KeyboardInterrupt
        received.append(number)

    try:
        before = {number: signal.signal(number, note) for number in (signal.SIGTERM, signal.SIGINT)}
    except ValueError:  # not the main thread: a notebook's worker, a test
        yield lambda: False
        return
    try:
        yield lambda: bool(received)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def validation_loss(
    model: Transformer,
    params: Any,
    adapter: Adapter,
    scale: Any,
    packer: Packer,
    steps: Sequence[Sequence[int]],
    programs: Programs,
) -> float:
    """Return the weighted mean loss over the packer's examples, taken in `steps`."""
    total = count = 0.0
    for step in steps:
        stacked, _ = packer.batch(step)
        for micro in range(stacked.tokens.shape[0]):
            batch = jax.tree.map(lambda x, micro=micro: x[micro], stacked)
            arguments = (params, adapter, np.float32(scale), batch)
            log_probs = np.asarray(programs.get("read", log_probs_program, (model,), arguments)(*arguments), np.float64)
            weight = np.asarray(batch.weight, np.float64)
            total, count = total - (log_probs * weight).sum(), count + weight.sum()
    return float(total / count)


@dataclasses.dataclass
class Meter:
    """Keeps the steps' metrics on the device until they are logged: the step loop never waits for them."""

    course: Course
    rates: Sequence[float]
    run: Run
    programs: Programs
    on_step: Callable[[int, float, float], None]
    pending: list[tuple[int, Metrics]] = dataclasses.field(default_factory=list)
    tokens_then: int = 0

    def restart(self) -> None:
        """Count time from now on: what came since the last `settle` was no training."""
        self.since, self.compiled_then = time.perf_counter(), self.programs.seconds

    def settle(self) -> None:
        """Bring the pending metrics to the host and log them; raises UserError for a loss that is no number."""
        if not self.pending:
            return
        course, run = self.course, self.run
        fetched = jax.device_get([metrics for _, metrics in self.pending])
        seconds = time.perf_counter() - self.since - (self.programs.seconds - self.compiled_then)
        for (step, _), metrics in zip(self.pending, fetched, strict=True):
            loss = metrics.loss_sum / metrics.loss_count
            if not math.isfinite(loss) or not math.isfinite(metrics.gradient_norm):
                raise UserError(
                    f"stage {course.stage}, step {step + 1}: the loss is {loss:g} and the norm of the gradient "
                    f"{metrics.gradient_norm:g} at learning rate {self.rates[step]:g}; try a smaller "
                    "optimizer.learning_rate, optimizer.clip=1, more optimizer.warmup_steps or precision=float32"
                )
            if course.first_loss is None:
                course.first_loss = float(loss)
        course.last_loss = float(sum(m.loss_sum for m in fetched) / sum(m.loss_count for m in fetched))
        course.seconds += seconds
        speed = (course.tokens - self.tokens_then) / seconds
        step = self.pending[-1][0]
        run.log(
            {
                "stage": course.stage,
                "step": step + 1,
                "loss": course.last_loss,
                "learning_rate": self.rates[step],
                "tokens": course.tokens,
                "tokens_per_second": speed,
                "seconds": course.seconds,
                "gradient_norm": float(fetched[-1].gradient_norm),
            }
        )
        self.on_step(step + 1, course.last_loss, speed)
        self.pending.clear()
        self.tokens_then = course.tokens
        self.restart()


def fit(
    model: Transformer,
    params: Any,
    adapter: Adapter,
    data: StageData,
    settings: Settings,
    *,
    run: Run,
    prefix: str,
    programs: Programs,
    extra: dict[str, Any],
    resume: tuple[Any, Course] | None = None,
    on_stage: Callable[[str, int, int], None] = lambda name, total, done: None,
    on_step: Callable[[int, float, float], None] = lambda step, loss, speed: None,
) -> tuple[Adapter, dict[str, Any]]:
    """Train one stage; return the adapter of the best validation loss and the stage's summary.

    Args:
        model: the decoder.
        params: its frozen base.
        adapter: what the stage starts from; not changed.
        data: the examples.
        settings: how they are trained.
        run: where metrics and checkpoints go.
        prefix: checkpoints are named prefix-step; prefixes sort in the order of the stages.
        programs: compiled programs, shared between stages.
        extra: JSON that travels in each checkpoint (the summaries of the stages before).
        resume: (arrays, course) of a checkpoint of this stage.
        on_stage: told of the stage: name, steps, steps done.
        on_step: told of each logged step: step, loss, tokens per second.

    Raises:
        UserError: the loss is not a number (which step, what to try).
        KeyboardInterrupt: SIGTERM or Ctrl-C came; a checkpoint was written first.
    """
    if not len(data.train):
        raise UserError(f"stage {data.name} has no examples to train on: give more data, or raise dataset.limit")
    steps = steps_of(data.train, settings)
    peak = float(settings.hyper.learning_rate)  # type: ignore[arg-type]
    rates = learning_rates(settings.schedule, peak, settings.warmup_steps, len(steps))
    packer, validation = (
        Packer(
            part,
            settings.share_prompts and settings.packing,
            not settings.packing,
            settings.row_length,
            settings.max_rows,
        )
        for part in (data.train, data.validation)
    )
    packer.plan([step for _, step in steps], programs=2)
    held_out = batches(range(len(data.validation)), 2 * settings.batch_size) if settings.validate else []
    if held_out:
        validation.plan(held_out, programs=1)
    arrays, course = resume or (initial_arrays(adapter, settings, data.name), Course(data.name))
    # Copies: the step gives its state's memory away, and these arrays may still be the caller's.
    state, best = jax.tree.map(jnp.array, arrays["state"]), arrays["best"]
    static = (model, settings.optimizer, float(settings.hyper.dropout) > 0)  # type: ignore[arg-type]
    meter = Meter(course, rates, run, programs, on_step, tokens_then=course.tokens)
    on_stage(data.name, len(steps), course.step)

    def save() -> None:
        meter.settle()
        meta = {**extra, "course": dataclasses.asdict(course)}
        name = f"{prefix}-{course.step:07d}"
        checkpoint.save(run.checkpoints, name, {"state": state, "best": best}, meta, settings.keep_checkpoints)

    def improved() -> bool:
        """Validate, and say whether this adapter is the best so far; without validation the last one is."""
        if not held_out:
            return True
        loss = validation_loss(model, params, state.adapter, settings.hyper.scale, validation, held_out, programs)
        append_record(run.validation, {"stage": data.name, "step": course.step, "validation_loss": loss})
        if not math.isfinite(loss):
            raise UserError(
                f"stage {data.name}, step {course.step}: the validation loss is {loss:g}; "
                "try a smaller optimizer.learning_rate or precision=float32"
            )
        if course.best_validation_loss is not None and loss >= course.best_validation_loss:
            return False
        course.best_validation_loss = loss
        return True

    with stop_signals() as stopped:
        meter.restart()
        for number in range(course.step, len(steps)):
            epoch, members = steps[number]
            stacked, stored = packer.batch(members)
            hyper = jax.tree.map(np.float32, dataclasses.replace(settings.hyper, learning_rate=rates[number]))
            arguments = (params, state, hyper, stacked)
            state, metrics = programs.get("train step", train_program, static, arguments)(*arguments)
            meter.pending.append((number, metrics))
            course.step = number + 1
            course.tokens += sum(data.train.tokens(index) for index in members)
            course.stored += stored
            course.computed += stacked.tokens.size
            last = course.step == len(steps)
            if course.step % settings.log_every == 0:
                meter.settle()
            if last or steps[course.step][0] != epoch:
                meter.settle()
                if improved():
                    best = jax.tree.map(np.array, state.adapter)  # a copy, for the same reason
                meter.restart()
            if stopped() and not last:
                save()
                raise KeyboardInterrupt
            if course.step % settings.checkpoint_every == 0 and not last:
                save()
                meter.restart()
        if not course.finished:
            course.finished = True
            save()
        if stopped():
            raise KeyboardInterrupt
    return best, summary_of(course, data)


def initial_arrays(adapter: Adapter, settings: Settings, stage: str) -> dict[str, Any]:
    """Return what a stage's checkpoint holds before its first step: the state, and the best adapter so far."""
    state = init_state(adapter, settings.seed, settings.optimizer, zlib.crc32(stage.encode()))
    return jax.device_get({"state": state, "best": adapter})


def summary_of(course: Course, data: StageData) -> dict[str, Any]:
    """Return a stage's entry of summary.json. Shares: padding of what was computed; shared, of the tokens trained on,
    those that another example's copy stood for (negative where a trunk had to be repeated more than it was shared)."""
    return {
        "name": data.name,
        "examples": len(data.train),
        "validation_examples": len(data.validation),
        "positives": data.positives,
        "cut": sum(data.train.cut),
        "tokens": course.tokens,
        "steps": course.step,
        "first_loss": course.first_loss,
        "last_loss": course.last_loss,
        "best_validation_loss": course.best_validation_loss,
        "seconds": course.seconds,
        "tokens_per_second": course.tokens / course.seconds if course.seconds else None,
        "padding_share": 1 - course.stored / course.computed if course.computed else 0.0,
        "shared_share": 1 - course.stored / course.tokens if course.tokens else 0.0,
    }


def resume_point(
    run: Run, adapter: Adapter, optimizer: str, say: Callable[[str], None]
) -> tuple[Any, Course, dict[str, Any]] | None:
    """Return (arrays, course, meta) of the newest whole checkpoint of a run, or None.

    Records of steps that are to be run again are dropped from metrics.jsonl and validation.jsonl.
    """
    like = jax.eval_shape(lambda: {"state": init_state(adapter, 0, optimizer), "best": adapter})
    found = checkpoint.load_newest(run.checkpoints, lambda meta: like, say)
    arrays, meta = found or (None, {"stages": [], "course": {"stage": ""}})
    course = Course(**meta["course"])
    done = [stage["name"] for stage in meta["stages"]]
    for path in (run.metrics, run.validation):
        records = read_records(path)
        kept = [r for r in records if r["stage"] in done or (r["stage"] == course.stage and r["step"] <= course.step)]
        if len(kept) < len(records):
            write_atomic(path, "".join(json.dumps(record) + "\n" for record in kept))
    return None if found is None else (arrays, course, meta)
