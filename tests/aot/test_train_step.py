"""The train step, compiled for TPUs and GPUs that are not here: it compiles, it fits, and devices send each other no
more than they must. No weight is made.
"""

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from functools import cache, partial
from typing import Any, NamedTuple

import chips
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from compiled_text import Sent, collectives
from jax.sharding import AxisType, Mesh
from shapes import SIZES

from jaxalign.data.encoding import Encoded
from jaxalign.models.architecture import PROJECTIONS, Architecture, axis_sizes, from_config
from jaxalign.models.lora import init_adapter
from jaxalign.models.transformer import Transformer
from jaxalign.parallel.rules import MESH_AXES, placement_of
from jaxalign.pretrained.weights import abstract_params
from jaxalign.training.feed import StageSettings
from jaxalign.training.optimizer import Hyperparameters
from jaxalign.training.planning import PlannedStep, bytes_of_program, planned_step
from jaxalign.training.supervised import SupervisedStage

pytestmark = pytest.mark.aot

ROWS, LENGTH, RANK = 8, 1024, 16


class Case(NamedTuple):
    """A machine, a model, its layers (all if None), and the bytes that the step may take on each device."""

    machine: str
    size: str
    layers: int | None
    most: float

    @property
    def chip(self) -> str:
        return self.machine.partition(":")[0]


CASES = [
    Case("v5e:1x1", "135M", None, 4.2e9),
    Case("v6e:2x2", "8B", 2, 2.6e9),
    *(
        pytest.param(case, marks=pytest.mark.slow)
        for case in (
            Case("v6e:1x1", "135M", None, 4.2e9),
            Case("h100", "135M", None, 4.2e9),
            Case("h100", "8B", None, 46e9),
            Case("v6e:2x2", "8B", None, 20e9),
            Case("v5e:2x4", "8B", None, 16e9),
        )
    ),
]
each_case = pytest.mark.parametrize("case", CASES, ids=lambda case: "-".join(map(str, case[:3])).replace("-None", ""))


class Found(NamedTuple):
    """A step that was compiled, and the bytes that it takes on each device."""

    architecture: Architecture
    devices: int
    step: PlannedStep
    program: jax.stages.Compiled
    parts: dict[str, int]


@pytest.fixture(autouse=True, scope="module")
def programs_are_not_kept() -> Iterator[None]:
    jax.config.update("jax_enable_compilation_cache", False)
    yield
    jax.config.update("jax_enable_compilation_cache", True)


@pytest.fixture
def found(case: Case, monkeypatch: pytest.MonkeyPatch) -> Found:
    devices = chips.chips(case.machine)
    monkeypatch.setattr(jax, "default_backend", lambda: chips.platform_of(case.machine))
    return compiled(case, len(devices))


@cache
def compiled(case: Case, count: int) -> Found:
    step, architecture = lowered(case)
    start = time.process_time()
    program = step.program.compile()
    seconds, parts = time.process_time() - start, step.memory(program)
    peak = program.memory_analysis().peak_memory_in_bytes
    print(json.dumps({"case": case[:3], "CPU-seconds": round(seconds), "compiler's peak": peak, **parts}))
    return Found(architecture, count, step, program, parts)


def lowered(case: Case, devices: list[Any] | None = None) -> tuple[PlannedStep, Architecture]:
    """Return the first step of a stage of examples that fill 8 rows of 1,024 tokens, as `plan=true` plans it."""
    devices = devices or chips.chips(case.machine)
    config = SIZES[case.size]
    architecture = from_config(config | {"num_hidden_layers": case.layers or config["num_hidden_layers"]})
    placement = None
    if len(devices) > 1:
        mesh = Mesh(np.array(devices).reshape(1, 1, -1, 1), MESH_AXES, axis_types=(AxisType.Auto,) * 4)
        placement = placement_of(mesh, axis_sizes(architecture))
    params = abstract_params(architecture, jnp.bfloat16, placement)
    if placement is None:
        params = chips.on_chip(params, devices[0])
    draw = partial(init_adapter, architecture=architecture, rank=RANK, targets=PROJECTIONS)
    prompts = [np.full(256, number, np.int32) for number in range(ROWS)]
    data = Encoded(prompts, [np.ones(LENGTH - 256, np.int32)] * ROWS, [1.0] * ROWS, [False] * ROWS)
    settings = StageSettings(epochs=1, batch_size=ROWS, row_length=LENGTH, hyper=Hyperparameters(1e-4), validate=False)
    step = planned_step(
        Transformer(architecture, jnp.bfloat16, "projections", placement),
        params,
        jax.eval_shape(draw, jax.random.key(0)),
        SupervisedStage("planned", data, data),
        settings,
    )
    return step, architecture


@each_case
def test_the_step_fits_into_the_chip(found, case):
    assert found.step.rows == f"{ROWS}x{LENGTH}"
    held = bytes_of_program(found.program)
    assert held < case.most <= chips.MEMORY[case.chip]
    assert sum(found.parts.values()) == held
    assert held >= found.program.memory_analysis().peak_memory_in_bytes  # which leaves out gaps between arrays


@each_case
def test_a_plan_for_a_cpu_that_stands_in_for_the_chips_is_within_15_percent(found, case):
    flags = f"--xla_force_host_platform_device_count={found.devices}"
    environment = os.environ | {"JAX_PLATFORMS": "cpu", "XLA_FLAGS": flags, "PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, __file__, json.dumps(case)]
    planned = json.loads(subprocess.run(command, env=environment, stdout=subprocess.PIPE, check=True).stdout)
    taken = bytes_of_program(found.program)
    print(json.dumps({"case": case[:3], "planned": {name: round(held / 1e6) for name, held in planned.items()}}))
    # With two layers instead of 32, the head is most of it, and a CPU keeps more of that: 21 % too much.
    most = 1.15 if case.layers is None else 1.25
    assert 0.85 * taken <= sum(planned.values()) <= most * taken


@each_case
def test_the_program_is_small(found, case):
    """A program that has its layers or its blocks of attention written out is many times as large."""
    assert found.program.as_text().count("\n") < 20_000
    assert found.program.memory_analysis().generated_code_size_in_bytes < 64e6


@each_case
def test_devices_gather_one_layer_s_kernels_and_never_send_the_activations_of_the_batch(found, case):
    sent, arch = collectives(found.program.as_text()), found.architecture
    if found.devices == 1:
        assert sent == []
        return
    assert not [one for one in sent if carries_the_batch(one)]
    assert not [one for one in sent if any(arch.vocab_size in shape for shape, _ in one.arrays)]
    largest = 2 * arch.width * arch.ff_width  # bytes of the largest kernel
    assert not [one for one in sent for _, count in one.arrays if count > largest]
    assert [one for one in sent if one.kind == "all-gather" and one.in_loop and (1, arch.width, arch.ff_width) in
            [shape for shape, _ in one.arrays]]  # fmt: skip


def carries_the_batch(sent: Sent) -> bool:
    """Return whether a collective ends with the activations [B, T, D] of all rows on a device."""
    return any(shape[-3:-1] == (ROWS, LENGTH) for shape, _ in sent.arrays if len(shape) > 2)


if __name__ == "__main__":
    step, _ = lowered(Case(*json.loads(sys.argv[1])), jax.devices())
    print(json.dumps(step.memory()))
