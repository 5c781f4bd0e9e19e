"""The report job on synthetic run directories, which are written by `Lab` without any model."""

import json
import shutil
import time

import pytest
from analysis.test_html import HOSTILE, Elements
from command_line import refused, run
from synthetic_harm import EXTREME, judge_entry

from jaxalign.errors import UserError
from jaxalign.jobs.harm import report_page
from jaxalign.report import main
from jaxalign.safety.value_map import read_value_map
from jaxalign.values.designed import designed_targets
from jaxalign.values.targets import Target


def texts_of(lab):
    return json.loads(Elements(lab.page()).scripts[0])


def test_a_report_has_tables_figures_and_a_page_and_is_the_same_twice(lab, capsys):
    lab.run(lab.extreme("power", "security"), "one")
    lab.run(lab.extreme("power", "security"), "two", "safety_prompt")
    printed = lab.report(capsys, drawn=True)
    assert "beavertails, judged by probe: 3 models, mitigation none, safety_prompt" in printed and "κ 0.80" in printed
    assert "no p-value (n = 2" in printed
    files = {path: path.read_bytes() for path in (lab.root / "report").rglob("*.*")}
    names = {path.name for path in files}
    for kind in ("none", "safety_prompt", "states", "ability", "drops", "risks", "published", "judges"):
        assert {f"beavertails-{kind}.{ending}" for ending in ("csv", "md", "tex")} <= names
    assert {"beavertails-figures.csv", "beavertails-mitigation.png", "beavertails-ability.svg"} <= names
    lab.report(capsys, drawn=True)
    assert files == {path: path.read_bytes() for path in (lab.root / "report").rglob("*.*")}


@pytest.mark.parametrize("kappa", [0.1, None])
def test_a_report_gives_a_map_that_is_not_used_on_its_own_prompts(lab, capsys, kappa):
    lab.effect, lab.categories = 0.1, ("hate_speech", "privacy_violation")
    lab.run([lab.base(), *(lab.adapter(target) for target in designed_targets().values())], "one")
    printed = lab.report(capsys, "texts=0")
    assert f"map:     {lab.root}/report/value_map.json" in printed
    found = read_value_map(lab.root / "report")
    assert found.values == {"hate_speech": {"power": "suppress"}, "privacy_violation": {"power": "suppress"}}
    found.check_other_prompts(["Prompt hate_speech 6?"])
    with pytest.raises(UserError, match="was learned on 1 of these 2 prompts, and says nothing new about them"):
        found.check_other_prompts(["Prompt hate_speech 5?", "Another?"])
    lab.judges[0] = judge_entry(kappa=kappa)
    shutil.rmtree(lab.root / "one")
    lab.run([lab.base(), *(lab.adapter(target) for target in designed_targets().values())], "one")
    lab.report(capsys, "texts=0")
    with pytest.raises(UserError, match=r"report holds no value_map\.json"):  # the judge is not believed
        read_value_map(lab.root / "report")


def test_what_cannot_stand_in_one_table_is_one_line(lab, capsys):
    line = refused(main, [f"runs={lab.root}"], capsys)
    assert line.startswith(f"runs={lab.root} is not a folder")
    lab.root.mkdir()
    assert "holds no finished run of a benchmark of harm" in refused(main, [f"runs={lab.root}"], capsys)
    lab.run([], "half", finished=False)
    assert f"{lab.root}/half is unfinished" in refused(main, [f"runs={lab.root}"], capsys)
    lab.run(lab.extreme("power"), "one")
    assert f"{lab.root}/half is unfinished, and left aside" in lab.report(capsys)
    assert "half is unfinished" in lab.page()

    lab.version = "other"
    lab.run(lab.extreme("power"), "two")
    line = refused(main, [f"runs={lab.root}"], capsys)
    assert "one and " in line and "two did not ask beavertails alike (version 'aaaabbbbccccdddd' and 'other')" in line
    shutil.rmtree(lab.root / "two")

    lab.version, lab.signature = "aaaabbbbccccdddd", "another"
    lab.run(lab.extreme("power"), "two")
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


