"""python -m jaxalign.report: tables, figures and a page of runs of benchmarks of harm. See conf/report.yaml."""

from jaxalign.config.entry_point import entry_point
from jaxalign.config.report import ReportConfig


@entry_point("report", ReportConfig)
def main(config: ReportConfig) -> None:
    """Report as configured."""
    # NumPy is imported only once the configuration is known to be good.
    from jaxalign.jobs.report import report

    report(config)


if __name__ == "__main__":
    main()
