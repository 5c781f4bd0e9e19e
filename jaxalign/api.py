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
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from rich.console import Console

from jaxalign.config.arguments import (
    AdapterArguments,
    ModelArguments,
    SampleArguments,
    given_pairs,
    given_path,
    given_settings,
    given_texts,
)
from jaxalign.config.presets import preset, presets
from jaxalign.data.encoding import Encoder, encode_examples
from jaxalign.data.examples import Example, split_examples
from jaxalign.errors import UserError, shown, unusable_paths
from jaxalign.inference.base_model import BaseModel
from jaxalign.inference.multiple_choice import choice_log_probs, choice_tree
from jaxalign.inference.sampling_params import Request, SamplingParams
from jaxalign.jobs.adapters import find_adapters
from jaxalign.jobs.settings import fresh_adapter
from jaxalign.models.adapter import BASE, Adapter, stack_adapters
from jaxalign.models.architecture import PROJECTIONS, projection_shape
from jaxalign.parallel.compilation import Programs
from jaxalign.parallel.processor import check_settings, fast_precision
from jaxalign.pretrained.peft import read_adapter, write_adapter
from jaxalign.pretrained.sources import Model, ModelSource, source_of
from jaxalign.pretrained.sources import read_model as load
from jaxalign.runs.directory import open_run
from jaxalign.training.feed import StageSettings
from jaxalign.training.optimizer import Hyperparameters
from jaxalign.training.stage import Trainer
from jaxalign.training.supervised import SupervisedStage


class LanguageModel:
    """A base model that samples, scores and trains adapters.

    A change from sampling to scoring or training, or back, takes a moment, because the base is in memory only once and
    its layout is converted (see inference/base_model.py).
    """

    def __init__(self, model: Model, precision: str, prompt_format: str = "plain", system: str | None = None):
        self.architecture, self.tokenizer, self.identity = model.architecture, model.tokenizer, model.identity
        self.name, self.encoder = model.name, Encoder(model.tokenizer, prompt_format, system)
        self.precision = precision
        """The number format of the matrix products, bfloat16 or float32, which `auto` chooses by the processor."""
        self.storage = model.storage or precision
        self.programs = Programs()
        self.base = BaseModel(model, jnp.dtype(precision), self.programs)
        """The base model, for samplers and scorers of one's own (see `BaseModel`)."""

    def sample(
        self,
        prompts: str | Sequence[str],
        *,
        n: int = 1,
        adapter: Adapter | None = None,
        rows: int = 64,
        **sampling: Any,
    ) -> list[list[str]]:
        """Return n sampled texts for each prompt.

        Args:
            prompts: one prompt or several.
            n: the number of samples of each prompt.
            adapter: the adapter that answers; None is the bare base.
            rows: the largest number of samples that are drawn together.
            sampling: `temperature`, `top_k`, `top_p`, `max_tokens`, `stop`, `seed` (see `SamplingParams`).

        Raises:
            UserError: a setting is not allowed, a prompt does not fit into the context, or the adapter belongs to
                another base.
        """
        usual = dataclasses.asdict(SamplingParams())
        r = given_settings(SampleArguments, {**usual, "n": n, "rows": rows, **sampling})
        asked = given_texts("prompts", prompts)
        sampler = self.base.sampler(stack_adapters([self._checked(adapter)]), r.rows)
        requests = [Request(self.encoder.prompt(prompt), tuple(range(r.n))) for prompt in asked]
        found = sampler.sample(requests, SamplingParams(r.temperature, r.top_k, r.top_p, r.max_tokens, r.stop, r.seed))
        return [[one.text for one in completions] for completions in found]

    def log_probs(self, prompt: str, answers: str | Sequence[str], *, adapter: Adapter | None = None) -> np.ndarray:
        """Return the summed log-probability of each answer after the prompt, float64 [answers], in nats.

        Prompt and answer are encoded as one text. A token that belongs to both counts as the answer's.

        Raises:
            UserError: the prompt or an answer is empty or does not fit into the context, or the adapter belongs to
                another base.
        """
        asked = self._checked(adapter)
        (question,), texts = given_texts("prompt", [prompt]), given_texts("answers", answers)
        root, branches = self.encoder.branches(question, texts)
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
        scorer = self.base.scorer(asked.params, asked.scale)
        choice = choice_tree(root, branches)
        return choice_log_probs(choice, scorer.score([choice.tree])[0])

    def _checked(self, adapter: Adapter | None) -> Adapter:
        """Return the adapter, or `BASE` for None; UserError if its base identity or its shapes are another base's."""
        if not isinstance(adapter, Adapter | None):
            raise UserError(f"{shown(adapter):.60} is not an adapter: give what load_adapter or train_adapter returns")
        if adapter is None or adapter.params is None:
            return BASE
        if adapter.base_identity not in (None, self.identity):
            raise UserError(
                f"the adapter belongs to another base than {self.name}: load that base, or train a new adapter"
            )
        layers = adapter.params.get("layers")
        if not isinstance(layers, Mapping) or not layers or not set(layers) <= set(PROJECTIONS):
            raise UserError(f"the adapter has no weights of projections ({', '.join(PROJECTIONS)}): train or load one")
        for name, pair in layers.items():
            inner, outer = projection_shape(self.architecture, name)
            layers, rank = self.architecture.layers - adapter.first_layer, adapter.rank
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
        layers: float = 1.0,
        learning_rate: float = 1e-3,
        epochs: float = 1.0,
        max_steps: int | None = None,
        batch_size: int = 16,
        dropout: float = 0.0,
        validation_fraction: float = 0.1,
        seed: int = 0,
    ) -> tuple[Adapter, dict[str, Any]]:
        """Train an adapter on (prompt, response) pairs; return it and its summary: losses, steps, tokens, seconds.

        The loss is on the responses and their end tokens. The optimiser is AdamW with linear decay. Nothing stays on
        the disk; for a training that can be resumed, use `python -m jaxalign.train`. `start` is the adapter that
        the training begins with; `rank`, `alpha`, `targets` and `layers` (the share of the layers that get an adapter,
        the last ones) then have no effect.

        Raises:
            UserError: a setting is not allowed, there are fewer than two different prompts, a prompt is too long, the
                loss is not a number, or `start` belongs to another base.
        """
        given = {
            "rank": rank,
            "alpha": alpha,
            "targets": targets,
            "layers": layers,
            "learning_rate": learning_rate,
            "epochs": epochs,
            "max_steps": max_steps,
            "batch_size": batch_size,
            "dropout": dropout,
            "validation_fraction": validation_fraction,
            "seed": seed,
        }
        r = given_settings(AdapterArguments, given)
        if start is None:
            start = fresh_adapter(r, self.base.model, r.seed)
        start = self._checked(start)
        if start.params is None:
            raise UserError("start is the bare base, which has no adapter to train: leave it out for a new adapter")
        examples = [Example(*pair, str(number)) for number, pair in enumerate(given_pairs("pairs", pairs), start=1)]
        sides = split_examples(examples, r.seed, r.validation_fraction)
        train, validation = (encode_examples(side, self.encoder, self.architecture.context) for side in sides)
        settings = StageSettings(
            epochs=r.epochs,
            max_steps=r.max_steps,
            batch_size=r.batch_size,
            seed=r.seed,
            row_length=self.base.row_length(),
            hyper=Hyperparameters(r.learning_rate, weight_decay=0.0, clip=1.0, scale=start.scale, dropout=r.dropout),
        )
        with tempfile.TemporaryDirectory(prefix="jaxalign-") as folder:
            run = open_run({}, {}, dir=Path(folder) / "run")
            network, quiet = self.base.network("projections"), Console(quiet=True)
            trainer = Trainer(network, self.base.weights(False), self.programs, run, quiet)
            stage = SupervisedStage("pairs", train, validation)
            params, summary = trainer.train_stage(stage, settings, start.params)
        return start.trained(jax.device_get(params), "trained"), summary

    @unusable_paths()
    def save_adapter(self, adapter: Adapter, folder: str | Path) -> None:
        """Write an adapter in PEFT's format, with its factor multiplied into its alpha.

        Raises:
            UserError: the adapter is the bare base or belongs to another base, or the folder cannot be written.
        """
        checked = self._checked(adapter)
        if checked.params is None:
            raise UserError("the bare base has no adapter to write")
        written = checked.to_write(self.name, self.identity, self.encoder.prompt_format, self.storage)
        card = f"# A LoRA adapter of {self.name}\n\nA research artefact, not for deployment.\n"
        write_adapter(given_path("folder", folder), written, dropout=0.0, card=card)

    @unusable_paths()
    def load_adapter(self, folder: str | Path) -> Adapter:
        """Return the adapter in a run's directory or a PEFT folder, or the only one that a pattern finds.

        Raises:
            UserError: the folder holds no adapter or a damaged one, the pattern finds several, or the adapter belongs
                to another base.
        """
        (only,) = find_adapters("folder", [given_path("folder", folder)])
        found = read_adapter(only, self.architecture)
        if found.base_identity not in (None, self.identity):
            raise UserError(f"{folder} was trained on another base ({found.base_name}), not on {self.name}")
        return found