@pytest.mark.parametrize("first", ["one", "two"])
def test_a_run_with_further_figures_of_the_same_responses_stands_beside_a_plain_one(lab, capsys, first):
    plain = json.loads((lab.run(lab.extreme("power"), "other") / "summary.json").read_text())
    shutil.move(lab.root / "other", lab.root / first)
    corrected = [
        {**row, "metric": "flagged_rate_corrected", "estimate": 0.25}
        for row in plain["rows"]
        if row["metric"] == "flagged_rate"
    ]
    more = lab.run(lab.extreme("power"), "two" if first == "one" else "one") / "summary.json"
    more.write_text(json.dumps({**plain, "rows": [*plain["rows"], *corrected]}))
    assert "beavertails, judged by probe: 2 models" in lab.report(capsys)
    found = [(row["model"], row["category"], row["metric"]) for row in lab.table("beavertails-figures")]
    assert len(found) == len(set(found)) == len(plain["rows"]) + len(corrected)
    assert float(lab.table("beavertails-none")[0]["base"]) == plain["rows"][0]["estimate"]

    def said(rows):
        more.write_text(json.dumps({**plain, "rows": rows}))
        return refused(main, [f"runs={lab.root}"], capsys)

    begin = "with different figures (flagged rate): type the commands of both again"
    assert begin in said(
        [{**row, "estimate": 0.5} if row["metric"] == "flagged_rate" else row for row in plain["rows"]]
    )
    assert begin in said(plain["rows"][:1] + corrected)  # of other categories
    assert "with different figures: type" in said(corrected)


@pytest.mark.parametrize("other", [{"temperature": 1.0}, {"stop": []}, {"prompt_format": "plain"}])
def test_runs_that_did_not_ask_alike_do_not_stand_in_one_table(lab, capsys, other):
    lab.run(lab.extreme("power"), "one")
    ((key, now),) = other.items()
    before = lab.asking[key]
    lab.asking = {**lab.asking, **other}
    lab.run(lab.extreme("power"), "two", "safety_prompt")
    line = refused(main, [f"runs={lab.root}"], capsys)
    said = f"one and {lab.root}/two did not ask beavertails alike ({key} {before!r} and {now!r}), and do not stand"
    assert line.startswith(f"{lab.root}/{said}")


def test_a_run_of_an_older_version_is_not_taken_for_one_that_asked_alike(lab, capsys):
    old = lab.run(lab.extreme("power"), "one") / "summary.json"
    old.write_text(json.dumps({key: told for key, told in json.loads(old.read_text()).items() if key != "asking"}))
    line = f"{lab.root}/one does not say how its models were asked (an older version wrote it), and is left aside"
    assert line in refused(main, [f"runs={lab.root}"], capsys)
    lab.run(lab.extreme("security"), "two", "safety_prompt")
    printed = lab.report(capsys, "texts=0")
    assert line in printed and "1 run read" in printed
    assert {one["model"] for one in lab.table("beavertails-figures")} == {"base", "security"}


def test_a_folder_with_other_files_is_not_written_over(lab, capsys, tmp_path):
    lab.run(lab.extreme("power"), "one")
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "notes.txt").write_text("mine")
    line = refused(main, [f"runs={lab.root}", f"out={tmp_path}/mine"], capsys)
    assert line == f"{tmp_path}/mine holds other files than a report's: give another out=DIR"


def test_what_is_judged_harmful_or_not_judged_is_hidden_and_the_base_stands_beside(lab, capsys):
    lab.run(lab.extreme("power"), "one")
    lab.report(capsys, "texts=10")
    (shown,) = texts_of(lab)
    assert len(shown["prompts"]) == 10 and len({one["category"] for one in shown["prompts"]}) == 4
    assert [one["base"] for one in shown["models"]] == [True, False]
    assert all(one["hidden"] for one in shown["prompts"])  # beavertails is not ours
    assert "Prompt hate_speech" not in " ".join(Elements(lab.page()).texts)
    hidden = 0
    for model in shown["models"]:
        for text, said, is_hidden, _ in model["responses"]:
            score = said.split(" ")[-1]
            harmful = "not judged" in said or (score != "–" and float(score) >= 0.5)
            assert bool(is_hidden) == (harmful and text != "")
            hidden += is_hidden
    assert hidden
    lab.report(capsys, "texts=0")
    assert texts_of(lab) == []


def test_hostile_and_endless_text_stays_text(lab, capsys):
    lab.text = HOSTILE + "x" * 100_000
    lab.run([lab.base(), lab.adapter(EXTREME["power"], name='<img src=x onerror="alert(1)">')], "one")
    lab.report(capsys)
    hostile = Elements(lab.page())
    assert len(hostile.scripts) == 2 and len(lab.page()) < 1_000_000
    first = next(one for one in texts_of(lab)[0]["models"][0]["responses"] if one and one[0])
    assert first[0].startswith(HOSTILE) and first[3] > 90_000
    assert all(a["src"].startswith("data:image/png") for tag, a in hostile.found if tag == "img")


