"""Two processes of four devices each train as one process does; all of them stop, and end, together.

Run as a script, this file trains or answers slowly, or does nothing, until a signal comes.
"""

import contextlib
import importlib
import json
import os
import re
import shutil
import signal
import socket
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from unittest.mock import patch

import jax
import numpy as np
import pytest
from child_process import Child
from jobs.crest.runs_of_crest import SMALL
from runs_of_tiny import QUIET, short_questionnaire, write_arguments
from tiny_model import random_adapter

from jaxalign.config.presets import preset
from jaxalign.models.adapter import Adapter
from jaxalign.models.architecture import from_config
from jaxalign.models.lora import init_adapter
from jaxalign.pretrained.peft import write_adapter
from jaxalign.pretrained.safetensors import SafetensorsFolder

PATIENCE = 600.0
"""The largest number of seconds that a job may take, because a test's machine has other things to do."""

TOGETHER = 60.0
"""The largest number of seconds between the ends of two of its processes."""

TRAIN = [
    "jaxalign.train",
    "model=tiny",
    "precision=float32",
    "lora.rank=2",
    "lora.dropout=0",
    "lora.targets=[q_proj,v_proj]",
    "training.batch_size=4",
]
TRAIN += ["training.log_every=1", "optimizer.epsilon=1e-4"]

THIS = "parallel.test_several_processes"
"""The name of this file as a module."""


class Job:
    """A job of one process or several on this machine, a training if nothing else is said. What is still alive at the
    end is killed.
    """

    def __init__(
        self,
        folder: Path,
        processes: int,
        devices: int,
        *arguments: str,
        command: Sequence[str] = TRAIN,
    ):
        flags = f"{os.environ.get('XLA_FLAGS', '')} --xla_force_host_platform_device_count={devices}"
        environment = os.environ | {"XLA_FLAGS": flags}
        if processes > 1:
            with socket.create_server(("127.0.0.1", 0)) as server:
                address = f"127.0.0.1:{server.getsockname()[1]}"
            environment |= {"JAX_COORDINATOR_ADDRESS": address, "JAX_NUM_PROCESSES": str(processes)}
        mesh = [f"mesh.data={min(4, processes * devices)}"] if command is TRAIN else []
        place = f"run.{'root' if '-m' in arguments else 'dir'}={folder}"
        module, *line = [*command, *mesh, place, *arguments]
        self.folder = folder
        self.processes = [
            Child(
                module,
                [part.replace("NUMBER", str(number)) for part in line],
                environment | {"JAX_PROCESS_ID": str(number)},
            )
            for number in range(processes)
        ]

    def ended(self) -> list[tuple[int, str, str]]:
        """Return status, output and errors of each process; one that takes too long is killed, and the test fails."""
        found = []
        try:
            for process in self.processes:
                out, err = process.communicate(timeout=TOGETHER if found else PATIENCE)
                found.append((process.poll(), without_gloo(out), err))
        finally:
            for process in self.processes:
                process.kill()
                process.wait()
        return found

    def stop_once(self, file: Path) -> None:
        """Send SIGTERM to the second of two processes once a file exists: both must end as one that is stopped."""
        while not file.exists():
            assert self.processes[0].poll() is None, self.ended()
            time.sleep(0.02)
        self.processes[1].send_signal(signal.SIGTERM)
        ended = self.ended()
        assert [status for status, _, _ in ended] == [130, 130], ended
        assert ended[0][2].splitlines()[-1] == "interrupted; the same command resumes"

    def printed(self) -> str:
        ended = self.ended()
        assert [status for status, _, _ in ended] == [0] * len(ended), ended
        assert [out for _, out, _ in ended[1:]] == [""] * (len(ended) - 1)  # the first alone prints
        return ended[0][1]

    def done(self) -> Path:
        self.printed()
        return self.folder


def without_gloo(out: str) -> str:
    """Leave out what Gloo prints of its ranks. Its threads do so at once, and then a number may stand alone."""
    lines = [line for line in out.splitlines() if "Gloo" not in line and "peer ranks" not in line]
    return "\n".join(line for line in lines if not line.strip().isdigit())


