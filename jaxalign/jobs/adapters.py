"""Who is asked: a base model, and adapters found in runs or PEFT folders."""

import dataclasses
import glob
import itertools
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from jaxalign.config.model import AskedModelConfig
from jaxalign.config.presets import DEFAULT_MODEL, preset, presets
from jaxalign.errors import UserError
from jaxalign.models import lora
from jaxalign.models.architecture import Architecture
from jaxalign.models.lora import LoraParams
from jaxalign.pretrained.peft import CONFIG, OURS, AdapterFile, read_adapter
from jaxalign.pretrained.sources import is_hub_id


@dataclasses.dataclass(frozen=True)
class Subject:
    """An adapter by the name it has in results, with its strength; `file` None is the bare base.

    `scale` multiplies what the adapter does: alpha / rank times the user's factor.
    """

    name: str
    folder: Path | None = None
    file: AdapterFile | None = None
    scale: float = 0.0

    @property
    def identity(self) -> str:
        """A hash of the adapter's weights and scale; empty for the bare base, and for an adapter scaled to nothing."""
        return "" if self.file is None or self.scale == 0 else lora.adapter_hash(self.file.adapter, self.scale)

    @property
    def target(self) -> dict[str, float] | None:
        """Score by value of what the adapter was trained towards, where it says so."""
        return None if self.file is None else self.file.extra.get("target")

    @property
    def value(self) -> str | None:
        """The name of the target that the adapter was trained towards, where it says so."""
        return None if self.file is None else self.file.extra.get("value")

    @property
    def coding(self) -> str | None:
        """The coding of the survey that the target is from, where it says so: `raw` (inverted people) or `reversed`."""
        return None if self.file is None else self.file.extra.get("coding")


BASE = Subject("base")


def find_adapters(key: str, names: Sequence[str]) -> list[Path]:
    """Return the folders of adapters that `names` (folders, or patterns of them) lead to, each once.

    Raises:
        UserError: a pattern finds no adapter, or a folder holds none. `key` is the setting that named it.
    """
    found: list[Path] = []
    for name in names:
        if Path(name).exists() or not glob.has_magic(name):
            found.append(_adapter_folder(key, Path(name)))
            continue
        # Of what a pattern finds, only adapters are meant: outputs/* holds other runs too.
        matches = [Path(match) for match in sorted(glob.glob(name)) if _holds_adapter(Path(match))]
        if not matches:
            raise UserError(f"{key}={name} finds no finished run and no PEFT folder")
        found += [_adapter_folder(key, match) for match in matches]
    return list(dict.fromkeys(found))


def _holds_adapter(path: Path) -> bool:
    return (path / CONFIG).is_file() or (path / "adapter" / CONFIG).is_file()


def _adapter_folder(key: str, path: Path) -> Path:
    if (path / CONFIG).is_file():
        return path
    if (path / "adapter" / CONFIG).is_file():
        return path / "adapter"
    if (path / "summary.json").is_file():
        raise UserError(f"{key}={path} is finished and made no adapter: give a run that trains one")
    if (path / "config.yaml").is_file():
        raise UserError(f"{key}={path} has no adapter yet: type its training command again, which resumes it")
    raise UserError(f"{key}={path} is no adapter: give a run's directory or a PEFT folder")


def asked_model(model: AskedModelConfig, adapters: Sequence[Path]) -> dict[str, Any]:
    """Return the keys of the model that is asked: of the first adapter's run, where the configuration leaves it open.

    `prompt_format` is never None in it: that of the adapters that say one, or plain.

    Raises:
        UserError: adapters of different prompt formats or system messages (which), where the configuration leaves
            those open; a system message in the plain format.
    """
    keys = dataclasses.asdict(model)
    if model.source == "run":
        runs = [(folder, found) for folder in adapters if (found := _trained_on(folder)) is not None]
        trained = runs[0][1] if runs else preset(DEFAULT_MODEL)
        if not runs:
            _check_default(adapters)
        keys = {**trained, "prompt_format": model.prompt_format, "system": model.system or trained.get("system")}
        for (first, theirs), (other, found) in itertools.pairwise(runs):
            if model.system is None and found.get("system") != theirs.get("system"):
                raise UserError(
                    f"{other} was trained with another model.system than {first}: ask them one by one, or choose with "
                    "model.system=..."
                )
    if keys["prompt_format"] is None:
        formats = [(folder, found) for folder in adapters if (found := _ours(folder).get("prompt_format")) is not None]
        for (first, theirs), (other, found) in itertools.pairwise(formats):
            if found != theirs:
                raise UserError(
                    f"{other} was trained with model.prompt_format={found} and {first} with {theirs}: ask them one by "
                    "one, or choose with model.prompt_format=..."
                )
        keys["prompt_format"] = formats[0][1] if formats else "plain"
    if keys["prompt_format"] == "plain" and keys.get("system"):
        raise UserError("model.system is said only in the chat format: add model.prompt_format=chat")
    return keys


