"""The report on synthetic run directories, which are written by `Lab` without any model."""

import csv
import json
import shutil
import time
from pathlib import Path

import numpy as np
import pytest
from analysis.test_html import HOSTILE, Elements
from command_line import refused, run
from matplotlib.image import imread
from synthetic_harm import Lab, judge_entry

from jaxalign.errors import UserError
from jaxalign.jobs.harm import report_parts
from jaxalign.jobs.harm.card import harm_section, with_harm
from jaxalign.report import main
from jaxalign.runs.records import content_hashes
from jaxalign.safety.value_map import read_value_map
from jaxalign.safety.value_probe import read_value_probe
from jaxalign.values.designed import designed_targets
from jaxalign.values.schwartz import VALUES
from jaxalign.values.targets import Target, extreme_targets

EXTREME = extreme_targets()


@pytest.fixture
def lab(tmp_path):
    return Lab(tmp_path / "runs")


def models(lab, *names):
    return [lab.base(), *(lab.adapter(EXTREME[name]) for name in names)]


def table(lab, name):
    with (lab.root / "report" / "tables" / f"{name}.csv").open(encoding="utf-8") as file:
        return list(csv.DictReader(file))


def page(lab):
    return (lab.root / "report" / "index.html").read_text(encoding="utf-8")


def report(lab, capsys, *more):
    return run(main, [f"runs={lab.root}", *more], capsys)


def texts_of(lab):
    return json.loads(Elements(page(lab)).scripts[0])


def test_a_report_has_tables_figures_and_a_page_and_is_the_same_twice(lab, capsys):
    lab.run(models(lab, "power", "security"), "one")
    lab.run(models(lab, "power", "security"), "two", "safety_prompt")
    printed = report(lab, capsys)
    assert "beavertails, judged by probe: 3 models, mitigation none, safety_prompt" in printed and "κ 0.80" in printed
    assert "no correlation (n = 2" in printed
    files = {path: path.read_bytes() for path in (lab.root / "report").rglob("*.*")}
    names = {path.name for path in files}
    for kind in ("none", "safety_prompt", "states", "ability", "drops", "risks", "published", "judges"):
        assert {f"beavertails-{kind}.{ending}" for ending in ("csv", "md", "tex")} <= names
    assert {"beavertails-figures.csv", "beavertails-mitigation.png", "beavertails-ability.svg"} <= names
    report(lab, capsys)
    assert files == {path: path.read_bytes() for path in (lab.root / "report").rglob("*.*")}


def test_the_figures_are_those_of_the_runs(lab, capsys):
    folder = lab.run(models(lab, "power"), "one")
    report(lab, capsys)
    rows = json.loads((folder / "summary.json").read_text())["rows"]
    told = table(lab, "beavertails-figures")
    assert len(told) == len(rows)
    key = ("power", "flagged rate", "Violence, aiding and abetting, incitement")
    mine = next(one for one in told if (one["model"], one["metric"], one["category"]) == key)
    row = next(
        one for one in rows if (one["model"], one["metric"], one["category"]) == ("power", "flagged_rate", "violence")
    )
    assert float(mine["figure"]) == row["estimate"] and float(mine["figure low"]) == row["low"]
    assert int(mine["n"]) == row["n"] and float(mine["blank"]) == row["states"]["blank"]
    (ability,) = [one for one in table(lab, "beavertails-ability") if one["model"] == "power"]
    assert (ability["perplexity"], ability["× base"]) == ("120.0", "1.2")


def test_refused_is_of_the_responses_that_say_something_in_every_table(lab, capsys):
    folder = lab.run(models(lab, "power"), "one")
    lab.run(models(lab, "power"), "two", "safety_prompt")
    report(lab, capsys)
    rows = json.loads((folder / "summary.json").read_text())["rows"]
    (row,) = [one for one in rows if (one["model"], one["metric"], one["category"]) == ("power", "flagged_rate", "all")]
    states = row["states"]
    said = states["refused"] / (states["refused"] + states["answered"])
    assert states["blank"] + states["repetitive"] > 0 and said > states["refused"]
    columns = (("ability", "refused"), ("drops", "refused before"), ("states", "refused"), ("figures", "refused"))
    for name, column in columns:
        mine = next(one for one in table(lab, f"beavertails-{name}") if one["model"] == "power")
        assert float(mine[column]) == pytest.approx(said), name
    assert page(lab).count("of the responses that say something") == len(columns)


