import csv
import json

import pytest

from jaxalign.data.columns import Columns
from jaxalign.data.conversations import Message
from jaxalign.data.datasets.own import load_own_instructions
from jaxalign.data.datasets.pairs import load_pairs
from jaxalign.data.datasets.questions import load_questions
from jaxalign.errors import UserError
from jaxalign.values.starter import load_starter

ASK = {"role": "user", "content": "Is it late?"}
YES, NO = ({"role": "assistant", "content": text} for text in ("Yes.", "No."))
SYSTEM = {"role": "system", "content": "Be brief."}


def write(path, *rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


@pytest.mark.parametrize(
    ("row", "names", "prompt"),
    [
        ({"prompt": "Is it late?\n", "response": "Yes."}, {}, "Is it late?\n"),
        ({"prompt": "Is it late?\n", "completion": "Yes."}, {}, "Is it late?\n"),
        ({"q": "Is it late?\n", "a": "Yes.", "prompt": "not this"}, {"prompt": "q", "response": "a"}, "Is it late?\n"),
        ({"messages": [SYSTEM, ASK, YES]}, {}, (Message(**SYSTEM), Message(**ASK))),
        ({"turns": [ASK, YES]}, {"messages": "turns"}, (Message(**ASK),)),
        ({"prompt": [ASK], "completion": [YES]}, {}, (Message(**ASK),)),
        ({"prompt": "Is it late?", "response": [YES]}, {}, (Message(**ASK),)),
    ],
)
def test_instructions_are_read_in_every_form(tmp_path, row, names, prompt):
    examples = load_own_instructions(write(tmp_path / "mine.jsonl", row, row), columns=Columns(names))
    assert [(one.prompt, one.response) for one in examples] == [(prompt, "Yes.")] * 2
    assert [one.id for one in examples] == ["mine-1", "mine-2"]


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ({"question": "a", "response": "b"}, r"line 1 lacks prompt; its fields are: question, response: say which"),
        ({"prompt": "a", "response": " "}, "line 1 has no text in the field 'response'"),
        ({"prompt": 3, "response": "b"}, "line 1 has no text in the field 'prompt'"),
        ({"messages": [ASK]}, "must end with the assistant's answer"),
        ({"messages": [YES, ASK]}, "must end with the assistant's answer"),
        ({"prompt": [ASK], "completion": [YES, ASK]}, "one message of the assistant is needed"),
    ],
)
def test_instructions_that_cannot_be_read_say_where_and_what_to_type(tmp_path, row, said):
    with pytest.raises(UserError, match=said):
        load_own_instructions(write(tmp_path / "mine.jsonl", row, row))


PAIRS = {
    "texts": {"prompt": "Is it late?\n", "chosen": "Yes.", "rejected": "No."},
    "texts, prompt inside": {"chosen": "Is it late?\nYes.", "rejected": "Is it late?\nNo."},
    "conversations": {"prompt": [ASK], "chosen": [YES], "rejected": [NO]},
    "conversations, prompt inside": {"chosen": [ASK, YES], "rejected": [ASK, NO]},
    "conversations, prompt in both": {"prompt": [ASK], "chosen": [ASK, YES], "rejected": [ASK, NO]},
    "a text, answered by conversations": {"prompt": "Is it late?", "chosen": [ASK, YES], "rejected": [ASK, NO]},
}


@pytest.mark.parametrize("form", PAIRS)
def test_pairs_are_read_in_every_form_that_trl_publishes(tmp_path, form):
    row = PAIRS[form]
    (pair, _) = load_pairs(write(tmp_path / "pairs.jsonl", row, row))
    assert pair.prompt == ("Is it late?\n" if form.startswith("texts") else (Message(**ASK),))
    assert (pair.chosen, pair.rejected) == ("Yes.", "No.")


