import csv
import json
from pathlib import Path

import pytest

from jaxalign.data.columns import Columns
from jaxalign.data.conversations import Message
from jaxalign.data.datasets.own import load_own_instructions
from jaxalign.data.datasets.pairs import load_pairs
from jaxalign.data.datasets.question import Question, read_file
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
        ({"prompt": "Is it late?", "prompt_id": "7", "messages": [ASK, YES]}, {}, (Message(**ASK),)),  # as in UltraChat
        ({"prompt": None, "response": None, "messages": [ASK, YES]}, {}, (Message(**ASK),)),
        ({"prompt": "Is it late?", "response": [YES]}, {}, (Message(**ASK),)),
    ],
)
def test_instructions_are_read_in_every_form(tmp_path, row, names, prompt):
    examples = load_own_instructions(write(tmp_path / "mine.jsonl", row, row), columns=Columns(names))
    assert [(one.prompt, one.response) for one in examples] == [(prompt, "Yes.")] * 2
    assert [one.id for one in examples] == ["mine-1", "mine-2"]


@pytest.mark.parametrize(
    ("rows", "aside"),
    [
        ([{"prompt": "Is it late?", "messages": [ASK, YES]}] * 2, "prompt beside messages in 2 rows"),
        ([{"messages": [ASK, YES]}, {"response": "No.", "messages": [ASK, YES]}], "response beside messages in 1 row"),
        (
            [{"prompt": "Is it late?", "response": "Yes.", "completion": "No."}] * 2,
            "completion beside response in 2 rows",
        ),
        ([{"prompt": "Is it late?", "response": "Yes.", "messages": None}, {"messages": [ASK, YES]}], ""),
        ([{"prompt": "", "response": "", "messages": [ASK, YES]}] * 2, ""),
    ],
)
def test_a_field_that_is_passed_over_for_another_is_said(tmp_path, rows, aside):
    notes = []
    examples = load_own_instructions(write(tmp_path / "mine.jsonl", *rows), log=notes.append)
    assert [one.response for one in examples] == ["Yes.", "Yes."]
    assert notes == [f"data: mine.jsonl (2 rows); used: 2 examples{aside and f'; left aside: {aside}'}"]


@pytest.mark.parametrize("name", ["response", "completion"])
def test_a_row_in_both_forms_is_refused_until_one_is_named(tmp_path, name):
    path = write(tmp_path / "mine.jsonl", *[{"prompt": "Late?", name: "No.", "messages": [ASK, YES]}] * 2)
    with pytest.raises(
        UserError, match=rf"line 1 has prompt, {name} and messages: say which .*columns\.messages=messages"
    ):
        load_own_instructions(path)
    for names, response in (({"messages": "messages"}, "Yes."), ({"prompt": "prompt", "response": name}, "No.")):
        assert load_own_instructions(path, columns=Columns(names))[0].response == response


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ({"question": "a", "response": "b"}, r"line 1 lacks prompt; its fields are: question, response: say which"),
        ({"prompt": "a", "response": " "}, "line 1 has no text in the field 'response'"),
        ({"prompt": 3, "response": "b"}, "line 1 has no text in the field 'prompt'"),
        ({"messages": [ASK]}, "must end with the assistant's answer"),
        ({"messages": [YES, ASK]}, "must end with the assistant's answer"),
        (
            {"prompt": json.dumps([ASK]).replace('"', "'"), "response": "b"},
            "has prompt=.*: it must be a list of messages",
        ),
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
    "conversations, answered by texts": {"prompt": [ASK], "chosen": "Yes.", "rejected": "No."},
    "conversations, prompt null": {"prompt": None, "chosen": [ASK, YES], "rejected": [ASK, NO]},
    "texts, prompt null": {"prompt": None, "chosen": "Is it late?\nYes.", "rejected": "Is it late?\nNo."},
    "a text, answered by conversations": {"prompt": "Is it late?", "chosen": [ASK, YES], "rejected": [ASK, NO]},
}


