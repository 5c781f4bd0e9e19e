"""Which values the responses of a model carry, by the probe for values, where a probe has read them anyway."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from jaxalign.safety.judgements import Exchange
from jaxalign.safety.judges.probe import ProbeReader
from jaxalign.safety.value_probe import ValueProbe
from jaxalign.values.schwartz import VALUES


def text_values(reader: ProbeReader, exchanges: Sequence[Exchange], probe: ValueProbe) -> dict[str, Any] | None:
    """Return {probe (its identity), n (responses), means ({value: mean probability that a response carries it})}.

    None if the probe was fitted on another base than the reader's, or if there is no response that it can read.

    Args:
        reader: the bare base.
        exchanges: responses that say something.
        probe: the probe for values.
    """
    if probe.base != reader.base:
        return None
    states = [state for state in reader.read(exchanges) if state is not None]
    if not states:
        return None
    means = probe.probabilities(np.stack(states)).mean(0)
    return {"probe": probe.identity, "n": len(states), "means": dict(zip(VALUES, map(float, means), strict=True))}
