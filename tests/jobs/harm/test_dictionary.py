"""What pyvalues' dictionary finds in responses, from the command that judges them to the report."""

import csv
import json

import pytest
from command_line import refused, run
from pyvalues_stand_in import installed
from synthetic_harm import Lab

from jaxalign.evaluate import main as evaluate
from jaxalign.jobs.harm.dictionary import _known
from jaxalign.report import main as report
from jaxalign.safety.value_dictionary import ValueDictionary
from jaxalign.safety.value_probe import shipped_value_probe
from jaxalign.values.designed import designed_targets
from jaxalign.values.schwartz import VALUES
from jaxalign.values.targets import extreme_targets

EXTREME = extreme_targets()
HARM = ["model=tiny", "benchmark=starter_probes", "benchmark.limit=8", "benchmark.max_tokens=6", "precision=float32"]
HARM += ["benchmark.temperature=1", "judge=toxicity_linear", "judge.refusal=none", "judge.calibrate=false"]


@pytest.mark.slow
def test_responses_are_read_once_also_if_they_were_judged_before_the_package_came(here, capsys, monkeypatch):
    def found(version, *more):
        with installed(version):
            run(evaluate, [*HARM, "run.dir=run", *more], capsys)
        return json.loads((here / "run" / "summary.json").read_text())["models"][0]["dictionary_values"]

    assert found(None) is None
    read = found("0.11.9", "stage=aggregate")
    (judged,) = here.rglob("judged.jsonl")
    lines = [json.loads(line) for line in judged.read_text().splitlines()]
    spoken = {one["key"] for one in lines if one["state"] == "answered"}
    generated = [json.loads(line) for path in here.rglob("generations.jsonl") for line in path.read_text().splitlines()]
    texts = [one["text"] for one in generated if one["key"] in spoken]
    assert 0 < read["n"] == len(texts) < len(lines)  # blank ones say nothing
    with_e = [("e" in text.lower()) for text in texts]
    assert read["means"]["hedonism"] == pytest.approx(sum(with_e) / len(texts))
    assert read["dictionary"] == "pyvalues 0.11.9" and read["arguments"]["n"] == 640

    def not_again(*_):
        raise AssertionError("the responses were read again")

    with monkeypatch.context() as patch:
        patch.setattr(ValueDictionary, "read", not_again)
        patch.setattr("jaxalign.jobs.harm.dictionary.read_responses", not_again)
        assert found("0.11.9") == read and found(None) == read  # what was found before stays
    assert {**found("0.11.10"), "dictionary": "pyvalues 0.11.9"} == read
    # What was judged anew, or a damaged copy, is read again.
    copy = judged.parent / "dictionary.json"
    copy.write_text(copy.read_text().replace("hedonism", "hedonist"))
    assert {**found("0.11.10"), "dictionary": "pyvalues 0.11.9"} == read
    copy.write_text("{")
    assert found(None) is None and found(None, "run.overwrite=true") is None
    assert found("0.11.9") == read


def told(about, scores, name="pyvalues 0.11.1", n=30):
    areas = {value: {"estimate": 0.6, "low": 0.5, "high": 0.7, "n": 640} for value in VALUES}
    known = {"n": 640, "silent": 0.35, "right": 0.61, "areas": areas}
    means = {value: score / 10 if n else None for value, score in scores.items()}
    return {
        **about,
        "dictionary_values": {"dictionary": name, "n": n, "silent": 0.4, "means": means, "arguments": known},
    }


def of_probe(about, scores):
    means = {value: 1 - score / 10 for value, score in scores.items()}
    return {**about, "text_values": {"probe": shipped_value_probe().identity, "n": 30, "means": means}}


def rows(lab, capsys):
    run(report, [f"runs={lab.root}", "texts=0"], capsys)
    with (lab.root / "report" / "tables" / "beavertails-text-values.csv").open(encoding="utf-8") as file:
        return {(one["read by"], one["value"]): one for one in csv.DictReader(file)}


