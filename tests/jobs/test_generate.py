"""Answers from the command line, on the tiny random model and adapters that one step made."""

import contextlib
import io
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from command_line import refused, run
from openai_server import Server
from rich.console import Console
from runs_of_tiny import train

from jaxalign.config.presets import preset
from jaxalign.generate import main
from jaxalign.inference.base_model import BaseModel
from jaxalign.inference.sampler import Sampler
from jaxalign.inference.sampling_params import Completion, Request, SamplingParams
from jaxalign.jobs import generate as generating
from jaxalign.jobs.terminal import chat
from jaxalign.parallel.compilation import Programs
from jaxalign.pretrained import sources
from jaxalign.pretrained.sources import ModelFiles, read_model, source_of
from jaxalign.pretrained.tokenizer import tiny_tokenizer

QUICK = ["precision=float32", "sampling.max_tokens=5"]
TINY = ["model=tiny", *QUICK]


@pytest.fixture(scope="module")
def adapters(tmp_path_factory):
    """A folder of finished runs: power and security of one shape, wide of another rank."""
    folder = tmp_path_factory.mktemp("adapters")
    for value in ("power", "security"):
        train(folder, value)
    train(folder / "other", "power", "lora.rank=4", f"run.dir={folder / 'wide'}")
    return folder


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def records(folder, name="generations.jsonl"):
    return [json.loads(line) for line in (folder / name).read_text().splitlines()]


@pytest.fixture
def not_loaded(monkeypatch):
    """No weights may be read."""

    def load(*_):
        raise AssertionError("the weights were read before the input was refused")

    monkeypatch.setattr(ModelFiles, "load", load)


@contextlib.contextmanager
def serving():
    """A server in a thread of its own."""
    with Server() as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()


def test_one_prompt_is_answered_by_the_base_and_the_adapter_side_by_side(adapters, here, capsys):
    # The model comes from the adapter's run; a prompt may hold whatever a shell lets through.
    prompt = "It's 5, isn't it? ${x} = {y}\\"
    printed = run(main, [f"adapter={adapters / 'power'}", f"prompt={prompt}", "run.dir=run", *QUICK], capsys)
    assert "── base ──" in printed and "── power ──" in printed
    base, power = records(here / "run")
    assert (base["from"], power["from"], base["prompt"], base["engine"]) == ("base", "power", prompt, "jaxalign")
    assert base["text"] != power["text"]
    (line,) = records(here / "run", "answers.jsonl")
    assert line == {"id": "prompt", "prompt": prompt, "answers": {"base": [base["text"]], "power": [power["text"]]}}


def test_adapters_answer_together_as_they_answer_alone(adapters, here):
    (here / "p.jsonl").write_text('{"id": "a", "prompt": "Why?"}\n{"id": "b", "prompt": "Who was it then?"}\n')
    common = ["prompts=p.jsonl", "sampling.n=3", *QUICK]
    main([f"adapters=[{adapters / 'power'},{adapters / 'security'}]", "base=true", "run.dir=all", *common])
    together = records(here / "all", "answers.jsonl")
    assert [line["id"] for line in together] == ["a", "b"]
    for name in ("power", "security"):
        main([f"adapter={adapters / name}", f"run.dir={name}", *common])
        assert [line["answers"][name] for line in records(here / name, "answers.jsonl")] == [
            line["answers"][name] for line in together
        ]
    main(["run.dir=base", "model=tiny", *common])
    assert [line["answers"] for line in records(here / "base", "answers.jsonl")] == [
        {"base": line["answers"]["base"]} for line in together
    ]