def test_columns_of_ones_own_are_those_of_the_file(tmp_path):
    row = {"q": "Is it late?\n", "better": "Yes.", "worse": "No."}
    columns = Columns({"prompt": "q", "chosen": "better", "rejected": "worse"})
    assert load_pairs(write(tmp_path / "pairs.jsonl", row, row), columns=columns)[0][:3] == tuple(row.values())
    with pytest.raises(
        UserError, match=r"lacks chosen; .* say which of them it is with dataset\.columns\.chosen=FIELD"
    ):
        load_pairs(str(tmp_path / "pairs.jsonl"))


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ({"chosen": "Yes.", "rejected": "No."}, "has no prompt, and chosen and rejected begin with nothing alike"),
        ({"chosen": [YES], "rejected": [NO]}, "has no prompt: chosen and rejected begin with no message alike"),
        ({"chosen": [ASK, YES], "rejected": [ASK, YES]}, "behind the prompt chosen holds nothing"),
        ({"chosen": [ASK, YES, ASK, YES], "rejected": [ASK, NO]}, "behind the prompt chosen holds assistant, user"),
        ({"prompt": "Why?", "chosen": "Yes.", "rejected": "Yes."}, "prefers a response to itself"),
    ],
)
def test_pairs_that_cannot_be_read_say_where_and_why(tmp_path, row, said):
    with pytest.raises(UserError, match=f"line 1.*{said}"):
        load_pairs(write(tmp_path / "pairs.jsonl", row, row))


def test_arguments_under_other_names(tmp_path):
    row = {"n": "a1", "claim": "We need it", "side": "against", "why": "it costs", "tags": ["power"]}
    names = {"id": "n", "conclusion": "claim", "stance": "side", "premise": "why", "values": "tags"}
    path = write(tmp_path / "mine.jsonl", row, {**row, "n": "a2"})
    (argument, _) = load_starter(path=path, columns=Columns(names))
    assert (argument.id, argument.conclusion, argument.premise, argument.values) == (
        *("a1", "We need it", "it costs"),
        ("power",),
    )
    with pytest.raises(UserError, match=r"lacks id; .*dataset\.columns\.id=FIELD"):
        load_starter(path=path)


@pytest.mark.parametrize("answer", ["B", "that", 1, "1"])
def test_a_question_names_its_answer_by_letter_text_or_place(tmp_path, answer):
    rows = [{"ask": f"Which is it, {n}?", "of": ["this", "that"], "gold": answer} for n in range(30)]
    columns = Columns({"question": "ask", "options": "of", "answer": "gold"})
    found = load_questions("jsonl", write(tmp_path / "mine.jsonl", *rows), columns=columns)
    assert {question.gold for question in found.train} == {1}
    assert (len(found.train), len(found.validation), len(found.test)) == (24, 3, 3)
    assert found.train[0].id == "mine-1"


def test_a_csv_writes_options_as_json_and_a_folder_holds_splits(tmp_path):
    for split, count in (("train", 5), ("test", 2)):
        with (tmp_path / f"{split}.csv").open("w", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(["id", "question", "options", "answer", "passage"])
            writer.writerows([f"{split}{n}", "Which?", '["this", "that"]', "A", "A text."] for n in range(count))
    found = load_questions("jsonl", str(tmp_path), columns=Columns())
    assert (len(found.train), len(found.test)) == (4, 2) and found.test[0].passage == "A text."


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ({"question": "Which?", "options": "this, that", "answer": "A"}, "options must be a list of texts"),
        ({"question": "Which?", "options": ["this", "that"], "answer": "C"}, "has the answer 'C', which is none"),
        ({"question": "Which?", "options": ["this", "that"]}, r"lacks answer; .*dataset\.columns\.answer=FIELD"),
    ],
)
def test_questions_that_cannot_be_read_say_where_and_why(tmp_path, row, said):
    with pytest.raises(UserError, match=said):
        load_questions("jsonl", write(tmp_path / "mine.jsonl", row))
    with pytest.raises(UserError, match=r"dataset\.columns is for files of your own"):
        load_questions("arc", str(tmp_path), columns=Columns({"answer": "a"}))