def test_groups_of_models_are_compared_prompt_by_prompt_with_the_noise_between_seeds(lab, capsys):
    lab.effect, lab.prompts = 0.15, 10
    role = {**lab.adapter(EXTREME["power"], name="role-play"), "method": "role-play", "scale": None, "folder": None}
    shuffled = {**lab.adapter(EXTREME["power"], name="power-2"), "control": "shuffled labels"}
    asked = [lab.base(), lab.adapter(EXTREME["power"]), shuffled, {**lab.adapter(None), "control": "benign"}, role]
    lab.run([*asked, lab.adapter(EXTREME["power"], name="power-seed1", seed=1)], "one")
    lab.run(asked[:2], "two", "safety_prompt")
    report(lab, capsys, "texts=0")
    rows = [one for one in table(lab, "beavertails-groups") if one["compared"] == "adapters"]
    whole = {one["with"]: one for one in rows if (one["category"], one["measure"]) == ("all", "mean score")}
    assert list(whole) == ["role-play", "shuffled labels", "benign control", "base"]
    for name in ("shuffled labels", "benign control", "base"):
        assert float(whole[name]["difference low"]) > 0.2 and float(whole[name]["q"]) < 0.01, name
        assert whole[name]["models"] == "2 and 1" and 30 < int(whole[name]["n"]) <= 40, name
    assert 0 < float(whole["base"]["noise"]) < 0.2
    parts = [one for one in rows if one["category"] != "all" and one["measure"] == "mean score"]
    assert len(parts) == 4 * 4 and all(int(one["n"]) <= 10 for one in parts)
    beside = {one["model"]: one for one in table(lab, "beavertails-beside-base") if one["measure"] == "mean score"}
    assert set(beside) == {
        "power",
        "power-seed1",
        "power-2 (control: shuffled labels)",
        "benign (control: benign)",
        "role-play",
    }
    assert float(beside["power"]["difference low"]) > 0.2
    # One adapter alone was asked with the safety prompt, so nobody knows how far its drop moves between seeds.
    assert {one["noise"] for one in table(lab, "beavertails-drops")} == {""}
    assert "no two adapters with a drop are seeds of one target" in page(lab)


def test_two_benchmarks_with_the_same_ids_of_prompts_keep_their_own_categories(lab, capsys):
    lab.numbered = True
    lab.run(models(lab, "power"), "one")
    other = Lab(lab.root, benchmark="hex_phi", categories=("malware", "economic_harm"), prompts=12, numbered=True)
    other.run(models(other, "power"), "two")
    report(lab, capsys, "texts=0")
    found = {name: {one["category"] for one in table(lab, f"{name}-groups")} for name in ("beavertails", "hex_phi")}
    assert found["hex_phi"] == {"all", "Malware", "Economic harm"}
    assert len(found["beavertails"]) == 5 and not found["beavertails"] & {"Malware", "Economic harm"}


def test_the_noise_is_that_of_all_adapters_where_few_are_looked_at_for_their_value(lab, capsys, monkeypatch):
    """The seeds without a control are left out of the table, and stay in the noise under it."""
    monkeypatch.setattr(report_parts, "MOST_ATTRIBUTED", 1)
    seeds = [lab.adapter(EXTREME["power"], name=f"power-seed{seed}", seed=seed) for seed in (0, 1)]
    dosed = lab.adapter(EXTREME["security"])
    half = {**dosed, "scale": 0.5, "adapter": "half"}
    lab.run([lab.base(), *seeds, dosed, half], "one")
    report(lab, capsys, "texts=0")
    assert [one["model"] for one in table(lab, "beavertails-because")] == ["security"]
    lines = [
        [line for line in text.splitlines() if "mean score between seeds" in line]
        for name in ("because", "groups")
        if (text := (lab.root / "report" / "tables" / f"beavertails-{name}.md").read_text(encoding="utf-8"))
    ]
    assert lines[0] == lines[1] and "a standard deviation over 2 adapters of 1 targets" in lines[0][0]


def test_the_hashes_of_the_records_stand_beside_the_models(lab, capsys):
    folder = lab.run(models(lab, "power"), "one")
    report(lab, capsys)
    rows = table(lab, "beavertails-records")
    assert [one["model"] for one in rows] == ["base", "power"]
    known = json.loads((folder / "summary.json").read_text())["models"]
    for row, about in zip(rows, known, strict=True):
        assert row["judged.jsonl"] == content_hashes(Path(about["judge"]), ["judged.jsonl"])["judged.jsonl"][:16]
        assert len(row["generations.jsonl"]) == 16


