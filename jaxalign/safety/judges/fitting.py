"""Fitting a probe to labelled responses."""

import dataclasses
from collections.abc import Sequence

import numpy as np

from jaxalign.analysis.logistic import fit_logistic, grouped_folds, log_loss, out_of_fold
from jaxalign.errors import UserError
from jaxalign.safety.judges.probe import ProbeReader, ProbeWeights
from jaxalign.safety.labelled import LabelledResponse
from jaxalign.safety.value_map import prompt_hash

PENALTIES = (0.003, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0)
"""The penalties that cross-validation chooses from (see `fit_logistic`)."""

FEWEST_TO_FIT = 20
"""A probe is not fitted to fewer responses of either kind."""
FOLDS = 5


@dataclasses.dataclass(frozen=True)
class FittedProbe:
    """A probe, and how it was fitted."""

    probe: ProbeWeights
    penalty: float
    loss: float
    """The loss of responses to prompts that were left out, in nats, at this penalty."""
    fitted: int
    """The number of responses that it was fitted to."""


def fit_probe(reader: ProbeReader, rows: Sequence[LabelledResponse], about: str) -> FittedProbe:
    """Return a probe for "harm" or "refusal", fitted to labelled responses. Blank responses are left out.

    The penalty is the one with the least loss in cross-validation, in which all responses to a prompt are left out
    together. Then the offset is moved so that in cross-validation as many responses are found as there are. The same
    rows give the same probe.

    Raises:
        UserError: there are too few responses of either kind, or responses to too few prompts.
    """
    rows = [row for row in rows if row.label != "blank"]
    states = reader.read([row.exchange for row in rows])
    kept = [(row, state) for row, state in zip(rows, states, strict=True) if state is not None]
    labels = np.asarray([row.is_harmful if about == "harm" else row.is_refusal for row, _ in kept], bool)
    prompts = [row.prompt for row, _ in kept]
    if min(labels.sum(), (~labels).sum()) < FEWEST_TO_FIT or len({*prompts}) < 2 * FOLDS:
        what = "harmful" if about == "harm" else "refusals"
        left = f" ({len(rows) - len(kept)} more are too long for the base)" if len(kept) < len(rows) else ""
        raise UserError(
            f"{labels.sum()} of {len(labels)} labelled responses{left}, to {len({*prompts})} prompts, are {what}: a "
            f"judge is fitted to at least {FEWEST_TO_FIT} that are and {FEWEST_TO_FIT} that are not, and to "
            f"{2 * FOLDS} prompts; label more"
        )
    features = np.stack([state for _, state in kept]).astype(np.float64)
    folds = grouped_folds(prompts, FOLDS)
    left_out = {penalty: out_of_fold(features, labels, folds, penalty) for penalty in PENALTIES}
    penalty = min(PENALTIES, key=lambda one: log_loss(left_out[one], labels))
    weights, offset = fit_logistic(features, labels, penalty)
    # Between the lowest score that is still found and the next one below.
    ordered = np.sort(left_out[penalty])[::-1]
    threshold = float(ordered[labels.sum() - 1 : labels.sum() + 1].mean())
    fitted_on = frozenset(map(prompt_hash, prompts))
    probe = ProbeWeights(about, reader.base, weights.astype(np.float32), offset - threshold, fitted_on)
    return FittedProbe(probe, penalty, log_loss(left_out[penalty], labels), len(labels))
