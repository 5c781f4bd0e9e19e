import tempfile
from pathlib import Path

import pytest
from hostile import few, survives, tables
from hypothesis import given
from hypothesis import strategies as st

from jaxalign.errors import UserError
from jaxalign.values import touche
from jaxalign.values.touche import HUB_ORDER, load_arguments

ROWS = [
    ("A1", "We should ban X", "in favor of", "it costs jobs.", {"Power: resources", "Face"}),
    ("A2", "We should ban X.", "against", 'it is "fine" ', {"Self-direction: action", "Self-direction: thought"}),
    ("A3", "We should vote", "in favour of", "it helps..", {"Universalism: nature", "Achievement"}),
    ("A4", "We should rest", "against", "nobody does", {"Face", "Humility"}),
]


def write_split(folder, split="training", rows=ROWS, columns=HUB_ORDER, newline="\n"):
    texts = ["\t".join(["Argument ID", "Conclusion", "Stance", "Premise"])]
    labels = ["\t".join(["Argument ID", *columns])]
    for id, conclusion, stance, premise, held in rows:
        texts.append("\t".join([id, conclusion, stance, premise]))
        labels.append("\t".join([id, *("01"[column in held] for column in columns)]))
    for name, lines in (("arguments", texts), ("labels", labels)):
        (folder / f"{name}-{split}.tsv").write_bytes((newline.join(lines) + newline).encode())
    return str(folder)


def renamed(rows, letter):
    return [(letter + id[1:], *rest) for id, *rest in rows]


def test_a_published_folder_gives_the_arguments_that_have_any_of_the_ten_values(tmp_path):
    first, second, third = load_arguments(write_split(tmp_path))
    assert (first.id, first.stance, first.values) == ("A1", "in favor of", ("power",))
    assert (second.stance, second.values) == ("against", ("self_direction",))
    assert third.values == ("achievement", "universalism")


def test_full_stops_and_spaces_are_trimmed_and_quotes_are_text(tmp_path):
    first, second, third = load_arguments(write_split(tmp_path))
    assert first.premise == "it costs jobs"
    assert (second.conclusion, second.premise) == ("We should ban X", 'it is "fine"')
    assert third.premise == "it helps"


def test_the_british_spelling_of_a_stance_is_the_same_stance(tmp_path):
    assert load_arguments(write_split(tmp_path))[2].stance == "in favor of"


def test_labels_are_found_by_name_in_any_order_of_columns(tmp_path):
    plain = load_arguments(write_split(tmp_path))
    assert load_arguments(write_split(tmp_path, columns=HUB_ORDER[::-1])) == plain


def test_windows_line_ends_change_nothing(tmp_path):
    plain = load_arguments(write_split(tmp_path))
    assert load_arguments(write_split(tmp_path, newline="\r\n")) == plain


def test_training_and_both_validation_splits_are_used_and_the_test_split_never(tmp_path):
    for split, letter in (("training", "A"), ("validation", "B"), ("validation-zhihu", "C"), ("test", "D")):
        write_split(tmp_path, split, renamed(ROWS, letter))
    write_split(tmp_path, "test-nyt", renamed(ROWS, "E"))
    assert {argument.id[0] for argument in load_arguments(str(tmp_path))} == {"A", "B", "C"}


def test_another_split_is_used_where_the_usual_ones_are_absent(tmp_path):
    write_split(tmp_path, "mine", renamed(ROWS, "M"))
    write_split(tmp_path, "test", renamed(ROWS, "T"))
    assert {argument.id[0] for argument in load_arguments(str(tmp_path))} == {"M"}


def test_a_limit_takes_the_first_rows_that_are_kept(tmp_path):
    rows = [ROWS[3], *ROWS[:3]]
    assert [argument.id for argument in load_arguments(write_split(tmp_path, rows=rows), limit=2)] == ["A1", "A2"]