@pytest.mark.parametrize("form", PAIRS)
def test_pairs_are_read_in_every_form_that_trl_publishes(tmp_path, form):
    row = PAIRS[form]
    (pair, _) = load_pairs(write(tmp_path / "pairs.jsonl", row, row))
    assert pair.prompt == ("Is it late?\n" if form.startswith("texts") else (Message(**ASK),))
    assert (pair.chosen, pair.rejected) == ("Yes.", "No.")


@pytest.mark.parametrize("mark", [",", "\t"])
def test_conversations_in_a_table_are_written_as_json(tmp_path, mark):
    def table(*rows):
        path = tmp_path / f"mine.{'csv' if mark == ',' else 'tsv'}"
        lines = [
            [*rows[0]],
            *([one if isinstance(one, str) else json.dumps(one) for one in row.values()] for row in rows),
        ]
        with path.open("w", newline="") as file:
            csv.writer(file, delimiter=mark, quotechar='"' if mark == "," else "\0").writerows(lines)
        return str(path)

    row = {"prompt": [ASK], "chosen": [YES], "rejected": [NO]}
    assert load_pairs(table(row, row))[0][:3] == ((Message(**ASK),), "Yes.", "No.")
    row = {"messages": [SYSTEM, ASK, YES]}
    (example, _) = load_own_instructions(table(row, row))
    assert (example.prompt, example.response) == ((Message(**SYSTEM), Message(**ASK)), "Yes.")
    row = {"prompt": str([ASK]), "chosen": str([YES]), "rejected": str([NO])}
    with pytest.raises(UserError, match=r"line 2 has prompt=.*it must be a list of messages.* the same as JSON"):
        load_pairs(table(row, row))


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
        (
            {"chosen": "Late?\n", "rejected": "Late?\nNo."},
            "chosen holds no more than the beginning of both: add a field",
        ),
        (
            {"chosen": "A: ", "rejected": "A: No."},
            "chosen holds no more than the beginning of both: add a field prompt",
        ),
        ({"chosen": [ASK, YES], "rejected": "No."}, "has rejected='No.': it must be a list of messages"),
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


def golds(tmp_path, *rows):
    """The places of the right options of rows (options, answer), in the order of the file."""
    path = Path(write(tmp_path / "mine.jsonl", *({"question": "?", "options": o, "answer": a} for o, a in rows)))
    return [one.gold for one in read_file(path, {}, Columns()) if isinstance(one, Question)]


TENS, MIXED, LETTERED = ["10", "20", "30", "40"], ["0", "2", "1", "3"], ["B", "A", "C"]


@pytest.mark.parametrize(
    ("rows", "right"),
    [
        ([(TENS, 2), (MIXED, 2)], [2, 2]),
        ([(TENS, "2"), (MIXED, "2")], [2, 2]),
        ([(TENS, "20"), (MIXED, "2")], [1, 1]),
        ([(MIXED, "2"), (TENS, "20")], [1, 1]),
        ([(["x", "y", "z"], "C"), (LETTERED, "A")], [2, 0]),
        ([(["x", "y", "z"], "z"), (LETTERED, "A")], [2, 1]),
        ([(LETTERED, 0)], [0]),
        ([([10, 20], 20), ([1, 0], 0)], [1, 1]),
        ([(["0", "1"], "1")], [1]),
        ([(["None", "All"], None), (["All", "None"], "None")], [1]),
    ],
)
def test_all_answers_of_a_file_are_read_in_one_way(tmp_path, rows, right):
    assert golds(tmp_path, *rows) == right


