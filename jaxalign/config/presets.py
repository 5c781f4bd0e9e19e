"""The configuration folder, and the models that have a name in it."""

from pathlib import Path
from typing import Any

import yaml

CONF = next(
    folder for folder in (Path(__file__).parents[1] / "conf", Path(__file__).parents[2] / "conf") if folder.is_dir()
).resolve()
"""The folder conf/: inside an installed package, or beside the package in the repository."""


DEFAULT_MODEL = "smollm2_135m"


def presets() -> list[str]:
    """Return the names of the options in conf/model/ that are one certain model: all but `hub` and `run`."""
    return sorted(path.stem for path in (CONF / "model").glob("*.yaml") if path.stem not in ("hub", "run"))


def preset(name: str, group: str = "model") -> dict[str, Any]:
    """Return the keys of conf/model/NAME.yaml, or of a file of another group."""
    return yaml.safe_load((CONF / group / f"{name}.yaml").read_text(encoding="utf-8"))
