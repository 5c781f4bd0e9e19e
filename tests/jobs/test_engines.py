"""The engines that answer: a server, and this program with many adapters."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from command_line import refused, run
from jobs.answers_of_tiny import QUICK, TINY, records
from openai_server import hashed, serving
from runs_of_tiny import read_tiny

from jaxalign.generate import main
from jaxalign.inference.base_model import BaseModel
from jaxalign.inference.sampler import Sampler
from jaxalign.inference.sampling_params import Request, SamplingParams
from jaxalign.parallel.compilation import Programs


@pytest.mark.slow
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


@pytest.mark.slow
def test_a_server_that_answers_as_this_program_does_agrees_in_full(here, capsys):
    model = read_tiny()
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


@pytest.mark.slow
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


@pytest.mark.slow
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


@pytest.mark.slow
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


def test_what_a_content_filter_cut_is_no_answer_and_is_asked_for_again(here, capsys):
    (here / "p.txt").write_text("Why?\nWho?\n")
    with serving() as server:
        cut = iter([{"text": "Bec", "finish_reason": "content_filter"}])
        server.reply = lambda body: next(cut, hashed(body))
        asked = [
            "prompts=p.txt",
            "engine=openai",
            f"engine.url={server.url}",
            "engine.models=base",
            "run.dir=run",
            *TINY,
        ]
        printed = run(main, [*asked, "engine.concurrency=1"], capsys)
        assert "cut by the server (content_filter) and null in answers.jsonl: 1;" in printed
        first, second = (line["answers"]["base"] for line in records(here / "run", "answers.jsonl"))
        assert first == [None] and isinstance(second[0], str)
        assert "content_filter" not in run(main, asked, capsys)
        assert len(server.asked) == 3
    assert [record["end"] for record in records(here / "run")] == ["content_filter", "eos", "eos"]
    first, _ = (line["answers"]["base"] for line in records(here / "run", "answers.jsonl"))
    assert isinstance(first[0], str)
