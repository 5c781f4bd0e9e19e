import json

import pytest

from jaxalign.data.datasets.questions import load_questions
from jaxalign.errors import UserError


def hub_row(number, answer="A", labels="ABCD", **changes):
    texts = [f"option {number} {label}" for label in labels]
    row = {"id": f"q{number}", "question": f"Which is {number}?", "answerKey": answer}
    return row | {"choices": {"text": texts, "label": list(labels)}} | changes


def authors_row(number):
    choices = [{"label": label, "text": f"in {label}"} for label in "ABCDE"]
    return {"id": f"c{number}", "question": {"stem": "Where?", "choices": choices}, "answerKey": "E"}


def write(folder, name, rows):
    folder.mkdir(exist_ok=True)
    text = json.dumps(rows) if name.endswith(".json") else "".join(json.dumps(row) + "\n" for row in rows)
    (folder / name).write_text(text)
    return folder


@pytest.fixture
def arc(tmp_path):
    write(tmp_path / "arc", "train.jsonl", [hub_row(n) for n in range(20)])
    write(tmp_path / "arc", "validation.jsonl", [hub_row(n, "2", "1234") for n in range(20, 24)])
    return write(tmp_path / "arc", "test.jsonl", [hub_row(n, "C", "ABC") for n in range(24, 30)])


def test_a_folder_of_three_splits_with_letters_or_numbers_as_labels(arc):
    found = load_questions("arc", str(arc))
    assert [len(part) for part in (found.train, found.validation, found.test)] == [20, 4, 6]
    assert found.validation[0].gold == 1 and found.validation[0].letters == "ABCD"
    assert found.test[0].gold == 2 and len(found.test[0].options) == 3
    assert not found.notes
    assert len(load_questions("arc", str(arc), limit=5).train) == 5
    assert "q3" not in [question.id for question in load_questions("arc", str(arc), exclude=["q3"]).train]


def test_hidden_or_absent_test_labels_make_the_validation_the_test(arc):
    hidden = [hub_row(n, None) for n in range(24, 30)]
    write(arc, "test.jsonl", hidden)
    found = load_questions("arc", str(arc), seed=1)
    assert [len(part) for part in (found.train, found.validation, found.test)] == [18, 2, 4]
    assert "hidden" in found.notes[0]
    (arc / "test.jsonl").unlink()
    again = load_questions("arc", str(arc), seed=1)
    assert again.validation == found.validation and "no test split" in again.notes[0]
    assert load_questions("arc", str(arc), seed=2).validation != found.validation
    assert not {q.id for q in found.train} & {q.id for q in found.validation}


def test_the_authors_own_schemas(tmp_path):
    rows = [authors_row(n) for n in range(12)]
    folder = write(tmp_path / "csqa", "train_rand_split.jsonl", rows)
    write(folder, "dev_rand_split.jsonl", [row | {"id": row["id"] + "v"} for row in rows[:3]])
    write(folder, "test_rand_split_no_answers.jsonl", [{**rows[0], "id": "t", "answerKey": None}])
    found = load_questions("csqa", str(folder))
    assert found.train[0].gold == 4 and found.train[0].text == "Where?"
    assert len(found.test) == 3 and "hidden" in found.notes[0]
    reclor = [
        {
            "context": "All are.",
            "question": "So?",
            "answers": ["a", "b", "c", "d"],
            "label": 2,
            "id_string": f"train_{n}",
        }
        for n in range(12)
    ]
    folder = write(tmp_path / "reclor", "train.json", reclor)
    write(folder, "val.json", [row | {"id_string": f"val_{n}"} for n, row in enumerate(reclor[:4])])
    without = [{key: value for key, value in row.items() if key != "label"} for row in reclor[:2]]
    write(folder, "test.json", [row | {"id_string": f"test_{n}"} for n, row in enumerate(without)])
    found = load_questions("reclor", str(folder))
    assert found.test[0].passage == "All are." and found.test[0].gold == 2 and len(found.test) == 4


