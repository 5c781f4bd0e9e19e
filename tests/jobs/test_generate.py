"""Answers from the command line, on the tiny random model and adapters that one step made."""

import json
import shutil
import signal
import time

import pytest
from child_process import Child
from command_line import refused, run
from jobs.answers_of_tiny import QUICK, TINY, records
from model_folder import CONFIGS, hf_random, write_model

from jaxalign.generate import main


@pytest.mark.slow
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


@pytest.mark.slow
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


@pytest.mark.slow
def test_a_path_of_any_letters_needs_no_quotes_and_is_printed_as_it_is(here, capsys):
    odd = here / "día [b]x,y={z} :a:"
    odd.mkdir()
    (odd / "p's.jsonl").write_text('{"prompt": "Why?"}\n')
    printed = run(main, [f"prompts={odd}/p's.jsonl", f"run.dir={odd}/run [/x]", *TINY], capsys)
    assert "prompts: p's.jsonl (1 row); used: 1 prompt\n" in printed
    assert f"run directory: {odd}/run [/x]\n" in printed
    assert records(odd / "run [/x]", "answers.jsonl")[0]["prompt"] == "Why?"


@pytest.mark.slow
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


@pytest.mark.slow
def test_the_same_weights_with_another_architecture_answer_anew(here, capsys):
    arguments = ["prompt=Why is it so?", "sampling.temperature=0", *TINY]
    main(arguments)
    main([*arguments, "++model.config.rope_theta=3.0"])
    one, other = (records(folder)[0] for folder in (here / "outputs").iterdir())
    assert one["key"] != other["key"]
    assert "belongs to another configuration: model was" in refused(
        main, [*arguments, "++model.config.rope_theta=4.0", f"run.dir={next((here / 'outputs').iterdir())}"], capsys
    )


@pytest.mark.slow
def test_a_scale_of_zero_answers_as_the_base_does(adapters, here):
    arguments = [f"adapter={adapters / 'power'}", "prompt=Why?", "run.dir=run", *QUICK]
    main([*arguments, "adapter.scale=0"])
    (line,) = records(here / "run", "answers.jsonl")
    assert line["answers"]["base"] == line["answers"]["power"]


@pytest.mark.slow
def test_an_adapter_called_base_does_not_hide_the_base(adapters, here):
    shutil.copytree(adapters / "power" / "adapter", here / "base")
    ours = json.loads((here / "base" / "jaxalign.json").read_text())
    del ours["extra"]["value"]
    (here / "base" / "jaxalign.json").write_text(json.dumps(ours))
    main(["model=tiny", "adapter=base", "prompt=Why?", "run.dir=run", *QUICK])
    (line,) = records(here / "run", "answers.jsonl")
    assert set(line["answers"]) == {"base", "base (1)"}
    assert line["answers"]["base"] != line["answers"]["base (1)"]


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


@pytest.mark.slow
def test_killed_at_any_moment_a_command_typed_again_gives_what_an_unbroken_one_does(here):
    (here / "p.txt").write_text("".join(f"What about the number {n}?\n" for n in range(40)))
    settings = ["prompts=p.txt", "sampling.n=8", "sampling.rows=8", *TINY]

    def lines(folder):
        path = here / folder / "generations.jsonl"
        return path.read_bytes().count(b"\n") if path.is_file() else 0

    for more in (3, 150):
        enough = lines("killed") + more
        child = Child("jaxalign.generate", [*settings, "run.dir=killed"])
        child.kill_when(lambda enough=enough: lines("killed") >= enough)
        assert not (here / "killed" / "answers.jsonl").exists()
    kept = (here / "killed" / "generations.jsonl").read_bytes()
    assert kept.count(b"\n") < 320
    for folder in ("killed", "unbroken"):
        main([*settings, f"run.dir={folder}"])
    assert (here / "killed" / "generations.jsonl").read_bytes().startswith(kept[: kept.rindex(b"\n") + 1])
    one, other = (records(here / folder) for folder in ("killed", "unbroken"))
    assert len(one) == 320 and sorted(map(str, one)) == sorted(map(str, other))
    assert records(here / "killed", "answers.jsonl") == records(here / "unbroken", "answers.jsonl")


