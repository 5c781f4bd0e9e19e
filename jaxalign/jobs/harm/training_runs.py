"""What the training run of an adapter says of it: how it answered the questionnaire, on how many tokens it was trained,
and what it is a control of."""

from jaxalign.errors import UserError
from jaxalign.jobs.train.data import trained_tokens
from jaxalign.models.adapter import Adapter
from jaxalign.runs.config_file import stored_config
from jaxalign.runs.directory import Run
from jaxalign.safety.attribution_table import BENIGN, SHUFFLED
from jaxalign.values.schwartz import VALUES


def measured_scores(adapter: Adapter) -> dict[str, float] | None:
    """Return the scores of the portrait questionnaire that the adapter's own run measured.

    None if there are none, or if that run's summary is damaged.
    """
    if adapter.folder is None:
        return None
    run, scores = Run(adapter.folder.parent), dict.fromkeys(VALUES, int | float | None)
    try:
        found = run.results(questionnaire={"after": {"scores": scores}}) if run.finished else None
    except UserError:
        return None
    return found and found["questionnaire"]["after"]["scores"]


def training_tokens(adapter: Adapter) -> int | None:
    """Return the number of tokens that an adapter's own run trained on; None if that is not known."""
    if adapter.folder is None:
        return None
    try:
        return trained_tokens(str(adapter.folder.parent)) or None
    except UserError:
        return None


def control_of(adapter: Adapter) -> str | None:
    """Return what kind of control an adapter's training run made it; None if it is none, or if there is no such run."""
    if adapter.folder is None:
        return None
    try:
        config = stored_config(adapter.folder.parent)
        if config["alignment"]["shuffle_labels"] is True:
            return SHUFFLED
        on_benign = config["dataset"]["kind"] == "instructions" and config.get("value") is None
        return BENIGN if on_benign and config["released"]["unmatched_budget"] is False else None
    except (UserError, KeyError, TypeError):
        return None