def _check_default(folders: Sequence[Path]) -> None:
    """Raise UserError for the first folder whose files name another base than the default, before that is fetched."""
    named = {name: {one.get("path"), one["name"]} for name in presets() for one in [preset(name)]}
    for folder in folders:
        base = _ours(folder).get("base_name")
        if base is not None and base not in named[DEFAULT_MODEL]:
            fits = [name for name, theirs in named.items() if base in theirs]
            if not fits and not is_hub_id(base):
                continue  # a folder or a file, which may hold the default: its weights tell, once they are read
            choice = f"model={fits[0]}" if fits else f"model=hub model.path={base}"
            raise UserError(f"{folder} was trained on {base}: add {choice}")


def _trained_on(folder: Path) -> dict[str, Any] | None:
    """Return the model of the run that an adapter's folder stands in; None for a folder of its own."""
    path = folder.parent / "config.yaml"
    try:
        model = yaml.safe_load(path.read_text(encoding="utf-8"))["model"]
    except (OSError, ValueError, yaml.YAMLError, KeyError, TypeError):
        return None
    return model if isinstance(model, dict) else None


def _ours(folder: Path) -> Mapping[str, Any]:
    try:
        found = json.loads((folder / OURS).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def read_subjects(folders: Sequence[Path], architecture: Architecture, scale: float) -> list[Subject]:
    """Return a Subject for each folder that `find_adapters` found. `scale`: the user's factor.

    Names are made distinct, from each other and from that of the bare base.

    Raises:
        UserError: an adapter cannot be read, does not fit the architecture, or says that it was trained on another base
            than one before it (which).
    """
    subjects: list[Subject] = []
    of_base: Subject | None = None
    for folder in folders:
        file = read_adapter(folder, architecture)
        subject = Subject(_name(folder, file), folder, file, scale * file.alpha / file.rank)
        subjects.append(subject)
        if file.base_identity is None:
            continue
        of_base = of_base or subject
        assert of_base.file is not None
        if file.base_identity != of_base.file.base_identity:
            raise UserError(
                f"{folder} was trained on another base ({file.base_name}) than {of_base.folder} "
                f"({of_base.file.base_name}): ask them one by one"
            )
    names = [subject.name for subject in subjects]
    taken = {BASE.name, *names}
    distinct = []
    for subject in subjects:
        name = subject.name
        if name == BASE.name or names.count(name) > 1:
            name = next(new for n in itertools.count(1) if (new := f"{subject.name} ({n})") not in taken)
            taken.add(name)
        distinct.append(dataclasses.replace(subject, name=name))
    return distinct


def check_base(subjects: Sequence[Subject], identity: str, name: str) -> None:
    """Raise UserError for the first adapter that was trained on other weights than those of the model `name`."""
    for subject in subjects:
        theirs = None if subject.file is None else subject.file.base_identity
        if subject.file is not None and theirs is not None and theirs != identity:
            raise UserError(
                f"{subject.folder} was trained on another base ({subject.file.base_name}), not on {name}: "
                "ask it by itself, or with its own model=..."
            )


def _name(folder: Path, file: AdapterFile) -> str:
    """Return what a person calls an adapter: its value, or its folder."""
    run = folder.parent if folder.name == "adapter" else folder
    return file.extra.get("value") or run.name


def check_together(subjects: Sequence[Subject]) -> None:
    """Raise UserError for the first adapter of another rank or other projections than those before it."""
    files = [subject for subject in subjects if subject.file is not None]
    for first, other in itertools.pairwise(files):
        assert first.file is not None
        assert other.file is not None
        for what, theirs, ours in (
            ("lora.rank", other.file.rank, first.file.rank),
            ("lora.targets", sorted(other.file.targets), sorted(first.file.targets)),
        ):
            if theirs != ours:
                raise UserError(
                    f"{other.folder} has {what} {theirs} and {first.folder} has {ours}: adapters that answer together "
                    "must be of one shape; ask them one by one"
                )


def stack(subjects: Sequence[Subject]) -> LoraParams | None:
    """Return the subjects' adapters in one, as `stack_lora` does.

    Raises:
        UserError: adapters of different ranks or projections (which).
    """
    check_together(subjects)
    return lora.stack_lora([None if s.file is None else lora.effective(s.file.adapter, s.scale) for s in subjects])


TOGETHER = 8
"""Adapters that answer in one program, at most."""