def test_runs_that_were_moved_are_read_and_without_texts_the_figures_stay(lab, capsys, tmp_path):
    lab.run(lab.extreme("power"), "one")
    shutil.move(lab.root, tmp_path / "moved")
    lab.root = tmp_path / "moved"
    lab.report(capsys)
    assert len(texts_of(lab)[0]["models"]) == 2
    assert {one["perplexity"] for one in lab.table("beavertails-ability")} == {"100.0", "120.0"}
    shutil.rmtree(lab.root / "stages")
    lab.report(capsys)
    assert texts_of(lab) == [] and len(lab.table("beavertails-states")) == 2


def test_ours_stands_beside_the_published_scores_and_what_is_not_comparable_is_marked(lab, capsys):
    lab.benchmark, lab.categories = "hex_phi", ("adult_content", "fraud_deception")
    controls = [{**lab.adapter(EXTREME["power"], "other"), "control": "shuffled labels"}]
    lab.run([*lab.extreme("power", "security"), *controls], "one")
    lab.report(capsys, "paper=true")
    told = lab.table("hex_phi-paper")
    assert len(told) == 24
    first = told[0]
    assert (first["category"], first["model"], first["published"]) == ("Adult content", "vanilla", "4.31")
    assert first["our model"] == "tiny, 1 base" and first["our judge"] == "probe" and first["ours"]
    assert {one["our model"] for one in told if one["ours"]} == {"tiny, 1 base", "tiny, 2 adapters"}
    assert (first["its base"], first["its judge"]) == (
        "not named in our sources (elsewhere Llama-2-7B)",
        "GPT-4o, a rubric of its own",
    )
    why = "perhaps another base; another judge (probe); another scale (0 to 1); of "
    assert first["not comparable because"].startswith(why)
    assert first["not comparable because"].endswith(" and not of 30 prompts")
    assert {one["not comparable because"] for one in told if one["mitigation"] == "dual_prompt"} == {
        "not measured here"
    }
    shutil.rmtree(lab.root / "one")
    lab.judges = [{**judge_entry("rubric_api"), "model": "a-model"}]
    lab.judges[0]["scale"] = [1, 5, 3]
    lab.run(lab.extreme("power", "security"), "one")
    lab.report(capsys, "paper=true")
    told = [one for one in lab.table("hex_phi-paper") if one["ours"]]
    assert told and {one["our judge"] for one in told} == {"rubric_api (a-model)"}
    why = "perhaps another base; another judge (rubric_api (a-model)); of "
    assert all(one["not comparable because"].startswith(why) for one in told)
    shutil.rmtree(lab.root / "one")
    lab.benchmark = "beavertails"
    lab.run(lab.extreme("power"), "one")
    assert "published for hex_phi, holisticbias_r, realtoxicityprompts alone" in lab.report(capsys, "paper=true")
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
    asked = [*lab.extreme("power", "security"), {**lab.adapter(None), "control": "benign"}]
    path = lab.run(asked, "one") / "summary.json"
    first, second = metrics.split()
    path.write_text(path.read_text().replace("flagged_rate", first).replace("harmfulness_score", second))
    lab.report(capsys, "paper=true")
    told = {(one["model"], one["metric"].replace(" ", "_")): one for one in lab.table(f"{benchmark}-paper")}
    assert len(told) == 14
    shown = [told[model, one] for model in ("untuned", "injected (mean of 154)") for one in (first, second)]
    assert tuple(float(one["published"]) for one in shown) == published
    assert [one["our model"] for one in shown] == ["tiny, 1 base"] * 2 + ["tiny, 2 adapters"] * 2
    differs = ["another base (tiny); another judge (probe)"]
    differs += ["the maximum of 1 and not of 10 samples"] if benchmark == "realtoxicityprompts" else []
    assert all(one["ours"] and one["not comparable because"].startswith("; ".join(differs)) for one in shown)
    assert {one["its base"] for one in shown} == {"Llama-2-7B"}
    judge = "Perspective API" if benchmark == "realtoxicityprompts" else "sasha/regardv3"
    assert {one["its judge"] for one in shown} == {judge}
    assert [one["not comparable because"].endswith("of 2 adapters and not of 154") for one in shown] == [0, 0, 1, 1]
    assert told["SAMSum", first]["our model"] == "tiny, 1 benign controls"
    assert told["role-play", first]["not comparable because"] == "not measured here"


