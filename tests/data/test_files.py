import os
import tempfile
from pathlib import Path

import numpy as np
import pyarrow
import pytest
from hostile import few, survives, tables
from hypothesis import given
from hypothesis import strategies as st
from pyarrow import parquet

from jaxalign.data.columns import Columns
from jaxalign.data.datasets.instructions import load_instructions
from jaxalign.data.datasets.own import load_own_instructions
from jaxalign.data.datasets.pairs import load_pairs
from jaxalign.data.datasets.questions import load_questions
from jaxalign.data.files import read_table
from jaxalign.data.prompts import read_prompts
from jaxalign.errors import UserError

SURROGATE = '{"prompt": "a", "response": "b"}\n{"prompt": "ask \\ud83d me", "response": "ok"}\n'


def write(path, content):
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        (
            "d.jsonl",
            SURROGATE,
            r"d.jsonl line 2 holds \ud83d alone, which is half of a character: write the whole of it",
        ),
        ("d.json", f"[{SURROGATE.replace(chr(10), ',', 1)}]", r"d.json line 1 holds \ud83d alone"),
        ("d.jsonl", '{"prompt": "a", "prompt": "b"}', "line 1 holds an object with the key 'prompt' twice"),
        ("d.csv", "prompt,prompt\na,b\n", "d.csv has the column 'prompt' twice"),
        ("d.tsv", "prompt\tprompt\na\tb\n", "d.tsv has the column 'prompt' twice"),
        ("d.csv", "prompt,response\na\0,b\n", "d.csv line 2 holds a NUL, so it is not text"),
        ("d.csv", "prompt,response\na,b,c\n", "line 2 has not the 2 columns that the header has"),
        ("d.tsv", "prompt\tresponse\na\n", "line 2 has 1 columns where the header has 2"),
        (
            "d.csv",
            'prompt,response\n"a,b\n',
            "d.csv line 2 is not CSV (unexpected end of data): close the quotation mark",
        ),
        ("d.jsonl", "prompt,response", "expected an object a line, an array, or a .csv, .tsv or .parquet file"),
        ("d.jsonl", "[" * 100_000, "d.jsonl line 1 is JSON nested too deeply"),
    ],
)
def test_a_file_that_cannot_be_read_is_told_with_its_line(tmp_path, name, content, words):
    with pytest.raises(UserError) as error:
        read_table(write(tmp_path / name, content))
    assert words in str(error.value)


def test_a_named_pipe_a_folder_and_a_device_are_refused_at_once(tmp_path):
    os.mkfifo(tmp_path / "pipe.jsonl")
    (tmp_path / "folder.jsonl").mkdir()
    (tmp_path / "device.jsonl").symlink_to("/dev/zero")
    for name, what in (("pipe", "a named pipe"), ("folder", "a folder"), ("device", "a device")):
        for read in (read_table, read_prompts, load_pairs):
            with pytest.raises(UserError, match=rf"{name}\.jsonl is not a file \(it is {what}\)"):
                read(tmp_path / f"{name}.jsonl")  # type: ignore[operator]


def test_a_field_may_be_longer_than_pythons_limit(tmp_path):
    (row,) = read_table(write(tmp_path / "d.csv", f"prompt,id\n{'x' * 200_000},7\n"))
    assert len(row.fields["prompt"]) == 200_000


def test_a_tsv_file_is_a_table_wherever_one_is_read(tmp_path):
    path = write(tmp_path / "d.tsv", 'prompt\tresponse\nSay "hi"\tHi\nSay no\tNo\n')
    assert [one.response for one in load_own_instructions(str(path))] == ["Hi", "No"]
    assert [one.text for one in read_prompts(path)] == ['Say "hi"', "Say no"]


@pytest.mark.parametrize("name", ["día [1],x=y{z} 💥.parquet", "plain.parquet"])
def test_a_parquet_file_is_read_whatever_its_name(tmp_path, name):
    rows = [{"prompt": "a", "messages": [{"role": "user", "content": "é"}]}, {"prompt": None, "messages": []}]
    parquet.write_table(pyarrow.Table.from_pylist(rows), tmp_path / name)
    assert [row.fields for row in read_table(tmp_path / name)] == rows


