"""Designed targets: 24 targets in which the ten values are uncorrelated, and each is high in half of them.

Among the 14 extreme targets each value is high in 2, so that no effect, however strong, stands out from chance once all
values and categories are tested (tests/analysis/simulated_power.py).
"""

import numpy as np

from jaxalign.values.targets import HIGHEST, LOWEST, Target

_ORDER = 23
"""The prime of the design, which has _ORDER + 1 rows."""

_COLUMNS = (0, 2, 5, 6, 9, 11, 12, 14, 19, 22)
_MIRRORED = (False, True, True, True, True, False, False, True, False, True)
"""The column of each value, and whether high and low change places in it. Every choice leaves the values uncorrelated;
with this one each target has 3 to 7 high values, so that none is nearly all or nearly nothing."""


def paley_design(order: int) -> np.ndarray:
    """Return [order + 1, order] numbers 1 and -1 whose columns have mean 0 and are uncorrelated (Paley, 1933).

    This is the two-level design of Plackett and Burman (1946, doi 10.1093/biomet/33.4.305). An effect of two values
    together is not kept apart: it is spread over the effects of the others.

    Args:
        order: a prime that leaves 3 when divided by 4.
    """
    squares = {(number * number) % order for number in range(1, order)}
    residue = np.array([0, *(1 if number in squares else -1 for number in range(1, order))])
    place = np.arange(order)
    whole = np.ones((order + 1, order + 1), int)
    whole[1:, 0] = -1
    whole[1:, 1:] = residue[(place[:, None] - place) % order] + np.eye(order, dtype=int)
    return whole[:, 1:] * whole[:, :1]


def designed_targets() -> dict[str, Target]:
    """Return 24 targets by name, `designed_01` to `designed_24`: each value has the score 6 in 12 of them, 1 in 12."""
    signs = paley_design(_ORDER)[:, _COLUMNS] * np.where(_MIRRORED, -1, 1)
    targets = {}
    for number, row in enumerate(signs, start=1):
        name = f"designed_{number:02}"
        targets[name] = Target(name, tuple(float(HIGHEST if sign > 0 else LOWEST) for sign in row))
    return targets
