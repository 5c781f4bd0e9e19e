"""Finished runs on the tiny model, for tests of what comes after a training."""

import json
from pathlib import Path

import jax.numpy as jnp

from jaxalign.config.presets import preset
from jaxalign.pretrained.sources import Model, read_model, source_of
from jaxalign.train import main
from jaxalign.values.schwartz import VALUES

CONF = Path(__file__).parent / "conf"
OWN = ["--config-dir", str(CONF)]
SHORT = [*OWN, "alignment=short"]
"""Value injection in few words (conf/alignment/short_prompts.yaml)."""
SHAPED = [*SHORT, "training.batch_size=4", "training.row_length=128"]
"""A training on `write_arguments` whose stages have batches of one shape, and so share a compiled program."""


def read_tiny(**changes: int) -> Model:
    """Return the model `tiny`, read anew, with some keys of its configuration changed."""
    keys = preset("tiny")
    keys["config"] |= changes
    return read_model(source_of(keys), jnp.float32, offline=True, name="tiny")


def write_arguments(path: Path) -> Path:
    """Write twelve short arguments."""
    rows = [
        {
            "id": f"T{i}",
            "conclusion": f"We need rule {i // 3}",
            "stance": "in favor of" if i % 2 else "against",
            "premise": f"it suits me {i}",
            "values": [VALUES[i % 10], VALUES[(i + 3) % 10]],
        }
        for i in range(12)
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def short_questionnaire(folder: Path) -> list[str]:
    """Write ten portraits of one word, and return the settings that ask them and nothing else, in few words."""
    path = folder / "portraits.jsonl"
    rows = [{"number": number, "value": value, "text": value[:4]} for number, value in enumerate(VALUES)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return [*SHORT, f"benchmark.portraits={path}", "benchmark.choice=false"]


def train(folder: Path, value: str, *changes: str) -> Path:
    """Train one step towards a value, without the questionnaire, and return the run's directory."""
    folder.mkdir(parents=True, exist_ok=True)
    data = write_arguments(folder / "arguments.jsonl")
    run = folder / value
    settings = ["model=tiny", "training.max_steps=1", "lora.rank=2", "precision=float32"]
    main([f"+value={value}", f"dataset.path={data}", f"run.dir={run}", *SHAPED, *settings, *QUIET, *changes])
    return run


QUIET = [
    *("training.questionnaire=false", "training.validate=false", "optimizer.learning_rate=0.5"),
    "alignment.regulariser.weight=0",
]