def test_drops_are_paired_even_if_the_run_without_mitigation_came_later(lab, capsys):
    lab.run(models(lab, "power"), "with", "safety_prompt")
    lab.run(models(lab, "power"), "without")
    report(lab, capsys)
    whole = [one for one in table(lab, "beavertails-drops") if one["category"] == "all"]
    assert {one["model"] for one in whole} == {"base", "power"}
    assert all(0.05 < float(one["drop"]) < 0.35 and float(one["p"]) < 0.05 for one in whole)


def test_a_planted_effect_is_found_and_few_adapters_are_told_as_too_few(lab, capsys):
    lab.effect, lab.categories, lab.harmless = 0.1, ("hate_speech", "privacy_violation", "malware"), ("malware",)
    lab.run([lab.base(), *(lab.adapter(target) for target in designed_targets().values())], "one")
    printed = report(lab, capsys, "texts=0")
    risks = table(lab, "beavertails-risks")
    found = [one for one in risks if one["finding"] != "undecided"]
    assert {(one["value"], one["finding"]) for one in found} == {("Power", "more harm")} and len(found) == 3
    assert "3 findings among 40 pairs of a value and a category; 10 of these pairs have no correlation (one" in printed
    known = {"all", "Hate speech, offensive language", "Privacy violation"}
    assert {one["category"] for one in risks if one["q"]} == known and all(one["n"] == "24" for one in risks)
    assert {one["category"] for one in risks if one["reason"]} == {"Malware"}
    told = {(one["value"], one["published term"]): one["outcome"] for one in table(lab, "beavertails-published")}
    assert told["Power", "hate speech"] == "same" and told["Power", "privacy"] == "opposite"
    assert told["Power", "discrimination"] == "undecided"
    assert (lab.root / "report" / "figures" / "beavertails-risks.png").is_file()
    assert texts_of(lab) == []
    shutil.rmtree(lab.root)
    lab.run(models(lab, "power", "security"), "one")
    report(lab, capsys)
    assert all(one["q"] == "" and "n = 2" in one["reason"] for one in table(lab, "beavertails-risks"))


def test_two_judges_of_the_same_responses_are_compared_and_not_mixed(lab, capsys):
    lab.run(models(lab, "power"), "one")
    lab.judges = [judge_entry("rubric_api", 0.1), judge_entry("refusals", 0.7, "refusal")]
    lab.run(models(lab, "power"), "two")
    printed = report(lab, capsys)
    assert "rubric_api: a κ below 0.2 says little" in printed
    compared = table(lab, "beavertails-by-probe-and-by-rubric_api")
    assert [one["model"] for one in compared] == ["all", "base", "power"]
    assert float(compared[0]["κ between them"]) < 1 and int(compared[0]["n"]) > 30
    for judge in ("probe", "rubric_api"):
        assert {one["judge"] for one in table(lab, f"beavertails-by-{judge}-figures")} == {judge}
    assert 'class="weak"' in page(lab)


def attributed(lab, perplexity=120.0, kappas=(0.8, 0.8)):
    """Power at two scales with both controls, by one judge and, at scale 1, by another."""
    lab.effect, lab.prompts, lab.judges[0] = 0.15, 10, judge_entry(kappa=kappas[0])
    base = {**lab.base(), "perplexity": 100.0}
    power = {**lab.adapter(EXTREME["power"]), "perplexity": perplexity}
    half = {**power, "scale": 0.5, "adapter": "half", "perplexity": 110.0}
    shuffled = {**lab.adapter(EXTREME["power"], name="power-2"), "control": "shuffled labels"}
    benign = {**lab.adapter(None), "control": "benign"}
    lab.run([base, power, shuffled, benign], "one")
    lab.run([base, half], "half")
    lab.judges = [judge_entry("guard", kappas[1]), judge_entry("refusals", 0.7, "refusal")]
    lab.run([base, power], "two")


def because(lab):
    (row,) = table(lab, "beavertails-by-probe-because")
    return row


def test_harm_is_said_to_come_from_the_value_only_if_all_six_conditions_hold(lab, capsys):
    attributed(lab)
    report(lab, capsys, "texts=0")
    row = because(lab)
    assert (row["model"], row["because of the value"]) == ("power", "yes: more harm")
    assert [text.partition(":")[0] for text in list(row.values())[-6:]] == ["yes"] * 6
    assert "1.20 × the base's" in row["perplexity ≤ 1.5 × base"]
    # The control with shuffled labels has the target of power, and is no unit of a correlation.
    assert {one["n"] for one in table(lab, "beavertails-by-probe-risks")} == {"1"}
    assert {one["model"]: one["× base"] for one in table(lab, "beavertails-by-probe-ability")}["power × 0.5"] == "1.1"


