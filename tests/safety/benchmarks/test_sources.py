"""Where the prompts of benchmarks come from, and the readers of every published form."""

import json
import tempfile
from collections import Counter
from pathlib import Path

import pytest
from hostile import damaged, few, survives, tables
from hypothesis import given
from hypothesis import strategies as st

from jaxalign.config.presets import CONF
from jaxalign.errors import UserError
from jaxalign.safety.benchmarks import holistic_bias, readers
from jaxalign.safety.benchmarks.sources import BENCHMARKS, read_benchmark
from jaxalign.safety.categories import CATEGORIES
from jaxalign.safety.metrics import METRICS


def lines(path, *rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def account(name, path=None, **more):
    """Return the line on what was read, without the benchmark's name."""
    said = []
    read_benchmark(name, path, log=said.append, **more)
    (line,) = said
    return line.removeprefix(f"{name}: ")


def test_every_benchmark_has_an_option_and_metrics():
    assert {path.stem for path in (CONF / "benchmark").glob("*.yaml")} == {*BENCHMARKS, "portraits"}
    for name, one in BENCHMARKS.items():
        assert one.name == name and set(one.metrics) <= set(METRICS)
    assert {name for name, one in BENCHMARKS.items() if one.ships} == {"starter_probes", "over_refusal"}


def test_the_shipped_benchmarks_are_there():
    starter, over = read_benchmark("starter_probes"), read_benchmark("over_refusal")
    assert len(starter) == 92 and {one.form for one in starter} == {"question", "completion"}
    assert {one.category for one in starter} == set(CATEGORIES["starter_probes"])
    assert len(over) > 20
    assert account("starter_probes", limit=7) == (
        "starter_probes.jsonl (92 rows); used: 7 prompts; left aside: 85 beyond benchmark.limit"
    )


def test_real_toxicity_prompts_keeps_the_toxic_ones_in_their_order(tmp_path, monkeypatch):
    rows = [
        {"filename": "a.txt", "begin": n, "end": n + 5, "prompt": {"text": f"Text {n}", "toxicity": score}}
        for n, score in enumerate((0.9, 0.2, None, 0.5, 0.7))
    ]
    path = lines(tmp_path / "p.jsonl", *rows)
    found = read_benchmark("realtoxicityprompts", path)
    assert [one.text for one in found] == ["Text 0", "Text 3", "Text 4"]
    assert (found[0].id, found[0].form, found[0].category) == ("a.txt-0-5", "completion", "toxicity")
    assert account("realtoxicityprompts", path) == (
        "p.jsonl (5 rows); used: 3 prompts; left aside: 2 below toxicity 0.5 or without one"
    )
    monkeypatch.setattr(readers, "TOXIC_PROMPTS", 2)
    assert len(read_benchmark("realtoxicityprompts", path)) == 2
    lines(path, {"prompt": {"text": " ", "toxicity": 1}}, *rows)
    assert account("realtoxicityprompts", path).endswith(
        "(6 rows); used: 2 prompts; left aside: 2 below toxicity 0.5 or without one, 1 blank, 1 behind the first 2 "
        "that are asked"
    )
    with pytest.raises(
        UserError,
        match=r"p.jsonl line 1 lacks prompt; its fields are: text: give the file in the form in which its owner",
    ):
        read_benchmark("realtoxicityprompts", lines(path, {"text": "x"}))
    with pytest.raises(UserError, match="no prompt with text and toxicity"):
        read_benchmark("realtoxicityprompts", lines(path, {"prompt": "x"}))


def test_hex_phi_is_read_from_its_files_and_from_one_table(tmp_path):
    for number in (1, 10, 2):
        (tmp_path / f"category_{number}.csv").write_text('"A question, quoted?"\nAnother one?\n')
    found = read_benchmark("hex_phi", tmp_path)
    assert Counter(one.category for one in found) == {"illegal_activity": 2, "child_abuse": 2, "privacy_violation": 2}
    assert (found[0].id, found[0].text) == ("illegal_activity_1", "A question, quoted?")
    assert account("hex_phi", tmp_path) == (
        "category_1.csv (2 rows), category_2.csv (2 rows), category_10.csv (2 rows); used: 6 prompts"
    )
    one_file = read_benchmark("hex_phi", tmp_path / "category_10.csv")
    assert [one.category for one in one_file] == ["privacy_violation"] * 2
    table = lines(tmp_path / "t.jsonl", {"prompt": "Why?", "category": "Malware"})
    assert [(one.id, one.category) for one in read_benchmark("hex_phi", table)] == [("1", "malware")]
    (tmp_path / "category_12.csv").write_text("Why?\n")
    with pytest.raises(UserError, match=r"category_12.csv: 'category_12' is no category of hex_phi"):
        read_benchmark("hex_phi", tmp_path)
    (tmp_path / "category_12.csv").unlink()
    (tmp_path / "category_3.csv").write_text("a,b\n")
    with pytest.raises(UserError, match=r"category_3.csv line 1 has 2 columns"):
        read_benchmark("hex_phi", tmp_path)


def test_beavertails_refuses_what_it_does_not_know(tmp_path):
    path = tmp_path / "b.jsonl"
    good = {"prompt": "Why?", "category": "self_harm", "category_id": 10}
    (one,) = read_benchmark("beavertails", lines(path, good))
    assert (one.category, one.form) == ("self_harm", "question")
    with pytest.raises(UserError, match=r"b.jsonl line 1: 'self_ham' is no category of beavertails; did you mean"):
        read_benchmark("beavertails", lines(path, good | {"category": "self_ham"}))
    with pytest.raises(UserError, match="lacks category"):
        read_benchmark("beavertails", lines(path, {"prompt": "Why?"}))
    with pytest.raises(UserError, match="repeats the id '7'"):
        read_benchmark("beavertails", lines(path, good | {"id": 7}, good | {"id": 7}))
    with pytest.raises(UserError, match="holds no prompt"):
        read_benchmark("beavertails", lines(path))
    with pytest.raises(UserError, match=r"is not a file \(it does not exist\); https://huggingface.co"):
        read_benchmark("beavertails", tmp_path / "none.jsonl")


def test_xstest_keeps_its_safe_prompts(tmp_path):
    path = tmp_path / "x.csv"
    path.write_text("id,prompt,type,label\n1,Why?,homonyms,safe\n2,How?,contrast_homonyms,unsafe\n")
    assert [(one.id, one.category) for one in read_benchmark("xstest", path)] == [("1", "homonyms")]
    assert account("xstest", path) == "x.csv (2 rows); used: 1 prompt; left aside: 1 unsafe"
    path.write_text("id,prompt,type,label\n1,Why?,homonyms,\n")
    with pytest.raises(UserError, match=r"x.csv line 2 has label='': it must be safe or unsafe"):
        read_benchmark("xstest", path)
    path.write_text("id,prompt,type\n1,Why?,homonym\n")
    with pytest.raises(UserError, match="'homonym' is no category of xstest; did you mean 'homonyms'"):
        read_benchmark("xstest", path)


XSTEST_TYPES = (
    *("homonyms", "figurative_language", "safe_targets", "safe_contexts", "definitions", "nons_group_real_discr"),
    *("real_group_nons_discr", "historical_events", "privacy_public", "privacy_fictional"),
)
"""The types of safe prompts in xstest_prompts.csv, as its owners spell them; each has 25 prompts."""


def test_xstest_is_read_as_its_owners_publish_it(tmp_path):
    unsafe = ["contrast_discr", "contrast_privacy", *(f"contrast_{kind}" for kind in XSTEST_TYPES[:5])]
    kinds = [(kind, "safe") for kind in XSTEST_TYPES] + [(kind, "unsafe") for kind in unsafe]
    rows = [f'"Why {n}?",{kind},{label},kill,' for kind, label in kinds for n in range(25)]
    path = tmp_path / "xstest_prompts.csv"
    path.write_text("id,prompt,type,label,focus,note\n" + "".join(f"{n},{row}\n" for n, row in enumerate(rows, 1)))
    found = read_benchmark("xstest", path)
    assert Counter(one.category for one in found) == dict.fromkeys(CATEGORIES["xstest"], 25)
    older = tmp_path / "xstest_v2_prompts.csv"
    heads = "id_v1,id_v2,type,prompt,focus,note\n"
    older.write_text(f"{heads},v2-7,nons_group_real_discr,Why?,,\n,v2-8,contrast_discr,x,,\n")
    assert [(one.id, one.category) for one in read_benchmark("xstest", older)] == [("1", "nonsense_group")]


PHRASE_HEADS = (
    "axis,bucket,descriptor,descriptor_gender,descriptor_preference,noun,plural_noun,noun_gender,noun_phrase,"
    "plural_noun_phrase,noun_phrase_type\n"
)
"""The columns of the noun_phrases.csv that HolisticBias 1.1 writes."""


def phrase_row(phrase, kind, preference="dispreferred", axis="age", descriptor="odd"):
    return f"{axis},(none),{descriptor},(none),{preference},(none),(none),(none),{phrase},{phrase},{kind}\n"


def test_the_builder_puts_dispreferred_phrases_into_templates(tmp_path):
    phrases, templates = tmp_path / "p.csv", tmp_path / "t.txt"
    phrases.write_text(
        PHRASE_HEADS
        + phrase_row("an old plumber", "descriptor_noun", descriptor="old")
        + phrase_row("old", "descriptor", descriptor="old")
        + phrase_row("a young plumber", "descriptor_noun", "reviewed")
        + phrase_row("a plumber", "noun", "(none)", axis="null")
        + phrase_row("a tall Plumber", "noun_descriptor", axis="body_type", descriptor="tall")
    )
    templates.write_text("XYZ worked as\n\nThe day began when {phrase} said\n{noun_phrase} was known for\n")
    found = read_benchmark("holisticbias_r", phrases=str(phrases), templates=str(templates))
    assert account("holisticbias_r", phrases=str(phrases), templates=str(templates)) == (
        "p.csv (5 rows), t.txt (3 templates); used: 6 prompts; left aside: 2 not dispreferred, 1 without a noun"
    )
    assert [one.text for one in found] == [
        "The old plumber worked as",
        "The day began when the old plumber said",
        "The old plumber was known for",
        "The tall Plumber worked as",
        "The day began when the tall Plumber said",
        "The tall Plumber was known for",
    ]
    assert (found[3].category, found[3].group, found[3].form) == ("body_type", "tall", "completion")
    made = lines(tmp_path / "m.jsonl", {"prompt": "An x was", "axis": "age", "descriptor": "old"})
    assert [one.group for one in read_benchmark("holisticbias_r", made)] == ["old"]
    templates.write_text("\n")
    with pytest.raises(UserError, match=r"t\.txt is empty: write a template a line"):
        read_benchmark("holisticbias_r", phrases=str(phrases), templates=str(templates))
    templates.write_text("Nobody worked as\n")
    with pytest.raises(UserError, match="template 1 has no single"):
        read_benchmark("holisticbias_r", phrases=str(phrases), templates=str(templates))
    phrases.write_text("axis,descriptor,noun_phrase,preference\nage,old,an old plumber,dispreferred\n")
    templates.write_text("XYZ worked as\n")
    with pytest.raises(UserError, match=r"p\.csv line 2 lacks descriptor_preference; its fields are: axis, descriptor"):
        read_benchmark("holisticbias_r", phrases=str(phrases), templates=str(templates))
    with pytest.raises(UserError, match=r"make the prompts from your copy of HolisticBias with benchmark.phrases=FILE"):
        read_benchmark("holisticbias_r")


def test_two_files_that_would_make_too_many_prompts_are_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(holistic_bias, "MOST_PROMPTS", 5)
    phrases, templates = tmp_path / "p.csv", tmp_path / "t.txt"
    phrases.write_text(PHRASE_HEADS + phrase_row("an old man", "descriptor_noun") * 3)
    templates.write_text("XYZ worked as\n")
    assert len(read_benchmark("holisticbias_r", phrases=str(phrases), templates=str(templates))) == 3
    templates.write_text("XYZ worked as\nXYZ was\n")
    with pytest.raises(UserError, match=r"p.csv and .*t.txt would make more than 5 prompts: give fewer"):
        read_benchmark("holisticbias_r", phrases=str(phrases), templates=str(templates))


def test_a_table_of_the_size_of_holistic_bias_makes_its_17700_prompts(tmp_path):
    """HolisticBias 1.1 has 43 dispreferred descriptors, 12 phrases behind a noun, 32 nouns and 10 fixed phrases."""
    rows = [phrase_row(f"d{d}", "descriptor", descriptor=f"d{d}") for d in range(43)]
    rows += [phrase_row(f"a d{d} n{n}", "descriptor_noun", descriptor=f"d{d}") for d in range(43) for n in range(32)]
    rows += [phrase_row(f"a n{n} of s{s}", "noun_descriptor", descriptor=f"s{s}") for s in range(12) for n in range(32)]
    rows += [phrase_row(f"a f{f}", "fixed_phrase", descriptor=f"a f{f}") for f in range(10)]
    rows += [phrase_row(f"a r{r}", "fixed_phrase", "reviewed") for r in range(500)]
    phrases, templates = tmp_path / "noun_phrases.csv", tmp_path / "templates.txt"
    phrases.write_text(PHRASE_HEADS + "".join(rows))
    templates.write_text("".join(f"{{noun_phrase}} was number {n} for\n" for n in range(10)))
    found = read_benchmark("holisticbias_r", phrases=str(phrases), templates=str(templates))
    assert len(found) == len({one.id for one in found}) == 17_700 and len({one.group for one in found}) == 65
    assert all(one.text.startswith("The ") for one in found)


def write_parquet(path, rows):
    import pyarrow
    import pyarrow.parquet

    path.parent.mkdir(parents=True)
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), path)


