"""Where the host is free while the device computes, first steps of stages are compiled while the base is asked."""

import json
import threading
from collections import OrderedDict

import pytest
from runs_of_tiny import SHAPED, write_arguments

from jaxalign.jobs.train import regulariser, session
from jaxalign.objectives.forward import states_program
from jaxalign.parallel import compilation
from jaxalign.train import main
from jaxalign.training.step import train_program

SMALL = ["model=tiny", "lora.rank=2", "precision=float32", "training.questionnaire=false", "training.batch_size=4"]
HELD = ["alignment.regulariser.weight=0.1", "alignment.regulariser.chats=3", "alignment.regulariser.tokens=32"]


def value(folder, adapters):
    data = write_arguments(folder / "arguments.jsonl")
    steps = ["training.max_steps=2", "training.epochs=1", "alignment.argument_epochs=1"]
    return ["+value=power", f"dataset.path={data}", *SHAPED, *SMALL, *HELD, *steps]


def preferences(folder, adapters):
    rows = [{"prompt": f"Question {n}?\n", "chosen": "Yes.", "rejected": "No, never."} for n in range(12)]
    path = folder / "pairs.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    start = ["objective=dpo", f"adapter={adapters / 'power'}", "training.max_steps=1"]
    return [*start, "dataset=pairs", f"dataset.path={path}", *SMALL]


@pytest.mark.slow
@pytest.mark.parametrize("arguments", [value, preferences])
def test_each_program_is_compiled_once_and_the_adapter_is_the_same(arguments, adapters, tmp_path, monkeypatch):
    compiled, asked, once = [], [], compilation._compiled

    class Noted(dict):
        def pop(self, key, default=None):
            asked.extend([key] if key in self else [])
            return super().pop(key, default)

    def noted(function, *what):
        compiled.append((function, threading.current_thread() is threading.main_thread()))
        return once(function, *what)

    monkeypatch.setattr(regulariser, "CHAT_TOKENS", 4)
    kept = OrderedDict()
    monkeypatch.setattr(compilation, "COMPILED", kept)
    monkeypatch.setattr(compilation, "_compiled", noted)
    monkeypatch.setattr(compilation, "STARTED", Noted())
    monkeypatch.setattr(session, "on_cpu", lambda: False)
    command = arguments(tmp_path, adapters)
    main([*command, f"run.dir={tmp_path / 'ahead'}"])
    ahead = [function for function, here in compiled if not here]
    assert len(asked) == len(ahead), "a program was compiled that nobody asked for"
    assert set(ahead) == ({train_program, states_program} if arguments is value else {train_program})
    assert train_program not in {function for function, here in compiled if here}

    (tmp_path / "ahead" / "summary.json").unlink()  # what is left is a run that goes on after its last step
    before = len(compiled)
    monkeypatch.setattr(compilation, "COMPILED", OrderedDict())
    main([*command, f"run.dir={tmp_path / 'ahead'}"])
    assert all(here for _, here in compiled[before:])

    monkeypatch.setattr(compilation, "COMPILED", kept)
    count = len(compiled)
    monkeypatch.setattr(session, "on_cpu", lambda: True)
    main([*command, f"run.dir={tmp_path / 'plain'}"])
    assert len(compiled) == count
    first, second = (tmp_path / name / "adapter" / "adapter_model.safetensors" for name in ("ahead", "plain"))
    assert first.read_bytes() == second.read_bytes()