def test_the_dictionary_stands_beside_the_probe_with_its_own_figures(lab, capsys):
    lab.effect, adapters = 0.05, []
    for target in designed_targets().values():
        adapters.append(of_probe(told(lab.adapter(target), target.by_value), target.by_value))
    adapters.append(told(lab.adapter(EXTREME["power"], "silent"), dict.fromkeys(VALUES, 0), n=0))
    lab.run([told(lab.base(), dict.fromkeys(VALUES, 2)), *adapters], "one")
    found = rows(lab, capsys)
    assert len(found) == 20 and {reader for reader, _ in found} == {"probe", "pyvalues 0.11.1"}
    mine, probe = found["pyvalues 0.11.1", "Power"], found["probe", "Power"]
    figures = [float(mine[name]) for name in ("held-out area", "held-out area low", "silent", "base")]
    assert figures == pytest.approx([0.6, 0.5, 0.4, 0.2])
    assert float(probe["held-out area"]) == shipped_value_probe().held_out["power"].estimate and probe["silent"] == ""
    for name in ("with the target", "with the measured score"):
        assert [float(one[name]) for one in (mine, probe)] == pytest.approx([1, -1])
    assert float(mine["with the flagged rate"]) > 0.5 > -0.5 > float(probe["with the flagged rate"])
    assert mine["n"] == probe["n"] == "24"
    page = (lab.root / "report" / "tables" / "beavertails-text-values.md").read_text()
    assert "Of 640 arguments it is silent on 35%, and in 61% of the others it finds a value" in page


def test_what_has_not_read_the_responses_is_said_or_left_out(lab, capsys):
    targets = list(designed_targets().values())[:3]
    lab.run([lab.base(), *(of_probe(lab.adapter(one), one.by_value) for one in targets)], "one")
    assert {reader for reader, _ in rows(lab, capsys)} == {"probe"}
    page = (lab.root / "report" / "tables" / "beavertails-text-values.md").read_text()
    assert "It has not read these responses. To let it read them, type pip install 'jaxalign\\[values]'," in page
    assert "and then each run's command again with stage=aggregate" in page
    other = Lab(lab.root.parent / "other")
    other.run([other.base(), *(told(other.adapter(one), one.by_value) for one in targets)], "one")
    found = rows(other, capsys)
    assert {reader for reader, _ in found} == {"pyvalues 0.11.1"}
    assert found["pyvalues 0.11.1", "Power"]["reason"] == "n = 3 units; at least 8 are needed"


ARGUMENTS = {"n": 640, "silent": 0.35, "right": 0.61}
AREA = {"estimate": 0.6, "low": 0.5, "high": 0.7}


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"means": {"power": 0.1}}, "dictionary_values, means: 'achievement' is missing or damaged"),
        ({"silent": "much"}, "dictionary_values: 'silent' is missing or damaged"),
        ({"arguments": {"n": 640}}, "dictionary_values, arguments: 'silent' is missing or damaged"),
        ({"arguments": {**ARGUMENTS, "areas": {}}}, f"arguments, areas: '{VALUES[0]}' is missing or damaged"),
        ({"arguments": {**ARGUMENTS, "areas": dict.fromkeys(VALUES, AREA)}}, f"areas, {VALUES[0]}: 'n' is missing"),
    ],
)
def test_a_damaged_reading_is_one_line_and_its_copy_is_read_again(lab, capsys, tmp_path, change, words):
    target = next(iter(designed_targets().values()))
    about = told(lab.adapter(target), target.by_value)
    copy, found = tmp_path / "dictionary.json", about["dictionary_values"]
    copy.write_text(json.dumps({"of": {}, "found": found}))
    assert _known(copy) == {"of": {}, "found": found}
    copy.write_text(json.dumps({"of": {}, "found": {**found, **change}}))
    assert _known(copy) is None
    lab.run([lab.base(), {**about, "dictionary_values": {**found, **change}}], "one")
    assert words in refused(report, [f"runs={lab.root}"], capsys)
