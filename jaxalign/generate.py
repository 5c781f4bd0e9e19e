"""python -m jaxalign.generate: let a model, and its adapters beside it, answer prompts. See conf/generate.yaml."""

from jaxalign.cli import entry_point
from jaxalign.config import GenerateConfig


@entry_point("generate", GenerateConfig)
def main(config: GenerateConfig) -> None:
    """Generate as configured."""
    # jax is imported only once the configuration is known to be good.
    from jaxalign.generating import generate

    generate(config)


if __name__ == "__main__":
    main()