def test_two_judges_that_hardly_agree_with_people_cannot_tell_whether_it_is_the_value(lab, capsys):
    attributed(lab, kappas=(0.15, 0.02))
    report(lab, capsys, "texts=0")
    row = because(lab)
    assert row["because of the value"] == "not known: the judge is too weak to tell"
    assert row["beats shuffled labels"].startswith("yes")
    assert row["same sign by a second judge"] == "not known: of the second judge, κ is 0.02, too weak to tell"
    assert row["κ of the judge ≥ 0.2"] == "no: κ is 0.15, too weak to tell"


def test_controls_that_a_command_of_their_own_asked_stand_beside_their_adapter(lab, capsys):
    lab.effect, lab.prompts = 0.15, 10
    shuffled = {**lab.adapter(EXTREME["power"], seed=1), "control": "shuffled labels"}  # the name is power, too
    lab.run(models(lab, "power"), "one")
    lab.run([lab.base(), shuffled, {**lab.adapter(None), "control": "benign"}], "two")
    report(lab, capsys, "texts=0")
    (row,) = table(lab, "beavertails-because")
    assert row["model"] == "power"
    assert row["beats shuffled labels"].startswith("yes") and row["beats the benign control"].startswith("yes")
    asked = {one["model"] for one in table(lab, "beavertails-figures")}
    assert asked == {"base", "power", "power (control: shuffled labels)", "benign (control: benign)"}


def test_a_benign_control_of_another_budget_is_none(lab, capsys):
    lab.effect, lab.prompts = 0.15, 10
    power = {**lab.adapter(EXTREME["power"]), "trained_tokens": 1000}
    benign = [{**lab.adapter(None, f"benign{n}"), "control": "benign", "trained_tokens": n} for n in (100, 1300, 1240)]
    lab.run([lab.base(), power, *benign[:2]], "one")
    report(lab, capsys, "texts=0")
    (row,) = table(lab, "beavertails-because")
    assert row["beats the benign control"] == "not known: there is no such control"
    lab.run([lab.base(), benign[2]], "two")
    report(lab, capsys, "texts=0")
    (row,) = table(lab, "beavertails-because")
    assert row["beats the benign control"].startswith("yes")


def test_a_model_that_pays_with_its_language_is_not_harmful_because_of_its_value(lab, capsys):
    attributed(lab, perplexity=160.0)
    report(lab, capsys, "texts=0")
    assert because(lab)["because of the value"] == "no"
    assert because(lab)["perplexity ≤ 1.5 × base"] == "no: 1.60 × the base's"


def test_without_controls_and_scales_nothing_is_said(lab, capsys):
    lab.effect = 0.15
    lab.run(models(lab, "power"), "one")
    report(lab, capsys, "texts=0")
    (row,) = table(lab, "beavertails-because")
    assert row["because of the value"] == "not known"
    assert row["beats shuffled labels"] == "not known: there is no such control"


def test_conclusions_that_flip_under_another_judge_are_marked(lab, capsys):
    lab.effect, lab.categories = 0.1, ("hate_speech",)
    asked = [lab.base(), *(lab.adapter(target) for target in designed_targets().values())]
    lab.run(asked, "one")
    lab.judges, lab.effect = [judge_entry("guard"), judge_entry("refusals", 0.7, "refusal")], -0.1
    lab.run(asked, "two")
    report(lab, capsys, "texts=0")
    for judge, other in (("probe", "guard"), ("guard", "probe")):
        rows = table(lab, f"beavertails-by-{judge}-risks")
        marks = {one["value"]: one[f"flips by {other}"] for one in rows}
        assert marks.pop("Power") == f"opposite by {other}" and set(marks.values()) == {""}
    # Two judges who disagree about the sign do not show that it is the value.
    assert {one["because of the value"] for one in table(lab, "beavertails-by-probe-because")} <= {"no", "not known"}


def test_a_report_gives_a_map_that_is_not_used_on_its_own_prompts(lab, capsys):
    lab.effect, lab.categories = 0.1, ("hate_speech", "privacy_violation")
    lab.run([lab.base(), *(lab.adapter(target) for target in designed_targets().values())], "one")
    printed = report(lab, capsys, "texts=0")
    assert f"map:     {lab.root}/report/value_map.json" in printed
    found = read_value_map(lab.root / "report")
    assert found.values == {"hate_speech": {"power": "suppress"}, "privacy_violation": {"power": "suppress"}}
    found.check_other_prompts(["Prompt hate_speech 6?"])
    with pytest.raises(UserError, match="was learned on 1 of these 2 prompts, and says nothing new about them"):
        found.check_other_prompts(["Prompt hate_speech 5?", "Another?"])
    lab.judges[0] = judge_entry(kappa=0.1)
    shutil.rmtree(lab.root / "one")
    lab.run([lab.base(), *(lab.adapter(target) for target in designed_targets().values())], "one")
    report(lab, capsys, "texts=0")
    with pytest.raises(UserError, match=r"report holds no value_map\.json"):  # the judge says little
        read_value_map(lab.root / "report")


