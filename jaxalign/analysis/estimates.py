"""A figure with everything that must be said beside it, or with the reason why it is not said."""

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """A figure with its uncertainty and its counts. A figure that is not known is None, and `reason` says why."""

    estimate: float | None = None
    """The figure, in the unit of the function that returns it."""
    low: float | None = None
    """The lower limit of its interval, in the same unit."""
    high: float | None = None
    """The upper limit of its interval."""
    n: int
    """How many units (responses, prompts, pairs, adapters) the figure is taken over."""
    missing: int = 0
    """How many units had no judgement. They are not among the n."""
    left_out: int = 0
    """How many units were known and do not count, such as blank responses. They are not among the n."""
    clusters: int | None = None
    """How many clusters, such as prompts, the units belong to; None if each is its own."""
    p: float | None = None
    """The two-sided p-value against "no effect"; None where nothing is tested."""
    q: float | None = None
    """The p-value after the correction for all tests of a family (see `benjamini_hochberg`)."""
    reason: str | None = None
    """Why the figure, its interval or its p-value is not said."""

    @property
    def sign(self) -> int:
        """1 or -1 if the interval lies on that side of 0, otherwise 0: the sign is not known."""
        if self.low is None or self.high is None:
            return 0
        return int(self.low > 0) - int(self.high < 0)


def too_few(n: int, needed: int, units: str, **counts: int) -> Estimate:
    """Return an estimate that says nothing, because it needs `needed` units and there are n.

    >>> too_few(3, 5, "prompts").reason
    'n = 3 prompts; at least 5 are needed'
    """
    return Estimate(n=n, reason=f"n = {n} {units}; at least {needed} are needed", **counts)
