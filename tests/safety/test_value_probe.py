"""The probe for values, on states that are told, and the shipped one."""

import numpy as np
import pytest
from golden.make_value_probe import argument_exchange, fit_value_probe, write_value_probe

from jaxalign.errors import UserError
from jaxalign.safety.judges.probe import HARM_PROBE, ProbeReader, read_probe
from jaxalign.safety.value_probe import read_value_probe, shipped_value_probe
from jaxalign.values.schwartz import VALUES
from jaxalign.values.touche import Argument

RANDOM = np.random.Generator(np.random.PCG64(0))
CARRIED = RANDOM.random((200, len(VALUES))) < 0.3
STATES = np.where(CARRIED, 1.0, -1.0) + RANDOM.normal(size=CARRIED.shape, scale=0.6)
ARGUMENTS = [
    Argument(f"{n}", f"conclusion {n // 4}", "against", f"premise {n}", tuple(np.array(VALUES)[mine]))
    for n, mine in enumerate(CARRIED)
]


class Told(ProbeReader):
    """Knows the state of each argument; one that it does not know is too long for it."""

    def __init__(self, base="base"):
        object.__setattr__(self, "base", base)
        told = zip(ARGUMENTS, STATES.astype(np.float32), strict=True)
        object.__setattr__(self, "known", {argument_exchange(one): state for one, state in told})

    def read(self, asked, on_read=lambda number, state: None):
        return [self.known.get(one) for one in asked]


@pytest.fixture(scope="module")
def probe():
    return fit_value_probe(Told(), ARGUMENTS)


@pytest.mark.slow
def test_a_probe_finds_the_values_of_arguments_about_other_conclusions(probe):
    areas = [probe.held_out[value].estimate for value in VALUES]
    assert min(areas) > 0.9 and all(probe.held_out[value].n == 200 for value in VALUES)
    said = probe.probabilities(STATES.astype(np.float32)) > 0.5
    assert (said == CARRIED).mean() > 0.9


@pytest.mark.slow
def test_values_that_the_states_do_not_tell_are_found_no_better_than_by_a_coin():
    order = RANDOM.permutation(200)
    mixed = [
        Argument(one.id, one.conclusion, one.stance, one.premise, ARGUMENTS[other].values)
        for one, other in zip(ARGUMENTS, order, strict=True)
    ]
    areas = [area.estimate for area in fit_value_probe(Told(), mixed).held_out.values()]
    assert 0.4 < np.mean(areas) < 0.6


def test_a_file_gives_the_same_probe_back(probe, tmp_path):
    write_value_probe(tmp_path / "p.safetensors", probe)
    again = read_value_probe(tmp_path / "p.safetensors")
    assert again.identity == probe.identity and again.held_out == probe.held_out
    with pytest.raises(UserError, match="is not a probe for values of this version"):
        read_value_probe(HARM_PROBE)


def test_too_few_arguments_are_refused():
    with pytest.raises(UserError, match=r"20 arguments about 5 conclusions are too few"):
        fit_value_probe(Told(), ARGUMENTS[:20])


def test_the_shipped_probe_is_of_the_default_base():
    shipped = read_value_probe()
    assert shipped.base == read_probe(HARM_PROBE).base and shipped.weights.shape == (10, 576)
    assert set(shipped.held_out) == set(VALUES)
    assert np.mean([area.estimate for area in shipped.held_out.values()]) > 0.7
    assert shipped_value_probe() is shipped_value_probe()
    assert shipped.identity is shipped.identity  # a hash of all weights, which a report asks for hundreds of times