def test_asking_for_more_samples_draws_only_the_missing_ones(here, capsys):
    (here / "p.txt").write_text("Why?\nWho?\n")
    arguments = ["prompts=p.txt", *TINY]
    main([*arguments, "sampling.n=2"])
    (folder,) = (here / "outputs").iterdir()
    first = (folder / "generations.jsonl").read_text()
    printed = run(main, [*arguments, "sampling.n=3"], capsys)
    assert "answers: 2 samples" in printed
    assert (folder / "generations.jsonl").read_text().startswith(first)
    assert sorted((*record["ids"], record["index"]) for record in records(folder)) == [
        (line, index) for line in "12" for index in range(3)
    ]
    assert json.loads((folder / "summary.json").read_text())["samples"] == 6
    assert "samples" not in run(main, [*arguments, "sampling.n=3"], capsys)


def test_the_same_weights_with_another_architecture_answer_anew(here, capsys):
    arguments = ["prompt=Why is it so?", "sampling.temperature=0", *TINY]
    main(arguments)
    main([*arguments, "++model.config.rope_theta=3.0"])
    one, other = (records(folder)[0] for folder in (here / "outputs").iterdir())
    assert one["key"] != other["key"]
    assert "belongs to another configuration: model was" in refused(
        main, [*arguments, "++model.config.rope_theta=4.0", f"run.dir={next((here / 'outputs').iterdir())}"], capsys
    )


def test_a_scale_of_zero_answers_as_the_base_does(adapters, here):
    arguments = [f"adapter={adapters / 'power'}", "prompt=Why?", "run.dir=run", *QUICK]
    main([*arguments, "adapter.scale=0"])
    (line,) = records(here / "run", "answers.jsonl")
    assert line["answers"]["base"] == line["answers"]["power"]


def test_a_server_answers_in_the_program_s_place_and_the_two_are_compared(adapters, here, capsys):
    (here / "p.txt").write_text("Why?\nWho?\n")
    asked = [f"adapter={adapters / 'power'}", "prompts=p.txt", "sampling.n=2", *QUICK]
    with serving() as server:
        asked += ["engine=openai", f"engine.url={server.url}", "run.dir=run"]
        printed = run(main, [*asked, "engine.check=1"], capsys)
        main(asked)  # what was found stays, and nothing is asked again
        assert len(server.asked) == 5
    assert "openai and jaxalign on 1 greedy answers: 0% are the same" in printed
    agreement = json.loads((here / "run" / "summary.json").read_text())["agreement"]
    assert agreement == {"answers": 1, "identical": 0.0, "common_prefix": 0.0}
    found = records(here / "run")
    assert {(record["engine"], record["from"]) for record in found} == {("openai", "power")} and len(found) == 4
    assert {body["model"] for body in server.asked} == {"power"}


def test_a_server_that_answers_as_this_program_does_agrees_in_full(here, capsys):
    model = read_model(source_of(preset("tiny")), jnp.float32, offline=True, name="tiny")
    ours = BaseModel(model, jnp.float32, Programs()).sampler(None)

    def reply(body):
        sampling = SamplingParams(body["temperature"], top_p=body["top_p"], max_tokens=body["max_tokens"])
        ((completion,),) = ours.sample([Request(np.array(body["prompt"], np.int32))], sampling)
        return {"text": completion.text, "finish_reason": "length" if completion.end == "length" else "stop"}

    (here / "p.txt").write_text("Why?\nWho was it?\nSay it again.\n")
    with serving() as server:
        server.reply = reply
        asked = ["prompts=p.txt", "engine=openai", f"engine.url={server.url}", "engine.models=base", "engine.check=3"]
        printed = run(main, [*asked, "engine.concurrency=1", "run.dir=run", *TINY], capsys)
    assert "openai and jaxalign on 3 greedy answers: 100% are the same, 100% of the text" in printed
    summary = json.loads((here / "run" / "summary.json").read_text())
    assert summary["agreement"] == {"answers": 3, "identical": 1.0, "common_prefix": 1.0}


