"""Does a text carry values? Ten logistic regressions, one for each value, on the states with which the bare base reads.

They are fitted to arguments with their values (tests/golden/make_value_probe.py), and read responses as the probes for
harm do (see `judges.probe`). How well they do is measured on arguments whose conclusion was left out of the fit.
Source: Alain and Bengio, 2016, arXiv 1610.01644; the arguments are the starter arguments of this project. D width of
the model, V = 10 values.
"""

import dataclasses
import json
from functools import cache, cached_property
from pathlib import Path

import numpy as np
from jaxtyping import Float32, Float64

from jaxalign.analysis.estimates import Estimate
from jaxalign.errors import UserError
from jaxalign.pretrained.safetensors import SafetensorsFolder, read_metadata
from jaxalign.runs.records import digest

VALUE_PROBE = Path(__file__).parent / "data" / "probe_values.safetensors"

VALUE_PROBE_METADATA = {"about": "values", "form": "1"}
"""What is told in the file of a probe for values of this version."""


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

    @cached_property
    def identity(self) -> str:
        """What changes whenever a reading could."""
        return digest([VALUE_PROBE_METADATA["form"], self.base, self.weights.tolist(), self.offsets.tolist()])

    def probabilities(self, states: Float32[np.ndarray, "N D"]) -> Float64[np.ndarray, "N V"]:
        """Return the probability that each text carries each value."""
        return 1 / (1 + np.exp(-(states.astype(np.float64) @ self.weights.T.astype(np.float64) + self.offsets)))


def read_value_probe(path: str | Path = VALUE_PROBE) -> ValueProbe:
    """Return the regressions in a file; UserError if it is not there, is damaged, or is of another version."""
    path = Path(path)
    if not path.is_file():
        raise UserError(f"there is no probe for values {path}: install jaxalign again")
    told, file = read_metadata(path), SafetensorsFolder(path)
    if not VALUE_PROBE_METADATA.items() <= told.items() or set(file.names()) != {"weights", "offsets"}:
        raise UserError(f"{path} is not a probe for values of this version: install jaxalign again")
    held_out = {value: Estimate(**area) for value, area in json.loads(told["held_out"]).items()}
    return ValueProbe(
        told["base"], file.read("weights").astype(np.float32), file.read("offsets").astype(np.float64), held_out
    )


shipped_value_probe = cache(read_value_probe)
