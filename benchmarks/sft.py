"""Supervised fine-tuning with LoRA: jaxalign against PEFT on PyTorch, as released and at its best. See README.md.

This process only starts others, one after another, and imports nothing big: on Linux a process counts the memory of
the one that started it into its own peak.
"""

import argparse
import json
import os
import resource
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any, Protocol

from machine import processor
from parts import child, need

CONTENDERS = {"jaxalign": "jaxalign", "best": "PEFT, best configured", "released": "PEFT, as released"}


def main() -> None:
    args = arguments()
    if args.part is None:
        compare(args)
        return
    from hydra.errors import HydraException

    from jaxalign.errors import UserError

    try:
        print(json.dumps(run_part(args)))
    except (UserError, HydraException) as error:
        print(f"error: {str(error).splitlines()[0]}", file=sys.stderr)
        raise SystemExit(2) from None


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--path", help="folder with Touché's TSV files (default: the starter arguments)")
    parser.add_argument("--value", default="power", help="the target (default: power)")
    parser.add_argument("--examples", type=int, default=240, help="training examples of each stage (default: 240)")
    parser.add_argument("--validation", type=int, default=32, help="validation examples of each stage (default: 32)")
    parser.add_argument("--batch", type=int, default=16, help="examples of a step; as released: 8 (default: 16)")
    parser.add_argument("--rank", type=int, default=16, help="rank of the adapter (default: 16)")
    parser.add_argument("--targets", help="adapted projections, such as q_proj,v_proj (default: all seven)")
    parser.add_argument("--windows", type=int, default=5, help="timed parts of each stage (default: 5)")
    parser.add_argument("--contender", dest="part", choices=["prepare", "formats", *CONTENDERS], help=argparse.SUPPRESS)
    parser.add_argument("--work", type=Path, help=argparse.SUPPRESS)
    args = parser.parse_args()
    for name in ("examples", "validation", "batch", "rank", "windows"):
        if getattr(args, name) < 1:
            parser.error(f"--{name} must be at least 1")
    return args


def overrides(args: argparse.Namespace) -> list[str]:
    """Return the main job's command line for these arguments. Unbalanced, because PEFT's loss knows no weights."""
    data = [] if args.path is None else ["dataset=touche23", f"dataset.path={Path(args.path).absolute()}"]
    adapter = [f"lora.rank={args.rank}", "lora.layers=1", *([f"lora.targets=[{args.targets}]"] if args.targets else [])]
    return [f"+value={args.value}", *data, *adapter, f"training.batch_size={args.batch}", "alignment.balance=false"]


# The parent: one process after another, then the table


def compare(args: argparse.Namespace) -> None:
    need("torch", "peft")
    # A terminated run takes its child and its files with it.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    with tempfile.TemporaryDirectory(prefix="jaxalign-bench-") as folder:
        work = Path(folder)
        packages = child("prepare", "prepare", work)["packages"]
        formats = child("formats", "formats", work)
        (work / "format").write_text(min(formats, key=lambda name: formats[name]))
        results = {name: child(name, title, work) for name, title in CONTENDERS.items()}
        cache = work / "cache"
        cache.mkdir()
        (cache / "packages").symlink_to(packages)
        first = {kind: first_step(args, work / kind, cache) for kind in ("cold", "warm")}
    report(args, results, first, formats)


def first_step(args: argparse.Namespace, run: Path, cache: Path) -> float:
    """Return the seconds from the start of the main job to its first logged step; the job is then stopped."""
    print(f"running: the main job up to its first step, compilation cache {run.name}", file=sys.stderr, flush=True)
    settings = ["training.questionnaire=false", "training.log_every=1", f"run.dir={run}"]
    command = [sys.executable, "-m", "jaxalign.train", *overrides(args), *settings]
    output = run.with_suffix(".log")
    start = time.perf_counter()
    with output.open("w") as log:
        environment = os.environ | {"JAXALIGN_CACHE": str(cache)}
        process = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT, env=environment)
        try:
            while not (run / "metrics.jsonl").exists():
                if process.poll() is not None:
                    raise SystemExit(f"error: {' '.join(command)} ended before its first step:\n{output.read_text()}")
                time.sleep(0.05)
            return time.perf_counter() - start
        finally:
            process.kill()
            process.wait()


