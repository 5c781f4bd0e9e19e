"""A command line as Hydra's overrides: with or without +, and checked before anything runs."""

import contextlib
import itertools
import math
import re
import warnings
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from string import Template
from typing import Any

import yaml
from hydra import version
from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra._internal.config_repository import ConfigRepository
from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra._internal.utils import create_automatic_config_search_path
from hydra.core.object_type import ObjectType
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override, RangeSweep
from hydra.core.utils import setup_globals
from hydra.errors import HydraException, MissingConfigException, OverrideParseException
from hydra.plugins.config_source import ConfigResult
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import ConfigAttributeError, ConfigKeyError, OmegaConfBaseException

from jaxalign.config.commands import SHORT, Config, read_config
from jaxalign.config.presets import CONF
from jaxalign.config.quoting import Quoting
from jaxalign.config.schema import holds_keys, is_allowed, leaf_types, nearest_key
from jaxalign.errors import UserError, did_you_mean
from jaxalign.runs.reading import check_yaml

MOST_JOBS = 10_000
"""The largest number of runs of one command: each is composed and checked before the first one begins."""

_SHIPPED_GROUPS: dict[str, frozenset[str]] = {}
"""The groups in the defaults lists of those of our commands that this process has composed."""


@contextlib.contextmanager
def one_line() -> Iterator[None]:
    """Turn the errors that Hydra, OmegaConf and YAML raise for bad input into a UserError."""
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("error", message="provider=.* is not available", category=UserWarning)
            yield
    except OverrideParseException as error:
        raise UserError(
            f"cannot read '{error.override}': it must be key=value; where the value holds special characters, "
            "quote it twice, such as 'key=\"a, b\"'"
        ) from error
    except MissingConfigException as error:
        listed = re.search(r"Could not load '([^']+)'", str(error))  # the message about an option in a list of options
        file = error.missing_cfg_file or (listed[1] if listed else None)
        if file is None or "/" not in file:
            raise UserError(str(error)) from error
        group, _, name = file.rpartition("/")
        options = error.options or sorted(option.stem for option in (CONF / group).glob("*.yaml"))
        raise UserError(f"{group}={name}: there is no such option{did_you_mean(name, options)}") from error
    except (HydraException, OmegaConfBaseException) as error:
        if (inner := _user_error(error)) is not None:
            raise inner from error
        cause = error if isinstance(error, OmegaConfBaseException) else error.__cause__
        if isinstance(cause, ConfigKeyError | ConfigAttributeError) and cause.parent_node is not None:
            parent, _, _ = str(cause.full_key).rpartition(".")
            if not parent:  # a group without a default, because normalised() refuses all other unknown root keys
                raise UserError(f"no {cause.full_key} is chosen: add {cause.full_key}=OPTION") from error
            known = [f"{parent}.{key}" for key in cause.parent_node]
            raise UserError(f"unknown key '{cause.full_key}'{did_you_mean(str(cause.full_key), known)}") from error
        whole = " ".join(str(part) for part in (error, error.__cause__) if part and str(part))
        if found := re.search(r"Cannot merge DictConfig with ListConfig\s+full_key: (\S+)\s+object_type=(\w+)", whole):
            key, of_list = found[1], found[2] == "list"
            told = f"must be a list, such as {key}=[a,b]" if of_list else f"has keys, such as {key}.KEY=VALUE"
            raise UserError(f"{key} {told}, and {'no keys with values' if of_list else 'is no list'}") from error
        raise UserError(whole) from error
    except RecursionError as error:
        raise UserError("a value is nested too deeply, or an interpolation (${...}) leads back to itself") from error
    except (yaml.YAMLError, UserWarning, OverflowError, ValueError) as error:
        raise UserError(str(error)) from error


def _user_error(error: BaseException | None) -> UserError | None:
    """Return the UserError that a resolver raised, from which others came; None if there is none."""
    while error is not None and not isinstance(error, UserError):
        error = error.__cause__ or error.__context__
    return error


def resolved(composed: DictConfig) -> dict[str, Any]:
    """Return the composed configuration as plain values, interpolations resolved; UserError if one cannot be."""
    with one_line():
        plain = OmegaConf.to_container(composed, resolve=True)
    assert isinstance(plain, dict)
    return {str(key): value for key, value in plain.items() if key != "hydra"}


class CheckedFiles(ConfigRepository):
    """The configuration files, of which those of the user are checked before Hydra reads them."""

    def load_config(self, config_path: str) -> ConfigResult | None:
        """Return the content of a file; UserError if it is not YAML that Hydra can use."""
        source = self._find_object_source(config_path, ObjectType.CONFIG)
        if source is None or source.scheme() != "file" or source.provider == "main":
            return super().load_config(config_path)
        file = Path(source.path) / (config_path if config_path.endswith((".yaml", ".yml")) else f"{config_path}.yaml")
        check_yaml(file)
        try:
            return super().load_config(config_path)
        except (OmegaConfBaseException, ValueError, TypeError, OSError, AssertionError, RecursionError) as error:
            raise UserError(f"{file} cannot be used: {error}") from error


