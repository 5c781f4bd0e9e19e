"""The noise floor of adapters' figures: how far they move between seeds of one target, when nothing else differs."""

from collections.abc import Mapping, Sequence
from typing import Any

from jaxalign.analysis.comparison import noise_floor
from jaxalign.analysis.estimates import Estimate
from jaxalign.safety.summary import learnt_target


def seed_noise(models: Sequence[Mapping[str, Any]], values: Sequence[float | None]) -> Estimate:
    """Return the standard deviation of a figure between seeds of one target (see `noise_floor`), in its unit.

    Args:
        models: [A] entries of a summary for models, or its rows. Controls, and adapters at another scale than 1, are
            no seeds of a target.
        values: [A] the figure of each; None is missing.
    """
    kept = [
        (value, target)
        for about, value in zip(models, values, strict=True)
        if (target := learnt_target(about)) is not None
    ]
    return noise_floor([value for value, _ in kept], [target for _, target in kept])


def noise_line(noise: Estimate, figure: str) -> str:
    """Return the line on the noise of a figure, or on why it is not known.

    >>> noise_line(Estimate(n=0, reason="no target has two seeds"), "the drop")
    'Noise of the drop between seeds of one target: not known (no target has two seeds).'
    """
    begin = f"Noise of {figure} between seeds of one target"
    if noise.estimate is None:
        return f"{begin}: not known ({noise.reason})."
    return f"{begin}: {noise.estimate:.3f}, a standard deviation over {noise.n} adapters of {noise.clusters} targets."


def with_noise(drops: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Return drops (see summary.py) with the noise of each beside it, by mitigation, category and judge; None: unknown.

    The noise is that of the drop itself between seeds of one target.
    """
    alike: dict[tuple[Any, ...], list[Mapping[str, Any]]] = {}
    for drop in drops:
        alike.setdefault(_of_drop(drop), []).append(drop)
    noises = {key: seed_noise(some, [one["estimate"] for one in some]) for key, some in alike.items()}
    return [{**drop, "noise": noises[_of_drop(drop)].estimate} for drop in drops]


def _of_drop(drop: Mapping[str, Any]) -> tuple[Any, ...]:
    return tuple(drop.get(key) for key in ("mitigation", "category", "judge"))