def report(
    args: argparse.Namespace,
    results: dict[str, dict[str, Any]],
    first: dict[str, float],
    formats: dict[str, float],
) -> None:
    ours, stages = results["jaxalign"], list(results["jaxalign"]["stages"])
    for stage in stages:
        starts = [result["stages"][stage]["curve"][0][1] for result in results.values()]
        # Stage 2 starts from what each has learnt in stage 1; stage 1 must start from one and the same model.
        if stage == stages[0] and max(starts) > 1.02 * min(starts):
            raise SystemExit(f"error: the contenders start from different losses, {starts}: not the same model or data")
    speeds = {name: {stage: stage_speed(result, stage) for stage in stages} for name, result in results.items()}
    both = {name: speed_of_both(result) for name, result in results.items()}
    # The loss that the slowest learner reaches in its budget, so that all reach it.
    goals = {s: max(min(loss for _, loss in r["stages"][s]["curve"]) for r in results.values()) for s in stages}
    seconds = {name: sum(time_to(r["stages"][s]["curve"], goals[s]) for s in stages) for name, r in results.items()}
    memory = {name: result["peak_bytes"] / 1e9 for name, result in results.items()}

    print(f"\nSmolLM2-135M, rank {args.rank}, batch {args.batch} (8 as released), {processor()}")
    tried = ", ".join(f"{took:.2f} s in {name}" for name, took in formats.items())
    best = min(formats, key=lambda name: formats[name])
    print(
        f"jaxalign in {ours['precision']}; PEFT best configured in {best} ({tried} for a step of two examples), as "
        "released in float32"
    )
    for stage in stages:
        found = ours["stages"][stage]
        print(
            f"{stage}: {found['examples']} examples, {found['tokens']:,} tokens; validation loss "
            f"{found['curve'][0][1]:.3f} → {found['curve'][-1][1]:.3f} (ours), {goals[stage]:.3f} reached by all"
        )
    print("\nnon-padding tokens per second (median of windows), seconds of training to the same loss, peak memory;")
    print("in brackets jaxalign's advantage over each: above 1 it is faster, or needs less\n")
    print(f"{'':22}" + "".join(f"{s:>11}" for s in stages) + f"{'both':>16}{'s to loss':>16}{'GB':>14}")
    for name, title in CONTENDERS.items():
        parts = "".join(f"{speeds[name][s]:11,.0f}" for s in stages)
        cells = (
            (f"{both[name]:,.0f}", both["jaxalign"] / both[name]),
            (f"{seconds[name]:.0f}", seconds[name] / seconds["jaxalign"]),
            (f"{memory[name]:.2f}", memory[name] / memory["jaxalign"]),
        )
        columns = "".join(
            f"{f'{text} ({ratio:.2f})':>{w}}" for (text, ratio), w in zip(cells, (16, 16, 14), strict=True)
        )
        print(f"{title:22}{parts}{columns}")
    compiled = ours["compile_seconds"]
    total = seconds["jaxalign"] + compiled
    against = ", ".join(f"{CONTENDERS[n]} {seconds[n]:.0f} s ({seconds[n] / total:.2f})" for n in ("best", "released"))
    print("\nwhat each computed:")
    for name, title in CONTENDERS.items():
        print(f"{title:22}" + "; ".join(f"{s}: {results[name]['stages'][s]['breakdown']}" for s in stages))
    print(f"\njaxalign compiled for {compiled:.0f} s (empty cache), which is in none of the figures above; with it")
    print(f"the same loss takes {total:.0f} s in this short run; {against}")
    cold, warm = first["cold"], first["warm"]
    print(f"first training step of the main job after {cold:.1f} s, {warm:.1f} s with a warm compilation cache")
    print(f"sft={both['jaxalign'] / both['released']:.2f} sft_best={both['jaxalign'] / both['best']:.2f}")


