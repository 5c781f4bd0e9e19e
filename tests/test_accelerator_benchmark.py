"""The benchmark of a GPU, as far as it can be tried without one."""

import math
import subprocess
import sys
import time
from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace

import accelerator
import pytest
from accelerator_turns import waves
from accelerator_work import operations

OURS = {"tokens": 1000, "operations": 10**12, "peak": 10**14, "memory": 2e9, "work": "steps", "device": "a card"}


def test_operations_are_two_for_each_weight_and_token_and_the_head_s_for_predictions_alone():
    layers, head = operations("8B", 1, 0), operations("8B", 0, 1)
    assert layers == 2 * 32 * (2 * 4096 * 4096 + 2 * 4096 * 1024 + 3 * 4096 * 14336)
    assert head == 2 * 128256 * 4096
    assert operations("8B", 10, 3) == 10 * layers + 3 * head


def test_the_advantage_is_over_the_fastest_of_the_others_by_the_tokens_that_each_did(capsys):
    ours = {**OURS, "seconds": 0.5, "loss": 6.2, "note": "compiled"}
    peft = {"seconds": 2.0, "tokens": 2000, "memory": 4e9, "loss": 6.3, "note": ""}
    compiled = {"failed": "failed: no compiler"}
    assert accelerator.report("8B", "sft", {"jaxalign": ours, "peft": peft, "compiled": compiled}) == pytest.approx(2.0)
    printed = capsys.readouterr().out
    assert "2,000         2.0%    2.00       6.200  compiled" in printed and "failed: no compiler" in printed


def test_contenders_that_do_not_begin_at_one_loss_are_refused():
    ours, other = {**OURS, "seconds": 1.0, "loss": 6.2}, {"seconds": 1.0, "memory": 1.0, "loss": 7.0}
    with pytest.raises(SystemExit, match="start from different losses"):
        accelerator.report("8B", "dpo", {"jaxalign": ours, "trl": other})


@pytest.mark.slow
def test_what_failed_or_was_not_done_in_time_leaves_the_others_and_has_no_ratio(monkeypatch, tmp_path):
    code = """if True:
        import json, os, sys, time
        from pathlib import Path
        from accelerator_turns import FOLDER, IMPORTED, WARM, wait_for_turn
        part = sys.argv[sys.argv.index("--contender") + 1]
        done = Path(os.environ[FOLDER], "done")
        wait_for_turn(IMPORTED)
        if part == "135M-sft-peft":
            raise RuntimeError("no card")
        while part == "8B-sft-jaxalign":  # it warms up for ever
            with done.open("a") as file:
                file.write(".")
            time.sleep(0.01)
        while not done.exists():
            time.sleep(0.01)
        wait_for_turn(WARM)
        before = done.stat().st_size
        time.sleep(0.3)
        print(json.dumps({"seconds": 1.0, "beside": done.stat().st_size - before}))
    """
    monkeypatch.setattr(sys, "argv", ["-c", code])
    monkeypatch.setenv("PYTHONPATH", str(Path(accelerator.__file__).parent))
    passed, found = 0.0, {}
    clock = SimpleNamespace(monotonic=lambda: time.monotonic() + passed, sleep=time.sleep)
    monkeypatch.setattr("accelerator_turns.time", clock)
    monkeypatch.setattr("accelerator_turns._gigabytes_of_card", lambda: 141.0)
    for part, result in accelerator.in_turns(["8B-sft-jaxalign", "135M-sft-peft", "135M-sft-jaxalign"], 15.0, tmp_path):
        found[part] = result
        passed = 15.0 * (len(found) == 2)  # nobody needs to wait for the one that is left
    assert found == {
        "135M-sft-jaxalign": {"seconds": 1.0, "beside": 0},  # what is late stops while others are timed
        "135M-sft-peft": {"failed": "failed: RuntimeError: no card"},
        "8B-sft-jaxalign": {"failed": "not done in time"},
    }
    assert accelerator.report("8B", "sft", {"jaxalign": found["8B-sft-jaxalign"], "peft": {"seconds": 1.0}}) is None


def test_contenders_that_a_card_holds_warm_up_together_and_the_small_ones_first():
    names = ["8B-sft-peft", "8B-scoring-jaxalign", "135M-sft-peft", "135M-sampling-jaxalign", "8B-sft-compiled"]
    small, (middle, *rest) = ["135M-sampling-jaxalign"], names[1:3]
    assert waves(names, 80) == [[*small, middle, *rest], ["8B-sft-peft"], ["8B-sft-compiled"]]
    assert waves(names, math.inf) == [[*small, middle, *rest, "8B-sft-peft", "8B-sft-compiled"]]
    assert waves(names, 40) == [[*small, middle], rest, ["8B-sft-peft"], ["8B-sft-compiled"]]


@pytest.mark.slow
@pytest.mark.skipif(find_spec("trl") is None, reason="needs the extra bench")
@pytest.mark.parametrize("within", [[], ["--within", "300"]], ids=["one-by-one", "started-together"])
def test_the_whole_benchmark_runs_on_a_tiny_model(within):
    script = Path(__file__).parents[1] / "benchmarks" / "accelerator.py"
    done = subprocess.run([sys.executable, script, "--tiny", *within], capture_output=True, text=True, check=True)
    keys = [pair.partition("=")[0] for pair in done.stdout.splitlines()[-1].split()]
    assert keys == ["accelerator", "dpo", "sampling"]