def test_a_split_that_is_there_in_two_formats_is_read_once(tmp_path):
    for number, part in enumerate(("Easy", "Challenge")):
        folder = tmp_path / "arc" / f"ARC-{part}"
        folder.mkdir(parents=True)
        for first, split in enumerate(("Train", "Dev", "Test")):
            rows = [authors_row(f"{part}{first}{n}") for n in range(4 + number)]
            write(folder, f"ARC-{part}-{split}.jsonl", rows)
            (folder / f"ARC-{part}-{split}.csv").write_text("questionID,AnswerKey,question\nx,A,Which? (A) a (B) b\n")
    found = load_questions("arc", str(tmp_path / "arc"))
    assert [len(part) for part in (found.train, found.validation, found.test)] == [9, 9, 9] and not found.notes


@pytest.mark.parametrize(
    ("row", "words"),
    [
        (hub_row(9, "Z"), "question q9 has the answer 'Z', which is none of its options"),
        (hub_row(9, "A", "A"), "has 1 option"),
        (hub_row(9, choices={"text": ["same", "same"], "label": ["A", "B"]}), "has the option 'same' twice"),
        (hub_row(9, choices={"text": ["one", " "], "label": ["A", "B"]}), "an option without text"),
        (hub_row(1), "id q1 occurs twice"),
        (hub_row(9, question=" "), "question q9 has no text"),
        (hub_row(9, None), "train.jsonl line 9: question q9 has no label: its answerKey is empty; mend it"),
        (hub_row(9, choices={"text": ["one", None], "label": ["A", "B"]}), "an option without text"),
        (hub_row(9, choices={"text": [], "label": []}), "has 0 options"),
        (hub_row(9, choices={"text": ["one", "two", "three"], "label": ["A", "B"]}), "has 3 options and 2 labels"),
        (hub_row(9, choices={"text": ["one", "two"], "label": ["A", "A"]}), "has the label 'A' twice"),
        (hub_row(9, id=None), "line 9 has an empty id"),
        (hub_row(9, choices={"text": ["one", ["two"]], "label": ["A", "B"]}), "has an option that is no text"),
    ],
)
def test_a_question_that_will_not_do_is_named(arc, row, words):
    write(arc, "train.jsonl", [*(hub_row(n) for n in range(8)), row])
    with pytest.raises(UserError, match=r"train\.jsonl") as error:
        load_questions("arc", str(arc))
    assert words in str(error.value)


@pytest.mark.parametrize(
    ("row", "words"),
    [
        (hub_row(0, choices="A) one B) two"), "choices must hold the lists text and label, .*it is 'A. one B. two'"),
        (hub_row(0, choices=None), "choices must hold the lists text and label, .*it is None"),
        (hub_row(0, choices=["one", "two"]), r"choices must hold the lists text and label, .*it is \['one', 'two'\]"),
        (hub_row(0, choices={"text": ["one", "two"]}), "choices must hold the lists text and label"),
        ({"id": "q0", "question": "Which?"}, "lacks choices of the schema that is nearest"),
        ({"id": "q0", "question": {"stem": "Which?"}}, r"lacks question\.choices .*its fields are: stem\."),
        ({"question": "So?", "context": "All are.", "answers": ["a", "b"], "label": 1}, "lacks id_string"),
        (
            {"id_string": "q0", "question": "So?", "context": "All.", "answers": "ab", "label": 1},
            "answers must be a list",
        ),
    ],
)
@pytest.mark.parametrize("line", [1, 2])
def test_a_row_of_another_schema_is_named_wherever_it_stands(arc, row, words, line):
    rows = [hub_row(n) for n in range(1, 9)]
    rows.insert(line - 1, row)
    write(arc, "train.jsonl", rows)
    with pytest.raises(UserError, match=rf"train\.jsonl line {line}:? {words}"):
        load_questions("arc", str(arc), skip=True)