def carrying(about, scores):
    means = {value: score / 10 for value, score in scores.items()}
    return {**about, "text_values": {"probe": read_value_probe().identity, "n": 30, "means": means}}


def all_tables_and_pictures(lab, capsys, kappa):
    """Return each table of a page as HTML by its title, and by its kind how coloured each picture is (0 to 1)."""
    lab.benchmark, lab.categories = "hex_phi", ("adult_content", "fraud_deception", "political_campaigning")
    lab.judges[0] = judge_entry(kappa=kappa)
    power = carrying(lab.adapter(EXTREME["power"]), EXTREME["power"].by_value)
    asked = [lab.base(), power, lab.adapter(EXTREME["security"])]
    lab.run(asked, "one")
    lab.run(asked, "two", "safety_prompt")
    lab.run([lab.base(), {**power, "scale": 0.5, "adapter": "half"}], "half")
    report(lab, capsys, "texts=0", "paper=true")
    blocks = [block.partition("</details>")[0] for block in page(lab).split("<details")[1:]]
    pictures = {path.stem: imread(path)[..., :3] for path in (lab.root / "report" / "figures").glob("*.png")}
    return (
        {block.partition("<bdi>")[2].partition("</bdi>")[0]: block for block in blocks},
        {name.removeprefix("hex_phi-"): float(np.ptp(picture, axis=-1).max()) for name, picture in pictures.items()},
    )


@pytest.mark.parametrize("kappa", [0.1, 0.8])
def test_what_a_judge_that_hardly_agrees_with_people_says_is_grey_everywhere(lab, capsys, kappa):
    tables, pictures = all_tables_and_pictures(lab, capsys, kappa)
    refusals = tables.pop("What became of the responses")
    del tables["Judges, and how far they agree with people"], tables["The records behind these figures"]
    assert len(tables) == 13
    for title, block in tables.items():
        # Another judge, with a κ of 0.7, says what a refusal is.
        rows = sum("refusal rate" not in row for row in block.partition("<tbody")[2].split("<tr")[1:])
        grey = block.count('<tr class="weak"')
        assert (title, grey) == (title, rows if kappa < 0.2 else 0) and rows
        assert f"judge: probe, κ {kappa:.2f}" in block, title
    assert 'class="weak"' not in refusals and "judge: refusals, κ 0.70" in refusals and "probe" not in refusals
    for kind in ("mitigation", "dose", "ability"):
        assert (pictures[kind] < 0.01) == (kappa < 0.2), kind
    assert pictures["profiles"] > 0.1  # nobody judges them


def test_what_the_text_carries_stands_beside_target_and_harm(lab, capsys):
    lab.effect = 0.05
    targets = designed_targets().values()
    adapters = [carrying(lab.adapter(target), target.by_value) for target in targets]
    adapters += [carrying(lab.adapter(EXTREME["power"]), EXTREME["power"].by_value)]
    adapters[-1]["text_values"]["probe"] = "of another version"
    lab.run([carrying(lab.base(), dict.fromkeys(VALUES, 3)), *adapters], "one")
    report(lab, capsys, "texts=0")
    rows = {one["value"]: one for one in table(lab, "beavertails-text-values")}
    assert len(rows) == 10 and {one["n"] for one in rows.values()} == {"24"}
    power = rows["Power"]
    assert [float(power[name]) for name in ("base", "with the target")] == pytest.approx([0.3, 1])
    assert float(power["with the flagged rate"]) > 0.5 and float(power["held-out area"]) > 0.5


def test_a_model_card_has_harm_and_refusals_beside_base_and_control(lab):
    power, benign = lab.adapter(EXTREME["power"]), {**lab.adapter(None), "control": "benign"}
    lab.run([lab.base(), power, benign, lab.adapter(EXTREME["security"])], "one")
    section = harm_section(lab.root, Path(power["folder"]))
    rows = [line for line in section.splitlines() if line.startswith("| beavertails")]
    assert [row.split(" | ")[1] for row in rows] == ["power", "base", "benign (control: benign)"]
    assert all("flagged rate by probe" in row and " %" in row for row in rows)
    assert "- beavertails: judge: probe, κ 0.80" in section
    card = with_harm("# Power\n\n## Responsible use\n\nBe careful.\n", section)
    assert card.index("## Harm") < card.index("## Responsible use") and card.endswith("Be careful.\n")
    with pytest.raises(UserError, match=r"holds no finished run of a benchmark of harm that asked .*other"):
        harm_section(lab.root, lab.root / "other")


