"""python -m jaxalign.export: write a finished run's adapter for use elsewhere. See conf/export.yaml."""

from jaxalign.cli import entry_point
from jaxalign.config import ExportConfig


@entry_point("export", ExportConfig)
def main(config: ExportConfig) -> None:
    """Export as configured."""
    # jax is imported only once the configuration is known to be good.
    from jaxalign.exporting import export

    export(config)


if __name__ == "__main__":
    main()