def files(run: Path) -> set[str]:
    found = {path.relative_to(run).as_posix() for path in run.rglob("*") if path.is_file()}
    return {name for name in found if "checkpoints/" not in name}  # Orbax chooses the names


def checkpoints(run: Path) -> list[str]:
    return sorted(path.name for path in (run / "checkpoints").iterdir())


def texts(records: Path) -> list[tuple[str, int, str]]:
    """Return all samples by prompt and number; their keys name the adapter by its exact weights."""
    lines = map(json.loads, records.read_text().splitlines())
    return sorted((one["prompt"], one["index"], one["text"]) for one in lines)


def adapter(run: Path) -> dict[str, np.ndarray]:
    source = SafetensorsFolder(run / "adapter")
    return {name: np.asarray(source.read(name)) for name in source.names()}


def apart(one: Path, other: Path) -> float:
    ours, theirs = adapter(one), adapter(other)
    assert ours.keys() == theirs.keys()
    return max(float(np.abs(values - theirs[name]).max()) for name, values in ours.items())


def losses(run: Path) -> list[float]:
    return [json.loads(line)["loss"] for line in (run / "metrics.jsonl").read_text().splitlines()]


def start(folder: Path) -> Path:
    """Write an adapter of `tiny` for DPO to start from."""
    config = preset("tiny")["config"]
    params = init_adapter(jax.random.key(0), from_config(config), 2, ("q_proj", "v_proj"))
    write_adapter(folder, Adapter("start", jax.device_get(params), 2, 32.0), dropout=0.0, card="")
    return folder


@pytest.mark.slow
def test_two_processes_write_the_files_of_one(tmp_path):
    data = write_arguments(tmp_path / "arguments.jsonl")
    arguments = ["+value=power", f"dataset.path={data}", "training.max_steps=2"]
    # The base answers four questions in its chats; their prompts begin with the same tokens, which are read once.
    arguments += ["alignment.regulariser.chats=4", "alignment.regulariser.tokens=32", "model.prompt_format=chat"]
    arguments += ["model.system=You answer briefly and politely.", *short_questionnaire(tmp_path)]
    arguments += ["model.config.num_hidden_layers=1", "alignment.validation_fraction=0.002"]
    # Both stages have rows of one shape, and share a program, which computes one row at a time on each device.
    arguments += ["training.row_length=160", "training.max_rows=1"]
    two, one = (Job(tmp_path / str(count), count, devices, *arguments).done() for count, devices in ((2, 4), (1, 1)))
    assert files(two) == files(one) and checkpoints(two) == checkpoints(one)
    assert (two / "chats.jsonl").read_bytes() == (one / "chats.jsonl").read_bytes()
    assert apart(two, one) < 1e-6
    np.testing.assert_allclose(losses(two), losses(one), atol=1e-6)
    ours, theirs = (json.loads((run / "summary.json").read_text())["questionnaire"] for run in (two, one))
    for when in ("before", "after"):
        assert ours[when]["scores"] == pytest.approx(theirs[when]["scores"], abs=1e-5)
        assert ours[when]["perplexity"] == pytest.approx(theirs[when]["perplexity"], rel=1e-5)
    assert ours["before"]["perplexity"] != pytest.approx(ours["after"]["perplexity"], rel=1e-5)
    ((_, out, _), _) = again = Job(two, 2, 4, *arguments).ended()
    assert [status for status, _, _ in again] == [0, 0] and "this run is done" in out and "adapter: " in out