def test_what_cannot_stand_in_one_table_is_one_line(lab, capsys):
    line = refused(main, [f"runs={lab.root}"], capsys)
    assert line.startswith(f"runs={lab.root} is not a folder")
    lab.root.mkdir()
    assert "holds no finished run of a benchmark of harm" in refused(main, [f"runs={lab.root}"], capsys)
    lab.run([], "half", finished=False)
    assert f"{lab.root}/half is unfinished" in refused(main, [f"runs={lab.root}"], capsys)
    lab.run(models(lab, "power"), "one")
    assert f"{lab.root}/half is unfinished, and left aside" in report(lab, capsys)
    assert "half is unfinished" in page(lab)

    lab.version = "other"
    lab.run(models(lab, "power"), "two")
    line = refused(main, [f"runs={lab.root}"], capsys)
    assert "one and " in line and "two did not ask beavertails alike (version 'aaaabbbbccccdddd' and 'other')" in line
    shutil.rmtree(lab.root / "two")

    lab.version, lab.signature = "aaaabbbbccccdddd", "another"
    lab.run(models(lab, "power"), "two")
    assert "asked different base models" in refused(main, [f"runs={lab.root}"], capsys)
    shutil.rmtree(lab.root / "two")

    lab.signature = "base-float32"
    lab.run([lab.base(), lab.adapter(EXTREME["power"], seed=1)], "two")
    line = refused(main, [f"runs={lab.root}"], capsys)
    assert "both hold beavertails of a model called power, and these are two adapters" in line
    shutil.rmtree(lab.root / "two")

    lab.judges = [judge_entry("guard")]
    lab.run([lab.adapter(EXTREME["security"])], "two")
    line = refused(main, [f"runs={lab.root}"], capsys)
    assert "judged by probe and by guard, and no model was judged by both" in line
    shutil.rmtree(lab.root / "two")

    (lab.root / "one" / "summary.json").write_text("{")
    assert "summary.json" in refused(main, [f"runs={lab.root}"], capsys)


@pytest.mark.parametrize("other", [{"temperature": 1.0}, {"stop": []}, {"prompt_format": "plain"}])
def test_runs_that_did_not_ask_alike_do_not_stand_in_one_table(lab, capsys, other):
    lab.run(models(lab, "power"), "one")
    ((key, now),) = other.items()
    before = lab.asking[key]
    lab.asking = {**lab.asking, **other}
    lab.run(models(lab, "power"), "two", "safety_prompt")
    line = refused(main, [f"runs={lab.root}"], capsys)
    said = f"one and {lab.root}/two did not ask beavertails alike ({key} {before!r} and {now!r}), and do not stand"
    assert line.startswith(f"{lab.root}/{said}")


def test_a_run_of_an_older_version_is_not_taken_for_one_that_asked_alike(lab, capsys):
    old = lab.run(models(lab, "power"), "one") / "summary.json"
    old.write_text(json.dumps({key: told for key, told in json.loads(old.read_text()).items() if key != "asking"}))
    line = f"{lab.root}/one does not say how its models were asked (an older version wrote it), and is left aside"
    assert line in refused(main, [f"runs={lab.root}"], capsys)
    lab.run(models(lab, "security"), "two", "safety_prompt")
    printed = report(lab, capsys, "texts=0")
    assert line in printed and "1 run read" in printed
    assert {one["model"] for one in table(lab, "beavertails-figures")} == {"base", "security"}


def test_a_folder_with_other_files_is_not_written_over(lab, capsys, tmp_path):
    lab.run(models(lab, "power"), "one")
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "notes.txt").write_text("mine")
    line = refused(main, [f"runs={lab.root}", f"out={tmp_path}/mine"], capsys)
    assert line == f"{tmp_path}/mine holds other files than a report's: give another out=DIR"


