import json
import os

import pytest
from hostile import BOMB, VALUES, damaged, few, survives, tables
from hypothesis import given
from hypothesis import strategies as st

from jaxalign.errors import UserError, without_home
from jaxalign.runs.config_file import parsed_config
from jaxalign.runs.reading import check_yaml, parse_json, parse_json_lines, read_bytes, read_text
from jaxalign.runs.records import digest, parse_record, read_json_object, read_records


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (
            '{"a": "ask \\ud83d me"}',
            r"f.json line 1 holds \ud83d alone, which is half of a character: write the whole of it",
        ),
        ('{"a": 1,\n "b": "\\udc00\\ud83d"}', r"line 2 holds \udc00 alone"),
        ('{"a": "\\\\\\ud800"}', r"holds \ud800 alone"),
        ('{"a": 1, "a": 2}', "f.json holds an object with the key 'a' twice"),
        ('{"a": NaN}', "holds NaN, which is not a number in JSON"),
        ('{"a": 1e999}', "holds 1e999, which is not a finite number"),
        ('{"a": ' + "9" * 5000 + "}", "holds a number with too many digits"),
        ('{"a": ' + "9" * 400 + "}", "holds a number with too many digits"),
        ('{"a": -' + "9" * 309 + "}", "holds a number with too many digits"),
        ("[" * 100_000, "is JSON nested too deeply"),
        ('{\n"a": 1\n', "line 3 is not JSON"),
        ('"\x01"', "line 1 is not JSON (Invalid control character at)"),
    ],
)
def test_what_json_does_not_allow_is_one_line_with_its_place(text, words):
    with pytest.raises(UserError) as error:
        parse_json(text, "f.json")
    assert words in str(error.value) and str(error.value).startswith("f.json")


@pytest.mark.parametrize("text", ["💥", "\\ud83d", "\\\\ud83d", 'a "quoted" \\', "\u2028", "\x7f"])
def test_any_text_of_whole_characters_is_read_as_it_was_written(text):
    for ascii_only in (True, False):
        assert parse_json(json.dumps({text: text}, ensure_ascii=ascii_only), "f") == {text: text}
    assert parse_json('{"big": 1000000000000000019884624838656}', "f") == {"big": 1000000000000000019884624838656}


def test_a_file_of_our_own_may_hold_what_python_wrote(tmp_path):
    (tmp_path / "f").write_text('{"loss": NaN}')
    assert read_json_object(tmp_path / "f", "do it again")["loss"] != 0


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda path: os.mkfifo(path), "it is a named pipe"),
        (lambda path: path.mkdir(), "it is a folder"),
        (lambda path: path.symlink_to("/dev/zero"), "it is a device"),
        (lambda path: path.symlink_to("nowhere"), "it does not exist"),
        (lambda path: path.symlink_to(path.name), "it cannot be looked up: Too many levels of symbolic links"),
    ],
)
def test_what_is_no_regular_file_is_never_opened(tmp_path, make, words):
    make(tmp_path / "f")
    with pytest.raises(UserError, match=f"f cannot be read: {words}"):
        read_text(tmp_path / "f")


def test_names_that_cannot_be_and_sizes_that_are_too_large_are_refused(tmp_path):
    for name in ("a\0b", "x" * 300):
        with pytest.raises(UserError, match="cannot be read: it cannot be looked up"):
            read_text(tmp_path / name)
    (tmp_path / "f").write_bytes(bytes(11))
    assert len(read_bytes(tmp_path / "f", largest=11)) == 11
    with pytest.raises(UserError, match="f is larger than 10 bytes"):
        read_bytes(tmp_path / "f", largest=10)
    with pytest.raises(UserError, match="f line 1 holds a NUL, so it is not text: save it as UTF-8"):
        read_text(tmp_path / "f")


def test_a_byte_order_mark_is_no_part_of_a_text(tmp_path):
    (tmp_path / "f").write_bytes(b'\xef\xbb\xbf{"a": 1}\r\n')
    assert read_json_object(tmp_path / "f", "") == {"a": 1} and read_text(tmp_path / "f").endswith("}\r\n")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (BOMB, "has aliases (*name) that stand for more than 1,000,000 values"),
        ("a: &a [*a]", "the alias in line 1 stands for itself"),
        ("a: 1\nb: 2\na: 3", "line 3 has the key 'a' a second time"),
        ("[1, 2]", "must hold keys and values"),
        ("three", "must hold keys and values"),
        ("a: " + "[" * 5000, "is YAML nested too deeply"),
        ("a: *b", "is not YAML: found undefined alias"),
        ("a: {", "is not YAML"),
        ("x" * 1_000_001, "is larger than 1,000,000 bytes"),
    ],
)
def test_a_bad_yaml_file_is_one_line(tmp_path, text, words):
    (tmp_path / "f.yaml").write_text(text)
    with pytest.raises(UserError) as error:
        check_yaml(tmp_path / "f.yaml")
    assert words in str(error.value) and "f.yaml" in str(error.value)


