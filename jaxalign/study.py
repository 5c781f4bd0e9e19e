"""python -m jaxalign.study: several commands one after the other, as one experiment. See conf/study.yaml."""

from jaxalign.config.entry_point import entry_point
from jaxalign.config.study import StudyConfig


@entry_point("study", StudyConfig)
def main(config: StudyConfig) -> None:
    """Run the steps as configured."""
    # The commands are read only once the configuration is known to be good.
    from jaxalign.jobs.study import study

    study(config)


if __name__ == "__main__":
    main()
