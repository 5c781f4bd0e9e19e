"""Hydra, but what it reads and composes again and again only once: that takes a command longer than its work."""

import os
import pickle
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from hydra._internal.config_loader_impl import ConfigLoaderImpl, get_overrides_dirname
from hydra._internal.config_repository import ConfigRepository
from hydra._internal.hydra import Hydra
from hydra.core.object_type import ObjectType
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.utils import JobRuntime
from hydra.types import RunMode

from jaxalign.config.presets import CONF

KEPT: dict[str, bytes] = {}
"""What is read and composed, by what was asked. `install` takes another process's."""

compose_anew = ConfigLoaderImpl._load_configuration_impl
"""Hydra's own function that composes a configuration."""
load_anew = ConfigRepository.load_config
"""Hydra's own function that reads a file."""
parse_anew = OverridesParser.parse_rule
"""Hydra's own function that parses an override."""


def install(kept: Mapping[str, bytes] | None = None) -> None:
    """Let every command of this process read and compose this way, beginning with what is `kept`."""
    KEPT.update(kept or {})
    ConfigRepository.load_config = load
    OverridesParser.parse_rule = parse
    ConfigLoaderImpl._load_configuration_impl = compose
    Hydra.get_mode = lambda *_, **__: None  # it composes a configuration to find hydra.mode, which nothing here sets


def load(repository: ConfigRepository, config_path: str) -> Any:
    """Read shipped files and Hydra's own only once: a command reads 20 of them."""
    source = repository._find_object_source(config_path, ObjectType.CONFIG)
    if source is None or (source.scheme() == "file" and Path(source.path) != CONF):
        return load_anew(repository, config_path)
    place = repr((source.provider, source.path, config_path))
    if place not in KEPT:
        KEPT[place] = pickle.dumps(load_anew(repository, config_path))
    return pickle.loads(KEPT[place])


def parse(parser: OverridesParser, text: str, rule: str) -> Any:
    """Parse an override only once: a command parses all of its own three times.

    What calls a function is parsed anew, as `shuffle(...)` gives something else each time.
    """
    if rule != "override" or "(" in text:
        return parse_anew(parser, text, rule)
    place = repr(("override", text))
    if place not in KEPT:
        KEPT[place] = pickle.dumps(parse_anew(parser, text, rule))
    return pickle.loads(KEPT[place])


def own_files(folders: Iterable[str]) -> list[tuple[str, bytes]]:
    """Return the options in a test's own folders, which another test, or the next line of this one, may change."""
    paths = [path for folder in folders for path in sorted(Path(folder.removeprefix("file://")).rglob("*.y*ml"))]
    return [(str(path), path.read_bytes()) for path in paths]


def compose(loader: ConfigLoaderImpl, config_name: str, overrides: list[str], run_mode: RunMode, **how: Any) -> Any:
    """Compose each choice of options only once; the overrides of keys are applied to a copy, as Hydra does.

    A command composes to check its overrides and again to run; and tests choose few options, but set many keys.
    """
    sources = [(source.provider, source.path) for source in loader.get_sources()]
    parsed = OverridesParser.create().parse_overrides(overrides)
    where = [o for o in parsed if o.key_or_group == "hydra.searchpath"]
    keys = [o for o in parsed if o not in where and not loader.repository.group_exists(o.key_or_group)]
    if any(o.is_sweep_override() for o in parsed):
        return compose_anew(loader, config_name, overrides, run_mode, **how)
    options = [o.input_line for o in parsed if o not in keys]
    folders = [path for provider, path in sources if provider not in ("hydra", "main", "schema")]
    folders += [str(path) for o in where if isinstance(o.value(), list) for path in o.value()]
    own = own_files(folders)
    asked = repr((config_name, options, run_mode, how, sources, own, JobRuntime.instance().conf))
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
