"""The benchmark of a GPU, as far as it can be tried without one."""

import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import accelerator
import pytest
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
@pytest.mark.skipif(find_spec("trl") is None, reason="needs the extra bench")
def test_the_whole_benchmark_runs_on_a_tiny_model():
    script = Path(__file__).parents[1] / "benchmarks" / "accelerator.py"
    done = subprocess.run([sys.executable, script, "--tiny"], capture_output=True, text=True, check=True)
    keys = [pair.partition("=")[0] for pair in done.stdout.splitlines()[-1].split()]
    assert keys == ["accelerator", "dpo", "sampling"]
