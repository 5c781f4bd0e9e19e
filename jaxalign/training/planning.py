"""A step of training before it is taken: what it will hold in a device's memory, and its programs, compiled ahead."""

import dataclasses
from collections.abc import Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int32

from jaxalign.data.packing import PackedBatch
from jaxalign.models.lora import LoraParams
from jaxalign.models.transformer import Transformer, head_kernel
from jaxalign.objectives.log_probs import prediction_log_probs
from jaxalign.parallel.compilation import Programs
from jaxalign.parallel.placing import bytes_of_part, described
from jaxalign.training.base_states import BaseReader
from jaxalign.training.feed import Feed, Stage, StageSettings
from jaxalign.training.state import TrainState, init_state
from jaxalign.training.step import step_batch, train_program


@dataclasses.dataclass(frozen=True)
class PlannedStep:
    """The first step of a stage as its program, not compiled yet, and what the program is given.

    Attributes:
        program: the step, lowered for the devices that hold `params`.
        head: the head of one micro-batch, forwards with the gradients of the states: a part of the step.
        params: the shapes and types of the base.
        state: the shapes and types of the adapter and its optimiser.
        batches: the shapes and types of the micro-batches, and of the regularising texts and the base's states for
            them, if there are any.
    """

    program: jax.stages.Lowered
    head: jax.stages.Lowered
    params: Any
    state: TrainState
    batches: list[Any]

    @property
    def rows(self) -> str:
        """The rows of a micro-batch and their length, such as 8x1024."""
        return "x".join(map(str, self.batches[0].tokens.shape[-2:]))

    def memory(self, step: jax.stages.Compiled | None = None) -> dict[str, int]:
        """Return the bytes on each device by what they hold; their sum is what the compiler counts.

        `step` is the program, if it is compiled already. The head's share is that of its program alone. What is left
        is for the activations.
        """
        given = {"base": self.params, "adapter": self.state.adapter, "optimiser": self.state.opt_state}
        held = {name: bytes_of_part(tree) for name, tree in (given | {"batch": self.batches}).items()}
        head = _analysis(self.head.compile()).temp_size_in_bytes
        rest = bytes_of_program(step or self.program.compile()) - sum(held.values())
        return held | {"head": min(head, rest), "activations": max(rest - head, 0)}


def planned_step(
    model: Transformer, params: Any, adapter: LoraParams, stage: Stage, settings: StageSettings
) -> PlannedStep:
    """Return the first step of a stage.

    `params` and `adapter` may be shapes and types alone (`weights.abstract_params`), also on devices that are not here.
    """
    settings = settings.shared_on(model.placement)
    static, arguments = _first_step(model, params, adapter, stage.feed(settings), settings)
    params, state, _, *batches = arguments
    return PlannedStep(
        train_program.lower(*static, *arguments), _head(model, params, batches[0]), params, state, batches
    )


def compile_ahead(
    model: Transformer,
    params: Any,
    adapter: LoraParams,
    stages: Sequence[tuple[Stage, StageSettings]],
    programs: Programs,
) -> None:
    """Begin to compile the first step of each stage, and what reads the base for it, all together in other threads.

    They are compiled for arrays of the shapes of `params` and `adapter`, whose values are not looked at.
    """
    for stage, settings in stages:
        settings = settings.shared_on(model.placement)
        static, arguments = _first_step(model, params, adapter, stage.feed(settings), settings)
        programs.start(train_program, static, arguments)
        if settings.regularising is not None:
            BaseReader(model, params, settings.regularising, settings.seed, programs).compile_ahead()


def _first_step(
    model: Transformer, params: Any, adapter: LoraParams, feed: Feed, settings: StageSettings
) -> tuple[tuple, tuple]:
    """Return the static arguments of a stage's first step, and the others, of which batches and state are shapes."""
    placement = model.placement
    batch, _ = feed.batch(feed.steps[0][1])
    texts = settings.regularising
    held = () if texts is None else (BaseReader(model, params, texts, settings.seed, Programs()).planned(),)
    batches = (step_batch(model, batch, put=described), *held)
    state = described(placement, jax.eval_shape(partial(init_state, seed=0, optimizer=settings.optimizer), adapter))
    hyper = jax.tree.map(np.float32, settings.hyper)
    static = (model, settings.optimizer, feed.objective, float(settings.hyper.dropout) > 0)  # type: ignore[arg-type]
    return static, (params, state, hyper, *batches)


def bytes_of_program(program: jax.stages.Compiled) -> int:
    """Return the bytes that a compiled program needs on each device, with its arguments and its results."""
    found = _analysis(program)
    whole = found.argument_size_in_bytes + found.temp_size_in_bytes + found.output_size_in_bytes
    return whole - found.alias_size_in_bytes


def _analysis(program: jax.stages.Compiled) -> Any:
    return program.memory_analysis()


def _head(model: Transformer, params: Any, batch: PackedBatch) -> jax.stages.Lowered:
    """Return the head of a micro-batch [M, B, ...], forwards, and its gradients in the states."""
    placement, (rows, count) = model.placement, batch.target.shape[1:]
    softcap, width = model.architecture.logit_softcap, model.architecture.width
    one = np.broadcast_to(np.zeros((), model.dtype), (rows, count, width))
    states = described(placement, one, "rows")
    target = described(placement, np.broadcast_to(np.int32(0), (rows, count)), "rows")

    def read(
        params: Any, states: Float[Array, "B P D"], target: Int32[Array, "B P"]
    ) -> tuple[Float[Array, ""], Float[Array, "B P D"]]:
        head = head_kernel(params, model.architecture)
        return jax.value_and_grad(
            lambda states: jnp.sum(prediction_log_probs(states, head, target, softcap, placement))  # type: ignore
        )(states)

    return jax.jit(read).lower(params, states, target)
