"""python -m jaxalign.crest: self-training on a model's own rationales. See conf/crest.yaml."""

from jaxalign.config.crest import CrestConfig
from jaxalign.config.entry_point import entry_point


@entry_point("crest", CrestConfig)
def main(config: CrestConfig) -> None:
    """Run CREST as configured."""
    # jax is imported only once the configuration is known to be good.
    from jaxalign.jobs.crest.pipeline import crest

    crest(config)


if __name__ == "__main__":
    main()