@pytest.mark.parametrize(
    ("name", "repository", "write", "found"),
    [
        (
            "realtoxicityprompts",
            "allenai/real-toxicity-prompts",
            lambda at: lines(at / "prompts.jsonl", {"prompt": {"text": "The day", "toxicity": 0.9}}),
            [("toxicity", "completion", "The day")],
        ),
        (
            "hex_phi",
            "LLM-Tuning-Safety/HEx-PHI",
            lambda at: [(at / f"category_{n}.csv").write_text(f"Why {n}?\n") for n in (1, 11)],
            [("illegal_activity", "question", "Why 1?"), ("tailored_financial_advice", "question", "Why 11?")],
        ),
        (
            "beavertails",
            "PKU-Alignment/BeaverTails-Evaluation",
            lambda at: write_parquet(
                at / "default/test/0000.parquet",
                [{"prompt": "Why?", "category": "drug_abuse,weapons,banned_substance", "category_id": 4}],
            ),
            [("drugs_weapons", "question", "Why?")],
        ),
    ],
)
def test_a_benchmark_of_the_hub_is_read_from_the_files_of_its_repository(
    tmp_path, monkeypatch, name, repository, write, found
):
    asked = []
    write(tmp_path)
    monkeypatch.setattr("huggingface_hub.snapshot_download", lambda repo, **how: asked.append(repo) or str(tmp_path))
    assert [(one.category, one.form, one.text) for one in read_benchmark(name)] == found
    assert asked == [repository]


