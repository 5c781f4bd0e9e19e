"""Where Hydra looks for options: in the user's own folder, and then in conf/."""

import contextlib
from collections.abc import Iterator
from pathlib import Path

from hydra.core.config_search_path import ConfigSearchPath
from hydra.core.plugins import Plugins
from hydra.plugins.search_path_plugin import SearchPathPlugin

from jaxalign.errors import UserError


class OwnOptions(SearchPathPlugin):
    """Puts the folder of `--config-dir` before conf/.

    Hydra puts it behind conf/, so that a shipped option would hide the user's option of the same name.
    """

    folder: Path | None = None

    def manipulate_search_path(self, search_path: ConfigSearchPath) -> None:
        """Add the folder, if there is one."""
        if self.folder is not None:
            search_path.prepend("own options", f"file://{self.folder}", "main")


@contextlib.contextmanager
def own_options_first(folder: str | None) -> Iterator[None]:
    """Let the options in a folder win over shipped ones of the same name; UserError if it is not a folder."""
    path = None if folder is None else Path(folder).absolute()
    if path is not None and not path.is_dir():
        raise UserError(f"--config-dir {path} is not a folder")
    Plugins.instance().register(OwnOptions)
    before, OwnOptions.folder = OwnOptions.folder, path
    try:
        yield
    finally:
        OwnOptions.folder = before


def check_not_hidden(group: str, name: str) -> None:
    """Raise UserError if the folder of `--config-dir` has an option that a default is about to pass over."""
    own = None if OwnOptions.folder is None else OwnOptions.folder / group / f"{name}.yaml"
    if own is not None and own.is_file():
        raise UserError(
            f"{own} has the name of the default, conf/{group}/{name}.yaml: add {group}={name} for yours, or rename it"
        )
