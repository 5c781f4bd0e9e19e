"""Fits the shipped probe for values to the starter arguments, and prints how it does on conclusions that were left out.

Run it from the repository; it needs the default model: python tests/golden/make_value_probe.py
"""

import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path

import jax.numpy as jnp
import numpy as np

from jaxalign.analysis.agreement import area_under_curve
from jaxalign.analysis.logistic import fit_logistic, grouped_folds, log_loss, out_of_fold
from jaxalign.config.presets import preset
from jaxalign.errors import UserError
from jaxalign.inference.base_model import BaseModel
from jaxalign.parallel.compilation import Programs, use_compilation_cache
from jaxalign.pretrained.safetensors import write_safetensors
from jaxalign.pretrained.sources import cache_folder, read_model, source_of
from jaxalign.safety.judgements import Exchange
from jaxalign.safety.judges.fitting import FOLDS
from jaxalign.safety.judges.probe import ProbeReader, probe_reader
from jaxalign.safety.value_probe import VALUE_PROBE, VALUE_PROBE_METADATA, ValueProbe
from jaxalign.values.schwartz import VALUES
from jaxalign.values.starter import load_starter
from jaxalign.values.touche import Argument

MODEL = "smollm2_135m"
VALUE_PENALTIES = (0.03, 0.1, 0.3, 1.0, 3.0)
"""The penalties that cross-validation chooses from (see `fit_logistic`)."""


def argument_exchange(argument: Argument) -> Exchange:
    """Return an argument as it is read: the conclusion is what is asked about, and the premise what is said."""
    return Exchange(argument.conclusion, argument.premise)


def fit_value_probe(reader: ProbeReader, arguments: Sequence[Argument]) -> ValueProbe:
    """Return the regressions that are fitted to arguments with their values; the same arguments give the same ones.

    The penalty, the same for all values, is the one with the least loss in cross-validation, in which all arguments
    about a conclusion are left out together.

    Raises:
        UserError: there are too few conclusions, or a value that no argument or each argument has.
    """
    states = reader.read([argument_exchange(one) for one in arguments])
    kept = [(one, state) for one, state in zip(arguments, states, strict=True) if state is not None]
    labels = np.array([[value in one.values for value in VALUES] for one, _ in kept], bool).reshape(len(kept), -1)
    conclusions = [one.conclusion for one, _ in kept]
    counts = labels.sum(0) if len(kept) else np.zeros(len(VALUES))
    if len({*conclusions}) < 2 * FOLDS or min(counts) < FOLDS or max(counts) > len(kept) - FOLDS:
        raise UserError(
            f"{len(kept)} arguments about {len({*conclusions})} conclusions are too few: a probe for values is fitted "
            f"to {2 * FOLDS} conclusions, and to {FOLDS} arguments with and without each value"
        )
    features = np.stack([state for _, state in kept]).astype(np.float64)
    folds = grouped_folds(conclusions, FOLDS)
    left_out = {
        one: np.stack([out_of_fold(features, mine, folds, one) for mine in labels.T]) for one in VALUE_PENALTIES
    }
    penalty = min(VALUE_PENALTIES, key=lambda one: sum(map(log_loss, left_out[one], labels.T)))
    fitted = [fit_logistic(features, mine, penalty) for mine in labels.T]
    return ValueProbe(
        reader.base,
        np.stack([weights for weights, _ in fitted]).astype(np.float32),
        np.array([offset for _, offset in fitted], np.float64),
        {
            value: area_under_curve(scores, mine)
            for value, scores, mine in zip(VALUES, left_out[penalty], labels.T, strict=True)
        },
    )


def write_value_probe(path: str | Path, probe: ValueProbe) -> None:
    """Write the regressions to a safetensors file; UserError if that cannot be done."""
    told = {value: dataclasses.asdict(area) for value, area in probe.held_out.items()}
    metadata = {**VALUE_PROBE_METADATA, "base": probe.base, "held_out": json.dumps(told)}
    write_safetensors(path, {"weights": probe.weights, "offsets": probe.offsets}, metadata)


def main() -> None:
    """Write the probe, which is fitted in float32."""
    use_compilation_cache(cache_folder() / "xla")
    dtype = jnp.dtype("float32")
    base = BaseModel(read_model(source_of(preset(MODEL)), dtype, offline=False, name=MODEL), dtype, Programs())
    probe = fit_value_probe(probe_reader(base), load_starter())
    write_value_probe(VALUE_PROBE, probe)
    for value, area in probe.held_out.items():
        print(f"{value:16} {area.estimate:.3f} [{area.low:.3f}, {area.high:.3f}] n={area.n}")


if __name__ == "__main__":
    main()