def test_a_gated_set_says_how_to_get_access(monkeypatch):
    from huggingface_hub.errors import GatedRepoError

    def gated(repo, **_):
        raise GatedRepoError.__new__(GatedRepoError)

    monkeypatch.setattr("huggingface_hub.snapshot_download", gated)
    with pytest.raises(UserError) as error:
        read_benchmark("hex_phi")
    assert str(error.value) == (
        "the data set LLM-Tuning-Safety/HEx-PHI is gated: ask for access at "
        "https://huggingface.co/datasets/LLM-Tuning-Safety/HEx-PHI and log in with `hf auth login`, or give "
        "benchmark.path, a copy of it on this machine"
    )


def test_a_set_that_is_not_there_says_how_to_get_it(tmp_path, monkeypatch):
    monkeypatch.setenv("HF_HOME", str(tmp_path))
    with pytest.raises(
        UserError, match=r"benchmark.path.*ask for access at https://huggingface.co/datasets/LLM-Tuning"
    ):
        read_benchmark("hex_phi", offline=True)


GOOD = {
    "starter_probes": {"id": "1", "category": "malware", "form": "question", "prompt": "Why?"},
    "realtoxicityprompts": {"prompt": {"text": "Why", "toxicity": 0.9}, "filename": "a", "begin": 0, "end": 9},
    "holisticbias_r": {"id": 1, "prompt": "An x was", "axis": "age", "descriptor": "old"},
    "hex_phi": {"id": 1, "prompt": "Why?", "category": "category_4"},
    "beavertails": {"id": 1, "prompt": "Why?", "category": "self_harm"},
    "xstest": {"id": 1, "prompt": "Why?", "type": "homonyms", "label": "safe"},
}


@pytest.mark.parametrize("name", GOOD)
@few
@given(data=st.data())
def test_any_bytes_are_a_benchmark_or_one_line(name, data):
    suffix = data.draw(st.sampled_from((".json", ".jsonl", ".csv", ".tsv")))
    content = data.draw(tables(GOOD[name], suffix))
    survives(lambda path: read_benchmark(name, path), f"f{suffix}", content)


PHRASES = PHRASE_HEADS + phrase_row("an old plumber", "descriptor_noun")


@few
@given(content=damaged(st.sampled_from((PHRASES, "XYZ worked as\n", '"Why?"\n'))))
def test_any_bytes_are_phrases_templates_or_questions_of_a_category_or_one_line(content):
    with tempfile.TemporaryDirectory() as folder:
        path, whole = Path(folder) / "category_4.csv", Path(folder) / "whole.csv"
        survives(lambda _: read_benchmark("hex_phi", folder), path, content)
        for text, names in (("XYZ worked as\n", ("phrases", "templates")), (PHRASES, ("templates", "phrases"))):
            whole.write_text(text)
            files = dict(zip(names, (str(path), str(whole)), strict=True))
            survives(lambda _, files=files: read_benchmark("holisticbias_r", **files), path, content)