def test_whatever_decides_a_server_s_answer_is_in_its_run_and_the_keys_are_this_program_s(adapters, here):
    with serving() as server, serving() as another:
        both = "engine.models=[base,power]"
        asked = ["prompt=Why?", f"adapter={adapters / 'power'}", "engine=openai", both, *QUICK]
        for other in (
            [f"engine.url={server.url}"],
            [f"engine.url={server.url}", "engine.send=text"],
            [f"engine.url={server.url}", "engine.strict=true"],
            [f"engine.url={server.url}", "engine.models=[base,base]"],
            [f"engine.url={another.url}"],
        ):
            main([*asked, *other])
        folders = list((here / "outputs").iterdir())
        assert len(folders) == 5 == len({folder.name for folder in folders})
        main([*asked, f"engine.url={server.url}/", "engine.concurrency=2"])
        assert len(list((here / "outputs").iterdir())) == 5
    main([*asked[:2], "run.dir=local", *QUICK])
    keys = {record["from"]: record["key"] for record in records(here / "local")}
    assert all({record["from"]: record["key"] for record in records(folder)} == keys for folder in folders)


def test_a_run_mixes_no_engines_unless_their_records_are_joined_by_hand(adapters, here, capsys):
    asked = ["prompt=Why?", f"adapter={adapters / 'power'}", *QUICK]
    with serving() as server:
        theirs = ["engine=openai", f"engine.url={server.url}", "engine.models=[base,power]", "run.dir=theirs"]
        main([*asked, *theirs])
        message = refused(main, [*asked, "run.dir=theirs"], capsys)
        assert "served.url was" in message and "another run.dir" in message
        main([*asked, "run.dir=ours", "sampling.n=3"])
        with (here / "theirs" / "generations.jsonl").open("a") as file:
            file.write((here / "ours" / "generations.jsonl").read_text())
        count = len(server.asked)
        main([*asked, *theirs, "sampling.n=3"])
        assert len(server.asked) == count == 2
    assert json.loads((here / "theirs" / "summary.json").read_text())["engines"] == {"openai": 2, "jaxalign": 4}


def test_an_adapter_called_base_does_not_hide_the_base(adapters, here):
    shutil.copytree(adapters / "power" / "adapter", here / "base")
    ours = json.loads((here / "base" / "jaxalign.json").read_text())
    del ours["extra"]["value"]
    (here / "base" / "jaxalign.json").write_text(json.dumps(ours))
    main(["model=tiny", "adapter=base", "prompt=Why?", "run.dir=run", *QUICK])
    (line,) = records(here / "run", "answers.jsonl")
    assert set(line["answers"]) == {"base", "base (1)"}
    assert line["answers"]["base"] != line["answers"]["base (1)"]


def test_many_adapters_take_turns_and_answer_as_alone(adapters, here, capsys, monkeypatch):
    monkeypatch.setattr("jaxalign.jobs.engines.TOGETHER", 2)
    stacks = []
    sample = Sampler.sample

    def spy(self, requests, *arguments, **options):
        leaves = jax.tree.leaves(self.adapters)
        stacks.append(len(leaves[0]) if leaves else 1)
        return sample(self, requests, *arguments, **options)

    monkeypatch.setattr(Sampler, "sample", spy)
    names = f"adapters=[{adapters / 'power'},{adapters / 'security'}]"
    (here / "p.txt").write_text("Why?\nWho?\n")
    common = ["prompts=p.txt", "sampling.n=3", "base=true", *QUICK]
    printed = run(main, [names, "run.dir=turns", *common], capsys)
    assert stacks == [2, 1] and "answers: answer" not in printed and "18/18" in printed
    monkeypatch.setattr("jaxalign.jobs.engines.TOGETHER", 8)
    main([names, "run.dir=together", *common])
    assert stacks == [2, 1, 3]
    assert records(here / "turns", "answers.jsonl") == records(here / "together", "answers.jsonl")
    main([names, "run.dir=few", "sampling.rows=1", *common])
    assert stacks[3:] == [1, 1, 1]


