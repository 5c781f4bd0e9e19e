"""Preference optimisation on a file of pairs, from the command line."""

import json

import numpy as np
import pytest
from command_line import refused

from jaxalign.train import main

QUICK = ["model=tiny", "lora.rank=2", "precision=float32", "training.batch_size=4", "training.max_steps=3"]
QUICK += ["objective=dpo", "dataset=pairs", "training.questionnaire=false", "training.log_every=1"]


@pytest.fixture
def adapter(adapters):
    return adapters / "power"


@pytest.fixture
def pairs(tmp_path):
    rows = [
        {"prompt": f"Question {n // 3}?\n", "chosen": f"Yes, {n}.", "rejected": f"No, {n % 2}, never."}
        for n in range(12)
    ]
    path = tmp_path / "pairs.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


@pytest.mark.slow
@pytest.mark.parametrize("batching", ["grouped", "paired"])
def test_it_starts_from_the_adapter_which_is_the_reference(adapter, pairs, tmp_path, batching):
    run = tmp_path / "run"
    changes = [f"objective.batching={batching}", "lora.dropout=0.5"]
    main([f"adapter={adapter}", f"dataset.path={pairs}", f"run.dir={run}", *changes, *QUICK])
    metrics = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert metrics[0]["loss"] == pytest.approx(np.log(2), abs=1e-3)
    rewards = {f"rewards/{name}" for name in ("chosen", "rejected", "margins", "accuracies")}
    assert rewards | {"logps/chosen", "logps/rejected"} <= set(metrics[0])
    (stage,) = json.loads((run / "summary.json").read_text())["training"]["stages"]
    assert stage["pairs"] + stage["validation_pairs"] == 12 and stage["truncated_prompts"] == 0
    assert (run / "adapter" / "adapter_model.safetensors").exists() and (run / "reference.jsonl").exists()
    # Preferences are learnt without dropout, and what is written of the adapter says so.
    assert json.loads((run / "adapter" / "adapter_config.json").read_text())["lora_dropout"] == 0
    card = (run / "adapter" / "README.md").read_text()
    assert f"| batching | {batching} |" in card and "dropout | 2, 32, 0 |" in card and "control" not in card


@pytest.mark.slow
def test_a_long_prompt_loses_its_beginning_and_never_the_response(adapter, pairs, tmp_path, capsys):
    rows = [json.loads(line) for line in pairs.read_text().splitlines()]
    rows[0] |= {"prompt": "word " * 70 + "\n", "chosen": "so " * 20}
    pairs.write_text("".join(json.dumps(row) + "\n" for row in rows))
    run, quick = tmp_path / "run", [*QUICK, "model.config.max_position_embeddings=384"]
    main([f"adapter={adapter}", f"dataset.path={pairs}", f"run.dir={run}", *quick])
    (stage,) = json.loads((run / "summary.json").read_text())["training"]["stages"]
    assert stage["truncated_prompts"] > 0
    rows[0]["prompt"] = "word " * 100
    pairs.write_text("".join(json.dumps(row) + "\n" for row in rows))
    capsys.readouterr()
    line = refused(main, [f"adapter={adapter}", f"dataset.path={pairs}", f"run.dir={run}2", *quick], capsys)
    assert "pairs.jsonl line 1: its prompt takes" in line
    assert "shorten it, or choose a model with a longer context" in line
    rows[0] |= {"prompt": "Question 0?\n", "rejected": "so " * 140}
    pairs.write_text("".join(json.dumps(row) + "\n" for row in rows))
    line = refused(main, [f"adapter={adapter}", f"dataset.path={pairs}", f"run.dir={run}2", *quick], capsys)
    assert "pairs.jsonl line 1: a response takes 421 tokens, and the context holds 384" in line
    assert "shorten it, leave the pair out, or choose a model with a longer context" in line


@pytest.mark.slow
def test_bad_input_is_one_line(adapter, pairs, tmp_path, capsys):
    given = [f"adapter={adapter}", f"dataset.path={pairs}", f"run.dir={tmp_path / 'run'}"]
    assert "missing: adapter" in refused(main, [*given[1:], *QUICK], capsys)
    assert "missing: dataset.path" in refused(main, [given[0], *QUICK], capsys)
    assert "go together" in refused(main, ["+value=power", "objective=dpo"], capsys)
    other = [*given, *QUICK, "lora.rank=4", "lora.targets=[q_proj]"]
    assert "has another lora.rank and lora.targets: add lora.rank=2 lora.targets=[" in refused(main, other, capsys)
    line = refused(main, [*given, *QUICK, "lora.layers=1"], capsys)
    assert "has another lora.layers: add lora.layers=0.5" in line
    assert "objective.beta=0 is not allowed" in refused(main, [*given, *QUICK, "objective.beta=0"], capsys)
    assert "goes with loss=sigmoid" in refused(
        main, [*given, *QUICK, "objective.loss=hinge", "objective.label_smoothing=0.1"], capsys
    )
    pairs.write_text('{"prompt": "a", "chosen": "b"}\n{"prompt": "a", "chosen": "b", "rejected": "c"}\n')
    assert "line 1 lacks rejected" in refused(main, [*given, *QUICK], capsys)
    pairs.write_text('{"prompt": "a", "chosen": "b", "rejected": "b"}\n')
    assert "prefers a response to itself" in refused(main, [*given, *QUICK], capsys)
    pairs.write_text('{"prompt": "a", "chosen": [], "rejected": "b"}\n')
    assert "has chosen=[]: it must be a list of messages" in refused(main, [*given, *QUICK], capsys)