class CommandLine:
    """One command line for one configuration: what its overrides mean, and whether each of its jobs is valid."""

    def __init__(self, config_name: str, kind: type[Config], options: Any):
        self._config_name, self._kind, self._options = config_name, kind, options
        search_path = create_automatic_config_search_path(None, __name__, options.config_path or str(CONF))
        version.setbase("1.3")
        setup_globals()
        self._loader = ConfigLoaderImpl(config_search_path=search_path)
        self._loader.repository = self._files = CheckedFiles(search_path)
        self._keys = leaf_types(kind)
        self._quoting = Quoting(self._keys, bool(options.multirun))
        self._roots = {key.partition(".")[0] for key in self._keys}
        found = {name: self._files.get_group_options(name, results_filter=None) for name in self._roots}
        inner = [f"{name}/{one}" for name, options in found.items() for one in options]
        self._groups = [*filter(found.get, self._roots), *filter(self._files.get_group_options, inner)]

    def normalised(self, overrides: list[str]) -> list[str]:
        """Return the overrides in the form that Hydra requires; UserError for a key or a group that does not exist.

        `value=power` and `+value=power` mean the same, whichever of them Hydra requires; so do `key=1` and `+key=1`.
        """
        parsed = self._parsed([self._quoting.quoted(override) for override in overrides])
        mesh = Counter(o.key_or_group for o in parsed if o.key_or_group.partition(".")[0] == "mesh")
        if twice := [key for key, count in mesh.items() if count > 1]:  # one of them would be passed over
            raise UserError(f"{twice[0]} is given twice: leave one of them out")
        default_groups = self._default_groups(parsed)
        return [self._normal(override, default_groups) for override in parsed]

    def _parsed(self, overrides: Sequence[str]) -> list[Override]:
        with one_line():
            return OverridesParser.create(config_loader=self._loader).parse_overrides(list(overrides))

    def _default_groups(self, parsed: list[Override]) -> frozenset[str]:
        """Return the groups in the defaults lists of the command and its recipes; Hydra requires + before any other."""
        lines = [_bare(o) for o in parsed if o.key_or_group == "hydra.searchpath"]
        recipes = [o for o in parsed if o.key_or_group == "experiment" and not o.is_sweep_override()]
        shipped = not (lines or recipes or self._options.config_path or self._options.config_dir)
        found = _SHIPPED_GROUPS.get(self._config_name) if shipped else None
        if found is None:
            with one_line():
                found = frozenset(map(str, self._compose([*lines, *map(_bare, recipes)]).hydra.runtime.choices))
        if shipped:
            _SHIPPED_GROUPS[self._config_name] = found
        # Hydra reports no choice for a group that was given a list of options.
        return found | {"experiment" for recipe in recipes if isinstance(recipe.value(), list)}

    def _normal(self, override: Override, default_groups: frozenset[str]) -> str:
        line, key = override.input_line or "", override.key_or_group
        if override.is_sweep_override() and not self._options.multirun:
            raise UserError(f"{line}: several values need -m, which makes a run for each; a list is written key=[a,b]")
        if key == "hydra.searchpath":
            return _bare(override)  # with a + Hydra passes over it
        if override.is_delete() or override.is_hydra_override() or key.startswith("hydra/"):
            return line
        chosen = override.value()
        if key in self._groups and key != "experiment" and isinstance(chosen, list):
            raise UserError(f"{line}: give one option; -m {key}={','.join(map(str, chosen))} makes a run for each")
        if key in default_groups:
            return _bare(override)
        if key in self._groups:
            return f"+{_bare(override)}"
        if key in self._keys:
            return f"++{_bare(override)}"
        if key in SHORT and SHORT[key] in self._keys:
            return f"++{_bare(override).replace(key, SHORT[key], 1)}"
        free = any(holds_keys(kind) and key.startswith(f"{known}.") for known, kind in self._keys.items())
        if free or any(known.startswith(f"{key}.") for known in self._keys):
            return line
        raise UserError(f"unknown key '{key}'{nearest_key(key, [*self._keys, *self._groups])}")

    def _compose(self, overrides: Sequence[str]) -> DictConfig:
        return self._loader.load_configuration(self._config_name, list(overrides), RunMode.RUN)

    def check(self, overrides: Sequence[str]) -> list[list[str]]:
        """Compose and check every job of the command, and return the overrides of each job."""
        jobs = [list(overrides)]
        if self._options.multirun:
            jobs = self._sweep(overrides)
        shared = [line for line in overrides if line.lstrip("+").startswith("run.dir=")]
        if len(jobs) > 1 and shared and shared[0] in set.intersection(*map(set, jobs)):
            raise UserError(f"{spoken(shared)}: {len(jobs)} jobs cannot share a directory; use run.root instead")
        for number, job in enumerate(jobs, start=1):
            try:
                with one_line():
                    composed = self._compose(job)
                recipe = [line for line in job if line.lstrip("+").startswith("experiment=")]
                if recipe and (foreign := self._foreign(composed)):
                    lacks = " and no ".join(foreign)
                    raise UserError(f"{spoken(recipe)} is not for jaxalign.{self._config_name}, which has no {lacks}")
                if self._options.cfg is None:  # --cfg shows a configuration, which may still be incomplete
                    read_config(self._kind, resolved(composed))
                elif self._options.resolve:
                    resolved(composed)
            except UserError as error:
                where = f"job {number} of {len(jobs)} ({spoken(job)}): " if len(jobs) > 1 else ""
                raise UserError(f"{where}{error}") from error
        return jobs

    def help(self) -> str:
        """Return the text of --help with this command's groups and recipes; Hydra would list those of all commands."""
        with one_line():
            template = OmegaConf.to_container(self._compose([]).hydra.help, resolve=False)["template"]  # type: ignore
        every = {name: self._files.get_group_options(name) for name in self._groups}
        allowed = {name: [one for one in found if self._allows(name, one)] for name, found in every.items()}
        options = {name: found for name, found in allowed.items() if found}
        if "experiment" in self._default_groups([]):
            found = self._files.get_group_options("experiment")
            options["experiment"] = [one for one in found if self._takes(f"experiment={one}")]
        listed = "".join(f"{name}: {', '.join(found)}\n" for name, found in sorted(options.items()))
        return Template(template).substitute(APP_CONFIG_GROUPS=listed, CONF=CONF)

    def _allows(self, group: str, option: str) -> bool:
        """Return whether an option is for this command; commands with other types share some groups."""
        root = group.partition("/")[0]
        found = self._loader.repository.load_config(f"{group}/{option}")
        if found is None or root not in self._roots or found.header.get("package"):  # it sets keys of other groups too
            return True
        content = OmegaConf.to_container(found.config, resolve=False)
        assert isinstance(content, dict)
        # A null may stand for something that depends on the command.
        given = {key: value for key, value in content.items() if value is not None}
        return is_allowed(self._kind, root, given)

    def _takes(self, recipe: str) -> bool:
        """Return whether a recipe is for this command; a recipe for another command may not even compose."""
        try:
            with one_line():
                return not self._foreign(self._compose([recipe]))
        except UserError:
            return False

    def _foreign(self, composed: DictConfig) -> list[str]:
        """Return the root keys that other commands have and this one does not, which shows a recipe for another."""
        known = {key for kind in Config.__constraints__ for key in leaf_types(kind)}
        others = {key.partition(".")[0] for key in known} - {key.partition(".")[0] for key in self._keys}
        return [str(key) for key in composed if key in others]

    def _sweep(self, overrides: Sequence[str]) -> list[list[str]]:
        """Return the jobs of a multirun, or none if another sweeper than Hydra's basic one chooses them as it runs."""
        parsed = self._parsed(overrides)
        for_hydra = [o.input_line or "" for o in parsed if o.is_hydra_override()]
        with one_line():
            sweeper = self._loader.load_configuration(self._config_name, for_hydra, RunMode.MULTIRUN).hydra.sweeper
            if not str(sweeper.get("_target_")).endswith(".BasicSweeper"):
                return []
            if math.prod(map(_values, parsed)) > MOST_JOBS:
                raise UserError(f"{spoken(overrides)} asks for more than {MOST_JOBS} runs: give fewer values")
            (jobs,) = BasicSweeper.split_arguments([o for o in parsed if not o.is_hydra_override()], None)
        if not jobs:
            raise UserError(f"{spoken(overrides)}: no option matches the pattern")
        return [[*for_hydra, *job] for job in jobs]


def _values(override: Override) -> int:
    """Return how many values an override has; those of a sweep are counted up to just above `MOST_JOBS`."""
    if not override.is_discrete_sweep():
        return 1
    value = override.value()
    # A shuffled range would be listed as a whole.
    values = value.range() if isinstance(value, RangeSweep) else override.sweep_iterator()
    return sum(1 for _ in itertools.islice(values, MOST_JOBS + 1))


def _bare(override: Override) -> str:
    return (override.input_line or "").lstrip("+")


def spoken(overrides: Sequence[str]) -> str:
    """Return the overrides as a user types them, without Hydra's own settings."""
    return " ".join(override.lstrip("+") for override in overrides if not override.startswith("hydra"))