def stage_speed(result: dict[str, Any], stage: str) -> float:
    """Return a stage's tokens per second, the median of its windows."""
    return statistics.median(tokens / seconds for tokens, seconds in result["stages"][stage]["windows"])


def speed_of_both(result: dict[str, Any]) -> float:
    """Return the tokens per second over all stages, each at its own speed."""
    tokens = {name: stage["tokens"] for name, stage in result["stages"].items()}
    return sum(tokens.values()) / sum(count / stage_speed(result, name) for name, count in tokens.items())


def time_to(curve: Sequence[tuple[float, float]], goal: float) -> float:
    """Return when a curve of (seconds, loss) first reaches a loss, between two points on the line through them."""
    for (before, high), (after, low) in pairwise(curve):
        if low <= goal < high:
            return before + (after - before) * (high - goal) / (high - low)
    return curve[0][0]


# The children: the material, then one contender each


def run_part(args: argparse.Namespace) -> dict[str, Any]:
    """Do one child's work. Each imports only its own framework, so that its peak memory is its own."""
    config = read_config(args)
    if args.part == "prepare":
        from sft_jaxalign import prepare

        return prepare(config, args.work, args.examples, args.validation)
    if args.part == "jaxalign":
        from sft_jaxalign import Jaxalign

        ours = Jaxalign(config, args.work)
        return {**measure(ours, args), "precision": ours.precision}
    from sft_peft import Peft, faster_format

    if args.part == "formats":
        return faster_format(config, args.work)
    released = args.part == "released"
    bf16 = not released and (args.work / "format").read_text() == "bf16"
    return measure(Peft(config, args.work, released=released, bf16=bf16), args)


def read_config(args: argparse.Namespace) -> Any:
    """Return the main job's configuration for these arguments."""
    from hydra import compose, initialize_config_dir
    from omegaconf import OmegaConf

    from jaxalign.config import commands as config
    from jaxalign.config import entry_point as cli

    with initialize_config_dir(str(cli.CONF), version_base="1.3"):
        raw: Any = OmegaConf.to_container(compose("train", overrides(args)), resolve=True)
    return config.read_config(config.TrainConfig, raw)


class Contender(Protocol):
    """What is timed."""

    @property
    def compiled(self) -> float:
        """The seconds of compilation so far."""
        ...

    def begin(self, stage: dict[str, list]) -> list[int]:
        """Take a stage's examples and a new optimiser; return the non-padding tokens of each step."""
        ...

    def step(self, number: int) -> None:
        """Train one step; may return before it is computed."""
        ...

    def wait(self) -> None:
        """Wait for all steps begun."""
        ...

    def validate(self) -> float:
        """Return the mean loss over the tokens of the validation responses."""
        ...

    def breakdown(self) -> str:
        """Say what was computed in this stage."""
        ...


def measure(contender: Contender, args: argparse.Namespace) -> dict[str, Any]:
    """Train both stages, timing windows of steps and validating between them."""
    stages = {}
    for name, stage in json.loads((args.work / "examples.json").read_text()).items():
        tokens = contender.begin(stage)
        windows, curve, seconds = [], [(0.0, contender.validate())], 0.0
        for first, last in pairwise(sorted({len(tokens) * i // args.windows for i in range(args.windows + 1)})):
            compiled, start = contender.compiled, time.perf_counter()
            for number in range(first, last):
                contender.step(number)
            contender.wait()
            took = time.perf_counter() - start - (contender.compiled - compiled)
            seconds += took
            windows.append((sum(tokens[first:last]), took))
            curve.append((seconds, contender.validate()))
            speed, loss = windows[-1][0] / took, curve[-1][1]
            print(f"  {name}: {speed:,.0f} tokens/s, loss {loss:.3f}", file=sys.stderr, flush=True)
        stages[name] = {
            "examples": len(stage["train"]),
            "tokens": sum(tokens),
            "windows": windows,
            "curve": curve,
            "breakdown": contender.breakdown(),
        }
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
    return {"stages": stages, "compile_seconds": contender.compiled, "peak_bytes": peak}


if __name__ == "__main__":
    main()
