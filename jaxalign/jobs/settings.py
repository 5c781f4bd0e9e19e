"""What parts of the configuration become: sampling parameters, the settings of a stage, a new adapter."""

from typing import Any

import jax

from jaxalign.config.generate import SamplingConfig
from jaxalign.config.model import LoraConfig
from jaxalign.config.training import AdamConfig, PreferenceLossConfig, ScheduleConfig, TrainingConfig
from jaxalign.inference.sampling_params import SamplingParams
from jaxalign.models.adapter import Adapter
from jaxalign.models.lora import init_adapter
from jaxalign.pretrained.sources import Model
from jaxalign.training.feed import StageSettings
from jaxalign.training.optimizer import Hyperparameters


def fresh_adapter(lora: LoraConfig, model: Model, seed: int) -> Adapter:
    """Return a new adapter of the configured shape, drawn from the seed; before training, it changes no output.

    Raises:
        UserError: the rank is too large (see `init_adapter`).
    """
    layers = lora.count(model.architecture.layers)
    params = init_adapter(jax.random.key(seed), model.architecture, lora.rank, lora.targets, layers)
    return Adapter(
        "new adapter",
        params,
        lora.rank,
        lora.alpha,
        first_layer=model.architecture.layers - layers,
        base_identity=model.identity,
        base_name=model.name,
    )


def sampling_params(config: SamplingConfig, *stops: str) -> SamplingParams:
    """Return the settings of the configuration as `SamplingParams`; `stops` also end a sample."""
    return SamplingParams(
        temperature=config.temperature,
        top_k=config.top_k,
        top_p=config.top_p,
        max_tokens=config.max_tokens,
        stop=(*config.stop, *(stop for stop in stops if stop not in config.stop)),
        seed=config.seed,
    )


def stage_settings(
    training: TrainingConfig,
    adam: AdamConfig,
    schedule: ScheduleConfig,
    loss: PreferenceLossConfig,
    *,
    scale: float,
    dropout: float,
    row_length: int,
    divergence: float = 0.0,
    **settings: Any,
) -> StageSettings:
    """Return the settings of a stage, collected from parts of the configuration.

    Args:
        training: seed, logging, checkpoints and rows.
        adam: the optimiser's settings.
        schedule: the learning rate and its schedule.
        loss: the settings of a preference loss.
        scale: the adapter's scale, alpha / rank.
        dropout: the dropout rate on the adapter's input.
        row_length: the longest packed row, in tokens.
        divergence: the weight of the divergence from the base.
        settings: the other fields of `StageSettings`: epochs, batch_size, ...
    """
    return StageSettings(
        row_length=row_length,
        max_rows=training.max_rows,
        seed=training.seed,
        log_every=training.log_every,
        checkpoint_every=training.checkpoint_every,
        keep_checkpoints=training.keep_checkpoints,
        schedule=schedule.schedule,
        warmup_steps=schedule.warmup_steps,
        hyper=Hyperparameters(
            learning_rate=schedule.learning_rate,
            b1=adam.betas[0],
            b2=adam.betas[1],
            eps=adam.epsilon,
            weight_decay=adam.weight_decay,
            clip=float("inf") if adam.clip is None else adam.clip,
            scale=scale,
            dropout=dropout,
            beta=loss.beta,
            label_smoothing=loss.label_smoothing,
            likelihood=loss.likelihood,
            divergence=divergence,
        ),
        **settings,
    )
