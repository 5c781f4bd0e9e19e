"""Does a text carry values? Ten logistic regressions, one for each value, on the states with which the bare base reads.

They are fitted to arguments with their values, and read responses as the probes for harm do (see `judges.probe`). How
well they do is measured on arguments whose conclusion was left out of the fit. Source: Alain and Bengio, 2016, arXiv
1610.01644; the arguments are the starter arguments of this project. D width of the model, V = 10 values.
"""

import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Float32, Float64

from jaxalign.analysis.agreement import area_under_curve
from jaxalign.analysis.estimates import Estimate
from jaxalign.analysis.logistic import fit_logistic, grouped_folds, log_loss, out_of_fold
from jaxalign.errors import UserError
from jaxalign.pretrained.safetensors import SafetensorsFolder, read_metadata, write_safetensors
from jaxalign.runs.records import digest
from jaxalign.safety.judgements import Exchange
from jaxalign.safety.judges.fitting import FOLDS
from jaxalign.safety.judges.probe import ProbeReader
from jaxalign.values.schwartz import VALUES
from jaxalign.values.touche import Argument

VALUE_PROBE = Path(__file__).parent / "data" / "probe_values.safetensors"

VALUE_PENALTIES = (0.03, 0.1, 0.3, 1.0, 3.0)
"""The penalties that cross-validation chooses from (see `fit_logistic`)."""
_ABOUT, _FORM = "values", "1"


@dataclasses.dataclass(frozen=True)
class ValueProbe:
    """The fitted regressions: the log-odds that a text carries each value are `weights` @ state + `offsets`."""

    base: str
    """The identity of the base that they were fitted on."""
    weights: Float32[np.ndarray, "V D"]
    offsets: Float64[np.ndarray, " V"]
    held_out: dict[str, Estimate]
    """For each value, how often an argument with it has the higher log-odds than one without (area under the curve), by
    regressions that were fitted without the argument's conclusion."""

    @property
    def identity(self) -> str:
        """What changes whenever a reading could."""
        return digest([_FORM, self.base, self.weights.tolist(), self.offsets.tolist()])

    def probabilities(self, states: Float32[np.ndarray, "N D"]) -> Float64[np.ndarray, "N V"]:
        """Return the probability that each text carries each value."""
        return 1 / (1 + np.exp(-(states.astype(np.float64) @ self.weights.T.astype(np.float64) + self.offsets)))


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
    metadata = {"about": _ABOUT, "base": probe.base, "form": _FORM, "held_out": json.dumps(told)}
    write_safetensors(path, {"weights": probe.weights, "offsets": probe.offsets}, metadata)


def read_value_probe(path: str | Path = VALUE_PROBE) -> ValueProbe:
    """Return the regressions in a file; UserError if it is not there, is damaged, or is of another version."""
    path = Path(path)
    if not path.is_file():
        raise UserError(f"there is no probe for values {path}: install jaxalign again")
    told, file = read_metadata(path), SafetensorsFolder(path)
    if told.get("about") != _ABOUT or told.get("form") != _FORM or set(file.names()) != {"weights", "offsets"}:
        raise UserError(f"{path} is not a probe for values of this version: install jaxalign again")
    held_out = {value: Estimate(**area) for value, area in json.loads(told["held_out"]).items()}
    return ValueProbe(
        told["base"], file.read("weights").astype(np.float32), file.read("offsets").astype(np.float64), held_out
    )