@pytest.mark.slow
def test_a_signal_to_one_stops_both_at_one_step_and_the_run_goes_on_with_any_number_of_them(tmp_path):
    rows = [{"prompt": f"Question {n // 3}?\n", "chosen": f"Yes, {n}.", "rejected": f"No, {n % 2}."} for n in range(12)]
    (tmp_path / "pairs.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    arguments = [
        "objective=dpo",
        f"adapter={start(tmp_path / 'start')}",
        "lora.layers=1",
        "dataset=pairs",
        f"dataset.path={tmp_path / 'pairs.jsonl'}",
    ]
    arguments += ["training.questionnaire=false", "training.validate=false", "training.max_steps=8"]
    job = Job(tmp_path / "stopped", 2, 4, *arguments, "mesh.data=4", command=[THIS, "train", *TRAIN[1:]])
    job.stop_once(job.folder / "reference.jsonl")  # next come the steps
    step = len(losses(job.folder))
    assert 0 < step < 8 and checkpoints(job.folder) == [f"001-preferences-{step:07}"]
    for count in ("2x1", "1"):
        shutil.copytree(job.folder, tmp_path / count)
    whole = Job(tmp_path / "whole", 2, 4, *arguments).done()
    assert "resuming stage preferences" in Job(job.folder, 2, 4, *arguments).ended()[0][1]
    assert adapter(job.folder).keys() == adapter(whole).keys() and apart(job.folder, whole) == 0
    assert apart(Job(tmp_path / "2x1", 1, 2, *arguments).done(), whole) < 1e-6
    assert apart(Job(tmp_path / "1", 1, 1, *arguments).done(), whole) < 1e-6


@pytest.mark.slow
def test_an_error_in_one_process_ends_both_in_one_line(tmp_path):
    for number in range(2):
        write_arguments(tmp_path / f"{number}.jsonl")
    (tmp_path / "1.jsonl").write_text((tmp_path / "1.jsonl").read_text().replace("it suits me 3", "it suits us 3"))
    arguments = ["+value=power", f"dataset.path={tmp_path}/NUMBER.jsonl", *QUIET]
    # The first process chooses the precision, too, while the other one waits for it.
    command = [one for one in TRAIN if not one.startswith("precision")]
    job = Job(tmp_path / "run", 2, 1, *arguments, command=command)
    (first, _, line), (second, out, nothing) = job.ended()
    assert (first, second, out, nothing) == (2, 2, "", "")
    assert line.startswith("error: process 1 of 2 (") and line.count("\n") == 1
    assert "it has other input than the first process: dataset was" in line


@pytest.mark.slow
def test_a_process_that_was_asked_for_something_else_ends_both_in_one_line(tmp_path):
    job = Job(
        tmp_path / "run", 2, 1, "sampling.seed=NUMBER", command=["jaxalign.generate", "model=tiny", "prompt=Why?"]
    )
    (first, _, line), (second, _, _) = job.ended()
    assert (first, second) == (2, 2) and line.count("\n") == 1
    assert line.startswith("error: process 1 of 2 (") and "sampling.seed was 0 and is 1; start one command on" in line


ONE_LAYER = ["model=tiny", "model.config.num_hidden_layers=1", "precision=float32"]  # the sampler compiles each layer
GENERATE = ["jaxalign.generate", *ONE_LAYER, "sampling.max_tokens=20"]
EVALUATE = ["jaxalign.evaluate", *ONE_LAYER, "benchmark.max_tokens=4", "alignment.validation_fraction=0.002"]
HOW = ("likelihood", "parse")
HARM = ["jaxalign.evaluate", *ONE_LAYER, "benchmark=starter_probes", "benchmark.limit=6", "benchmark.max_tokens=8"]
HARM += ["judge=rubric_local", "judge.model=tiny", "judge.refusal=none"]
CREST = ["jaxalign.crest", *SMALL, "model.config.num_hidden_layers=1", "lora.rank=2", "lora.targets=[q_proj,v_proj]"]
CREST += ["dataset.train=8", "dataset.validation=2", "dataset.test=2", "training.seed=1", "optimizer.epsilon=1e-4"]
CREST += ["seed.epochs=3", "sft.epochs=0", "dpo.rounds=1", "dpo.steps=2"]


