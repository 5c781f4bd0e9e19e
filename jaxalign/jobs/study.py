"""The study job: it runs the commands of an experiment one after the other, each in a process of its own."""

import shlex
import signal
import subprocess
import sys

from hydra.core.hydra_config import HydraConfig

from jaxalign.config.evaluate import EvaluateConfig
from jaxalign.config.flags import showing, split_flags
from jaxalign.config.overrides import CommandLine
from jaxalign.config.report import ReportConfig
from jaxalign.config.search_path import OwnOptions, own_options_first
from jaxalign.config.study import StudyConfig
from jaxalign.config.train import TrainConfig
from jaxalign.errors import UserError, did_you_mean
from jaxalign.parallel.distributed import check_alone
from jaxalign.parallel.interruption import before_second_ends

STEP_KINDS = {"train": TrainConfig, "evaluate": EvaluateConfig, "report": ReportConfig}
"""The commands that a step may run."""


def study(config: StudyConfig) -> None:
    """Check all steps, then run them, and print each as it would be typed alone.

    A step that is done already prints its results and computes nothing, as its command does. The first step that
    fails ends the study with that step's exit status.

    Raises:
        UserError: a step is no command of ours, or its overrides are wrong; or the environment names several processes.
    """
    check_alone()
    steps = [checked_step(config, number, step) for number, step in enumerate(config.steps, start=1)]
    if config.prefetch:
        # The other steps ask adapters, which do not exist yet; their base is the same.
        steps = [[*step, "prefetch=true"] for step in steps if step[0] == "train"]
    for number, (command, *rest) in enumerate(steps, start=1):
        print(f"── step {number} of {len(steps)}: python -m jaxalign.{shlex.join([command, *rest])}", flush=True)
        if code := _run(command, rest):
            raise SystemExit(code)


def checked_step(config: StudyConfig, number: int, step: str) -> list[str]:
    """Return the words of a step, the command first; the user's own folders of options are passed on to it.

    Raises:
        UserError: it is no command of a study, or one that would be refused.
    """
    where = f"step {number} ({step})"
    try:
        command, *arguments = shlex.split(step) or [""]
        if command not in STEP_KINDS:
            raise UserError(f"{where}: {command!r} is no command of a study{did_you_mean(command, STEP_KINDS)}")
        arguments += shlex.split(getattr(config.add, command))
    except ValueError as error:
        raise UserError(f"{where} is not a command line: {error}") from error
    arguments += ["offline=true"] if config.offline else []
    try:
        # The study's own options are those of its steps; of two lines, Hydra takes the first.
        mine = HydraConfig.get().overrides.hydra if HydraConfig.initialized() else []
        arguments += [line for line in mine if line.startswith("hydra.searchpath=")]
        _, overrides, options = split_flags(arguments)
        if shown := showing(options):  # the step would seem done
            raise UserError(f"{shown} shows something and runs nothing: leave it out")
        if options.config_dir is None and OwnOptions.folder is not None:
            options.config_dir = str(OwnOptions.folder)
            arguments = ["--config-dir", options.config_dir, *arguments]
        with own_options_first(options.config_dir):
            checker = CommandLine(options.config_name or command, STEP_KINDS[command], options)
            checker.check(checker.normalised(overrides))
    except UserError as error:
        raise UserError(f"{where}: {error}") from error
    return [command, *arguments]


def _run(command: str, arguments: list[str]) -> int:
    """Run a command, and return its exit status.

    What interrupts the study is passed on as SIGTERM, so that the command saves its work; a second time both stop at
    once. The command has a session of its own, because Ctrl-C would otherwise reach it twice.
    """
    at_hangup = signal.getsignal(signal.SIGHUP)
    if at_hangup == signal.SIG_DFL:  # nohup ignores it; else a terminal that closes would leave the command behind
        signal.signal(signal.SIGHUP, signal.getsignal(signal.SIGTERM))
    process = subprocess.Popen([sys.executable, "-m", f"jaxalign.{command}", *arguments], start_new_session=True)
    interrupted = False
    try:
        with before_second_ends(process.send_signal):
            while True:
                try:
                    code = process.wait()
                    break
                except KeyboardInterrupt:
                    interrupted = True
                    process.send_signal(signal.SIGTERM)
    finally:
        signal.signal(signal.SIGHUP, at_hangup)
    if interrupted:
        raise KeyboardInterrupt
    return code if code >= 0 else 128 - code  # a signal's number, as a shell has it
