"""python -m jaxalign.survey: make realistic targets from your own survey file. See conf/survey.yaml."""

from jaxalign.config.entry_point import entry_point
from jaxalign.config.survey import SurveyConfig


@entry_point("survey", SurveyConfig)
def main(config: SurveyConfig) -> None:
    """Build the targets as configured."""
    # NumPy is imported only once the configuration is known to be good.
    from jaxalign.jobs.survey import survey

    survey(config)


if __name__ == "__main__":
    main()