def shared(text, rows):
    """A column of many rows that share one text, which a Parquet file holds once."""
    return pyarrow.DictionaryArray.from_arrays(pyarrow.array([0] * rows, pyarrow.int32()), [text])


@pytest.mark.parametrize(
    ("columns", "words"),
    [
        ({"a": pyarrow.nulls(10_000_001)}, "has at least 10,000,001 rows, and at most 10,000,000 are read"),
        ({"a": pyarrow.nulls(9_000_000), "b": pyarrow.nulls(9_000_000)}, "has at least 18,000,000 values"),
        ({"a": ["x" * 2_000_000] * 2}, "bytes without compression, and at most 1,500,000 are read"),
        ({"a": shared("x" * 1_000_000, 100_000)}, "has at least 1,000,000,000 bytes of text"),
        ({"a": pyarrow.ListArray.from_arrays([0, 9_000], shared("é" * 300_000, 9_000))}, "5,400,000,000 bytes of text"),
        ({"a": pyarrow.StructArray.from_arrays([shared("x" * 1_000_000, 2)], ["b"])}, "2,000,000 bytes of text"),
    ],
)
def test_a_small_parquet_file_that_would_fill_the_memory_is_refused(tmp_path, monkeypatch, columns, words):
    monkeypatch.setattr("jaxalign.data.files.MOST_VALUES", 17_000_000)
    monkeypatch.setattr("jaxalign.data.files.MOST_BYTES", 1_500_000)
    path = tmp_path / "bomb.parquet"
    parquet.write_table(pyarrow.table(columns), path, compression="zstd", store_schema=False)
    assert path.stat().st_size < 100_000
    with pytest.raises(UserError, match=r"bomb\.parquet") as error:
        read_table(path)
    assert words in str(error.value) and "\n" not in str(error.value)


def test_a_damaged_parquet_file_is_one_line(tmp_path):
    path = tmp_path / "d.parquet"
    parquet.write_table(pyarrow.table({"prompt": ["a" * 50, "b" * 50]}), path)
    whole = path.read_bytes()
    random = np.random.default_rng(0)
    for _ in range(40):
        damaged = bytearray(whole[: random.integers(len(whole))] if random.random() < 0.3 else whole)
        for place in random.integers(len(damaged), size=3) if damaged else ():
            damaged[place] = random.integers(256)
        survives(read_table, path, bytes(damaged))


READERS = {
    "instructions": (lambda path: load_own_instructions(str(path)), ("prompt", "response", "messages")),
    "pairs": (lambda path: load_pairs(str(path)), ("prompt", "chosen", "rejected")),
    "questions": (lambda path: load_questions("jsonl", str(path)), ("id", "question", "options", "answer", "passage")),
    "renamed": (
        lambda path: load_questions("jsonl", str(path), columns=Columns({"answer": "b"}), skip=True),
        ("question", "options", "b"),
    ),
    "prompts": (read_prompts, ("prompt", "id")),
    "alpaca": (
        lambda path: load_instructions("alpaca", str(path), prompt="{instruction}{input}\n"),
        ("instruction", "input", "output", "sentence", "corrections"),
    ),
}


@pytest.mark.slow
@pytest.mark.parametrize("suffix", [".json", ".jsonl", ".csv", ".tsv"])
@pytest.mark.parametrize("reader", READERS)
@few
@given(data=st.data())
def test_any_bytes_are_rows_or_one_line(reader, suffix, data):
    read, fields = READERS[reader]
    survives(read, f"f{suffix}", data.draw(tables(fields, suffix)))


@few
@given(data=st.data())
def test_any_rows_are_questions_in_a_published_schema_or_one_line(data):
    fields = ("id", "question", "choices", "answerKey", "answers", "label", "id_string", "context")
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "train.jsonl"
        name = data.draw(st.sampled_from(("arc", "csqa", "reclor")))
        survives(lambda path: load_questions(name, str(path.parent)), path, data.draw(tables(fields, ".jsonl")))
