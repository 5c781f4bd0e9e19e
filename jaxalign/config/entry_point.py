"""From a command line to a checked configuration: Hydra, with every error as one line of our own.

Nothing in `jaxalign.config` imports jax, so that `--help` and errors about bad input come at once.
"""

import contextlib
import gc
import os
import sys
import tempfile
from collections.abc import Callable, Sequence
from importlib import metadata
from typing import Any

import hydra
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig

from jaxalign.config.commands import Config, read_config
from jaxalign.config.environment import without_secrets
from jaxalign.config.export import ExportConfig
from jaxalign.config.flags import split_flags
from jaxalign.config.output import show_all_characters, unusable_output
from jaxalign.config.overrides import CommandLine, one_line, resolved, spoken
from jaxalign.config.presets import CONF
from jaxalign.config.report import ReportConfig
from jaxalign.config.search_path import own_options_first
from jaxalign.config.survey import SurveyConfig
from jaxalign.errors import NothingToDoError, UserError, unusable_paths
from jaxalign.parallel.interruption import interruptible
from jaxalign.parallel.rendezvous import is_first_named
from jaxalign.runs.reading import is_cut

# The hub's library prints long warnings about errors that we report in one line.
os.environ.setdefault("HF_HUB_VERBOSITY", "error")

RARELY = (10_000, 20, 20)
"""How rarely a command looks for reference cycles. With Python's own (700, 10, 10), a tenth of the time of importing
and tracing goes there."""


def entry_point(config_name: str, kind: type[Config]) -> Callable[[Callable[[Config], None]], Callable[..., None]]:
    """Return a decorator that turns a function of a checked configuration into the `main` of a console script.

    ```python
    @entry_point("train", TrainConfig)
    def main(config: TrainConfig) -> None: ...
    ```

    `main()` reads sys.argv, and `main([...])` reads the given arguments. It exits with status 2 and a line `error: ...`
    for bad input, and with status 130 after Ctrl-C, SIGTERM, SIGUSR1 or SIGUSR2; a second one of them ends the process
    at once. All jobs of a multirun are checked before the first one begins; one that has nothing to do is passed over.
    """

    def decorate(run: Callable[[Config], None]) -> Callable[..., None]:
        def main(arguments: Sequence[str] | None = None) -> None:
            if arguments is None:
                gc.set_threshold(*RARELY)
                show_all_characters()
            arguments = list(sys.argv[1:] if arguments is None else arguments)
            try:
                with interruptible(), unusable_paths(), unusable_output(), without_secrets():
                    _main(config_name, kind, run, arguments)
            except UserError as error:
                _fail(str(error))
            except KeyboardInterrupt:
                again = "without run.overwrite=true " if "run.overwrite=true" in arguments else ""
                resumes = (
                    f"; the same command {again}resumes"
                    if kind not in (ExportConfig, SurveyConfig, ReportConfig)
                    else ""
                )
                print(f"interrupted{resumes}", file=sys.stderr)
                raise SystemExit(130) from None

        return main

    return decorate


def _fail(line: str) -> None:
    print(f"error: {line}", file=sys.stderr)
    raise SystemExit(2) from None


def _main(config_name: str, kind: type[Config], run: Callable[[Config], None], arguments: list[str]) -> None:
    for argument in arguments:
        if is_cut(argument):
            raise UserError(f"{argument!a} is not UTF-8 text; if you typed it as such, set PYTHONUTF8=1")
    flags, overrides, options = split_flags(arguments)
    if options.version:
        print(f"jaxalign {metadata.version('jaxalign')}", flush=True)
        return
    with own_options_first(options.config_dir):
        _run_jobs(config_name, kind, run, flags, overrides, options)


def _run_jobs(
    config_name: str,
    kind: type[Config],
    run: Callable[[Config], None],
    flags: list[str],
    overrides: list[str],
    options: Any,
) -> None:
    jobs: list[list[str]] = []
    asks = options.hydra_help or options.info or options.shell_completion
    if not (options.hydra_help or options.shell_completion):
        command = CommandLine(options.config_name or config_name, kind, options)
        if options.help:
            print(command.help(), flush=True)
            return
        overrides = command.normalised(overrides)
        jobs = [] if options.info else command.check(overrides)

    def task(composed: DictConfig) -> None:
        number = HydraConfig.get().job.num if len(jobs) > 1 else None
        where = "" if number is None else f"job {number + 1} of {len(jobs)} ({spoken(jobs[number])}): "
        try:
            with unusable_paths(), unusable_output():
                if where and is_first_named():
                    print(where.removesuffix(": "), flush=True)
                run(read_config(kind, resolved(composed)))
        except UserError as error:
            if where and isinstance(error, NothingToDoError):
                if is_first_named():
                    print(f"passed over: {error}", flush=True)
                return
            _fail(f"{where}{error}")  # an error raised through Hydra would come only after the other jobs

    with contextlib.ExitStack() as stack:
        if options.multirun and not any(o.startswith(("hydra.sweep.dir=", "hydra/launcher=")) for o in overrides):
            # Hydra always writes a multirun.yaml, which must not land in the user's folder.
            folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="jaxalign-multirun-"))
            overrides.append(f"hydra.sweep.dir='{folder}'")
        kept = sys.argv
        stack.callback(setattr, sys, "argv", kept)
        sys.argv = [kept[0], *overrides, *flags]  # behind --info, an override would be taken for what it is about
        if asks:
            stack.enter_context(one_line())
        hydra.main(config_path=str(CONF), config_name=config_name, version_base="1.3")(task)()