def test_records_bear_the_ids_of_all_prompts_of_their_text(here):
    (here / "p.jsonl").write_text('{"id": "a", "prompt": "Why?"}\n{"id": "b", "prompt": "Why?"}\n')
    main(["prompts=p.jsonl", *TINY])
    (folder,) = (here / "outputs").iterdir()
    (record,) = records(folder)
    assert record["ids"] == ["a", "b"]
    assert [line["id"] for line in records(folder, "answers.jsonl")] == ["a", "b"]
    (here / "p.jsonl").write_text('{"id": "c", "prompt": "Why?"}\n{"id": "b", "prompt": "Why?"}\n')
    main(["prompts=p.jsonl", *TINY])
    (other,) = (one for one in (here / "outputs").iterdir() if one != folder)
    assert records(other)[0]["ids"] == ["c", "b"]


def test_killed_at_any_moment_a_command_typed_again_gives_what_an_unbroken_one_does(here):
    (here / "p.txt").write_text("".join(f"What about the number {n}?\n" for n in range(40)))
    command = [sys.executable, "-m", "jaxalign.generate", "prompts=p.txt", "sampling.n=8", "sampling.rows=8", *TINY]
    environment = os.environ | {"PYTHONPATH": str(Path(generating.__file__).parents[2]), "JAX_PLATFORMS": "cpu"}

    def start(folder):
        return subprocess.Popen([*command, f"run.dir={folder}"], env=environment, stdout=subprocess.DEVNULL)

    def lines(folder):
        path = here / folder / "generations.jsonl"
        return path.read_bytes().count(b"\n") if path.is_file() else 0

    for more in (3, 150):
        before, process = lines("killed"), start("killed")
        while lines("killed") < before + more:
            assert process.poll() is None, "it ended before it was killed"
            time.sleep(0.002)
        process.send_signal(signal.SIGKILL)
        process.wait()
        assert not (here / "killed" / "answers.jsonl").exists()
    kept = (here / "killed" / "generations.jsonl").read_bytes()
    assert kept.count(b"\n") < 320
    for folder in ("killed", "unbroken"):
        assert start(folder).wait() == 0
    assert (here / "killed" / "generations.jsonl").read_bytes().startswith(kept[: kept.rindex(b"\n") + 1])
    one, other = (records(here / folder) for folder in ("killed", "unbroken"))
    assert len(one) == 320 and sorted(map(str, one)) == sorted(map(str, other))
    assert records(here / "killed", "answers.jsonl") == records(here / "unbroken", "answers.jsonl")


def test_a_chat_remembers_what_was_said(here, capsys, monkeypatch):
    monkeypatch.setattr("sys.stdin", io.StringIO("Hello\n\nAnd you?\n/new\nHello\n/quit\n"))
    seen = []
    sample = Sampler.sample

    def spy(self, requests, *arguments, **options):
        seen.append(self.tokenizer.decode(requests[0].prompt))
        return sample(self, requests, *arguments, **options)

    monkeypatch.setattr(Sampler, "sample", spy)
    # It is held in the chat template whatever the prompt format, and so has a system message.
    printed = run(main, ["model=tiny", "model.system=Be kind, and brief.", *QUICK], capsys)
    assert "chat with base" in printed
    first, second, anew = seen
    assert "Be kind, and brief." in first and first.count("user") == 1
    assert second.startswith(first) and "And you?" in second and second.count("user") == 2
    assert anew == first


SERVED = ["engine=openai", "engine.url=http://127.0.0.1:9/v1"]