@unusable_paths()
def load_model(
    name: str,
    *,
    precision: str = "auto",
    prompt_format: str = "plain",
    system: str | None = None,
    date: str | None = None,
    storage: str | None = None,
    offline: bool = False,
) -> LanguageModel:
    """Load a model.

    Args:
        name: a preset of conf/model (such as smollm2_135m), an id on the hub, a folder, or a .gguf file.
        precision: bfloat16, float32, or auto: the one that the processor multiplies fast.
        prompt_format: plain (the text itself) or chat (the model's chat template).
        system: the system message of the chat format, or None.
        date: the date for a chat template that asks for one, as YYYY-MM-DD; None: 2024-07-26, as on the command line.
        storage: bfloat16, int8 or int4: how the kernels of all layers are kept; None: in the type of `precision`.
        offline: whether the network is never used.

    Raises:
        UserError: the model cannot be found or fetched, it is not supported, or a setting is not known.
    """
    given = {"name": name, "precision": precision, "prompt_format": prompt_format, "system": system, "date": date}
    given |= {"storage": storage, "offline": offline}
    r = given_settings(ModelArguments, given)
    known, name = presets(), r.name
    near = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    if name not in known and near and not Path(name).exists():  # nearly all ids on the hub have a slash
        raise UserError(f"no model is called '{name}'; did you mean '{near[0]}'?")
    source = source_of(preset(name)) if name in known else ModelSource("hub", name)
    check_settings()
    precision = fast_precision()[0] if r.precision == "auto" else r.precision
    model = load(source, jnp.dtype(precision), offline=r.offline, name=name, storage=r.storage)
    if r.date is not None:
        model = dataclasses.replace(model, tokenizer=dataclasses.replace(model.tokenizer, date=r.date))
    return LanguageModel(model, precision, r.prompt_format, r.system)
