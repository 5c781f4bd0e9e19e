"""Parquet files that nobody means to give: each reader has rows, or refuses them with one line."""

import datetime
import decimal
import io
import struct

import pyarrow
import pytest
from hostile import few, survives
from hypothesis import given
from hypothesis import strategies as st
from pyarrow import parquet

from jaxalign.data.datasets.instructions import load_instructions
from jaxalign.data.datasets.own import load_own_instructions
from jaxalign.data.datasets.pairs import load_pairs
from jaxalign.data.datasets.questions import load_questions
from jaxalign.data.files import read_table
from jaxalign.data.prompts import read_prompts
from jaxalign.safety.benchmarks.sources import read_benchmark
from jaxalign.safety.judgements import Scale
from jaxalign.safety.judges.imported import Imported
from jaxalign.safety.labelled import load_labelled
from jaxalign.values.starter import load_starter

HARM = {"id": "1", "category": "violence", "prompt": "a", "response": "b", "label": "harmful", "split": "train"}
READERS = {
    "instructions": (lambda path: load_own_instructions(str(path)), {"prompt": "a", "response": "b"}),
    "conversations": (
        lambda path: load_own_instructions(str(path)),
        {"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]},
    ),
    "pairs": (lambda path: load_pairs(str(path)), {"prompt": "a", "chosen": "b", "rejected": "c"}),
    "questions": (
        lambda path: load_questions("jsonl", str(path)),
        {"id": "1", "question": "a?", "options": ["b", "c"], "answer": 0},
    ),
    "arguments": (
        lambda path: load_starter(path=str(path)),
        {"id": "1", "conclusion": "a", "stance": "against", "premise": "b", "values": ["power"]},
    ),
    "prompts": (read_prompts, {"prompt": "a", "id": "1"}),
    "alpaca": (
        lambda path: load_instructions("alpaca", str(path), prompt="{instruction}{input}\n"),
        {"instruction": "a", "input": "b", "output": "c"},
    ),
    "realtoxicityprompts": (
        lambda path: read_benchmark("realtoxicityprompts", str(path)),
        {"prompt": {"text": "a", "toxicity": 0.9}, "filename": "f", "begin": 0, "end": 9},
    ),
    "beavertails": (lambda path: read_benchmark("beavertails", str(path)), {"prompt": "a", "category": "animal_abuse"}),
    "xstest": (lambda path: read_benchmark("xstest", str(path)), {"id": 1, "prompt": "a", "type": "homonyms"}),
    "holisticbias_r": (
        lambda path: read_benchmark("holisticbias_r", str(path)),
        {"prompt": "a", "axis": "age", "descriptor": "old"},
    ),
    "labels": (load_labelled, HARM),
    "scores": (lambda path: Imported(path, Scale(0, 1, 0.5)), {"prompt": "a", "response": "b", "score": 0.5}),
}
"""Each reader of rows, and a good row."""

LEAVES = (
    (pyarrow.string(), ("a", "", "\ud83d".encode("utf-8", "replace").decode(), "\x1b[2J\u2028", "against", "power")),
    (pyarrow.large_string(), ("a", "0")),
    (pyarrow.binary(), (b"\xff\xfe", b"")),
    (pyarrow.bool_(), (True, False)),
    (pyarrow.int64(), (0, 1, -(2**63), 2**63 - 1)),
    (pyarrow.uint64(), (2**64 - 1,)),
    (pyarrow.float64(), (0.5, float("nan"), float("inf"), -0.0)),
    (pyarrow.float32(), (0.5, 3e38)),
    (pyarrow.decimal128(38, 2), (decimal.Decimal("1.25"),)),
    (pyarrow.date32(), (datetime.date(2024, 1, 1),)),
    (pyarrow.timestamp("us", "UTC"), (datetime.datetime(2024, 1, 1, tzinfo=datetime.UTC),)),
    (pyarrow.duration("ns"), (datetime.timedelta(days=1),)),
    (pyarrow.time64("us"), (datetime.time(1, 2),)),
    (pyarrow.null(), (None,)),
    (pyarrow.dictionary(pyarrow.int8(), pyarrow.string()), ("a", "b")),
)
"""Types of columns, and values of them."""


def nested(inner: st.SearchStrategy) -> st.SearchStrategy:
    """Lists, objects and maps of a type, each with its values."""
    return st.one_of(
        inner.map(lambda one: (pyarrow.list_(one[0]), ([], list(one[1]), None))),
        inner.map(
            lambda one: (pyarrow.struct([("text", one[0]), ("role", pyarrow.string())]), ({"text": one[1][0]}, {}))
        ),
        inner.map(lambda one: (pyarrow.map_(pyarrow.string(), one[0]), ([("a", one[1][0])], [("a", None)] * 2))),
    )


TYPES = st.recursive(st.sampled_from(LEAVES), nested, max_leaves=3)


@st.composite
def files(draw, good: dict) -> bytes:
    """A file with rows like a good one, of which up to two columns are of any type, missing, or there a second time."""
    number = draw(st.integers(0, 3))
    columns = {name: pyarrow.array([value] * number) for name, value in good.items()}
    for name in draw(st.lists(st.sampled_from([*good, "id", "other"]), max_size=2)):
        kind, values = draw(TYPES)
        cells = draw(st.lists(st.sampled_from([*values, None]), min_size=number, max_size=number))
        columns[name] = pyarrow.array(cells, kind)
    names = [name for name in columns if draw(st.integers(0, 9))]
    twice = draw(st.sampled_from([[], [], [], names[:1]]))
    table = pyarrow.Table.from_arrays([columns[name] for name in names + twice], names + twice)
    file = io.BytesIO()
    parquet.write_table(table, file, compression=draw(st.sampled_from(("none", "snappy", "zstd"))))
    return file.getvalue()


@st.composite
def damaged_files(draw, whole: bytes) -> bytes:
    """A good file with a few other bytes in it, mostly in what it says of itself, or without its end."""
    data = bytearray(whole[: draw(st.integers(0, len(whole)))] if draw(st.integers(0, 4)) == 0 else whole)
    footer = max(0, len(data) - 8 - footer_size(whole))
    for _ in range(draw(st.integers(0, 3)) if data else 0):
        start = footer if draw(st.booleans()) else 0
        data[draw(st.integers(min(start, len(data) - 1), len(data) - 1))] = draw(st.integers(0, 255))
    return bytes(data)


def footer_size(whole: bytes) -> int:
    return struct.unpack("<I", whole[-8:-4])[0]


def written(columns: dict) -> bytes:
    file = io.BytesIO()
    parquet.write_table(pyarrow.table(columns), file, compression="zstd")
    return file.getvalue()


def number(value: int) -> bytes:
    """A whole number as Parquet's description has it: zigzag, seven bits a byte."""
    value, found = value << 1, []
    while value > 127:
        found.append(value & 127 | 128)
        value >>= 7
    return bytes([*found, value])


@pytest.mark.slow
@pytest.mark.parametrize("reader", READERS)
@few
@given(data=st.data())
def test_any_columns_are_rows_or_one_line(reader, data):
    read, good = READERS[reader]
    survives(read, "f.parquet", data.draw(files(good)))


WHOLE = written({"prompt": ["a" * 50, "b" * 50], "messages": [[{"role": "user", "content": "é"}], []], "n": [1, None]})


@few
@given(content=damaged_files(WHOLE))
def test_a_damaged_file_is_rows_or_one_line(content):
    survives(read_table, "f.parquet", content)


ROWS = 8191
"""A number of rows that the file's description has in no other meaning."""


@pytest.mark.parametrize("claimed", [ROWS + 1, 9_999_999, 2**31, 2**40, 2**62])
@pytest.mark.parametrize("kind", ["texts", "lists"])
def test_whatever_sizes_a_file_claims_it_is_rows_or_one_line(tmp_path, kind, claimed):
    cells = ["a"] * ROWS if kind == "texts" else [["a"]] * ROWS
    whole = written({"prompt": cells})
    size = footer_size(whole)
    data, footer = whole[: -8 - size], whole[-8 - size : -8]
    places = [place for place in range(len(footer)) if footer.startswith(number(ROWS), place)]
    assert len(places) >= 2  # the file's own number of rows, and that of its group
    for chosen in [*([place] for place in places), places]:
        changed = footer
        for place in reversed(chosen):
            changed = changed[:place] + number(claimed) + changed[place + len(number(ROWS)) :]
        content = data + changed + struct.pack("<I", len(changed)) + b"PAR1"
        survives(read_table, tmp_path / "f.parquet", content)
