"""jaxalign from Python, without Hydra: load a model, train an adapter, sample, score.

>>> import jaxalign
>>> model = jaxalign.load_model("tiny", precision="float32")
>>> model.sample("Once", n=2, max_tokens=4, seed=1) == model.sample("Once", n=2, max_tokens=4, seed=1)
True
>>> model.log_probs("Is it late?\\n", ["yes", "no"]).shape
(2,)
"""

import dataclasses
import difflib
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from rich.console import Console

from jaxalign.config import schema
from jaxalign.config.fields import Count, Part, Positive, Seed, Share, Targets
from jaxalign.config.presets import preset, presets
from jaxalign.data.encoding import Encoder, encode_examples
from jaxalign.data.examples import Example, split_examples
from jaxalign.errors import UserError, did_you_mean
from jaxalign.inference.base_model import BaseModel
from jaxalign.inference.multiple_choice import choice_log_probs, choice_tree
from jaxalign.inference.sampling_params import Request, SamplingParams
from jaxalign.jobs.adapters import adapter_folder
from jaxalign.models.adapter import BASE, Adapter, stack_adapters
from jaxalign.models.architecture import PROJECTIONS, projection_shape
from jaxalign.models.lora import init_adapter
from jaxalign.parallel.compilation import Programs
from jaxalign.pretrained.peft import read_adapter, write_adapter
from jaxalign.pretrained.sources import Model, ModelSource, source_of
from jaxalign.pretrained.sources import read_model as load
from jaxalign.runs.directory import open_run
from jaxalign.training.feed import StageSettings
from jaxalign.training.optimizer import Hyperparameters
from jaxalign.training.stage import Trainer
from jaxalign.training.supervised import SupervisedStage


@dataclasses.dataclass(frozen=True)
class _Recipe:
    """The settings of `train_adapter`, with what is allowed."""

    rank: Count
    alpha: Positive
    targets: Targets
    learning_rate: Positive
    epochs: Positive
    max_steps: Count | None
    batch_size: Count
    dropout: Share
    validation_fraction: Part
    seed: Seed


