"""python -m jaxalign.evaluate: ask a model, its adapters or a role; see conf/evaluate.yaml."""

from jaxalign.config.entry_point import entry_point
from jaxalign.config.evaluate import EvaluateConfig


@entry_point("evaluate", EvaluateConfig)
def main(config: EvaluateConfig) -> None:
    """Evaluate as configured."""
    # jax is imported only once the configuration is known to be good.
    from jaxalign.jobs.evaluate.pipeline import evaluate

    evaluate(config)


if __name__ == "__main__":
    main()
