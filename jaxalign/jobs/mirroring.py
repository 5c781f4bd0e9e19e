"""`run.mirror`: the copy of runs and of compiled programs, from which another machine goes on."""

import functools
from pathlib import Path

import jax

from jaxalign.config.model import ModelCommandConfig
from jaxalign.errors import UserError
from jaxalign.parallel.distributed import by_first
from jaxalign.parallel.processor import cpu_instructions
from jaxalign.pretrained.sources import cache_folder
from jaxalign.runs.mirror import Mirror, SharedPrograms
from jaxalign.runs.records import digest

PROGRAMS = "compiled-programs"
"""The folder of a mirror that holds compiled programs, a folder in it for each kind of device and processor."""


def mirror_of(config: ModelCommandConfig) -> Mirror | None:
    """Return the mirror that the configuration names; None without one.

    Calls with the same settings return the same object.

    Raises:
        UserError: a bucket was named together with `offline=true`.
    """
    run = config.run
    if run.mirror is None:
        return None
    mirror = _mirror(run.mirror, Path(run.folder).absolute(), run.dir is not None)
    if config.offline and mirror.bucket.is_remote:
        raise UserError(f"offline=true uses no network, and run.mirror={run.mirror} is in it: give a mounted folder")
    return mirror


def open_mirror(config: ModelCommandConfig) -> None:
    """Check that the mirror can be written, if there is one, and fetch the compiled programs in it.

    Raises:
        UserError: it cannot be used.
    """
    mirror = mirror_of(config)
    if mirror is None:
        return
    by_first(mirror.bucket.probe)
    # A program for another processor may not run on this one, and a part of each runs on the processor.
    kind = digest([jax.devices()[0].device_kind, sorted(cpu_instructions())], 12)
    mirror.programs = SharedPrograms(mirror.bucket, f"{PROGRAMS}/{kind}", cache_folder() / "xla")
    mirror.programs.fetch()


@functools.cache
def _mirror(url: str, local: Path, is_run: bool) -> Mirror:
    return Mirror(url, local.parent if is_run else local)
