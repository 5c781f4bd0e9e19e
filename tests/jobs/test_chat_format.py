"""The chat format in commands: where an answer ends, where a system message goes, and which date a template gets."""

import io
import json

import numpy as np
import pytest
from command_line import refused, run
from model_folder import CONFIGS, hf_random, write_model
from rich.console import Console
from runs_of_tiny import read_tiny, write_arguments

from jaxalign.data.encoding import Encoder
from jaxalign.errors import UserError
from jaxalign.generate import main as generate
from jaxalign.inference.base_model import BaseModel
from jaxalign.inference.generations import PromptRequest
from jaxalign.jobs import generate as generating
from jaxalign.jobs.train import regulariser
from jaxalign.parallel import distributed
from jaxalign.parallel.compilation import Programs
from jaxalign.runs.records import read_records
from jaxalign.train import main as train

TEMPLATE = (
    "{% for m in messages %}{% if m.role != 'system' %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n"
    "{% endif %}{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
DATED = "It is {{ strftime_now('%d %b %Y') }}.\n" + TEMPLATE


def model_with(folder, template, **names):
    """A tiny model whose EOS is <|endoftext|>, with a chat template that ends a turn in <|im_end|>."""
    config = CONFIGS["llama"] | {"max_position_embeddings": 1024}
    write_model(folder, config, hf_random(config))
    (folder / "chat_template.jinja").write_text(template)
    path = folder / "tokenizer_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"eos_token": "<|endoftext|>"} | names))
    return [f"model.path={folder}", "model=hub", "model.prompt_format=chat", "precision=float32"]


def test_an_answer_is_trained_to_end_where_the_template_ends_a_turn_and_the_system_message_is_seen(tmp_path, capsys):
    model = model_with(tmp_path / "model", TEMPLATE)
    data = write_arguments(tmp_path / "arguments.jsonl")
    asked = [*model, f"dataset.path={data}", "+value=power", "inspect=1", "model.system=SECRET"]
    shown = run(train, asked, capsys)
    assert "<|im_start|>user↵\n" in shown and "SECRET" in shown
    assert "<|im_end|>⟧" in shown and "<|endoftext|>⟧" not in shown


@pytest.mark.slow
def test_a_template_that_asks_for_the_date_gets_one_that_stays_and_counts(tmp_path, capsys):
    model = model_with(tmp_path / "model", DATED)
    asked = [*model, "prompt=How far?", "sampling.max_tokens=2", f"run.dir={tmp_path / 'run'}"]
    assert "the chat template asks for the date, and gets 2024-07-26 (model.date)" in run(generate, asked, capsys)
    assert len(read_records(tmp_path / "run" / "generations.jsonl")) == 1
    run(generate, asked, capsys)
    assert len(read_records(tmp_path / "run" / "generations.jsonl")) == 1
    line = refused(generate, [*asked, "model.date=2026-11-25"], capsys)
    assert "belongs to another configuration: rendered was" in line
    assert "model.date=soon is not allowed: give a date as YYYY-MM-DD" in refused(
        generate, [*asked, "model.date=soon"], capsys
    )


@pytest.mark.slow
def test_generate_asks_through_the_chat_template_of_a_model_that_has_one_unless_told_otherwise(
    adapters, tmp_path, monkeypatch, capsys
):
    def asked(*arguments):
        """Return the prompt format that prompts are put into; nothing is loaded or sampled."""
        found = []

        def stop(_prompts, _adapters, encoder):
            found.append(encoder.prompt_format)
            raise UserError("enough")

        monkeypatch.setattr(generating, "prompt_requests", stop)
        assert refused(generate, ["prompt=Why?", *arguments], capsys).endswith("enough")
        return found

    trained_in_plain = f"adapter={adapters / 'power'}"
    assert asked("model=tiny") == asked(trained_in_plain) == asked("model=tiny", "model.system=Hi") == ["chat"]
    for arguments in (["model=tiny"], [trained_in_plain]):
        assert asked(*arguments, "model.prompt_format=plain") == ["plain"]
    *bare, _, _ = model_with(tmp_path / "bare", TEMPLATE)
    (tmp_path / "bare" / "chat_template.jinja").unlink()
    assert asked(*bare) == ["plain"]
    assert "model.system is used only in the chat format" in refused(
        generate, ["prompt=Why?", *bare, "model.system=Hi"], capsys
    )


@pytest.mark.parametrize(
    ("template", "said"),
    [
        ("{{ messages[0].content }}{% if messages | length > 1 %}{{ 1 // 0 }}{% endif %}", "ZeroDivisionError"),
        (
            "{% for m in messages %}{% if m.role == 'user' %}{{ m.content }}{% endif %}{% endfor %}",
            "assistant's answer",
        ),
    ],
)
def test_a_template_that_cannot_be_trained_with_is_one_line(tmp_path, capsys, template, said):
    model = model_with(tmp_path / "model", template)
    data = write_arguments(tmp_path / "arguments.jsonl")
    assert said in refused(train, [*model, f"dataset.path={data}", "+value=power"], capsys)


@pytest.mark.slow
def test_the_base_s_own_answers_in_chat_hold_a_training_near_it_and_are_kept(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(regulariser, "CHAT_TOKENS", 4)
    model = [*model_with(tmp_path / "model", TEMPLATE)[:2], "precision=float32"]  # trains in the plain format
    rows = [{"instruction": f"Say {i}", "input": "", "output": f"{i}"} for i in range(9)]
    (tmp_path / "alpaca.json").write_text(json.dumps(rows))
    folder = tmp_path / "run"  # instructions have one stage, and so one program of a step
    asked = [*model, "dataset=alpaca", f"dataset.path={tmp_path / 'alpaca.json'}", "training.max_steps=2"]
    asked += ["training.batch_size=4"]  # two steps, of which the second one reads chats
    asked += ["released.unmatched_budget=true", "training.questionnaire=false", "lora.rank=2", f"run.dir={folder}"]
    asked += ["alignment.regulariser.tokens=32", "alignment.regulariser.chats=9"]
    run(train, asked, capsys)
    card = (folder / "adapter" / "README.md").read_text()
    assert "on 32 tokens, in turn of plain text and of 9 chats with the base, in each step" in card
    chats = (folder / "chats.jsonl").read_bytes()
    records = read_records(folder / "chats.jsonl")
    assert len(records) == 9 and all(record["prompt"].endswith(("?", ".")) for record in records)
    (folder / "summary.json").unlink()
    again = run(train, asked, capsys)  # the answers are not drawn again
    assert (folder / "chats.jsonl").read_bytes() == chats and "own answers" not in again
    assert "alignment.regulariser.chats" in refused(train, [*asked, "alignment.regulariser.chats=8"], capsys)
    assert "give 0 for none" in refused(train, [*asked, "alignment.regulariser.chats=65"], capsys)
    other = [*asked, "alignment.regulariser.chats=0", f"run.dir={tmp_path / 'without'}"]
    run(train, other, capsys)
    assert not (tmp_path / "without" / "chats.jsonl").exists()
    with_chats, without = (
        (path / "adapter/adapter_model.safetensors").read_bytes() for path in (folder, tmp_path / "without")
    )
    assert with_chats != without  # the step itself has read them


def test_the_base_answers_no_longer_than_a_row_has_room_for(tmp_path):
    base = BaseModel(read_tiny(), np.dtype(np.float32), Programs())
    encoder = Encoder(base.model.tokenizer, "chat")
    asked = [PromptRequest(text, encoder.prompt(text)) for text in ("How far?", "How far is the sea?")]
    shortest = len(asked[0].tokens)
    for row, most in ((shortest + 5, 6), (8, 1)):  # a chat's last token takes no place; the second row cuts prompts
        path = tmp_path / f"{row}.jsonl"
        chats = regulariser.answered_by_base(base, asked, encoder, 0, row, path, Console(file=io.StringIO()))
        assert max(record["tokens"] for record in read_records(path)) == most
        assert [chat[: len(one.tokens)].tolist() for chat, one in zip(chats, asked, strict=True)] == [
            one.tokens.tolist() for one in asked
        ]


def test_the_base_stops_answering_when_all_processes_have_agreed_to_stop(tmp_path, monkeypatch):
    base = BaseModel(read_tiny(), np.dtype(np.float32), Programs())
    encoder = Encoder(base.model.tokenizer, "chat")
    asked, path = [PromptRequest("How far?", encoder.prompt("How far?"))], tmp_path / "chats.jsonl"
    monkeypatch.setattr(distributed.STATE, "stop", True)
    with pytest.raises(KeyboardInterrupt):
        regulariser.answered_by_base(base, asked, encoder, 0, 64, path, Console(file=io.StringIO()))
    assert not path.exists()