def test_a_missing_label_is_told_by_its_field_its_file_and_its_line(arc):
    rows = [hub_row(n) for n in range(8)]
    for row in rows:
        row["answer"] = row.pop("answerKey")
    write(arc, "train.jsonl", rows)
    words = r"train\.jsonl line 1: question q0 has no label: its answerKey is missing \(its fields are: id, .*answer\)"
    with pytest.raises(UserError, match=words):
        load_questions("arc", str(arc))
    with pytest.raises(UserError, match=rf"{words}; no other of the 8 train questions can be used"):
        load_questions("arc", str(arc), skip=True)
    write(arc, "train.jsonl", [hub_row(n) for n in range(8)])
    write(arc, "train_more.jsonl", [hub_row(50), hub_row(51, "")])
    with pytest.raises(UserError, match=r"train_more\.jsonl line 2: question q51 has no label: its answerKey is empty"):
        load_questions("arc", str(arc))
    found = load_questions("arc", str(arc), skip=True)
    assert len(found.train) == 9 and found.notes[0].startswith("1 of 10 train questions left out: ")


def test_some_labels_of_the_test_are_not_none(arc):
    write(arc, "test.jsonl", [hub_row(30, None), hub_row(31)])
    with pytest.raises(UserError, match="question q30 has no label"):
        load_questions("arc", str(arc))
    assert [question.id for question in load_questions("arc", str(arc), skip=True).test] == ["q31"]


def test_few_shot_examples_are_in_no_split_that_is_held_out(arc):
    (arc / "test.jsonl").unlink()
    everyone = load_questions("arc", str(arc)).validation
    found = load_questions("arc", str(arc), exclude=[everyone[0].id, "q20"])
    ids = [question.id for part in (found.train, found.validation, found.test) for question in part]
    assert len(ids) == 22 and not {everyone[0].id, "q20"} & set(ids)
    assert "2 questions are few-shot examples and were left out" in found.notes
    with pytest.raises(UserError, match="all 20 questions are few-shot examples"):
        load_questions("arc", str(arc), exclude=[f"q{n}" for n in range(20)])


def test_a_validation_that_is_absent_or_hidden_is_told(arc):
    write(arc, "validation.jsonl", [hub_row(n, None) for n in range(20, 24)])
    found = load_questions("arc", str(arc))
    assert [len(part) for part in (found.train, found.validation, found.test)] == [18, 2, 6]
    assert found.notes == ("the validation labels are hidden: 10% of train validates",)
    (arc / "validation.jsonl").unlink()
    assert load_questions("arc", str(arc)).notes == ("there is no validation split: 10% of train validates",)


def test_unusable_questions_can_be_left_out_and_are_counted(arc):
    bad = hub_row(9, choices={"text": ["same", "same"], "label": ["A", "B"]})
    write(arc, "train.jsonl", [*(hub_row(n) for n in range(8)), bad])
    with pytest.raises(UserError, match=r"dataset\.skip=true"):
        load_questions("arc", str(arc))
    found = load_questions("arc", str(arc), skip=True)
    assert len(found.train) == 8 and found.notes[0].startswith("1 of 9 train questions left out")


def test_files_of_another_kind_are_refused(arc, tmp_path):
    write(arc, "train.jsonl", [{"prompt": "x", "text": "y"}])
    with pytest.raises(UserError, match="lacks id, question, choices of the schema that is nearest, the hub"):
        load_questions("arc", str(arc))
    with pytest.raises(UserError, match="is not a folder"):
        load_questions("arc", str(tmp_path / "none"))
    with pytest.raises(UserError, match="holds no file for train"):
        load_questions("arc", str(write(tmp_path / "other", "notes.jsonl", [hub_row(1)])))
    with pytest.raises(UserError, match="not on the hub"):
        load_questions("reclor", None)


def crest_row(id, label="C", options=4, **changes):
    """A row as CREST's authors publish it."""
    answers = [f"option {number}" for number in range(options)]
    row = {"id_string": id, "data_name": "ARC_easy", "context": None, "question": "Which?", "answers": answers}
    return row | {"label": label, "others": None} | changes


