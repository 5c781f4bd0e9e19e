import csv
import json
from pathlib import Path

import pytest
from omegaconf import OmegaConf

from jaxalign.data.datasets import instructions
from jaxalign.data.datasets.instructions import INSTRUCTION_SETS, load_instructions
from jaxalign.data.examples import Example, split_examples
from jaxalign.errors import UserError

CONF = Path(__file__).parents[3] / "conf" / "dataset"
ALPACA = [
    {"instruction": "Name a colour.", "input": "", "output": "Blue."},
    {"instruction": "Add them.", "input": "1 and 2", "output": "3"},
]


def prompt_of(name):
    return OmegaConf.load(CONF / f"{name}.yaml").prompt


def load(name, path, **options):
    return load_instructions(name, str(path), prompt=prompt_of(name), **options)


def as_json(path, rows):
    path.write_text(json.dumps(rows))
    return path


def as_lines(path, rows):
    path.write_text("\n".join(map(json.dumps, rows)))
    return path


def as_csv(path, rows):
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(rows)
    return path


def as_parquet(path, rows):
    import pyarrow
    import pyarrow.parquet

    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), path)
    return path


WRITERS = [(as_json, ".json"), (as_lines, ".jsonl"), (as_lines, ".json"), (as_csv, ".csv"), (as_parquet, ".parquet")]


@pytest.mark.parametrize(("write", "suffix"), WRITERS)
def test_every_form_of_a_file_gives_the_same_examples(tmp_path, write, suffix):
    first, second = load("alpaca", write(tmp_path / f"alpaca{suffix}", ALPACA))
    assert first == Example("Task: Name a colour.\nAnswer:\n", "Blue.", "alpaca-0", shorten="Name a colour.")
    assert second == Example("Task: Add them.\nInput: 1 and 2\nAnswer:\n", "3", "alpaca-1", shorten="Add them.")


@pytest.mark.parametrize("name", INSTRUCTION_SETS)
def test_each_set_reads_its_published_fields(tmp_path, name):
    form = INSTRUCTION_SETS[name]
    rows = [{**{field: f"{field} {number}" for field in form.given}, form.answer: f"R{number}"} for number in range(3)]
    examples = load(name, as_lines(tmp_path / "data.jsonl", rows))
    assert [example.response for example in examples] == ["R0", "R1", "R2"]
    assert all(f"{field} 1" in examples[1].prompt for field in form.given)
    assert all(example.prompt.endswith("\n") for example in examples)


def test_a_csv_field_may_hold_lines_and_quotes(tmp_path):
    rows = [{"dialogue": 'A: "Hi"\nB: Hi, you', "summary": "They greet."}] * 2
    example = load("samsum", as_csv(tmp_path / "train.csv", rows))[0]
    assert example.prompt == 'Summarize this chat.\nA: "Hi"\nB: Hi, you\nSummary:\n'


def test_a_sentence_with_several_corrections_is_one_example_for_each(tmp_path):
    rows = [{"sentence": "He go .", "corrections": ["He goes .", "", "He went ."]}]
    notes = []
    examples = load("grammar", as_lines(tmp_path / "jfleg.jsonl", rows), log=notes.append)
    assert [example.response for example in examples] == ["He goes .", "He went ."]
    assert examples[0].prompt == examples[1].prompt
    assert notes == ["data: jfleg.jsonl (3 rows); used: 2 examples; left aside: 1 without task or answer"]


def test_blank_rows_are_dropped_and_counted(tmp_path):
    rows = [*ALPACA, {**ALPACA[0], "output": " "}, {**ALPACA[0], "instruction": None}]
    notes = []
    assert len(load("alpaca", as_json(tmp_path / "alpaca.json", rows), log=notes.append)) == 2
    assert notes == ["data: alpaca.json (4 rows); used: 2 examples; left aside: 2 without task or answer"]


def test_a_limit_takes_the_first_examples(tmp_path):
    path = as_json(tmp_path / "alpaca.json", ALPACA * 3)
    assert load("alpaca", path, limit=4) == load("alpaca", path)[:4]


def test_without_a_path_the_file_comes_from_the_hub_at_a_fixed_revision(tmp_path, monkeypatch):
    asked = []

    def download(repo, revision, files, *, offline):
        asked.append((repo, len(revision), files, offline))
        return [as_lines(tmp_path / "dolly.jsonl", [{"instruction": "Go", "context": "", "response": "Gone"}] * 2)]

    monkeypatch.setattr(instructions, "download", download)
    assert len(load_instructions("dolly", None, prompt=prompt_of("dolly"), offline=True)) == 2
    assert asked == [("databricks/databricks-dolly-15k", 40, ("databricks-dolly-15k.jsonl",), True)]


@pytest.mark.parametrize(
    ("suffix", "text", "line"),
    [
        (
            ".jsonl",
            '{"instruction": "a", "text": "b"}',
            "line 1 lacks the field 'input'; its fields are: instruction, text",
        ),
        (".jsonl", '{"instruction": 3, "input": "", "output": "b"}', "line 1 has instruction=3: it must be a text"),
        (".jsonl", '{"instruction": "a", ', "line 1 is not JSON"),
        (".jsonl", "instruction,input,output", "line 1 is not JSON"),
        (".json", '[{"instruction": "a"},\n {"inst', "line 2 is not JSON"),
        (".json", "[[]]", "row 1 is not an object"),
        (".csv", "instruction,input,output\na,b\n", "line 2 has not the 3 columns that the header has"),
        (".csv", 'instruction,input,output\n"a,b,c\n', "is not CSV"),
        (".csv", "task,answer\na,b\n", "line 2 lacks the field 'instruction'; its fields are: task, answer"),
        (".csv", "instruction,input,output\n", "holds no usable row"),
        (".json", '{"instruction": "a", "input": "", "output": "b"}', "holds only 1 usable row"),
        (".json", "\xff", "is not UTF-8"),
        (".parquet", "nothing", "cannot be read as Parquet"),
    ],
)
def test_a_bad_file_is_refused_with_its_place(tmp_path, suffix, text, line):
    path = tmp_path / f"bad{suffix}"
    path.write_bytes(text.encode("latin-1"))
    with pytest.raises(UserError) as error:
        load("alpaca", path)
    assert line in str(error.value)
    assert path.name in str(error.value)


def test_an_absent_file_an_unknown_set_and_a_bad_prompt_are_refused(tmp_path):
    with pytest.raises(UserError, match=r"absent.json is not a file"):
        load("alpaca", tmp_path / "absent.json")
    with pytest.raises(UserError, match=r"dataset.name='alpacca' is not known; did you mean 'alpaca'?"):
        load_instructions("alpacca", None, prompt="")
    with pytest.raises(UserError, match=r"dataset.prompt lacks {input}"):
        load_instructions("alpaca", None, prompt="{instruction}\n")


def test_holding_out_examples_puts_no_prompt_on_both_sides():
    examples = [Example(f"P{number // 4}\n", f"R{number % 3}", str(number)) for number in range(80)]
    train, validation = split_examples(examples, 0, 0.2)
    assert not {example.prompt for example in train} & {example.prompt for example in validation}
    assert len({example.prompt for example in validation}) == 4
    assert len(train) + len(validation) == len({(example.prompt, example.response) for example in examples})
