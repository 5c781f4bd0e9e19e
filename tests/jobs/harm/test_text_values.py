"""Which values responses carry, by a probe with known weights on states that are told."""

import numpy as np
import pytest

from jaxalign.jobs.harm.text_values import text_values
from jaxalign.safety.judgements import Exchange
from jaxalign.safety.judges.probe import ProbeReader
from jaxalign.safety.value_probe import ValueProbe
from jaxalign.values.schwartz import VALUES

RANDOM = np.random.Generator(np.random.PCG64(0))
ASKED = [Exchange("A prompt", f"response {n}") for n in range(20)]
STATES = RANDOM.normal(size=(20, 4)).astype(np.float32)
PROBE = ValueProbe("base", RANDOM.normal(size=(10, 4)).astype(np.float32), RANDOM.normal(size=10), {})


class Told(ProbeReader):
    """Knows the state of each response; one that it does not know is too long for it."""

    def __init__(self, base="base"):
        object.__setattr__(self, "base", base)

    def read(self, asked, on_read=lambda number, state: None):
        return [STATES[ASKED.index(one)] if one in ASKED else None for one in asked]


def test_the_means_are_over_the_responses_that_can_be_read():
    found = text_values(Told(), [*ASKED, Exchange("too", "long")], PROBE)
    assert found is not None and found["n"] == 20 and found["probe"] == PROBE.identity
    assert list(found["means"].values()) == pytest.approx(list(PROBE.probabilities(STATES).mean(0)))
    assert list(found["means"]) == list(VALUES)


def test_a_probe_of_another_base_says_nothing_and_no_response_has_no_means():
    assert text_values(Told("another"), ASKED, PROBE) is None
    assert text_values(Told(), [Exchange("too", "long")], PROBE) is None and text_values(Told(), [], PROBE) is None