@pytest.mark.usefixtures("not_loaded")
@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["sampling.temperature=-1"], "sampling.temperature=-1 is not allowed: give a number of at least 0"),
        (["sampling.top_p=0"], "sampling.top_p=0 is not allowed: give a number greater than 0"),
        (["sampling.n=0"], "sampling.n=0 is not allowed"),
        (["sampling.stop=['']"], "sampling.stop=[''] is not allowed: give a list of strings that are not empty"),
        (["prompts=none.txt"], "prompts=none.txt is not a file"),
        (["prompts=empty.txt"], "prompts=empty.txt is empty"),
        (["prompts=bad.jsonl"], "bad.jsonl line 2 is not JSON"),
        (["prompt=a", "prompts=empty.txt"], "prompt and prompts are both given"),
        (["prompt= "], "prompt is empty"),
        (
            ["prompt=Why?", "sampling.max_tokens=3000"],
            "leaves no room for a prompt in the context of 2048: give at most",
        ),
        (["sampling.max_tokens=3000"], "leaves no room for a prompt in the context of 2048: give at most 2047"),
        (["prompts=long.txt", "sampling.max_tokens=2000"], "long.txt line 3 has 49 tokens, and the context of 2048"),
        (["prompts=long.jsonl", "sampling.max_tokens=2000"], "long.jsonl line 2 (id q2) has 49 tokens"),
        (["prompt=Why?", "engine=openai"], "engine.url"),
        (
            ["prompt=Why?", "engine=openai", "engine.url=localhost:8000/v1"],
            "engine.url=localhost:8000/v1 is not the address",
        ),
        (
            ["prompt=Why?", "engine=openai", "engine.url='http://a b/v1'"],
            "is not the address of a server: give http://",
        ),
        (["prompt=Why?", "engine=openai", "engine.url=http://a:b/v1"], "is not the address of a server: give http://"),
        (["prompt=Why?", "engine=openai", "engine.url=http:///v1"], "is not the address of a server: give http://"),
        (["prompt=Why?", "++engine.url=http://a/v1"], "engine.url is for a server: add engine=openai"),
        (
            ["prompt=Why?", *SERVED, "adapter.scale=0.5"],
            "adapter.scale=0.5 does not work with a server: export an adapter",
        ),
        (
            ["prompt=Why?", *SERVED, "engine.strict=true", "sampling.top_k=5"],
            "sampling.top_k is not part of OpenAI's interface",
        ),
        (["sampling.n=5"], "sampling.n=5 is for prompt=... or prompts=...: a chat has one answer"),
        ([*SERVED, "engine.check=5"], "a chat has no answers to compare"),
        (["base=true", "adapter=here"], "a chat is with one model"),
        (["prompt=Why?", "adapter=here"], "adapter=here is no adapter"),
        (["prompt=Why?", "adapter=unfinished"], "type its training command again"),
        (["prompt=Why?", "model.system=Hi"], "add model.prompt_format=chat"),
        (["prompt=Why?", "engine.check=3"], "needs engine=openai"),
    ],
)
def test_bad_input_is_one_line(arguments, said, here, capsys):
    (here / "empty.txt").write_text("\n")
    (here / "bad.jsonl").write_text('{"prompt": "a"}\n{prompt}\n')
    long = "What? " * 8 + "!"
    (here / "long.txt").write_text(f"Who?\n\n{long}\n")
    (here / "long.jsonl").write_text('{"prompt": "Who?"}\n' + json.dumps({"id": "q2", "prompt": long}) + "\n")
    (here / "unfinished").mkdir()
    (here / "unfinished" / "config.yaml").write_text("model: {}\n")
    assert said in refused(main, ["model=tiny", *arguments], capsys)


def test_a_chat_says_again_what_broken_characters_have_changed(capsys, monkeypatch):
    class Engine:
        engine = "jaxalign"

        def sample(self, requests, sampling, *, on_text):
            for text in ("one", "one two", "one t\N{REPLACEMENT CHARACTER}"):
                on_text(0, 0, text)
            return [[Completion(0, (3,), text, "length")]]

    monkeypatch.setattr("sys.stdin", io.StringIO("Hello\n"))
    files = SimpleNamespace(tokenizer=tiny_tokenizer(), architecture=SimpleNamespace(context=99))
    chat(Console(), Engine(), files, SamplingParams(max_tokens=9), None, "power")
    assert "power: one two\none t\N{REPLACEMENT CHARACTER}\n" in capsys.readouterr().out


