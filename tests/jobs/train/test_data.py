import json

import pytest
from command_line import refused, run

from jaxalign.config.entry_point import entry_point
from jaxalign.config.train import TrainConfig
from jaxalign.jobs.train.data import read_training_text, trained_tokens

main = entry_point("train", TrainConfig)(lambda config: read_training_text(config))


def test_a_training_says_which_files_and_rows_it_read_and_what_it_left_aside(tmp_path, capsys):
    rows = [{"prompt": f"Q{number}", "response": "R"} for number in (0, 1, 2, 2, 3)]
    (tmp_path / "own.jsonl").write_text("\n".join(map(json.dumps, rows)))
    printed = run(
        main, ["dataset=jsonl", f"dataset.path={tmp_path}/own.jsonl", "dataset.limit=4", "benchmark.limit=10"], capsys
    )
    assert printed.splitlines() == [
        "data: own.jsonl (5 rows); used: 4 examples; left aside: 1 beyond dataset.limit=4",
        "stage instructions: 2 examples to train on, 1 to validate on; left aside: 1 that occur a second time",
        "portraits: portraits.jsonl (40 rows); used: 10; left aside: 30 beyond benchmark.limit",
        "perplexity: arguments.jsonl (640 rows); used: 64 held-out arguments",
    ]


def test_the_shipped_arguments_are_named_too(capsys):
    lines = run(main, ["value=power"], capsys).splitlines()
    assert lines[0] == "data: arguments.jsonl (640 rows); used: 640 arguments"
    assert [line.partition(":")[0] for line in lines] == ["data", "stage arguments", "stage survey", "portraits"]


def test_a_surrogate_is_refused_with_its_line_before_any_work(tmp_path, capsys):
    (tmp_path / "own.jsonl").write_text('{"prompt": "a", "response": "b"}\n{"prompt": "\\ud83d", "response": "b"}\n')
    line = refused(main, ["dataset=jsonl", f"dataset.path={tmp_path}/own.jsonl"], capsys, silent=True)
    assert (
        line == f"{tmp_path}/own.jsonl line 2 holds \\ud83d alone, which is half of a character: write the whole of it"
    )


def test_the_same_pairs_at_two_places_are_one_data_set(tmp_path):
    found = []
    entry = entry_point("train", TrainConfig)(lambda config: found.append(read_training_text(config).fingerprint))
    options = ["dataset=pairs", "objective=dpo", "adapter=any", f"run.root={tmp_path}"]
    for name, worse in (("a.jsonl", "No."), ("b.jsonl", "No."), ("c.jsonl", "Never.")):
        rows = [{"prompt": f"Q{number}", "chosen": "Yes.", "rejected": worse} for number in range(3)]
        (tmp_path / name).write_text("\n".join(map(json.dumps, rows)))
        entry([*options, f"dataset.path={tmp_path / name}"])
    assert found[0] == found[1] != found[2]


def test_inspect_names_the_kind_of_data_that_it_cannot_show(capsys):
    for dataset in (["dataset=pairs"], ["dataset=jsonl", "dataset.kind=pairs"]):
        options = [*dataset, "dataset.path=any", "objective=dpo", "adapter=any", "inspect=2"]
        line = refused(main, options, capsys, silent=True)
        assert line == "inspect shows supervised examples, and dataset.kind=pairs has none: leave it out"


@pytest.mark.parametrize("content", ["", "{}", "[" * 100_000, '{"training": {"stages": [{"tokens": null}]}}'])
def test_a_run_to_match_that_cannot_be_read_is_named(tmp_path, capsys, content):
    (tmp_path / "summary.json").write_text(content)
    with pytest.raises(SystemExit):
        entry_point("train", TrainConfig)(lambda config: trained_tokens(str(tmp_path)))(["value=power"])
    assert f"error: dataset.match={tmp_path} is not a finished run" in capsys.readouterr().err