@pytest.mark.slow
def test_sigterm_ends_with_a_line_that_says_how_to_go_on(here):
    (here / "p.txt").write_text("".join(f"What about the number {n}?\n" for n in range(400)))
    child = Child("jaxalign.generate", ["prompts=p.txt", "sampling.rows=2", *TINY, "run.dir=run"])
    while not (here / "run" / "generations.jsonl").is_file() and child.poll() is None:
        time.sleep(0.01)
    child.send_signal(signal.SIGTERM)
    _, errors = child.communicate(timeout=60)
    assert (child.poll(), errors) == (130, "interrupted; the same command resumes\n")


def test_a_damaged_summary_or_record_is_named(here, capsys):
    main(["prompt=Why?", "run.dir=run", *TINY])
    (here / "run" / "summary.json").write_text("{}")
    line = refused(main, ["prompt=Why?", "run.dir=run", *TINY], capsys)
    assert line.startswith(
        "run/summary.json is damaged ('engines' is missing or damaged); remove run/summary.json, and type"
    )
    (here / "run" / "summary.json").unlink()
    main(["prompt=Why?", "run.dir=run", *TINY])
    with (here / "run" / "generations.jsonl").open("a") as file:
        file.write("null\n")
    line = refused(main, ["prompt=Why?", "run.dir=run", *TINY], capsys)
    assert "generations.jsonl, line " in line and "not a JSON object; remove the line" in line


def test_names_and_paths_are_printed_as_they_are(here, capsys):
    (here / "[red]a").mkdir()
    (here / "[red]a" / "p.txt").write_text("Why?\n")
    printed = run(main, ["prompts='[red]a/p.txt'", "run.dir='[bold]:cat:[/x]'", *TINY], capsys)
    assert "run directory: [bold]:cat:[/x]\n" in printed and "answers: [bold]:cat:[/x]/answers.jsonl" in printed


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
        (["prompts=long.txt", "sampling.max_tokens=2000"], "long.txt line 3 has 68 tokens, and the context of 2048"),
        (["prompts=long.jsonl", "sampling.max_tokens=2000"], "long.jsonl line 2 (id q2) has 68 tokens"),
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
        (["prompt=Why?", "engine=openai", "engine.url=http://me:passw0rd@a/v1"], "engine.url has more than an address"),
        (["prompt=Why?", "engine=openai", "engine.url='http://a/v1?key=passw0rd'"], "give the address alone"),
        (["prompt=Why?", "engine=openai", "engine.url=http://a/v1?key=passw0rd"], "give the address alone"),
        (
            ["prompt=Why?", "engine=openai", "engine.models=http://a/v1?key=passw0rd"],
            "cannot read 'engine.models=http://a/v1?*",
        ),
        (["-m", "prompt=Why?", "engine=openai", "engine.url=http://me:passw0rd@a/v1,http://b/v1"], "//***@a/v1"),
        (["prompt=Why?", "++engine.url=http://a/v1"], "engine.url is for a server: add engine=openai"),
        (
            ["prompt=Why?", *SERVED, "adapter.scale=0.5"],
            "adapter.scale=0.5 does not work with a server: multiply lora_alpha",
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
        (["prompt=Why?", "model.system=Hi", "model.prompt_format=plain"], "add model.prompt_format=chat"),
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
    line = refused(main, ["model=tiny", *arguments], capsys)
    assert said in line and "passw0rd" not in line


@pytest.mark.slow
def test_a_model_or_an_adapter_that_gives_no_finite_logits_is_an_error_and_writes_no_record(adapters, here, capsys):
    tensors = hf_random(CONFIGS["llama"])
    tensors["model.embed_tokens.weight"][5, 0] = float("nan")
    write_model(here / "nan", CONFIGS["llama"], tensors)
    line = refused(main, ["model=hub", "model.path=nan", "prompt=hello", "run.dir=one", *QUICK], capsys)
    assert line.startswith("the tensor model.embed_tokens.weight of the checkpoint holds NaN or infinity")
    adapter = [f"adapter={adapters / 'power'}", "adapter.scale=1e25"]
    line = refused(main, [*adapter, "prompt=hello", "run.dir=two", *QUICK], capsys)
    assert line.startswith("the model's logits are NaN or infinite, so there is no answer")
    for run_dir in ("one", "two"):
        path = here / run_dir / "generations.jsonl"
        assert not path.exists() or path.read_text() == ""