@pytest.mark.usefixtures("not_loaded")
def test_a_chat_with_a_model_without_a_template_is_refused_first(capsys, monkeypatch):
    tokenizer = tiny_tokenizer()
    tokenizer.hf.chat_template = None
    monkeypatch.setattr("jaxalign.pretrained.sources.tiny_tokenizer", lambda: tokenizer)
    assert "this model has no chat template" in refused(main, TINY, capsys)


@pytest.mark.usefixtures("not_loaded")
def test_adapters_of_different_prompt_formats_are_named(adapters, here, capsys):
    shutil.copytree(adapters / "power" / "adapter", here / "chatty")
    ours = json.loads((here / "chatty" / "jaxalign.json").read_text())
    (here / "chatty" / "jaxalign.json").write_text(json.dumps(ours | {"prompt_format": "chat"}))
    asked = [f"adapters=[{adapters / 'power'},chatty]", "prompt=Why?", *QUICK]
    line = refused(main, asked, capsys)
    assert (
        "chatty was trained with model.prompt_format=chat" in line
        and f"{adapters / 'power'}/adapter with plain" in line
    )


def test_an_adapter_of_the_same_shape_and_another_base_is_named(adapters, here, capsys, monkeypatch):
    asked = ["prompt=Why?", *QUICK]
    # Only the weights tell, once they are read.
    line = refused(
        main, [f"adapter={adapters / 'power'}", "model=tiny", "++model.config.attention_bias=true", *asked], capsys
    )
    assert f"{adapters / 'power'}/adapter was trained on another base (tiny), not on tiny" in line
    # Two adapters tell by themselves.
    train(here, "power", "++model.config.attention_bias=true", f"run.dir={here / 'biased'}")
    monkeypatch.setattr(ModelFiles, "load", None)
    line = refused(main, [f"adapters=[{adapters / 'power'},biased]", *asked], capsys)
    assert "biased/adapter was trained on another base (tiny) than" in line and "ask them one by one" in line


@pytest.mark.parametrize(
    ("base", "choice"),
    [("tiny", "model=tiny"), ("google/gemma-2-9b", "model=gemma2_9b"), ("me/mine", "model=hub model.path=me/mine")],
)
def test_an_exported_adapter_says_which_model_to_ask_before_the_default_is_fetched(
    adapters, here, capsys, monkeypatch, base, choice
):
    monkeypatch.setattr(sources, "fetch", None)
    shutil.copytree(adapters / "power" / "adapter", here / "exported")
    ours = json.loads((here / "exported" / "jaxalign.json").read_text())
    (here / "exported" / "jaxalign.json").write_text(json.dumps(ours | {"base_name": base}))
    line = refused(main, ["adapter=exported", "prompt=Why?", *QUICK], capsys)
    assert line == f"exported was trained on {base}: add {choice}"


def test_an_adapter_of_a_local_copy_is_judged_by_the_weights(adapters, here, capsys, monkeypatch):
    monkeypatch.setattr("jaxalign.jobs.adapters.DEFAULT_MODEL", "tiny")
    shutil.copytree(adapters / "power" / "adapter", here / "exported")
    ours = json.loads((here / "exported" / "jaxalign.json").read_text())
    (here / "exported" / "jaxalign.json").write_text(json.dumps(ours | {"base_name": "/data/copy of it"}))
    assert "── power ──" in run(main, ["adapter=exported", "prompt=Why?", "run.dir=run", *QUICK], capsys)


@pytest.mark.usefixtures("not_loaded")
def test_adapters_that_cannot_answer_together_are_named(adapters, capsys):
    line = refused(main, [f"adapters=[{adapters / 'power'},{adapters / 'wide'}]", "prompt=Why?", *QUICK], capsys)
    assert str(adapters / "wide") in line and "lora.rank 4" in line
    line = refused(
        main, [f"adapter={adapters / 'power'}", "prompt=Why?", "model=tiny", "model.config.num_hidden_layers=3"], capsys
    )
    assert "is it an adapter of another base?" in line
