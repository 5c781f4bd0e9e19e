"""python -m jaxalign.crest: self-training on a model's own rationales. See conf/crest.yaml."""

from jaxalign.cli import entry_point
from jaxalign.config import CrestConfig


@entry_point("crest", CrestConfig)
def main(config: CrestConfig) -> None:
    """Run CREST as configured."""
    # jax is imported only once the configuration is known to be good.
    from jaxalign.self_training import crest

    crest(config)


if __name__ == "__main__":
    main()
