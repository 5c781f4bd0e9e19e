import pytest

from jaxalign.data.prompts import Prompt, read_prompts
from jaxalign.errors import UserError


def written(tmp_path, name, text):
    path = tmp_path / name
    path.write_text(text)
    return path


def test_a_text_file_has_a_prompt_a_line(tmp_path):
    path = written(tmp_path, "p.txt", "Who?\n\n  Why, then?\n")
    assert read_prompts(path) == [
        Prompt("1", "Who?", f"{path} line 1"),
        Prompt("3", "  Why, then?", f"{path} line 3"),
    ]


def test_lines_end_at_line_ends_alone(tmp_path):
    path = written(tmp_path, "p.txt", "one\x0chalf\u2028other\x85half\r\ntwo")
    assert [prompt.text for prompt in read_prompts(path)] == ["one\x0chalf\u2028other\x85half", "two"]


def test_json_lines_may_name_their_prompts(tmp_path):
    path = written(tmp_path, "p.jsonl", '{"prompt": "a\\nb", "id": "q7"}\n{"prompt": "c"}\n')
    assert read_prompts(path) == [
        Prompt("q7", "a\nb", f"{path} line 1 (id q7)"),
        Prompt("2", "c", f"{path} line 2"),
    ]


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("p.txt", "\n \n", "is empty"),
        ("p.jsonl", "", "is empty"),
        ("p.jsonl", '{"prompt": "a"}\nnot json\n', "line 2 is not JSON"),
        (
            "p.jsonl",
            '{"prompt": "a"}\n{"text": "b"}\n',
            "line 2 has no text in the field 'prompt'; its fields",
        ),
        ("p.jsonl", '{"prompt": " "}\n', "line 1 has no text"),
        ("p.jsonl", '{"prompt": "a", "id": ["x"]}\n', "line 1 has id=.*: it must be a text or a number"),
        ("p.jsonl", '{"prompt": "a", "id": true}\n', "line 1 has id=true: it must be a text or a number"),
        ("p.csv", "id,prompt\na,Who?\n,Why?\n", "line 3 has an empty id"),
    ],
)
def test_files_that_will_not_do_are_refused(tmp_path, name, text, said):
    with pytest.raises(UserError, match=said):
        read_prompts(written(tmp_path, name, text))


def test_no_file_is_refused(tmp_path):
    with pytest.raises(UserError, match="is not a file"):
        read_prompts(tmp_path / "none")


@pytest.mark.parametrize(
    ("rows", "said"),
    [
        (['{"prompt": "a", "id": "x"}', '{"prompt": "b", "id": "y"}', '{"prompt": "c", "id": "x"}'], (3, "x", 1, "")),
        (['{"prompt": "a", "id": 1}', '{"prompt": "b", "id": "1"}'], (2, "1", 1, "")),
        (['{"prompt": "a"}', '{"prompt": "b", "id": 1}'], (2, "1", 1, " (which has no id but its number)")),
    ],
)
def test_an_id_that_two_prompts_have_is_refused_with_both_rows(tmp_path, rows, said):
    path = written(tmp_path, "p.jsonl", "\n".join(rows))
    row, id, first, why = said
    with pytest.raises(UserError) as caught:
        read_prompts(path)
    assert str(caught.value) == (
        f"{path} line {row}: id {id} occurs twice (first: {path} line {first}{why}): every id must be its own"
    )


def test_prompts_whose_id_is_null_have_their_numbers(tmp_path):
    path = written(tmp_path, "p.jsonl", '{"prompt": "a", "id": null}\n{"prompt": "b", "id": null}\n')
    assert [prompt.id for prompt in read_prompts(path)] == ["1", "2"]


def test_a_conversation_beside_a_prompt_is_said_to_be_left_aside(tmp_path):
    path, notes = written(tmp_path, "p.jsonl", '{"prompt": "a", "messages": [{}]}\n{"prompt": "b"}\n'), []
    read_prompts(path, notes.append)
    assert notes == ["prompts: p.jsonl (2 rows); used: 2 prompts; left aside: messages beside prompt in 1 row"]