def test_aliases_and_merged_keys_are_read(tmp_path):
    for text in ("a: &a {x: 1}\nb: {<<: *a, y: 2}\nc: *a\n", "# nothing\n"):
        (tmp_path / "f.yaml").write_text(text)
        assert check_yaml(tmp_path / "f.yaml") == text


@few
@given(damaged(VALUES.map(json.dumps)) | st.binary(max_size=40))
def test_any_bytes_are_json_or_one_line(content):
    survives(lambda path: read_json_object(path, "do it again"), "f.json", content)


@few
@given(damaged(VALUES.map(lambda value: f"a: {json.dumps(value)}\nb: &a [1]\nc: *a\n")) | st.binary(max_size=40))
def test_any_bytes_are_yaml_or_one_line(content):
    survives(check_yaml, "f.yaml", content)


@few
@given(tables({"key": "k", "score": 0.5}, ".jsonl"))
def test_any_bytes_are_records_or_one_line(content):
    survives(lambda path: read_records(path, "do it again", key=str, score=float | int), "f.jsonl", content)


@few
@given(damaged(VALUES.map(lambda value: f"identity: {{a: {json.dumps(value)}}}\nrun: 2026-01-01\n")) | st.binary())
def test_any_bytes_are_a_run_s_configuration_with_an_identity_or_none(content):
    found = parsed_config(content.decode("utf-8", "replace"))
    assert found is None or digest(found["identity"])


@pytest.mark.parametrize(
    "text",
    [
        '{"a": 1}, {"b": 2}\n{"c": [1\n2]}\n',  # three values in three lines, and none in a line of its own
        '{"a": 1}\n\n{"a": 2}\n',
        '{"a": 1, "a": 2}\n',
        '{"a": "\\ud83d"}\n',
        '{"a": 1} x\n',
        " {}\n",
        "[" * 100_000 + "\n",
    ],
)
def test_lines_are_read_at_once_only_if_each_is_one_value(text):
    assert parse_json_lines(text) is None


@pytest.mark.parametrize(
    "lines",
    [
        ['{"a": 1}', '{"a": 2.5, "b": "\\u00e9"}', '{"a": NaN}', '{"a": true}'],
        [' {"a": 1}', '{"a": 2}'],
        ['{"a": 1}', '{"b": 2}'],
        ['{"a": 1}', '{"a": "one"}'],
        ['{"a": 1}', "[1]"],
        ['{"a": 1}', '{"a": 1, "a": 2}'],
        ['{"a": 1}', "\xff"],
        [],
    ],
)
def test_a_file_of_records_is_read_as_its_lines_one_by_one(tmp_path, lines):
    path = tmp_path / "records.jsonl"
    path.write_bytes("".join(f"{line}\n" for line in lines).encode("latin-1") + b'{"a": torn')

    def one_by_one():
        raw = path.read_bytes().split(b"\n")[:-1]
        return [parse_record(line, path, number, "mend it", {"a": float | int}) for number, line in enumerate(raw, 1)]

    def result(read):
        try:
            return str(read())  # NaN is no NaN's equal
        except UserError as error:
            return str(error)

    assert result(lambda: read_records(path, "mend it", a=float | int)) == result(one_by_one)


def test_the_home_of_the_user_is_left_out_where_a_path_begins(monkeypatch):
    monkeypatch.setenv("HOME", "/home/u")
    assert without_home("run.dir=/home/u/x '/home/u/y z'") == "run.dir=~/x '~/y z'"
    assert without_home("/mnt/home/u/x and /home/u2/x") == "/mnt/home/u/x and /home/u2/x"
    monkeypatch.setenv("HOME", "/")
    assert without_home("/x") == "/x"
    monkeypatch.delenv("HOME")
    monkeypatch.setattr("pwd.getpwuid", {}.__getitem__)  # a container's user whom nothing names
    assert without_home("/home/u/x") == "/home/u/x"
