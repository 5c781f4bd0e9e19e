import pytest

from jaxalign.data.prompts import Prompt, read_prompts
from jaxalign.errors import UserError


def written(tmp_path, name, text):
    path = tmp_path / name
    path.write_text(text)
    return path


def test_a_text_file_has_a_prompt_a_line(tmp_path):
    path = written(tmp_path, "p.txt", "Who?\n\n  Why, then?\n")
    assert read_prompts(path) == [Prompt("1", "Who?"), Prompt("3", "  Why, then?")]


def test_json_lines_may_name_their_prompts(tmp_path):
    path = written(tmp_path, "p.jsonl", '{"prompt": "a\\nb", "id": "q7"}\n{"prompt": "c"}\n')
    assert read_prompts(path) == [Prompt("q7", "a\nb"), Prompt("2", "c")]


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
    ],
)
def test_files_that_will_not_do_are_refused(tmp_path, name, text, said):
    with pytest.raises(UserError, match=said):
        read_prompts(written(tmp_path, name, text))


def test_no_file_is_refused(tmp_path):
    with pytest.raises(UserError, match="is not a file"):
        read_prompts(tmp_path / "none")