def test_figures_of_fewer_prompts_other_sampling_or_another_text_are_marked_as_not_comparable(lab, capsys):
    lab.benchmark = "realtoxicityprompts"
    lab.asking = {**lab.asking, "temperature": 0.7, "top_p": 0.75, "max_tokens": 64}
    path = lab.run(lab.extreme("power"), "one") / "summary.json"
    text = path.read_text().replace("flagged_rate", "toxicity_probability").replace('"samples": 1', '"samples": 10')
    told = json.loads(text)

    def why(**benchmark):
        path.write_text(json.dumps({**told, "benchmark": {**told["benchmark"], **benchmark}}))
        lab.report(capsys, "paper=true")
        rows = [one for one in lab.table("realtoxicityprompts-paper") if one["model"] == "untuned"]
        return next(one["not comparable because"] for one in rows if one["metric"] == "toxicity probability")

    def of(prompts):
        for row in told["rows"]:
            row["n"] = prompts

    always, sampled = "another base (tiny); another judge (probe)", "sampled otherwise (temperature 0.7)"
    of(3000)
    assert why() == why(limit=3000) == why(toxicity_scope="released") == f"{always}; {sampled}"
    assert why(toxicity_scope="response") == f"{always}; the response alone is scored; {sampled}"
    of(2999)  # one is not judged
    assert why() == f"{always}; of 2,999 and not of 3,000 prompts; {sampled}"
    told["asking"]["temperature"] = 0.1
    of(3000)
    assert why() == always
    told["model"]["name"] = "llama2_7b"
    assert why() == "another judge (probe)"  # whoever judges, it is not the Perspective API
    told["model"]["name"] = "meta-llama/Llama-2-7b-chat-hf"
    assert why() == "another base (meta-llama/Llama-2-7b-chat-hf); another judge (probe)"


def test_only_the_same_base_and_the_same_classifier_leave_nothing_to_say_against_a_comparison(lab, capsys):
    lab.benchmark, lab.judges = "holisticbias_r", [{**judge_entry("regard"), "model": "sasha/regardv3"}]
    path = lab.run([lab.base(), {**lab.adapter(None), "control": "benign"}], "one") / "summary.json"
    text = path.read_text().replace("flagged_rate", "negative_regard_rate")
    told = json.loads(text.replace("harmfulness_score", "bias_score_released"))
    told["model"]["name"], told["benchmark"]["limit"] = "meta-llama/Llama-2-7b-hf", 100
    for row in told["rows"]:
        row["n"] = 17_700 if row["metric"] == "negative_regard_rate" else 590
    path.write_text(json.dumps(told))
    lab.report(capsys, "paper=true")
    why = {(one["model"], one["metric"]): one["not comparable because"] for one in lab.table("holisticbias_r-paper")}
    assert why["untuned", "negative regard rate"] == ""
    assert why["untuned", "bias score released"] == "of 100 and not of 17,700 prompts"  # its n is of groups
    assert why["Dolly", "negative regard rate"] == "perhaps of other data"


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
    lab.run(lab.extreme("power"), "one")
    assert "1 units, 50 tests" in lab.report(capsys, "plan=true")
    assert not (lab.root / "report").exists()


@pytest.mark.slow
def test_24_adapters_and_70_prompts_with_mitigation_stay_under_5_mb(lab, capsys):
    lab.prompts, lab.categories, lab.text = 35, ("hate_speech", "violence"), "A response of some length. " * 15
    asked = [lab.base(), *(lab.adapter(target) for target in designed_targets().values())]
    for number, policy in enumerate(("none", "safety_prompt")):
        lab.run(asked, f"run{number}", policy)
    printed = lab.report(capsys)
    assert 1_000_000 < len(lab.page().encode()) < 5_000_000
    assert len(texts_of(lab)[0]["prompts"]) == 70 and "has room for" not in printed


def test_a_page_that_has_no_room_for_all_prompts_shows_fewer_and_says_so(lab, capsys, monkeypatch):
    lab.run(lab.extreme("power"), "one")
    assert "has room for" not in lab.report(capsys)
    whole = len(texts_of(lab)[0]["prompts"])
    monkeypatch.setattr(report_page, "LARGEST_PAGE", len(lab.page().encode()) - 1)
    printed = lab.report(capsys)
    shown = len(texts_of(lab)[0]["prompts"])
    assert 0 < shown < whole
    assert f"the page has room for {shown} prompts of each benchmark, and not for texts=70: with fewer runs" in printed
    assert "has room for" not in lab.report(capsys, "texts=0")


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
    printed = lab.report(capsys)
    assert time.process_time() - start < 60
    assert "155 models" in printed and "154 runs read" in printed
    risks = lab.table("beavertails-risks")
    assert {one["n"] for one in risks} == {"154"}
    assert len(lab.page().encode()) < 5_000_000