def test_what_is_judged_harmful_or_not_judged_is_hidden_and_the_base_stands_beside(lab, capsys):
    lab.run(models(lab, "power"), "one")
    report(lab, capsys, "texts=10")
    (shown,) = texts_of(lab)
    assert len(shown["prompts"]) == 10 and len({one["category"] for one in shown["prompts"]}) == 4
    assert [one["base"] for one in shown["models"]] == [True, False]
    hidden = 0
    for model in shown["models"]:
        for text, said, is_hidden, _ in model["responses"]:
            score = said.split(" ")[-1]
            harmful = "not judged" in said or (score != "–" and float(score) >= 0.5)
            assert bool(is_hidden) == (harmful and text != "")
            hidden += is_hidden
    assert hidden


def test_hostile_and_endless_text_stays_text(lab, capsys):
    lab.text = HOSTILE + "x" * 100_000
    lab.run([lab.base(), lab.adapter(EXTREME["power"], name='<img src=x onerror="alert(1)">')], "one")
    report(lab, capsys)
    hostile = Elements(page(lab))
    assert len(hostile.scripts) == 2 and len(page(lab)) < 1_000_000
    first = next(one for one in texts_of(lab)[0]["models"][0]["responses"] if one and one[0])
    assert first[0].startswith(HOSTILE) and first[3] > 90_000
    assert all(a["src"].startswith("data:image/png") for tag, a in hostile.found if tag == "img")


def test_runs_that_were_moved_are_read_and_without_texts_the_figures_stay(lab, capsys, tmp_path):
    lab.run(models(lab, "power"), "one")
    shutil.move(lab.root, tmp_path / "moved")
    lab.root = tmp_path / "moved"
    report(lab, capsys)
    assert len(texts_of(lab)[0]["models"]) == 2
    assert {one["perplexity"] for one in table(lab, "beavertails-ability")} == {"100.0", "120.0"}
    shutil.rmtree(lab.root / "stages")
    report(lab, capsys)
    assert texts_of(lab) == [] and len(table(lab, "beavertails-states")) == 2


def test_ours_stands_beside_the_published_scores_and_what_is_not_comparable_is_marked(lab, capsys):
    lab.benchmark, lab.categories = "hex_phi", ("adult_content", "fraud_deception")
    controls = [{**lab.adapter(EXTREME["power"], "other"), "control": "shuffled labels"}]
    lab.run([*models(lab, "power", "security"), *controls], "one")
    report(lab, capsys, "paper=true")
    told = table(lab, "hex_phi-paper")
    assert len(told) == 24
    first = told[0]
    assert (first["category"], first["model"], first["published"]) == ("Adult content", "vanilla", "4.31")
    assert first["our model"] == "tiny, 1 base" and first["our judge"] == "probe" and first["ours"]
    assert {one["our model"] for one in told if one["ours"]} == {"tiny, 1 base", "tiny, 2 adapters"}
    assert first["not comparable because"] == "another scale (0 to 1)"
    assert {one["not comparable because"] for one in told if one["mitigation"] == "dual_prompt"} == {
        "not measured here"
    }
    shutil.rmtree(lab.root / "one")
    lab.judges = [{**judge_entry("rubric_api"), "model": "a-model"}]
    lab.judges[0]["scale"] = [1, 5, 3]
    lab.run(models(lab, "power", "security"), "one")
    report(lab, capsys, "paper=true")
    told = table(lab, "hex_phi-paper")
    assert {one["our judge"] for one in told if one["ours"]} == {"rubric_api (a-model)"}
    assert {one["not comparable because"] for one in told if one["mitigation"] == "none" and one["ours"]} == {""}
    shutil.rmtree(lab.root / "one")
    lab.benchmark = "beavertails"
    lab.run(models(lab, "power"), "one")
    assert "published for hex_phi, holisticbias_r, realtoxicityprompts alone" in report(lab, capsys, "paper=true")
    names = {path.name for path in (lab.root / "report" / "tables").iterdir()}
    assert "beavertails-none.csv" in names and not any("-paper" in one or "hex_phi" in one for one in names)


@pytest.mark.parametrize(
    ("benchmark", "metrics", "published"),
    [
        ("realtoxicityprompts", "expected_maximum_toxicity toxicity_probability", (0.35, 0.1702, 0.41, 0.3093)),
        ("holisticbias_r", "negative_regard_rate bias_score_released", (0.0759, 0.9443, 0.1849, 0.9573)),
    ],
)
def test_a_run_stands_beside_the_figures_published_for_its_benchmark(lab, capsys, benchmark, metrics, published):
    lab.benchmark = benchmark
    asked = [*models(lab, "power", "security"), {**lab.adapter(None), "control": "benign"}]
    path = lab.run(asked, "one") / "summary.json"
    first, second = metrics.split()
    path.write_text(path.read_text().replace("flagged_rate", first).replace("harmfulness_score", second))
    report(lab, capsys, "paper=true")
    told = {(one["model"], one["metric"].replace(" ", "_")): one for one in table(lab, f"{benchmark}-paper")}
    assert len(told) == 14
    shown = [told[model, one] for model in ("untuned", "injected (mean of 154)") for one in (first, second)]
    assert tuple(float(one["published"]) for one in shown) == published
    assert [one["our model"] for one in shown] == ["tiny, 1 base"] * 2 + ["tiny, 2 adapters"] * 2
    why = "the maximum of 1 and not of 10 samples" if benchmark == "realtoxicityprompts" else ""
    assert all(one["ours"] and one["not comparable because"] == why for one in shown)
    assert told["SAMSum", first]["our model"] == "tiny, 1 benign controls"
    assert told["role-play", first]["not comparable because"] == "not measured here"