def test_the_files_of_crests_authors_load_with_letters_as_labels(tmp_path):
    folder = write(tmp_path / "arc", "ARC_whole_train.jsonl", [crest_row(f"t{n}") for n in range(20)])
    write(folder, "ARC_whole_dev.jsonl", [crest_row("d0", "B", context=" All are. "), crest_row("d1", "E", 5)])
    write(folder, "ARC_easy_test.jsonl", [crest_row("e0", "A"), crest_row("e1", 3), crest_row("e2", "0")])
    said = []
    found = load_questions("arc", str(folder), log=said.append)
    assert [question.gold for question in found.validation] == [1, 4] and found.train[0].gold == 2
    assert [question.gold for question in found.test] == [0, 3, 0]
    assert (found.validation[0].passage, found.train[0].passage) == ("All are.", "")
    assert said == [
        "questions: ARC_whole_train.jsonl (train, 20 rows), ARC_whole_dev.jsonl (validation, 2 rows), "
        "ARC_easy_test.jsonl (test, 3 rows); used: 20 train, 2 validation, 3 test"
    ]


def test_crests_part_of_train_that_validates_is_not_taken_for_train(tmp_path):
    folder = write(tmp_path / "csqa", "CSQA_train_train.jsonl", [crest_row(f"t{n}") for n in range(9)])
    write(folder, "CSQA_train_valid.jsonl", [crest_row("v0"), crest_row("v1")])
    write(folder, "CSQA_dev.jsonl", [crest_row("d0"), crest_row("d1"), crest_row("d2")])
    found = load_questions("csqa", str(folder))
    assert [len(part) for part in (found.train, found.validation, found.test)] == [9, 2, 3]
    assert found.notes == (
        "CSQA_train_valid.jsonl was cut from train and validates: the official validation is the test",
    )


def test_hidden_labels_of_crests_authors_are_hidden(tmp_path):
    folder = write(tmp_path / "reclor", "train.jsonl", [crest_row(f"t{n}") for n in range(20)])
    write(folder, "ReClor-val.jsonl", [crest_row("v0"), crest_row("v1")])
    write(folder, "ReClor-test.jsonl", [crest_row("x0", None)])
    found = load_questions("reclor", str(folder))
    assert len(found.test) == 2 and "the test labels are hidden" in found.notes[0]


def test_a_label_beyond_the_options_is_named(tmp_path):
    folder = write(tmp_path / "arc", "train.jsonl", [crest_row("t0"), crest_row("t1", "E")])
    with pytest.raises(UserError, match="question t1 has the answer 'E', which is none of its options"):
        load_questions("arc", str(folder))


def test_a_file_of_no_schema_is_told_all_schemas_and_what_it_lacks(tmp_path):
    row = {"question": "Which?", "answers": ["a", "b"], "answer": "A"}
    folder = write(tmp_path / "arc", "train.jsonl", [row])
    with pytest.raises(UserError) as error:
        load_questions("arc", str(folder))
    line = str(error.value)
    assert "train.jsonl line 1 lacks id_string of the schema that is nearest, ReClor's and CREST's" in line
    assert "its fields are: question, answers, answer" in line
    for schema in ("id, question, choices, answerKey", "id, question.stem, question.choices, answerKey"):
        assert schema in line
    assert "id_string, question, answers, label" in line and "dataset.columns.question=FIELD" in line


def test_files_that_are_left_aside_are_told(arc):
    (arc / "train.csv").write_text("")
    (arc / "notes.jsonl").write_text("")
    said = []
    load_questions("arc", str(arc), limit=4, log=said.append)
    assert said[0].endswith(
        "used: 4 train, 4 validation, 4 test; left aside: train.csv (there in a better format), notes.jsonl (its name "
        "holds no split), 16 beyond dataset.limit=4 of train, 2 beyond dataset.limit=4 of test"
    )
