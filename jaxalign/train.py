"""python -m jaxalign.train: teach a model a value, and ask it a questionnaire before and after. See conf/train.yaml."""

from jaxalign.config.entry_point import entry_point
from jaxalign.config.train import TrainConfig


@entry_point("train", TrainConfig)
def main(config: TrainConfig) -> None:
    """Train as configured."""
    # jax is imported only once the configuration is known to be good.
    from jaxalign.jobs.train.pipeline import train

    train(config)


if __name__ == "__main__":
    main()