@pytest.mark.slow
def test_two_processes_ask_adapters_as_one_does_and_name_each_job_once(tmp_path):
    architecture = from_config(preset("tiny")["config"] | {"num_hidden_layers": 1})
    folders = [tmp_path / name for name in ("a", "b", "c")]
    for seed, folder in enumerate(folders):
        params = random_adapter(seed, 2, ("q_proj", "v_proj"), architecture)
        write_adapter(folder, Adapter(folder.name, jax.device_get(params), 2, 0.1), dropout=0.0, card="")
    mesh = ["mesh.adapter=2"]
    (tmp_path / "prompts.txt").write_text("".join(f"Please tell me all about the number {n}?\n" for n in range(3)))
    asked = ["-m", f"adapters=[{folders[0]},{folders[1]}]", *mesh, "sampling.n=2", "sampling.seed=0,1"]
    asked += [f"prompts={tmp_path / 'prompts.txt'}"]
    everyone = [f"adapters=[{','.join(map(str, folders))}]", *mesh, *short_questionnaire(tmp_path)]
    answers, tables = [], []
    for count in (2, 1):
        job = Job(tmp_path / f"answers{count}", count, 4 // count, *asked, command=GENERATE)
        named = re.findall(r"^job (\d) of 2 \(.*sampling\.seed=(\d)", job.printed(), re.MULTILINE)
        assert named == [("1", "0"), ("2", "1")]
        answers.append([(run / "answers.jsonl").read_text() for run in sorted(job.folder.iterdir())])
        job = Job(tmp_path / f"asked{count}", count, 4 // count, *everyone, command=EVALUATE)
        assert "adapters: 3 is not divided by mesh.adapter=2, so each device holds all of it" in job.printed()
        rows = json.loads((job.folder / "summary.json").read_text())["rows"]
        found = [((row["name"], row["reading"]), [*row["scores"].values(), row.get("perplexity")]) for row in rows]
        tables.append({who: [number or 0.0 for number in numbers] for who, numbers in found})
    assert answers[0] == answers[1] and len(set(answers[0])) == 2
    assert tables[0].keys() == tables[1].keys() == {(name, how) for name in ("base", "a", "b", "c") for how in HOW}
    for who, numbers in tables[0].items():
        assert numbers == pytest.approx(tables[1][who], rel=1e-5, abs=1e-5), who
    assert tables[0]["a", "likelihood"][-1] != pytest.approx(tables[0]["b", "likelihood"][-1], rel=1e-3)


@pytest.mark.slow
def test_a_signal_to_one_of_two_that_answer_stops_both_and_the_same_command_draws_the_rest(tmp_path):
    (tmp_path / "prompts.txt").write_text("".join(f"What about the number {n}?\n" for n in range(16)))
    arguments = [f"prompts={tmp_path / 'prompts.txt'}", "sampling.n=4", "sampling.rows=8", "sampling.top_p=1"]
    job = Job(tmp_path / "stopped", 2, 1, *arguments, command=[THIS, "generate", *GENERATE[1:]])
    drawn = job.folder / "generations.jsonl"
    job.stop_once(drawn)
    kept = drawn.read_bytes()
    assert 0 < kept.count(b"\n") < 64 and not (job.folder / "answers.jsonl").exists()
    again = Job(job.folder, 2, 1, *arguments, command=GENERATE).done()
    assert drawn.read_bytes().startswith(kept)
    alone = Job(tmp_path / "alone", 1, 1, *arguments, command=GENERATE).done()
    assert (again / "answers.jsonl").read_bytes() == (alone / "answers.jsonl").read_bytes()


@pytest.mark.slow
def test_two_processes_stopped_in_a_stage_of_crest_go_on_and_leave_what_one_leaves(tmp_path):
    job = Job(tmp_path / "two", 2, 1, *CREST[1:], command=[THIS, "crest"])
    stages = job.folder / "stages"
    job.stop_once(stages / "rationales" / "generations.jsonl")
    kept = (stages / "rationales" / "generations.jsonl").read_bytes()
    assert 0 < kept.count(b"\n") < 48 and not (stages / "evaluate").exists()
    printed = Job(job.folder, 2, 1, command=CREST).printed()
    assert "seed: done before" in printed and "adapter: " in printed
    one = Job(tmp_path / "one", 1, 1, command=CREST).done()
    assert files(job.folder) == files(one)
    assert (stages / "rationales" / "generations.jsonl").read_bytes().startswith(kept)
    for name in ("rationales/generations.jsonl", "dpo/generations.jsonl"):
        two, alone = (texts(run / "stages" / name) for run in (job.folder, one))
        assert two == alone and len(two) > 1, name
    assert (job.folder / "pairs.jsonl").read_bytes() == (one / "pairs.jsonl").read_bytes()
    for stage in ("seed", "dpo"):
        assert apart(stages / stage, one / "stages" / stage) < 1e-6, stage
    models, theirs = (json.loads((run / "summary.json").read_text())["models"] for run in (job.folder, one))
    assert models == theirs and [model["name"] for model in models] == ["base", "seed", "round 1"]


@pytest.mark.slow
def test_two_processes_measure_harm_as_one_does(tmp_path):
    rows = [
        {"id": str(n), "category": "malware", "prompt": f"Why {n}?", "response": f"So {n}.", "label": label}
        for n, label in enumerate(["fine", "harmful"] * 2)
    ]
    (tmp_path / "labels.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    arguments = [f"judge.labels={tmp_path / 'labels.jsonl'}", *HARM[1:]]
    found, perplexities = [], []
    for count in (2, 1):
        job = Job(tmp_path / str(count), count, 1, *arguments, command=HARM[:1])
        assert "base: judge: " in job.printed()
        summary = json.loads((job.folder / "summary.json").read_text())
        perplexities.append(summary["models"][0]["perplexity"])
        figures = [summary["rows"], summary["models"][0]["states"], summary["judges"][0]["line"]]
        found.append((files(job.folder), (job.folder / "table.csv").read_text(), figures))
    assert found[0] == found[1] and found[0][2][0]
    assert perplexities[0] == pytest.approx(perplexities[1])


@pytest.mark.slow
@pytest.mark.parametrize(
    ("how", "signals", "statuses", "line"),
    [
        ("asks", 1, [130, 130], "stopped at "),
        ("reads", 1, [130, 130], "interrupted: process 1 of 2 ("),
        ("asks hangs", 2, [143, 143], "interrupted: process 1 of 2 ("),
    ],
)
def test_a_signal_to_one_of_two_stops_both_and_a_second_one_at_once(how, signals, statuses, line, tmp_path):
    job = Job(tmp_path, 2, 1, command=[THIS, "wait", *how.split()])
    try:
        for process in job.processes:
            while "ready\n" not in process.so_far()[1]:
                assert process.poll() is None, process.so_far()
                time.sleep(0.02)
        for number in range(signals):
            time.sleep(2 * (number > 0))  # signals that come together count as one
            job.processes[1].send_signal(signal.SIGTERM)
    except BaseException:
        for process in job.processes:
            process.kill()
        raise
    ended = job.ended()
    assert [status for status, _, _ in ended] == statuses, ended
    assert line in ended[0][2]
    at = [re.findall("stopped at [0-9]+", errors) for _, _, errors in ended]
    assert at[0] == at[1] and len(at[0]) == (how == "asks")  # at one step


def run_slowly(command: str) -> None:
    """Run a command with a pause before each step or decode call, so that a signal finds it at work."""
    from jaxalign.inference.sampler import _Decoder
    from jaxalign.training.loop import MetricLogger

    owner, name = (MetricLogger, "flush") if command == "train" else (_Decoder, "decode")
    work = getattr(owner, name)

    def slowly(*arguments):
        time.sleep(0.4)
        return work(*arguments)

    with patch.object(owner, name, slowly):
        importlib.import_module(f"jaxalign.{command}").main()


def wait() -> None:
    """Wait for a signal beside the other process, and ask together whether one came, or do not, or hang."""
    from jaxalign.parallel.distributed import stop_agreed, stopping_together
    from jaxalign.parallel.interruption import interruptible
    from jaxalign.parallel.joining import all_processes

    asks, hangs = "asks" in sys.argv, "hangs" in sys.argv
    try:
        with interruptible(), all_processes(), stopping_together() if asks else contextlib.nullcontext():
            for number in range(2000):
                time.sleep(0.05)
                if asks and stop_agreed():
                    print(f"stopped at {number}", file=sys.stderr)
                    raise KeyboardInterrupt
                if number == 0:
                    print("ready", file=sys.stderr, flush=True)
                while hangs:
                    time.sleep(0.05)
    except KeyboardInterrupt:
        raise SystemExit(130) from None


if __name__ == "__main__":
    asked = sys.argv.pop(1)
    if asked == "wait":
        wait()
    else:
        run_slowly(asked)
