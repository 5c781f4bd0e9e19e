"""python -m jaxalign.export: write a finished run's adapter for use elsewhere. See conf/export.yaml."""

from jaxalign.config.entry_point import entry_point
from jaxalign.config.export import ExportConfig


@entry_point("export", ExportConfig)
def main(config: ExportConfig) -> None:
    """Export as configured."""
    # jax is imported only once the configuration is known to be good.
    from jaxalign.jobs.export import export

    export(config)


if __name__ == "__main__":
    main()