@pytest.mark.parametrize(
    ("rows", "said"),
    [
        ([(TENS, "B"), (MIXED, "2")], "line 2 has its answer by text or place, and rows before it by letter: give all"),
        ([(TENS, "20"), (TENS, 1)], "line 2 has its answer by place, and rows before it by text"),
        (
            [(MIXED, "0"), (MIXED, "2")],
            "line 2 has the answer '2', which names one option by text and another",
        ),
        ([(LETTERED, "A")], "line 1 has the answer 'A', which names one option by letter and another by text"),
        ([([1, 0], 0)], "line 1 has the answer '0', which names one option by text and another by place"),
    ],
)
def test_answers_that_can_be_read_in_two_ways_are_refused(tmp_path, rows, said):
    with pytest.raises(UserError, match=said):
        golds(tmp_path, *rows)


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
        (
            {"question": "Which?", "options": "this, that", "answer": "A"},
            "that': it must be a list of texts",
        ),
        ({"question": "Which?", "options": ["this", "that"], "answer": "C"}, "has the answer 'C', which is none"),
        ({"question": "Which?", "options": ["this", "that"]}, r"lacks answer; .*dataset\.columns\.answer=FIELD"),
    ],
)
def test_questions_that_cannot_be_read_say_where_and_why(tmp_path, row, said):
    with pytest.raises(UserError, match=said):
        load_questions("jsonl", write(tmp_path / "mine.jsonl", row))


ROWS = {
    "instructions": {"prompt": "Is it late?\n", "response": "Yes."},
    "conversations": {"messages": [ASK, YES]},
    "pairs": {"chosen": "Is it late?\nYes.", "rejected": "Is it late?\nNo."},
    "pairs of conversations": {"chosen": [ASK, YES], "rejected": [ASK, NO]},
    "arguments": {"id": "a", "conclusion": "b", "stance": "against", "premise": "c", "values": []},
    "questions": {"question": "Which?", "options": ["this", "that"], "answer": "A"},
}
READERS = {
    "instructions": load_own_instructions,
    "conversations": load_own_instructions,
    "pairs": load_pairs,
    "pairs of conversations": load_pairs,
    "arguments": lambda path, columns: load_starter(path=path, columns=columns),
    "questions": lambda path, columns: load_questions("jsonl", path, columns=columns),
}


@pytest.mark.parametrize(
    ("kind", "field"),
    [
        ("instructions", "response"),
        ("conversations", "prompt"),
        ("pairs", "prompt"),
        ("pairs of conversations", "prompt"),
        ("arguments", "id"),
        ("questions", "passage"),
        ("questions", "id"),
    ],
)
def test_a_named_column_that_a_row_lacks_is_refused_with_its_line(tmp_path, kind, field):
    row = ROWS[kind]
    path = write(tmp_path / "mine.jsonl", {**row, "mine": "x"}, row)
    with pytest.raises(UserError) as caught:
        READERS[kind](path, columns=Columns({field: "mine"}))
    fields = ", ".join(row)
    assert str(caught.value).startswith(
        f"{path} line 2 lacks mine, which dataset.columns.{field} names; its fields are: {fields}: give"
    )


def test_a_named_conversation_is_read_although_the_file_has_a_prompt(tmp_path):
    row = {"prompt": "not this", "response": "nor this", "turns": [ASK, YES]}
    path = write(tmp_path / "mine.jsonl", row, row)
    examples = load_own_instructions(path, columns=Columns({"messages": "turns"}))
    assert [(one.prompt, one.response) for one in examples] == [((Message(**ASK),), "Yes.")] * 2
    with pytest.raises(UserError, match=r"give it without columns\.prompt and columns\.response"):
        load_own_instructions(path, columns=Columns({"messages": "turns", "prompt": "prompt"}))


def test_arguments_in_a_csv_write_their_values_as_json_and_may_be_numbered(tmp_path):
    with (tmp_path / "mine.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["id", "conclusion", "stance", "premise", "values"])
        writer.writerows([n, "We need it", "against", "it costs", '["power", "security"]'] for n in range(2))
    arguments = load_starter(path=str(tmp_path / "mine.csv"))
    assert [(one.id, one.values) for one in arguments] == [("0", ("power", "security")), ("1", ("power", "security"))]


def test_the_ids_of_arguments_may_be_numbers(tmp_path):
    row = {**ROWS["arguments"], "values": ["power"]}
    arguments = load_starter(path=write(tmp_path / "mine.jsonl", {**row, "id": 7}, {**row, "id": 8}))
    assert [one.id for one in arguments] == ["7", "8"]
