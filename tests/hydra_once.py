"""Hydra, but what it reads and composes again and again only once: that takes a command longer than its work."""

import os
import pickle
from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import omegaconf.omegaconf
import yaml
from hydra._internal.config_loader_impl import ConfigLoaderImpl, get_overrides_dirname
from hydra._internal.hydra import Hydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.utils import JobRuntime
from hydra.types import RunMode

from jaxalign.config.presets import CONF

UNCHANGED = (f"{CONF}/", f"{Path(__file__).parent / 'conf'}/")
"""Folders whose files no test changes: the shipped options, and those of the tests."""

KEPT: dict[str, bytes] = {}
"""What is read and composed, by its path and by what was asked. `install` takes another process's."""

compose_anew = ConfigLoaderImpl._load_configuration_impl
"""Hydra's own function that composes a configuration."""


def install(kept: Mapping[str, bytes] | None = None) -> None:
    """Let every command of this process read and compose this way, beginning with what is `kept`."""
    KEPT.update(kept or {})
    omegaconf.omegaconf.yaml = SimpleNamespace(**vars(yaml) | {"load": load_yaml})
    ConfigLoaderImpl._load_configuration_impl = compose
    Hydra.get_mode = lambda *_, **__: None  # it composes a configuration to find hydra.mode, which nothing here sets


def load_yaml(stream: Any, Loader: Any) -> Any:
    """Parse files of our own only once: a command reads 20 of them."""
    path = str(getattr(stream, "name", ""))
    if not path.startswith(UNCHANGED):
        return yaml.load(stream, Loader)
    if path not in KEPT:
        KEPT[path] = pickle.dumps(yaml.load(stream, Loader))
    return pickle.loads(KEPT[path])


def compose(loader: ConfigLoaderImpl, config_name: str, overrides: list[str], run_mode: RunMode, **how: Any) -> Any:
    """Compose each choice of shipped options only once; the overrides of keys are applied to a copy, as Hydra does.

    A command composes to check its overrides and again to run; and tests choose few options, but set many keys.
    """
    sources = [(source.provider, source.path) for source in loader.get_sources()]
    parsed = OverridesParser.create().parse_overrides(overrides)
    keys = [o for o in parsed if not loader.repository.group_exists(o.key_or_group)]
    folders = [path for provider, path in sources if provider not in ("hydra", "schema")]
    own = not all(f"{path}/".startswith(UNCHANGED) for path in folders)  # the files of a test may change
    own |= any(o.key_or_group == "hydra.searchpath" for o in keys)
    if own or any(o.is_sweep_override() for o in parsed):
        return compose_anew(loader, config_name, overrides, run_mode, **how)
    options = [o.input_line for o in parsed if o not in keys]
    asked = repr((config_name, options, run_mode, how, sources, JobRuntime.instance().conf))
    if asked not in KEPT:
        KEPT[asked] = pickle.dumps(compose_anew(loader, config_name, options, run_mode, **how))
    composed = pickle.loads(KEPT[asked])
    composed.hydra.runtime.cwd = os.getcwd()
    loader._apply_overrides_to_config(keys, composed)
    for name, theirs in (("hydra", True), ("task", False)):
        composed.hydra.overrides[name] = [o.input_line for o in parsed if o.is_hydra_override() == theirs]
    composed.hydra.job.override_dirname = get_overrides_dirname(
        [o for o in parsed if not o.is_hydra_override()], **composed.hydra.job.config.override_dirname
    )
    return composed