def edit(folder, name, change):
    file = folder / name
    file.write_text(change(file.read_text()))


@pytest.mark.parametrize(
    ("name", "change", "line"),
    [
        ("arguments-training.tsv", lambda text: text.replace("Premise", "Text"), "lacks the column 'Premise'; its"),
        ("labels-training.tsv", lambda text: text.replace("Hedonism", "Joy"), "lacks the column 'Hedonism'"),
        ("labels-training.tsv", lambda text: text.replace("A2", "B2"), "1 arguments have no labels and 1 labels no"),
        (
            "labels-training.tsv",
            lambda text: text.replace("A2\t1", "A2\t2"),
            "line 3 has the label '2' in column 'Self",
        ),
        ("labels-training.tsv", lambda text: text.replace("A2", "A1"), "line 3: id A1 occurs twice (first: "),
        (
            "labels-training.tsv",
            lambda text: text.replace("A2\t1", "A2"),
            "line 3 has 20 columns where the header has 21",
        ),
        (
            "arguments-training.tsv",
            lambda text: text.replace("\tagainst", "\tmaybe", 1),
            "line 3 has the stance 'maybe'",
        ),
        ("arguments-training.tsv", lambda text: text.replace("it costs jobs", ""), "line 2 has an empty conclusion or"),
        ("arguments-training.tsv", lambda text: "", "lacks the column 'Argument ID'; its columns are: none"),
    ],
)
def test_a_bad_file_is_refused_with_its_name_and_line(tmp_path, name, change, line):
    folder = write_split(tmp_path)
    edit(tmp_path, name, change)
    with pytest.raises(UserError) as error:
        load_arguments(folder)
    assert line in str(error.value)
    assert name in str(error.value)


def test_ids_that_do_not_match_are_shown_by_an_example(tmp_path):
    folder = write_split(tmp_path)
    edit(tmp_path, "labels-training.tsv", lambda text: text.replace("A3", "B3"))
    with pytest.raises(UserError, match="such as A3"):
        load_arguments(folder)


def test_a_folder_without_the_files_is_refused(tmp_path):
    with pytest.raises(UserError, match=r"holds no arguments-\*.tsv: expected arguments-training.tsv"):
        load_arguments(str(tmp_path))
    with pytest.raises(UserError, match="is not a folder"):
        load_arguments(str(tmp_path / "absent"))
    write_split(tmp_path, "test")
    with pytest.raises(UserError, match="only the test split, which is never trained on"):
        load_arguments(str(tmp_path))
    write_split(tmp_path, "training")
    (tmp_path / "labels-training.tsv").unlink()
    with pytest.raises(UserError, match=r"has no labels-training.tsv beside it"):
        load_arguments(str(tmp_path))


@pytest.mark.parametrize(("rows", "found"), [([], "no usable row"), (ROWS[:1], "only 1"), (ROWS[2:], "only 1")])
def test_an_empty_or_one_row_data_set_is_refused(tmp_path, rows, found):
    with pytest.raises(UserError, match=f"holds {found}.*it needs at least 2"):
        load_arguments(write_split(tmp_path, rows=rows))


def test_a_limit_below_two_is_refused(tmp_path):
    with pytest.raises(UserError, match=r"dataset.limit=1 is too small: give at least 2"):
        load_arguments(write_split(tmp_path), limit=1)


def test_the_same_id_in_two_splits_is_refused(tmp_path):
    write_split(tmp_path, "training")
    with pytest.raises(UserError, match="has the argument A1 twice"):
        load_arguments(write_split(tmp_path, "validation"))


