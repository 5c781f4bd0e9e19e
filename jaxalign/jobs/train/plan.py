"""train plan=true: what each device would hold."""

import time
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from jaxalign.config.train import TrainConfig
from jaxalign.inference.generations import PromptRequest
from jaxalign.jobs.settings import fresh_adapter
from jaxalign.jobs.setup import OpenedModel
from jaxalign.jobs.train.data import TrainingText
from jaxalign.jobs.train.session import TrainingSession
from jaxalign.parallel.mesh import too_large
from jaxalign.runs.directory import Run
from jaxalign.runs.progress import duration, say
from jaxalign.training.feed import Stage
from jaxalign.training.planning import planned_step


def print_plan(
    config: TrainConfig,
    text: TrainingText,
    opened: OpenedModel,
    stages: Sequence[Stage],
    budget: int | None,
    questions: list[PromptRequest],
    console: Console,
) -> None:
    """Print what each device holds during the first step of each stage, as the compiler counts it."""
    base = opened.planned()
    adapter = fresh_adapter(config.lora, base.model, config.training.seed)
    session = TrainingSession(config, text, opened, base, budget, questions, Run(Path()), console)
    network = base.network(config.training.rematerialisation)
    assert adapter.params is not None
    for stage, settings in session.planned(stages, adapter):
        step = planned_step(network, base.model.params, adapter.params, stage, settings)
        start = time.perf_counter()
        memory = step.memory()
        parts = ", ".join(f"{name} {count / 1e6:,.0f}" for name, count in memory.items())
        compiled = f"the train step of {step.rows} tokens, compiled in {duration(time.perf_counter() - start)}"
        line = f"{stage.name}: {sum(memory.values()) / 1e6:,.0f} MB on each device for {compiled}: {parts}"
        for words in (line, *too_large(sum(memory.values()))):
            say(console, words)
