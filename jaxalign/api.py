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

from jaxalign.config import schema
from jaxalign.config.fields import Count, Part, Positive, Seed, Share, Targets
from jaxalign.config.presets import preset, presets
from jaxalign.data.encoding import Encoder, encode_examples
from jaxalign.data.examples import Example, split_examples
from jaxalign.errors import UserError, did_you_mean
from jaxalign.inference.base_model import BaseModel
from jaxalign.inference.multiple_choice import choice_log_probs, choice_tree
from jaxalign.inference.sampling_params import Request, SamplingParams
from jaxalign.jobs.adapters import find_adapters
from jaxalign.models.architecture import PROJECTIONS, projection_shape
from jaxalign.models.lora import LoraParams as Weights
from jaxalign.models.lora import effective, init_adapter
from jaxalign.parallel.compilation import Programs
from jaxalign.pretrained.peft import read_adapter, write_adapter
from jaxalign.pretrained.sources import Model, ModelSource, source_of
from jaxalign.pretrained.sources import read_model as load
from jaxalign.runs.directory import open_run
from jaxalign.training.feed import StageSettings
from jaxalign.training.loop import fit
from jaxalign.training.optimizer import Hyperparameters
from jaxalign.training.supervised import SupervisedStage


@dataclasses.dataclass(frozen=True)
class Adapter:
    """A LoRA adapter: float32 weights {"layers": {projection: {"a": [L, in, r], "b": [L, r, out]}}}; alpha / rank is
    its scale, and `factor` what the user multiplies it by. `base_identity` is that of the base it belongs to, where
    that is known."""

    weights: Weights
    rank: int
    alpha: float
    factor: float = 1.0
    base_identity: str | None = None

    @property
    def scale(self) -> float:
        """What x A B is multiplied by."""
        return self.factor * self.alpha / self.rank

    def times(self, factor: float) -> "Adapter":
        """Return the adapter with `factor` times its effect."""
        return dataclasses.replace(self, factor=self.factor * factor)


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
        self._check(adapter)
        adapters = None if adapter is None else effective(adapter.weights, adapter.scale)
        stack = None if adapters is None else jax.tree.map(lambda leaf: jnp.asarray(leaf)[None], adapters)
        how = SamplingParams(**sampling)
        sampler = self._base.sampler(stack, rows)
        requests = [Request(self.encoder.prompt(prompt), tuple(range(n))) for prompt in prompts]
        return [[one.text for one in completions] for completions in sampler.sample(requests, how)]

    def log_probs(self, prompt: str, answers: str | Sequence[str], *, adapter: Adapter | None = None) -> np.ndarray:
        """Return float64 [answers], in nats: the summed log-probability of each answer's text after the prompt.

        Cut texts after a newline or before a space (prompts end in a newline, or answers begin with a space).

        Raises:
            UserError: an empty prompt or answer, one that does not fit into the context, or an adapter of another base.
        """
        self._check(adapter)
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
        scorer = self._base.scorer(*((None, 0.0) if adapter is None else (adapter.weights, adapter.scale)))
        question = choice_tree(root, branches)
        return choice_log_probs(question, scorer.score([question.tree])[0])

    def _check(self, adapter: Adapter | None) -> None:
        """Raise UserError for an adapter of another base: by its identity, or where it has none by its shape."""
        if adapter is None:
            return
        if adapter.base_identity not in (None, self.identity):
            raise UserError(f"the adapter belongs to another base than {self.name}: load that base, or train it anew")
        for name, pair in adapter.weights["layers"].items():
            inner, outer = projection_shape(self.architecture, name)
            layers, rank = self.architecture.layers, adapter.rank
            shapes = {side: tuple(np.shape(matrix)) for side, matrix in pair.items()}
            if shapes != {"a": (layers, inner, rank), "b": (layers, rank, outer)}:
                raise UserError(
                    f"the adapter does not fit {self.name}: {name} has the shapes {list(shapes['a'])} and "
                    f"{list(shapes['b'])} where {[layers, inner, rank]} and {[layers, rank, outer]} are needed"
                )

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
        self._check(start)
        examples = [Example(prompt, response, str(number)) for number, (prompt, response) in enumerate(pairs, start=1)]
        sides = split_examples(examples, r.seed, r.validation_fraction)
        train, validation = (encode_examples(side, self.encoder, self.architecture.context) for side in sides)
        if start is None:
            weights = init_adapter(jax.random.key(r.seed), self.architecture, r.rank, r.targets)
            start = Adapter(weights, r.rank, r.alpha, base_identity=self.identity)
        course = StageSettings(
            epochs=r.epochs,
            max_steps=r.max_steps,
            max_tokens=None,
            batch_size=r.batch_size,
            seed=r.seed,
            log_every=10,
            checkpoint_every=10**9,
            keep_checkpoints=1,
            row_length=self._base.row_length,
            max_rows=None,
            packing=True,
            share_prompts=True,
            validate=True,
            optimizer="adamw",
            schedule="linear",
            warmup_steps=0,
            hyper=Hyperparameters(
                learning_rate=r.learning_rate,
                b1=0.9,
                b2=0.999,
                eps=1e-8,
                weight_decay=0.0,
                clip=1.0,
                scale=start.scale,
                dropout=r.dropout,
            ),
        )
        with tempfile.TemporaryDirectory(prefix="jaxalign-") as folder:
            weights, summary = fit(
                self._base.network("projections"),
                self._base.weights(False),
                jax.tree.map(jnp.asarray, start.weights),
                SupervisedStage("pairs", train, validation),
                course,
                run=open_run({}, {}, dir=Path(folder) / "run"),
                prefix="1-pairs",
                programs=self.programs,
                extra={},
            )
        return dataclasses.replace(start, weights=jax.device_get(weights)), summary

    def save_adapter(self, adapter: Adapter, folder: str | Path) -> None:
        """Write an adapter in PEFT's format, its factor multiplied in; UserError for one of another base."""
        self._check(adapter)
        write_adapter(
            folder,
            jax.device_get(adapter.weights),
            architecture=self.architecture,
            rank=adapter.rank,
            alpha=adapter.alpha * adapter.factor,
            dropout=0.0,
            base_name=self.name,
            base_identity=self.identity,
            prompt_format=self.encoder.prompt_format,
            card=f"# A LoRA adapter of {self.name}\n\nA research artefact, not for deployment.\n",
            extra={},
        )

    def load_adapter(self, folder: str | Path) -> Adapter:
        """Read an adapter: a run's directory or a PEFT folder.

        Raises:
            UserError: there is none, or it belongs to another base.
        """
        (path,) = find_adapters("folder", [str(folder)])
        found = read_adapter(path, self.architecture)
        if found.base_identity not in (None, self.identity):
            raise UserError(f"{path} was trained on another base ({found.base_name}), not on {self.name}")
        return Adapter(found.adapter, found.rank, found.alpha, base_identity=found.base_identity)


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
