"""Where Hydra looks for options: in the user's own folders, and then in conf/."""

import contextlib
import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from hydra._internal.config_search_path_impl import ConfigSearchPathImpl
from hydra.core.hydra_config import HydraConfig
from hydra.core.plugins import Plugins
from hydra.plugins.search_path_plugin import SearchPathPlugin

from jaxalign.errors import UserError


class _OwnFirst(ConfigSearchPathImpl):
    def append(self, provider: str, path: str, anchor: Any = None) -> None:
        if provider.startswith("hydra.searchpath"):
            self.prepend(provider, path, "main")
        else:
            super().append(provider, path, anchor)


class OwnOptions(SearchPathPlugin):
    """Puts the folder of `--config-dir`, and behind it those of `hydra.searchpath`, before conf/.

    Hydra puts them behind conf/, so that a shipped option would hide the user's option of the same name.
    """

    folder: Path | None = None

    def manipulate_search_path(self, search_path: Any) -> None:
        """Add the folder, if there is one."""
        search_path.__class__ = _OwnFirst  # Hydra adds those of `hydra.searchpath` later, to a copy of this path
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


def check_not_hidden(group: str, name: str, mend: str = "") -> None:
    """Raise UserError if the user's own options have one that this run is about to pass over for the shipped one.

    `mend` says what to do; "" says how the option is chosen.
    """
    sources = HydraConfig.get().runtime.config_sources if HydraConfig.initialized() else []
    for source in itertools.takewhile(lambda one: one.provider != "main", sources):
        own = Path(source.path).absolute() / group / f"{name}.yaml"
        if source.schema == "file" and own.is_file():
            raise UserError(
                f"{own} has the name of the default, conf/{group}/{name}.yaml: "
                f"{mend or f'add {group}={name} for yours, or rename it'}"
            )
