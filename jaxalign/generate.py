"""python -m jaxalign.generate: let a model and its adapters answer prompts. See conf/generate.yaml."""

from jaxalign.config.entry_point import entry_point
from jaxalign.config.generate import GenerateConfig


@entry_point("generate", GenerateConfig)
def main(config: GenerateConfig) -> None:
    """Generate as configured."""
    # jax is imported only once the configuration is known to be good.
    from jaxalign.jobs.generate import generate

    generate(config)


if __name__ == "__main__":
    main()
