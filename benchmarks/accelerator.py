"""jaxalign against PEFT, TRL and Transformers on one GPU: training, preferences, sampling and scoring. See README.md.

This process only starts others, and each has the card to itself while it is timed.
"""

import argparse
import itertools
import json
import math
import os
import signal
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from accelerator_turns import IMPORTED, in_turns, wait_for_turn
from accelerator_work import NUMBERS, TASKS, TINY
from parts import child, need

TITLES = {
    "jaxalign": "jaxalign",
    "peft": "PEFT",
    "compiled": "PEFT, torch.compile",
    "trl": "TRL, reference in every step",
    "precomputed": "TRL, reference precomputed",
    "transformers": "Transformers",
}
WORDS = {"sft": "fine-tuning", "dpo": "preferences", "sampling": "sampling", "scoring": "scoring"}


def main() -> None:
    args = arguments()
    if args.part is not None:
        print(json.dumps(run_part(args)))
        return
    need("torch", "transformers", "peft", "trl")
    ratios: dict[str, dict[str, float]] = {}
    with tempfile.TemporaryDirectory(prefix="jaxalign-bench-") as folder:
        for (size, task), found in results(args, Path(folder)):
            ratio = report(size, task, found)
            if ratio is not None:
                ratios.setdefault(task, {})[size] = ratio
    print("\nthe advantage over the best of the others, and below its geometric mean over these sizes:")
    for task in args.tasks:
        each = ratios.get(task, {})
        compared = [f"{size} {each[size]:.2f}" if size in each else f"{size} not compared" for size in args.sizes]
        print(f"{WORDS[task]:14}" + ", ".join(compared))
    means = {task: math.exp(sum(map(math.log, each.values())) / len(each)) for task, each in ratios.items()}
    keys = {"sft": "accelerator", "dpo": "dpo", "sampling": "sampling"}
    print(" ".join(f"{key}={means[task]:.2f}" for task, key in keys.items() if task in means))


def results(args: argparse.Namespace, folder: Path) -> Iterator[tuple[tuple[str, str], dict[str, Any]]]:
    """Yield ((size, task), {contender: its result})."""
    parts = {
        (size, task): [f"{size}-{task}-{name}" for name in TASKS[task] if name != "compiled" or not args.tiny]
        for size in args.sizes
        for task in args.tasks
    }
    if args.within is None:
        for which, names in parts.items():
            found = {part: child(part, part.replace("-", ", "), folder) for part in names}
            yield which, {part.split("-")[2]: one for part, one in found.items()}
        return
    done = {}
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that what it has started ends, too
    for part, one in in_turns(list(itertools.chain.from_iterable(parts.values())), args.within, folder):
        print(f"{part}: {one}", file=sys.stderr, flush=True)
        done[part] = one
    for which, names in parts.items():
        yield which, {part.split("-")[2]: done[part] for part in names}


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tiny", action="store_true", help="a model of a few thousand weights, to try the script")
    parser.add_argument("--sizes", nargs="+", choices=["135M", "8B"], default=["135M", "8B"], help="(default: both)")
    parser.add_argument("--tasks", nargs="+", choices=list(TASKS), default=list(TASKS), help="(default: all)")
    parser.add_argument(
        "--within",
        type=float,
        metavar="SECONDS",
        help="start all processes together, time one after another, and leave out what is not done in time",
    )
    for name, (number, words) in NUMBERS.items():
        parser.add_argument(f"--{name}", type=int, help=f"{words} (default: {number})")
    parser.add_argument("--contender", dest="part", help=argparse.SUPPRESS)
    parser.add_argument("--work", type=Path, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.within is not None and not 0 < args.within < math.inf:
        parser.error("--within must be a number of seconds above 0")
    for name, (number, _) in NUMBERS.items():
        given = getattr(args, name)
        setattr(args, name, (TINY[name] if args.tiny else number) if given is None else given)
        if getattr(args, name) < 1:
            parser.error(f"--{name} must be at least 1")
    args.sizes = ["tiny"] if args.tiny else args.sizes
    return args


def report(size: str, task: str, found: dict[str, dict[str, Any]]) -> float | None:
    """Print one task's table; return by how many times jaxalign is faster than the fastest of the others.

    The result is None where there is nothing to compare: jaxalign or all of the others were not done.
    """
    ours = found["jaxalign"]
    if "failed" in ours:
        print(f"\n{size}, {WORDS[task]}: jaxalign {ours['failed']}")
        return None
    print(f"\n{size}, {WORDS[task]}: {ours['work']}; {ours['device']}, {ours['peak'] / 1e12:.2f} TFLOP/s at most")
    print(f"{'':32}{'tokens/s':>12}{'of the peak':>13}{'GB':>8}{'first loss':>12}")
    speeds = {}
    for name, one in found.items():
        if "failed" in one:
            print(f"{TITLES[name]:32}{one['failed']}")
            continue
        speeds[name] = one.get("tokens", ours["tokens"]) / one["seconds"]
        share = ours["operations"] / ours["tokens"] * speeds[name] / ours["peak"]
        loss = "" if one.get("loss") is None else f"{one['loss']:12.3f}"
        note = f"  {one['note']}" if one.get("note") else ""
        print(f"{TITLES[name]:32}{speeds[name]:12,.0f}{share:13.1%}{one['memory'] / 1e9:8.2f}{loss}{note}", flush=True)
    losses = [one["loss"] for one in found.values() if one.get("loss") is not None]
    if losses and max(losses) > 1.05 * min(losses):
        raise SystemExit(f"error: the contenders start from different losses, {losses}: not the same work")
    others = [speed for name, speed in speeds.items() if name != "jaxalign"]
    return speeds["jaxalign"] / max(others) if others else None


def run_part(args: argparse.Namespace) -> dict[str, Any]:
    """Do one child's work."""
    size, task, name = args.part.split("-")
    if name == "jaxalign":
        import accelerator_jaxalign as side
    else:
        os.environ["JAX_PLATFORMS"] = "cpu"  # JAX would take most of the card's memory
        import accelerator_torch as side
    wait_for_turn(IMPORTED)
    try:
        return getattr(side, task)(args, size, name)
    except Exception as error:
        if name != "compiled":
            raise
        return {"failed": f"failed: {str(error).splitlines()[0][:80]}"}


if __name__ == "__main__":
    main()
