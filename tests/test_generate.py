"""Answers from the command line, on the tiny random model and adapters that one step made."""

import io
import json
import threading

import pytest
from openai_server import Server
from runs_of_tiny import train

from jaxalign.generate import main

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
    monkeypatch.setenv("JAXALIGN_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def run(arguments, capsys) -> str:
    main(arguments)
    return capsys.readouterr().out


def refused(arguments, capsys) -> str:
    with pytest.raises(SystemExit) as stop:
        main(arguments)
    assert stop.value.code == 2
    lines = capsys.readouterr().err.strip().splitlines()
    assert len(lines) == 1 and lines[0].startswith("error: ")
    return lines[0]


def records(folder, name="generations.jsonl"):
    return [json.loads(line) for line in (folder / name).read_text().splitlines()]


def test_one_prompt_is_answered_by_the_base_and_the_adapter_side_by_side(adapters, here, capsys):
    # The model comes from the adapter's run; a prompt may hold whatever a shell lets through.
    prompt = "It's 5, isn't it? ${x} = {y}\\"
    printed = run([f"adapter={adapters / 'power'}", f"prompt={prompt}", "run.dir=run", *QUICK], capsys)
    assert "── base ──" in printed and "── power ──" in printed
    base, power = records(here / "run")
    assert (base["from"], power["from"], base["prompt"], base["engine"]) == ("base", "power", prompt, "jaxalign")
    assert base["text"] != power["text"]
    (line,) = records(here / "run", "answers.jsonl")
    assert line == {"id": "prompt", "prompt": prompt, "answers": {"base": [base["text"]], "power": [power["text"]]}}


def test_adapters_answer_together_as_they_answer_alone(adapters, here, capsys):
    (here / "p.jsonl").write_text('{"id": "a", "prompt": "Why?"}\n{"id": "b", "prompt": "Who was it then?"}\n')
    common = ["prompts=p.jsonl", "sampling.n=3", *QUICK]
    run([f"adapters=[{adapters / 'power'},{adapters / 'security'}]", "base=true", "run.dir=all", *common], capsys)
    together = records(here / "all", "answers.jsonl")
    assert [line["id"] for line in together] == ["a", "b"]
    for name in ("power", "security"):
        run([f"adapter={adapters / name}", f"run.dir={name}", *common], capsys)
        assert [line["answers"][name] for line in records(here / name, "answers.jsonl")] == [
            line["answers"][name] for line in together
        ]
    run(["run.dir=base", "model=tiny", *common], capsys)
    assert [line["answers"] for line in records(here / "base", "answers.jsonl")] == [
        {"base": line["answers"]["base"]} for line in together
    ]


def test_asking_for_more_samples_draws_only_the_missing_ones(here, capsys):
    (here / "p.txt").write_text("Why?\nWho?\n")
    arguments = ["prompts=p.txt", *TINY]
    run([*arguments, "sampling.n=2"], capsys)
    (folder,) = (here / "outputs").iterdir()
    first = (folder / "generations.jsonl").read_text()
    printed = run([*arguments, "sampling.n=3"], capsys)
    assert "answers: 2 samples" in printed
    assert (folder / "generations.jsonl").read_text().startswith(first)
    assert sorted((record["id"], record["index"]) for record in records(folder)) == [
        (line, index) for line in "12" for index in range(3)
    ]
    assert "samples" not in run([*arguments, "sampling.n=3"], capsys)


def test_the_same_weights_with_another_architecture_answer_anew(here, capsys):
    arguments = ["prompt=Why is it so?", "sampling.temperature=0", *TINY]
    run(arguments, capsys)
    run([*arguments, "++model.config.rope_theta=3.0"], capsys)
    one, other = (records(folder)[0] for folder in (here / "outputs").iterdir())
    assert one["key"] != other["key"]
    assert "belongs to another configuration: model was" in refused(
        [*arguments, "++model.config.rope_theta=4.0", f"run.dir={next((here / 'outputs').iterdir())}"], capsys
    )


def test_a_scale_of_zero_answers_as_the_base_does(adapters, here, capsys):
    arguments = [f"adapter={adapters / 'power'}", "prompt=Why?", "run.dir=run", *QUICK]
    run([*arguments, "adapter.scale=0"], capsys)
    (line,) = records(here / "run", "answers.jsonl")
    assert line["answers"]["base"] == line["answers"]["power"]


def test_a_server_answers_in_the_program_s_place_and_the_two_are_compared(adapters, here, capsys):
    (here / "p.txt").write_text("Why?\nWho?\n")
    with Server() as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            asked = [f"adapter={adapters / 'power'}", "prompts=p.txt", "sampling.n=2", *QUICK]
            printed = run(
                [*asked, "engine=openai", f"engine.url={server.url}", "engine.check=1", "run.dir=run"], capsys
            )
        finally:
            server.shutdown()
            thread.join()
    assert "openai and jaxalign on 1 greedy answers: 0% are the same" in printed
    found = records(here / "run")
    assert {(record["engine"], record["from"]) for record in found} == {("openai", "power")} and len(found) == 4
    assert {body["model"] for body in server.asked} == {"power"}


def test_a_chat_remembers_what_was_said(here, capsys, monkeypatch):
    monkeypatch.setattr("sys.stdin", io.StringIO("Hello\n\nAnd you?\n/new\nHello\n/quit\n"))
    seen = []
    from jaxalign.inference.sampler import Sampler

    sample = Sampler.sample

    def spy(self, requests, *arguments, **options):
        seen.append(self.tokenizer.decode(requests[0].prompt))
        return sample(self, requests, *arguments, **options)

    monkeypatch.setattr(Sampler, "sample", spy)
    printed = run(["model=tiny", "model.system=Be kind, and brief.", "model.prompt_format=chat", *QUICK], capsys)
    assert "chat with base" in printed
    first, second, anew = seen
    assert "Be kind, and brief." in first and first.count("user") == 1
    assert second.startswith(first) and "And you?" in second and second.count("user") == 2
    assert anew == first


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["sampling.temperature=-1"], "sampling.temperature=-1 is not allowed: give a number of at least 0"),
        (["sampling.top_p=0"], "sampling.top_p=0 is not allowed: give a number greater than 0"),
        (["sampling.n=0"], "sampling.n=0 is not allowed"),
        (["sampling.stop=['']"], "sampling.stop=[] is not allowed: give a list of strings that are not empty"),
        (["prompts=none.txt"], "prompts=none.txt is not a file"),
        (["prompts=empty.txt"], "prompts=empty.txt is empty"),
        (["prompts=bad.jsonl"], "bad.jsonl line 2 is not JSON"),
        (["prompt=a", "prompts=empty.txt"], "prompt and prompts are both given"),
        (["prompt= "], "prompt is empty"),
        (["prompt=Why?", "sampling.max_tokens=3000"], "the context of 2048 holds 0"),
        (["prompt=Why?", "engine=openai"], "engine.url"),
        (["prompt=Why?", "adapter=here"], "adapter=here is no adapter"),
        (["prompt=Why?", "adapter=unfinished"], "type its training command again"),
        (["prompt=Why?", "model.system=Hi"], "add model.prompt_format=chat"),
        (["prompt=Why?", "engine.check=3"], "needs engine=openai"),
    ],
)
def test_bad_input_is_one_line(arguments, said, here, capsys):
    (here / "empty.txt").write_text("\n")
    (here / "bad.jsonl").write_text('{"prompt": "a"}\n{prompt}\n')
    (here / "unfinished").mkdir()
    (here / "unfinished" / "config.yaml").write_text("model: {}\n")
    assert said in refused(["model=tiny", *arguments], capsys)


def test_adapters_that_cannot_answer_together_are_named(adapters, capsys):
    line = refused([f"adapters=[{adapters / 'power'},{adapters / 'wide'}]", "prompt=Why?", *QUICK], capsys)
    assert str(adapters / "wide") in line and "lora.rank 4" in line
    line = refused(
        [f"adapter={adapters / 'power'}", "prompt=Why?", "model=tiny", "model.config.num_hidden_layers=3"], capsys
    )
    assert "is it an adapter of another base?" in line
