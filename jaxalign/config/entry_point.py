"""From a command line to a checked configuration: Hydra, with every error as one line of ours.

Nothing here, nor in config.py, imports jax: `--help` and bad input answer at once.
"""

import contextlib
import os
import signal
import sys
import tempfile
from collections.abc import Callable, Sequence
from importlib import metadata

import hydra
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig

from jaxalign.config.commands import Config, read_config
from jaxalign.config.export import ExportConfig
from jaxalign.config.overrides import CommandLine, one_line, resolved, split_flags, spoken
from jaxalign.config.presets import CONF
from jaxalign.config.survey import SurveyConfig
from jaxalign.errors import UserError

# The hub's library warns at length of what we then say in one line.
os.environ.setdefault("HF_HUB_VERBOSITY", "error")


def entry_point(config_name: str, kind: type[Config]) -> Callable[[Callable[[Config], None]], Callable[..., None]]:
    """Make a function of a checked configuration the `main` of a console script.

    >>> @entry_point("train", TrainConfig)                                  # doctest: +SKIP
    ... def main(config: TrainConfig) -> None: ...

    `main()` reads sys.argv, `main([...])` the arguments given. It exits with status 2 and `error: ...` for bad input,
    with 130 after Ctrl-C. A multirun is checked whole before its first job begins.
    """

    def decorate(run: Callable[[Config], None]) -> Callable[..., None]:
        def main(arguments: Sequence[str] | None = None) -> None:
            arguments = list(sys.argv[1:] if arguments is None else arguments)
            try:
                _main(config_name, kind, run, arguments)
            except UserError as error:
                _fail(str(error))
            except KeyboardInterrupt:
                again = "without run.overwrite=true " if "run.overwrite=true" in arguments else ""
                resumes = f"; the same command {again}resumes" if kind not in (ExportConfig, SurveyConfig) else ""
                print(f"interrupted{resumes}", file=sys.stderr)
                raise SystemExit(130) from None

        return main

    return decorate


def _fail(line: str) -> None:
    print(f"error: {line}", file=sys.stderr)
    raise SystemExit(2) from None


def _show(text: str) -> None:
    """Print what was asked for; a reader that left early, such as `| head`, is no error."""
    try:
        print(text, flush=True)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # or the exit would flush once more
        raise SystemExit(128 + signal.SIGPIPE) from None


def _main(config_name: str, kind: type[Config], run: Callable[[Config], None], arguments: list[str]) -> None:
    if "--version" in arguments:
        _show(f"jaxalign {metadata.version('jaxalign')}")
        return
    flags, overrides, options = split_flags(arguments)
    jobs: list[list[str]] = []
    asks = options.hydra_help or options.info or options.shell_completion
    if not asks:
        command = CommandLine(options.config_name or config_name, kind, options)
        if options.help:
            _show(command.help())
            return
        overrides = command.normalised(overrides)
        jobs = command.check(overrides)

    def task(composed: DictConfig) -> None:
        number = HydraConfig.get().job.num if len(jobs) > 1 else None
        where = "" if number is None else f"job {number + 1} of {len(jobs)} ({spoken(jobs[number])}): "
        if where:
            print(where.removesuffix(": "), flush=True)
        try:
            run(read_config(kind, resolved(composed)))
        except UserError as error:
            _fail(f"{where}{error}")  # not raised through Hydra, which would run the other jobs first

    with contextlib.ExitStack() as stack:
        if options.multirun and not any(o.startswith(("hydra.sweep.dir=", "hydra/launcher=")) for o in overrides):
            # Hydra always writes a multirun.yaml; not into the user's folder.
            folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="jaxalign-multirun-"))
            overrides.append(f"hydra.sweep.dir='{folder}'")
        kept = sys.argv
        stack.callback(setattr, sys, "argv", kept)
        sys.argv = [kept[0], *flags, *overrides]
        if asks:
            stack.enter_context(one_line())
        hydra.main(config_path=str(CONF), config_name=config_name, version_base="1.3")(task)()
