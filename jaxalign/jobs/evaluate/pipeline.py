"""The evaluate job: the questionnaire, or a benchmark of harm."""

from jaxalign.config.evaluate import EvaluateConfig
from jaxalign.config.safety import HarmConfig
from jaxalign.jobs.evaluate.safety import evaluate_safety, work_on_labels
from jaxalign.jobs.evaluate.values import evaluate_values
from jaxalign.parallel.distributed import check_alone


def evaluate(config: EvaluateConfig) -> None:
    """Run the evaluate job as configured; UserError if the input cannot be used."""
    if config.stage in ("label", "fit_judge"):
        check_alone()
        work_on_labels(config)
    elif isinstance(config.benchmark, HarmConfig):
        evaluate_safety(config)
    else:
        evaluate_values(config)