class LanguageModel:
    """A base model that samples, scores and trains adapters.

    Going from sampling to scoring or training, and back, takes a moment: the base exists once (see inference/base.py).
    """

    def __init__(self, model: Model, precision: str, prompt_format: str = "plain", system: str | None = None):
        self.architecture, self.tokenizer, self.identity = model.architecture, model.tokenizer, model.identity
        self.name, self.encoder = model.name, Encoder(model.tokenizer, prompt_format, system)
        self.programs = Programs()
        self._base = BaseModel(model, jnp.dtype(precision), self.programs)

    def sample(
        self,
        prompts: str | Sequence[str],
        *,
        n: int = 1,
        adapter: Adapter | None = None,
        rows: int = 64,
        **sampling: Any,
    ) -> list[list[str]]:
        """Return n texts for each prompt.

        Args:
            prompts: one or more.
            n: samples of each.
            adapter: who answers; None is the bare base.
            rows: samples that are drawn together, at most.
            sampling: `temperature`, `top_k`, `top_p`, `max_tokens`, `stop`, `seed` (see `SamplingParams`).

        Raises:
            UserError: a setting will not do, a prompt does not fit into the context, or the adapter is another base's.
        """
        prompts = [prompts] if isinstance(prompts, str) else prompts
        for name, value in (("n", n), ("rows", rows)):
            if value < 1:
                raise UserError(f"{name}={value} will not do: give a whole number of at least 1")
        sampler = self._base.sampler(stack_adapters([self._checked(adapter)]), rows)
        requests = [Request(self.encoder.prompt(prompt), tuple(range(n))) for prompt in prompts]
        found = sampler.sample(requests, SamplingParams(**sampling))
        return [[one.text for one in completions] for completions in found]

    def log_probs(self, prompt: str, answers: str | Sequence[str], *, adapter: Adapter | None = None) -> np.ndarray:
        """Return float64 [answers], in nats: the summed log-probability of each answer's text after the prompt.

        Cut texts after a newline or before a space (prompts end in a newline, or answers begin with a space).

        Raises:
            UserError: an empty prompt or answer, one that does not fit into the context, or an adapter of another base.
        """
        asked = self._checked(adapter)
        texts = [answers] if isinstance(answers, str) else answers
        root, branches = self.encoder.prompt(prompt), [self.encoder.text(text) for text in texts]
        if not len(root):
            raise UserError("the prompt is empty: there is nothing to answer")
        context = self.architecture.context
        for number, branch in enumerate(branches, start=1):
            if not len(branch):
                raise UserError(f"answer {number} is empty: there is nothing to score")
            if len(root) + len(branch) > context:
                raise UserError(
                    f"the prompt has {len(root)} tokens and answer {number} {len(branch)}, and the context holds "
                    f"{context}: shorten them"
                )
        if not branches:
            return np.zeros(0)
        scorer = self._base.scorer(asked.params, asked.scale)
        question = choice_tree(root, branches)
        return choice_log_probs(question, scorer.score([question.tree])[0])

    def _checked(self, adapter: Adapter | None) -> Adapter:
        """Return the adapter, `BASE` for None; UserError for one of another base: by its identity, or by its shape."""
        if adapter is None or adapter.params is None:
            return BASE
        if adapter.base_identity not in (None, self.identity):
            raise UserError(f"the adapter belongs to another base than {self.name}: load that base, or train it anew")
        for name, pair in adapter.params["layers"].items():
            inner, outer = projection_shape(self.architecture, name)
            layers, rank = self.architecture.layers, adapter.rank
            shapes = {side: tuple(np.shape(matrix)) for side, matrix in pair.items()}
            if shapes != {"a": (layers, inner, rank), "b": (layers, rank, outer)}:
                raise UserError(
                    f"the adapter does not fit {self.name}: {name} has the shapes {list(shapes['a'])} and "
                    f"{list(shapes['b'])} where {[layers, inner, rank]} and {[layers, rank, outer]} are needed"
                )
        return adapter

    def train_adapter(
        self,
        pairs: Sequence[tuple[str, str]],
        *,
        start: Adapter | None = None,
        rank: int = 16,
        alpha: float = 32.0,
        targets: Sequence[str] = PROJECTIONS,
        learning_rate: float = 1e-3,
        epochs: float = 1.0,
        max_steps: int | None = None,
        batch_size: int = 16,
        dropout: float = 0.0,
        validation_fraction: float = 0.1,
        seed: int = 0,
    ) -> tuple[Adapter, dict[str, Any]]:
        """Return an adapter trained on (prompt, response) pairs, and its summary: losses, steps, tokens, seconds.

        The loss is on responses alone, with their end token; AdamW with linear decay. It keeps nothing on disk: for a
        training that resumes, use `python -m jaxalign.train`.

        Raises:
            UserError: a setting will not do, fewer than two different prompts, one that is too long, a loss that is not
                a number, or an adapter to start from that is another base's.
        """
        settings = {
            "rank": rank,
            "alpha": alpha,
            "targets": targets,
            "learning_rate": learning_rate,
            "epochs": epochs,
            "max_steps": max_steps,
            "batch_size": batch_size,
            "dropout": dropout,
            "validation_fraction": validation_fraction,
            "seed": seed,
        }
        # A NumPy scalar is a number too, as from a grid of settings.
        given = {name: value.item() if isinstance(value, np.generic) else value for name, value in settings.items()}
        r = schema.read(_Recipe, given)
        if start is None:
            params = init_adapter(jax.random.key(r.seed), self.architecture, r.rank, r.targets)
            start = Adapter("trained", params, r.rank, r.alpha, base_identity=self.identity, base_name=self.name)
        start = self._checked(start)
        if start.params is None:
            raise UserError("start is the bare base, which has nothing to train: leave it out for a new adapter")
        examples = [Example(prompt, response, str(number)) for number, (prompt, response) in enumerate(pairs, start=1)]
        sides = split_examples(examples, r.seed, r.validation_fraction)
        train, validation = (encode_examples(side, self.encoder, self.architecture.context) for side in sides)
        rate, dropout = r.learning_rate, r.dropout
        settings = StageSettings(
            epochs=r.epochs,
            max_steps=r.max_steps,
            batch_size=r.batch_size,
            seed=r.seed,
            row_length=self._base.row_length,
            hyper=Hyperparameters(rate, weight_decay=0.0, clip=1.0, scale=start.scale, dropout=dropout),
        )
        with tempfile.TemporaryDirectory(prefix="jaxalign-") as folder:
            run = open_run({}, {}, dir=Path(folder) / "run")
            network, quiet = self._base.network("projections"), Console(quiet=True)
            trainer = Trainer(network, self._base.weights(False), self.programs, run, quiet)
            stage = SupervisedStage("pairs", train, validation)
            params, summary = trainer.train_stage(stage, settings, start.params)
        return start.trained(jax.device_get(params), "trained"), summary

    def save_adapter(self, adapter: Adapter, folder: str | Path) -> None:
        """Write an adapter in PEFT's format, its factor multiplied in; UserError for the bare base, or another's."""
        checked = self._checked(adapter)
        if checked.params is None:
            raise UserError("the bare base has no adapter to write")
        written = dataclasses.replace(
            checked,
            params=jax.device_get(checked.params),
            base_name=self.name,
            base_identity=self.identity,
            prompt_format=self.encoder.prompt_format,
            notes={},
        )
        card = f"# A LoRA adapter of {self.name}\n\nA research artefact, not for deployment.\n"
        write_adapter(folder, written, dropout=0.0, card=card)

    def load_adapter(self, folder: str | Path) -> Adapter:
        """Read an adapter: a run's directory or a PEFT folder.

        Raises:
            UserError: there is none, or it belongs to another base.
        """
        found = read_adapter(adapter_folder("folder", Path(folder)), self.architecture)
        if found.base_identity not in (None, self.identity):
            raise UserError(f"{folder} was trained on another base ({found.base_name}), not on {self.name}")
        return found


def load_model(
    name: str,
    *,
    precision: str = "bfloat16",
    prompt_format: str = "plain",
    system: str | None = None,
    offline: bool = False,
) -> LanguageModel:
    """Return a model: a preset of conf/model (such as smollm2_135m), an id on the hub, a folder, or a .gguf file.

    Raises:
        UserError: it is not to be had, or it is not supported.
    """
    for key, value, known in (
        ("precision", precision, ("bfloat16", "float32")),
        ("prompt_format", prompt_format, ("plain", "chat")),
    ):
        if value not in known:
            raise UserError(f"{key}={value} is not known{did_you_mean(value, known)}")
    known = presets()
    near = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    if name not in known and near and not Path(name).exists():  # ids on the hub have a slash, but for the oldest ones
        raise UserError(f"no model is called '{name}'; did you mean '{near[0]}'?")
    source = source_of(preset(name)) if name in known else ModelSource("hub", name)
    model = load(source, jnp.dtype(precision), offline=offline, name=name)
    return LanguageModel(model, precision, prompt_format, system)