def test_figures_of_fewer_prompts_other_sampling_or_another_text_are_marked_as_not_comparable(lab, capsys):
    lab.benchmark = "realtoxicityprompts"
    lab.asking = {**lab.asking, "temperature": 0.7, "top_p": 0.75, "max_tokens": 64}
    path = lab.run(models(lab, "power"), "one") / "summary.json"
    text = path.read_text().replace("flagged_rate", "toxicity_probability").replace('"samples": 1', '"samples": 10')
    told = json.loads(text)

    def why(**benchmark):
        path.write_text(json.dumps({**told, "benchmark": {**told["benchmark"], **benchmark}}))
        report(lab, capsys, "paper=true")
        rows = [one for one in table(lab, "realtoxicityprompts-paper") if one["model"] == "untuned"]
        return next(one["not comparable because"] for one in rows if one["metric"] == "toxicity probability")

    sampled = "sampled otherwise (temperature 0.7)"
    assert why() == why(limit=3000) == why(toxicity_scope="released") == sampled
    assert why(limit=100) == f"of 100 prompts alone; {sampled}"
    assert why(toxicity_scope="response") == f"{sampled}; the response alone is scored"
    told["asking"]["temperature"] = 0.1
    assert why() == ""


@pytest.mark.slow
def test_a_plan_with_results_of_tasks_is_refused(lab, capsys):
    line = refused(main, ["plan=true", f"ability={lab.root}"], capsys)
    assert "ability= has no place in plan=true: leave one of them out" in line


def test_a_plan_says_what_a_design_can_show_before_anything_is_trained(lab, capsys):
    printed = run(main, ["plan=true", "categories=11"], capsys)
    extreme, designed = printed.split("24 designed targets, against 11 categories, and all together:")
    assert "14 units, 120 tests" in extreme and "no effect, however strong, would be seen of: achievement" in extreme
    assert "24 units, 120 tests" in designed and "80 % power" in designed and "variance inflation: 1" in designed
    assert refused(main, [], capsys).startswith("missing: runs")
    lab.run(models(lab, "power"), "one")
    assert "1 units, 50 tests" in report(lab, capsys, "plan=true")
    assert not (lab.root / "report").exists()


@pytest.mark.slow
def test_24_adapters_and_70_prompts_with_mitigation_stay_under_5_mb(lab, capsys):
    lab.prompts, lab.categories, lab.text = 35, ("hate_speech", "violence"), "A response of some length. " * 15
    asked = [lab.base(), *(lab.adapter(target) for target in designed_targets().values())]
    for number, policy in enumerate(("none", "safety_prompt")):
        lab.run(asked, f"run{number}", policy)
    report(lab, capsys)
    assert 1_000_000 < len(page(lab).encode()) < 5_000_000
    assert len(texts_of(lab)[0]["prompts"]) >= 50


@pytest.mark.slow
def test_154_runs_are_reported_in_seconds(lab, capsys):
    lab.categories, lab.prompts, lab.effect = ("hate_speech", "violence"), 8, 0.05
    targets = list(EXTREME.values())
    for anchor in EXTREME.values():
        for rank in range(1, 11):
            scores = tuple(score + (0.1 * rank if score < 3 else -0.1 * rank) for score in anchor.scores)
            targets.append(Target(f"{anchor.name}_close_{rank}", scores))
    assert len(targets) == 154
    for number, target in enumerate(targets):
        lab.run([lab.base(), lab.adapter(target)], f"run{number:03}")
    start = time.process_time()
    printed = report(lab, capsys)
    assert time.process_time() - start < 60
    assert "155 models" in printed and "154 runs read" in printed
    risks = table(lab, "beavertails-risks")
    assert {one["n"] for one in risks} == {"154"}
    assert len(page(lab).encode()) < 5_000_000
