"""The jaxalign side of sft.py: the material that all contenders train on, and our own contender."""

import dataclasses
import json
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from hf_tensors import hf_tensors

from jaxalign.config.train import TrainConfig
from jaxalign.data.encoding import Encoded, Encoder
from jaxalign.data.order import batches, epoch_order
from jaxalign.inference.base_model import ROW_LENGTH
from jaxalign.jobs.settings import fresh_adapter
from jaxalign.jobs.train.data import encode_stages, read_training_text
from jaxalign.models.transformer import Transformer
from jaxalign.objectives.forward import reader
from jaxalign.parallel.compilation import Programs, use_compilation_cache
from jaxalign.parallel.processor import fast_precision
from jaxalign.pretrained.gguf import GgufFile
from jaxalign.pretrained.safetensors import write_safetensors
from jaxalign.pretrained.sources import cache_folder, fetch, read_model, source_of
from jaxalign.training.optimizer import Hyperparameters
from jaxalign.training.state import init_state
from jaxalign.training.step import train_program
from jaxalign.training.supervised import Packer, validation_loss


def prepare(config: TrainConfig, work: Path, examples: int, validation: int) -> dict[str, Any]:
    """Write the examples as tokens (examples.json) and the base's weights as a Hugging Face folder (base)."""
    source = source_of(dataclasses.asdict(config.model))
    model = read_model(source, jnp.bfloat16, offline=False, name=config.model.name)
    encoder = Encoder(model.tokenizer, config.model.prompt_format, config.model.system)
    together = max(config.training.batch_size // 2, 1)
    material = {}
    for stage in encode_stages(read_training_text(config).stages, encoder, model.architecture.context):
        # What the main job trains on first, in its order, so that a part shares as many prompts as the whole.
        order = epoch_order([prompt.tobytes() for prompt in stage.train.prompts], config.training.seed, 0, together)
        held_out = range(min(validation, len(stage.validation)))
        parts = {"train": (stage.train, order[:examples]), "validation": (stage.validation, held_out)}
        material[stage.name] = {
            name: [[part.prompts[i].tolist(), part.responses[i].tolist()] for i in indices]
            for name, (part, indices) in parts.items()
        }
    (work / "examples.json").write_text(json.dumps(material))
    base = work / "base"
    base.mkdir()
    write_safetensors(base / "model.safetensors", dict(hf_tensors(model.architecture, model.params)), {"format": "pt"})
    (base / "config.json").write_text(json.dumps(GgufFile(fetch(source, offline=True)).config()))
    return {"packages": str((cache_folder() / "packages").absolute())}


class Jaxalign:
    """The main job's own parts in its configuration; only the learning rate is constant, as with the others."""

    def __init__(self, config: TrainConfig, work: Path):
        use_compilation_cache(work / "xla")
        self.config = config
        self.precision = fast_precision()[0]
        dtype = jnp.dtype(self.precision)
        self.base = read_model(source_of(dataclasses.asdict(config.model)), dtype, offline=True, name=config.model.name)
        self.network = Transformer(self.base.architecture, dtype, config.training.rematerialisation)
        fresh = fresh_adapter(config.lora, self.base, config.training.seed)
        self.adapter, self.scale = fresh.params, fresh.scale
        self.programs = Programs()
        o = config.optimizer
        clip = float("inf") if o.clip is None else o.clip
        hyper = Hyperparameters(o.learning_rate, *o.betas, o.epsilon, o.weight_decay, clip, self.scale)
        self.hyper = jax.tree.map(np.float32, hyper)

    @property
    def compiled(self) -> float:
        """The seconds of compilation so far."""
        return self.programs.seconds

    def begin(self, stage: dict[str, list]) -> list[int]:
        """Plan the shapes of training and validation as `jaxalign.training.loop.fit` does."""
        batch = self.config.training.batch_size
        self.packer, self.steps = self._packer(stage["train"], batch, programs=3)
        self.held_out = self._packer(stage["validation"], 2 * batch, programs=1)
        self.state = init_state(self.adapter, self.config.training.seed, self.config.optimizer.name)
        self.stored = self.computed = 0
        self.tokens = [sum(self.packer.data.tokens(i) for i in step) for step in self.steps]
        return self.tokens

    def _packer(self, examples: list, size: int, programs: int) -> tuple[Packer, list[list[int]]]:
        t = self.config.training
        prompts, responses = ([np.asarray(ids, np.int32) for ids in part] for part in zip(*examples, strict=True))
        data = Encoded(prompts, responses, [1.0] * len(examples), [False] * len(examples))
        length = t.row_length or min(self.base.architecture.context, ROW_LENGTH)
        packer, steps = (
            Packer(data, t.share_prompts, not t.packing, length, t.max_rows),
            batches(range(len(examples)), size),
        )
        packer.plan(steps, programs)
        return packer, steps

    def step(self, number: int) -> None:
        """Pack and train one step."""
        batch, stored = self.packer.batch(self.steps[number])
        self.stored, self.computed = self.stored + stored, self.computed + batch.tokens.size
        static = (self.network, self.config.optimizer.name, "sft", False)
        arguments = (self.base.params, self.state, self.hyper, batch)
        self.state, _ = self.programs.get("train step", train_program, static, arguments)(*arguments)
        self.adapter = self.state.adapter

    def wait(self) -> None:
        """Wait for all steps begun."""
        jax.block_until_ready(self.state)

    def validate(self) -> float:
        """Return the validation loss."""
        packer, steps = self.held_out
        read = reader(self.network, self.base.params, self.adapter, self.scale, self.programs)
        return float(validation_loss(packer, steps, read))

    def breakdown(self) -> str:
        """Say what share of the computed tokens was padding, and of the tokens what another example's copy saved."""
        padding, shared = 1 - self.stored / self.computed, 1 - self.stored / sum(self.tokens)
        return f"padding {padding:.0%}, shared {shared:.0%}"