def test_the_form_on_the_hub_gives_the_same_arguments(tmp_path, monkeypatch):
    published = load_arguments(write_split(tmp_path))
    lines = ["\t".join(["Argument ID", "Conclusion", "Stance", "Premise", "Labels"])]
    for id, conclusion, stance, premise, held in ROWS:
        quoted = '"' + premise.replace('"', '""') + '"' if '"' in premise else premise
        labels = "[" + ", ".join("01"[column in held] for column in HUB_ORDER) + "]"
        lines.append("\t".join([id, conclusion, stance, quoted, labels]))
    file = tmp_path / "training-00000-of-00001.tsv"
    file.write_text("\n".join(lines) + "\n")
    monkeypatch.setattr(touche, "download", lambda repo, revision, files, offline: [file])
    assert load_arguments(None) == published


def test_offline_names_what_is_missing_and_both_ways_out(monkeypatch):
    from huggingface_hub.errors import LocalEntryNotFoundError

    def absent(repo, *, local_files_only, **_):
        assert local_files_only
        raise LocalEntryNotFoundError(f"no {repo}\nhere")

    monkeypatch.setattr("huggingface_hub.snapshot_download", absent)
    with pytest.raises(UserError, match=r"offline=true.*webis/Touche23-ValueEval.*prefetch=true.*dataset.path"):
        load_arguments(None, offline=True)


def test_a_network_failure_is_one_line(monkeypatch):
    from huggingface_hub.errors import LocalEntryNotFoundError

    def unreachable(repo, **_):
        raise LocalEntryNotFoundError("Got: ConnectError\nand a long explanation")

    monkeypatch.setattr("huggingface_hub.snapshot_download", unreachable)
    with pytest.raises(UserError) as error:
        load_arguments(None)
    assert str(error.value) == (
        "the data set webis/Touche23-ValueEval cannot be fetched from the hub (Got: ConnectError): "
        "try again, or give dataset.path, a copy of it on this machine"
    )


def test_a_cache_without_all_the_files_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr("huggingface_hub.snapshot_download", lambda repo, **_: str(tmp_path))
    with pytest.raises(UserError, match=r"lacks data/training-00000-of-00001.tsv"):
        load_arguments(None)


def test_a_training_split_of_another_name_is_used_and_not_validation_alone(tmp_path):
    write_split(tmp_path, "train", renamed(ROWS, "A"))
    write_split(tmp_path, "validation", renamed(ROWS, "B"))
    said = []
    assert {argument.id[0] for argument in load_arguments(str(tmp_path), log=said.append)} == {"A", "B"}
    assert said == [
        "data: arguments-train.tsv (4 rows), arguments-validation.tsv (4 rows); used: 6 arguments; left aside: 2 "
        "without any of the ten values"
    ]


def test_validation_is_not_trained_on_for_want_of_a_training_split(tmp_path):
    write_split(tmp_path, "validation")
    (tmp_path / "arguments_training.tsv").write_text("")
    words = "holds only validation to train on .validation.; beside it stands arguments_training.tsv: rename the files"
    with pytest.raises(UserError, match=words):
        load_arguments(str(tmp_path))


def test_what_is_left_aside_is_told(tmp_path):
    for split, letter in (("training", "A"), ("validation", "B"), ("test", "C")):
        write_split(tmp_path, split, renamed(ROWS, letter))
    (tmp_path / "level1-labels-training.tsv").write_text("")
    said = []
    load_arguments(str(tmp_path), limit=5, log=said.append)
    assert said == [
        "data: arguments-training.tsv (4 rows), arguments-validation.tsv (4 rows); used: 5 arguments; left aside: 2 "
        "without any of the ten values, arguments-test.tsv (a test split), labels-test.tsv (a test split), "
        "level1-labels-training.tsv, 1 beyond dataset.limit=5"
    ]


@few
@given(arguments=tables(("Argument ID", "Conclusion", "Stance", "Premise"), ".tsv"), whole=st.booleans())
def test_any_bytes_are_arguments_or_one_line(arguments, whole):
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_split(folder)
        damaged = folder / f"{'arguments' if whole else 'labels'}-training.tsv"
        survives(lambda _: load_arguments(name), damaged, arguments)
