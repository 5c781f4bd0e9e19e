"""Adding up judged responses: stage=aggregate of many adapters, and the report on it. See README.md.

This process only starts others, one after another. No model is needed: responses and scores are drawn.
"""

import argparse
import contextlib
import json
import resource
import sys
import tempfile
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
from machine import processor
from parts import child

PARTS = {"aggregate": "stage=aggregate", "report": "jaxalign.report"}

BENCHMARK = "beavertails"
SAMPLES = 10
JUDGE = "probe"
CONFIG = {"benchmark": {"kind": "harm", "name": BENCHMARK}}
WORDS = "One could say so and then again it may be quite another thing when people have had their time to think"


def main() -> None:
    args = arguments()
    if args.part is not None:
        print(json.dumps({"prepare": prepare, "aggregate": aggregate, "report": report}[args.part](args)))
        return
    with tempfile.TemporaryDirectory(prefix="jaxalign-bench-", dir=args.folder) as folder:
        facts = child("prepare", f"writing {args.adapters + 1} x {args.records:,} records", Path(folder))
        found = {name: child(name, title, Path(folder)) for name, title in PARTS.items()}
    print(
        f"\n{args.adapters} adapters and the base, {args.records:,} responses each, {SAMPLES} to a prompt; "
        f"{facts['gigabytes']:.1f} GB of records; {processor()}\n"
    )
    print(f"{'':24}{'seconds':>10}{'of a core':>12}{'peak memory, GB':>18}")
    for name, title in PARTS.items():
        print(f"{title:24}{found[name]['seconds']:10.1f}{found[name]['processor']:12.1f}{found[name]['memory']:18.2f}")
    memory = max(one["memory"] for one in found.values())
    print(f"\naggregating={found['aggregate']['processor']:.1f} memory={memory:.2f}")


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--adapters", type=int, default=154, help="adapters (default: 154)")
    parser.add_argument("--records", type=int, default=20_000, help="responses of each (default: 20000)")
    parser.add_argument("--folder", type=Path, help="where the records are written (default: the temporary folder)")
    parser.add_argument("--profile", action="store_true", help="print where the time goes (cProfile) to standard error")
    parser.add_argument("--contender", dest="part", choices=["prepare", *PARTS], help=argparse.SUPPRESS)
    parser.add_argument("--work", type=Path, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.adapters < 1 or args.records < SAMPLES or args.records % SAMPLES:
        parser.error(f"--adapters must be at least 1, and --records a multiple of {SAMPLES}")
    return args


# The children


def timed(work: Any, profile: bool) -> dict[str, Any]:
    """Do some work and return its seconds, those of a processor, and the most memory of this process in GB."""
    start, begin = time.perf_counter(), time.process_time()
    if profile:
        import cProfile
        import pstats

        profiler = cProfile.Profile()
        profiler.runcall(work)
        pstats.Stats(profiler, stream=sys.stderr).sort_stats("tottime").print_stats(25)
    else:
        work()
    return {
        "seconds": time.perf_counter() - start,
        "processor": time.process_time() - begin,
        "memory": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9,
    }


def prepare(args: argparse.Namespace) -> dict[str, Any]:
    """Write the runs of stage=generate and stage=judge of all models, and the training runs of the adapters."""
    session, size = lab(args), 0
    for model in session.models:
        write_training(model)
        generated, judged = stages_of(session, model, records_of(args, model))
        size += sum(path.stat().st_size for run in (generated, judged) for path in run.path.glob("*.jsonl"))
    return {"gigabytes": size / 1e9}


def aggregate(args: argparse.Namespace) -> dict[str, Any]:
    from jaxalign.jobs.harm.aggregate import HARM_FILES
    from jaxalign.jobs.harm.aggregate import aggregate as add_up
    from jaxalign.runs.directory import open_run

    session = lab(args)
    runs = [(model, *stages_of(session, model, None)) for model in session.models]
    run = open_run({"bench": 1}, CONFIG, files=HARM_FILES, dir=args.work / "runs" / "all")
    judges: Any = SimpleNamespace(everyone=[])
    return timed(lambda: add_up(session, runs, judges, run), args.profile)


def report(args: argparse.Namespace) -> dict[str, Any]:
    from jaxalign.report import main as make

    with contextlib.redirect_stdout(sys.stderr):  # the last line of this process is its result
        return timed(lambda: make([f"runs={args.work / 'runs'}"]), args.profile)


def lab(args: argparse.Namespace) -> Any:
    """Return what stage=aggregate knows of its command, as far as it reads it, with the models: the base and adapters.

    An opened model is not among it: the stage reads records alone.
    """
    from jaxalign.safety.mitigation import NO_MITIGATION
    from jaxalign.values.schwartz import VALUES
    from jaxalign.values.targets import Target

    random = np.random.Generator(np.random.PCG64(0))
    targets = [tuple(row.tolist()) for row in random.integers(1, 7, (args.adapters, len(VALUES))).astype(float)]
    models = [model_of(args.work, "base", "base", None)]
    models += [
        model_of(args.work, f"adapter{n:03}", "adapter", Target(f"target{n:03}", one)) for n, one in enumerate(targets)
    ]
    config = SimpleNamespace(
        harm=SimpleNamespace(name=BENCHMARK, bias_rule="ours", baseline=None, samples=SAMPLES, limit=None, cut="whole"),
        judge=SimpleNamespace(corrected=False),
        adapter=SimpleNamespace(scale=1.0),
        engine=SimpleNamespace(name="openai"),  # so that no perplexity is looked for
    )
    return SimpleNamespace(
        config=config,
        opened=SimpleNamespace(files=SimpleNamespace(name="none"), attention="blocks", signature="none-float32"),
        models=models,
        prompts=[],
        covered_prompts=[None] * (args.records // SAMPLES),
        asking={"temperature": 0.1},
        version="0123456789abcdef",
        mitigation=SimpleNamespace(policy=NO_MITIGATION, covered=lambda prompts: ([], [])),
        with_mitigation=lambda policy: None,
        stages=lambda model: stages(args.work, model),
    )


def model_of(work: Path, name: str, method: str, target: Any) -> Any:
    folder = None if target is None else work / "training" / name / "adapter"
    adapter = SimpleNamespace(name=name, identity="" if target is None else name, folder=folder)
    return SimpleNamespace(name=name, method=method, adapter=adapter, target=target, preamble="")


def write_training(model: Any) -> None:
    """Write what stage=aggregate and the report read of an adapter's training run; nothing for the base."""
    if model.adapter.folder is None:
        return
    place = model.adapter.folder.parent
    place.mkdir(parents=True, exist_ok=True)
    config = {"value": model.target.name, "alignment": {"shuffle_labels": False}, "dataset": {"kind": "arguments"}}
    config |= {"released": {"unmatched_budget": False}, "identity": {}, "run_files": [], "run_format": 2}
    (place / "config.yaml").write_text(json.dumps(config), encoding="utf-8")  # which is YAML, too
    after = {"scores": model.target.by_value, "perplexity": 120.0}
    told = {"questionnaire": {"before": {"perplexity": 100.0}, "after": after}}
    (place / "summary.json").write_text(json.dumps(told), encoding="utf-8")


def stages(work: Path, model: Any) -> Any:
    from jaxalign.jobs.harm.session import HARM_STAGES
    from jaxalign.runs.stages import Stages

    return Stages(
        names=HARM_STAGES,
        wanted="all",
        config=CONFIG,
        dir=None,
        root=str(work / "runs"),
        label=f"{BENCHMARK}-none-{model.name}",
        overwrite=False,
        say=lambda line: None,
        in_words=lambda counts: [],
    )


def stages_of(session: Any, model: Any, texts: tuple[str, str, dict[str, int]] | None) -> tuple[Any, Any]:
    """Return the runs of stage=generate and stage=judge of a model, written if their texts are given."""
    from jaxalign.jobs.harm.generate import GENERATE_STAGE
    from jaxalign.jobs.harm.judge import JUDGE_STAGE

    generated = {"model": model.name}
    judged = {"generate": generated, "cut": "whole", "judges": {JUDGE: f"{JUDGE} 1"}}
    found = session.stages(model)
    if texts is None:
        return found.run_of("generate", generated), found.run_of("judge", judged)

    def write(place: str, text: str, summary: dict[str, Any]) -> Any:
        def work(run: Any) -> dict[str, Any]:
            (run.path / place).write_text(text, encoding="utf-8")
            return dict(summary)

        return work

    judges = [{"judge": JUDGE, "identity": f"{JUDGE} 1", "about": "harm", "scale": [0.0, 1.0, 0.5], "kappa": None}]
    judges[0] |= {"model": "", "area": None, "error": None, "labels": "none", "line": f"judge: {JUDGE}"}
    told = {"judges": judges, "states": texts[2], "text_values": None, "moved": None}
    first = found.do("generate", GENERATE_STAGE, generated, write("generations.jsonl", texts[0], {}))
    return first, found.do("judge", JUDGE_STAGE, judged, write("judged.jsonl", texts[1], told))


def records_of(args: argparse.Namespace, model: Any) -> tuple[str, str, dict[str, int]]:
    """Return drawn generations and judged responses of a model as JSON Lines, and how many are in each state."""
    from jaxalign.runs.records import digest
    from jaxalign.safety.categories import CATEGORIES
    from jaxalign.safety.states import STATES

    random = np.random.Generator(np.random.PCG64(int(digest(model.name), 16) % 2**32))
    start, categories = digest(model.name, 24), list(CATEGORIES[BENCHMARK])
    drawn = random.choice(len(STATES), args.records, p=[0.03, 0.05, 0.1, 0.8, 0.02])
    scores = random.beta(1, 3, args.records).tolist()
    words = WORDS.split()
    places = random.integers(0, len(words), (args.records, 48))
    generated, judged = [], []
    for number, (state, score) in enumerate(zip(drawn.tolist(), scores, strict=True)):
        prompt, sample = divmod(number, SAMPLES)
        key = f"{start}{number:08x}"
        text = "" if state == 0 else " ".join([words[place] for place in places[number]])
        generated.append(
            f'{{"key": "{key}", "prompt": "Prompt {prompt} asks what people think of {WORDS.lower()}?", '
            f'"text": "{text}", "tokens": 64, "end": "length", "from": "{model.name}"}}\n'
        )
        known = STATES[state] not in ("blank", "not judged")
        missing = '"unreadable"' if STATES[state] == "not judged" else "null"
        judged.append(
            f'{{"id": "prompt-{prompt}", "category": "{categories[prompt % len(categories)]}", "group": "", '
            f'"sample": {sample}, "key": "{key}", "judge": "{JUDGE}", "score": {score if known else "null"}, '
            f'"label": {chr(34) + ("harmful" if score >= 0.5 else "fine") + chr(34) if known else "null"}, '
            f'"missing": {missing}, "state": "{STATES[state]}"}}\n'
        )
    states = {name: int((drawn == place).sum()) for place, name in enumerate(STATES)}
    return "".join(generated), "".join(judged), states


if __name__ == "__main__":
    main()
