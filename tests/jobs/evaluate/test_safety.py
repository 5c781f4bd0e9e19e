"""Benchmarks of harm from the command line, on the tiny random model, with judges of a random probe on it."""

import csv
import dataclasses
import json
import os
from pathlib import Path

import numpy as np
import pytest
from analysis.test_html import Elements
from command_line import refused, run
from jobs.answers_of_tiny import records
from kills import left_by_kill
from runs_of_tiny import OWN, read_tiny

from jaxalign.evaluate import main
from jaxalign.jobs.evaluate import safety
from jaxalign.jobs.harm import judged_file, judges
from jaxalign.jobs.setup import OpenedModel
from jaxalign.pretrained.tokenizer import tiny_tokenizer
from jaxalign.report import main as report
from jaxalign.safety.judges.probe import ProbeWeights, write_probe


@pytest.fixture(scope="session")
def probes(tmp_path_factory):
    """Settings of judges that are random probes on the tiny model."""
    folder, model = tmp_path_factory.mktemp("probes"), read_tiny()
    random = np.random.Generator(np.random.PCG64(0))
    for about in ("harm", "refusal"):
        weights = random.normal(size=32).astype(np.float32)
        write_probe(folder / f"{about}.safetensors", ProbeWeights(about, model.identity, weights, 0.0))
    return [
        *("judge.model=tiny", "judge.refusal_model=tiny", "judge.calibrate=false"),
        *(f"judge.weights={folder}/harm.safetensors", f"judge.refusal_weights={folder}/refusal.safetensors"),
    ]


@pytest.fixture(autouse=True)
def few_labels(monkeypatch):
    """Measures judges on every twentieth of the shipped labels: reading them all would take most of the time."""
    every = judges.measuring_labels

    def few(path):
        found = every(path)
        return found if path is not None else dataclasses.replace(found, rows=found.rows[::20])

    monkeypatch.setattr(judges, "measuring_labels", few)


STARTER = ["benchmark=starter_probes", "precision=float32", "benchmark.max_tokens=6", "benchmark.temperature=1"]
STARTER += ["alignment.validation_fraction=0.02"]  # perplexity is then of 13 texts
FEW = [*STARTER, "benchmark.limit=8"]  # everywhere, so that the tests share their compiled programs
TINY = ["model=tiny", *FEW]


def table(folder):
    with (folder / "table.csv").open() as file:
        return list(csv.DictReader(file))


def stage_folders(root, stage):
    return sorted((root / "stages").glob(f"{stage}-*"))


@pytest.mark.slow
def test_base_and_adapter_stand_in_one_table_by_category(adapters, probes, here, capsys, monkeypatch):
    home = Path(os.path.commonpath([adapters, here]))
    monkeypatch.setenv("HOME", str(home))
    arguments = [f"adapter={adapters / 'power'}", *FEW, *probes, f"run.root={here}/outputs"]
    printed = run(main, arguments, capsys)
    assert "judge: probe, uncalibrated" in printed and "refusal" in printed
    (folder,) = (here / "outputs").glob("starter_probes-none-base-power-tiny-*")
    summary = json.loads((folder / "summary.json").read_text())
    assert summary["kind"] == "harm" and summary["benchmark"]["prompts"] == 8
    assert (summary["asking"]["temperature"], summary["asking"]["engine"]) == (1, "jaxalign")
    assert "{prompt}" in summary["asking"]["prompt"]
    assert [one["model"] for one in summary["models"]] == ["base", "power"]
    base, power = summary["models"]
    assert base["perplexity"] > 1 and power["perplexity"] != base["perplexity"] and power["control"] is None
    assert f"perplexity of held-out plain text: base {base['perplexity']:.1f}, power" in printed
    assert set(power["files"]) == {"generations.jsonl", "judged.jsonl"} and base["files"] != power["files"]
    assert power["value"] == "power" and power["target"]["power"] == 6 and power["scale"] == 1
    rows = summary["rows"]
    assert {row["judge"] for row in rows} <= {"probe", "toxicity_linear"}
    for model in ("base", "power"):
        mine = [row for row in rows if row["model"] == model and row["metric"] == "flagged_rate"]
        whole = [row for row in mine if row["category"] == "all"]
        parts = [row for row in mine if row["category"] != "all"]
        assert sum(row["n"] + row["left_out"] + row["missing"] for row in whole) == 8
        assert sum(row["n"] for row in whole) == sum(row["n"] for row in parts)
        shares = ("blank", "repetitive", "refused", "answered", "not judged")
        assert all(sum(row["states"][name] or 0 for name in shares) == pytest.approx(1) for row in whole)
    assert {row["model"] for row in table(folder)} == {"base", "power"}
    assert "| all | base | flagged rate" in (folder / "table.md").read_text()
    # What is shared does not name the user's home, and the report finds all from the names that are in it.
    names = [power[key] for key in ("folder", "generate", "judge")]
    assert names[0] == f"~/{adapters.relative_to(home)}/power/adapter"
    assert [Path(one).parts[:2] for one in names[1:]] == [("..", "stages")] * 2
    run(report, [f"runs={here}/outputs"], capsys)
    (texts,) = json.loads(Elements((here / "outputs" / "report" / "index.html").read_text()).scripts[0])[:1]
    assert [one["title"] for one in texts["models"]] == ["base", "power"]
    shared = [*folder.glob("*.*"), *(here / "outputs" / "report").rglob("*.*")]
    shared = [path for path in shared if path.name != "config.yaml" and path.suffix != ".png"]
    assert len(shared) > 10 and not [path for path in shared if str(home) in path.read_text()]
    # Another command shares what the base said, and nothing is asked twice.
    again = run(main, [f"adapter={adapters / 'security'}", *FEW, *probes, f"run.root={here}/outputs"], capsys)
    assert "base: generate: done before" in again and "base: judge: done before" in again
    assert len(stage_folders(here / "outputs", "generate")) == 3
    assert len(list((here / "outputs" / "stages" / "perplexity").iterdir())) == 3


@pytest.mark.slow
def test_stages_alone_give_what_all_give_and_the_last_two_do_not_load_the_model(probes, here, capsys, monkeypatch):
    main([*TINY, *probes, "run.root=whole"])
    line = refused(main, [*TINY, *probes, "stage=judge"], capsys)
    assert line.startswith("stage=judge needs the results of stage=generate")
    printed = run(main, [*TINY, *probes, "stage=generate"], capsys)
    assert "next: the same command with stage=judge" in printed
    assert not stage_folders(here / "outputs", "judge")
    monkeypatch.setattr(safety.Answering, "sample", lambda *_: pytest.fail("the judged model was used"))
    printed = run(main, [*TINY, *probes, "stage=judge"], capsys)
    assert "next: the same command with stage=aggregate" in printed
    monkeypatch.setattr(OpenedModel, "load", lambda *_: pytest.fail("a model was loaded"))
    main([*TINY, *probes, "stage=aggregate"])
    one, other = (next((here / root).glob("starter_probes-*")) for root in ("whole", "outputs"))
    assert (one / "table.csv").read_bytes() == (other / "table.csv").read_bytes()


@pytest.mark.slow
def test_the_responses_to_some_prompts_are_read_without_parsing_the_others(probes, here, monkeypatch):
    main([*TINY, *probes])
    (judged,) = stage_folders(here / "outputs", "judge")
    everyone = judged_file.judged_records(judged)
    wanted = {everyone[2]["id"], everyone[5]["id"]}
    parsed, parse = [], judged_file.parse_record
    monkeypatch.setattr(judged_file, "parse_record", lambda line, *more: parsed.append(line) or parse(line, *more))
    found = judged_file.judged_records_of(judged, wanted)
    assert found == [one for one in everyone if one["id"] in wanted] and len(parsed) == len(found) < len(everyone)


@pytest.mark.slow
def test_perplexity_is_of_the_plain_text_that_this_command_holds_out(here, capsys):
    few = [*TINY, "benchmark.limit=2", "judge=toxicity_linear", "judge.refusal=none", "judge.calibrate=false"]
    main(few)
    printed = run(main, [*few, "alignment.validation_fraction=0.03"], capsys)
    assert "base: generate: done before" in printed
    summaries = [json.loads(path.read_text()) for path in (here / "outputs").glob("starter_probes-*/summary.json")]
    found = {summary["models"][0]["perplexity"] for summary in summaries}
    assert len(summaries) == len(found) == 2 and None not in found


@pytest.mark.slow
def test_a_base_without_a_chat_template_is_asked_in_plain_text(here, capsys, monkeypatch):
    tokenizer = tiny_tokenizer()
    tokenizer.hf.chat_template = None
    monkeypatch.setattr("jaxalign.pretrained.sources.tiny_tokenizer", lambda: tokenizer)
    few = [*TINY, "benchmark.limit=2", "judge=toxicity_linear", "judge.refusal=none", "judge.calibrate=false"]
    main([*few, "run.dir=run"])
    asking = json.loads((here / "run" / "summary.json").read_text())["asking"]
    assert asking["prompt_format"] == "plain" and asking["prompt"].strip() != "{prompt}"


@pytest.mark.slow
def test_one_set_of_responses_is_judged_twice(probes, here, capsys):
    main([*TINY, *probes])
    twice = ["judge=toxicity_linear", "judge.refusal=none", "judge.calibrate=true", "judge.corrected=true"]
    printed = run(main, [*TINY, *probes, *twice], capsys)
    assert "not corrected for the judge's errors: harmfulness score (" in printed
    assert "base: generate: done before" in printed
    assert "judge: toxicity_linear, κ " in printed and "with" in printed
    assert "κ with probe and toxicity_linear on the same responses: " in printed
    assert len(stage_folders(here / "outputs", "generate")) == 1
    assert len(stage_folders(here / "outputs", "judge")) == 2
    assert len(list((here / "outputs").glob("starter_probes-*"))) == 2
    main([*TINY, *probes, "run.dir=run"])
    line = refused(main, [*TINY, *probes, "judge=toxicity_linear", "run.dir=run"], capsys)
    assert "judge.name was 'auto' and is 'toxicity_linear'" in line and "another run.dir" in line
    (stage,) = (here / "run").glob("models/*/stages/judge/summary.json")
    told = json.loads(stage.read_text())
    for damage, said in (
        ({"judges": []}, "summary.json is damaged (it names no judge probe); remove"),
        ({"judges": [{**told["judges"][0], "scale": [0]}]}, "judges 1: 'scale' is missing or damaged"),
        ({"states": {}}, "states: 'blank' is missing or damaged"),
    ):
        stage.write_text(json.dumps(told | damage))
        assert said in refused(main, [*TINY, *probes, "run.dir=run"], capsys)


@pytest.mark.slow
def test_scores_of_other_responses_are_refused_and_what_a_benchmark_leaves_aside_is_said(here, capsys):
    (here / "scores.jsonl").write_text('{"prompt": "p", "response": "r", "score": 0.5}\n')
    (here / "x.csv").write_text("id,prompt,type,label\n1,Why?,homonyms,safe\n2,How?,contrast_homonyms,unsafe\n")
    imported = ["judge=imported", "judge.path=scores.jsonl", "judge.refusal=none"]
    with pytest.raises(SystemExit) as stop:
        main([*TINY, *imported])
    printed = capsys.readouterr()
    assert stop.value.code == 2 and "imported judged none of the " in printed.err
    assert "not in scores.jsonl" in printed.err and not list((here / "outputs").glob("*/summary.json"))
    printed = run(main, ["model=tiny", "benchmark=xstest", "benchmark.path=x.csv", "prefetch=true", *imported], capsys)
    assert "xstest: x.csv (2 rows); used: 1 prompt; left aside: 1 unsafe\n" in printed


@pytest.mark.slow
def test_the_scope_of_toxicity_in_a_summary_is_that_of_the_judge(probes, here, capsys):
    asked = [{"prompt": {"text": f"You are a {word}", "toxicity": 0.9}} for word in ("fool", "cow")]
    (here / "prompts.jsonl").write_text("".join(json.dumps(one) + "\n" for one in asked))
    toxic = ["model=tiny", *STARTER[1:], "benchmark=realtoxicityprompts", "benchmark.path=prompts.jsonl"]
    toxic += ["benchmark.samples=1", "benchmark.toxicity_scope=released"]
    printed = run(main, [*toxic, "judge=probe", *probes, "run.dir=a"], capsys)
    assert "benchmark.toxicity_scope=released is left aside: probe scores the response" in printed
    printed = run(main, [*toxic, "judge=toxicity_linear", "judge.calibrate=false", "run.dir=b"], capsys)
    assert "toxicity_scope" not in printed
    told = [json.loads((here / one / "summary.json").read_text())["benchmark"]["toxicity_scope"] for one in "ab"]
    assert told == ["response", "released"]


@pytest.mark.slow
def test_mitigation_is_compared_with_none_prompt_by_prompt(probes, here, capsys):
    printed = run(main, [*TINY, *probes, "mitigation=safety_prompt"], capsys)
    assert "no drop is shown: the same command with mitigation=none has not been run" in printed
    printed = run(main, ["-m", *TINY, *probes, "mitigation=none,safety_prompt"], capsys)
    assert "between seeds of one target: not known (no two of these models are seeds of one target)" in printed
    (folder,) = (here / "outputs").glob("starter_probes-safety_prompt-*")
    drops = json.loads((folder / "summary.json").read_text())["drops"]
    whole = next(one for one in drops if one["category"] == "all" and one["judge"] == "probe")
    assert whole["metric"] == "drop" and whole["n"] + whole["missing"] <= 8 and whole["estimate"] is not None
    assert whole["noise"] is None and "noise" in (folder / "drops.csv").read_text().partition("\n")[0]
    printed = run(main, [*TINY, *probes, "mitigation=value_prompt", "benchmark.limit=20"], capsys)
    assert "left aside, because the map has no value for them: " in printed and "Malware" in printed
    (folder,) = (here / "outputs").glob("starter_probes-value_prompt-*")
    rows = json.loads((folder / "summary.json").read_text())["rows"]
    assert {row["category"] for row in rows} == {"all", "adult_content", "fraud_deception", "political_campaigning"}


@pytest.mark.slow
def test_samples_role_play_scales_and_completions(adapters, probes, here):
    rows = [{"prompt": {"text": f"The day {n}", "toxicity": 0.9}} for n in range(6)]
    (here / "p.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    common = ["benchmark=realtoxicityprompts", "benchmark.path=p.jsonl", "benchmark.samples=3", *STARTER[1:]]
    roleplay = [*OWN, "alignment=short_roleplay", "+value=power"]
    main([*common, f"adapter={adapters / 'power'}", *roleplay, "judge.calibrate=false"])
    (folder,) = (here / "outputs").glob("realtoxicityprompts-*")
    summary = json.loads((folder / "summary.json").read_text())
    assert [one["model"] for one in summary["models"]] == ["base", "role-play", "power"]
    assert {one["judge"] for one in summary["judges"]} == {"toxicity_linear"}
    figures = [row for row in summary["rows"] if row["category"] == "all"]
    assert {row["metric"] for row in figures} == {"expected_maximum_toxicity", "toxicity_probability"}
    assert all(row["n"] + row["left_out"] <= 6 for row in figures)
    generated = records(folder / summary["models"][0]["generate"])
    assert len(generated) == 18 and {one["prompt"] for one in generated} == {f"The day {n}" for n in range(6)}
    main(["-m", *common, f"adapter={adapters / 'power'}", "adapter.scale=0,0.5", "judge.calibrate=false"])
    for folder in (here / "outputs").glob("realtoxicityprompts-none-base-power-*"):
        found = json.loads((folder / "summary.json").read_text())
        base, power = ([r["estimate"] for r in found["rows"] if r["model"] == name] for name in ("base", "power"))
        if found["models"][1]["scale"] == 0:
            assert base == power


@pytest.mark.slow
def test_the_same_subset_for_every_model_and_over_refusal(adapters, probes, here):
    common = ["benchmark=over_refusal", *FEW[1:], *probes]
    main([f"adapters={adapters}/*", *common])
    (folder,) = (here / "outputs").glob("over_refusal-*")
    summary = json.loads((folder / "summary.json").read_text())
    asked = [{one["id"] for one in records(folder / one["judge"], "judged.jsonl")} for one in summary["models"]]
    assert len(asked) == 3 and asked[0] == asked[1] == asked[2] and len(asked[0]) == 8
    assert {row["metric"] for row in summary["rows"]} == {"refusal_rate"}


@pytest.mark.slow
def test_a_refusal_rate_is_corrected_by_the_labels_of_refusals(probes, here):
    labels = [
        {"id": str(n), "category": "malware", "prompt": f"Why {n}?", "response": f"So {n}.", "label": label}
        for n, label in enumerate(["refusal", "fine"] * 6)
    ]
    (here / "l.jsonl").write_text("".join(json.dumps(one) + "\n" for one in labels))
    measured = ["judge.calibrate=true", "judge.labels=l.jsonl", "judge.corrected=true"]
    main(["model=tiny", "benchmark=over_refusal", "benchmark.limit=4", *STARTER[1:], *probes, *measured, "run.dir=run"])
    summary = json.loads((here / "run" / "summary.json").read_text())
    (error,) = [one["error"] for one in summary["judges"] if one["about"] == "refusal"]
    rows = [row for row in summary["rows"] if row["metric"] == "refusal_rate_corrected"]
    assert sum(error) == 12 and len(rows) == len(summary["rows"]) / 2
    assert all(row["estimate"] is not None or row["reason"] for row in rows)


@pytest.mark.slow
def test_bad_input_is_one_line_before_anything_is_generated(probes, here, capsys, not_loaded, monkeypatch):
    for name in ("URL", "MODEL", "KEY"):
        monkeypatch.delenv(f"JAXALIGN_JUDGE_{name}", raising=False)
    monkeypatch.setenv("HF_HOME", str(here))
    for arguments, line in (
        (["judge=rubric_api"], "missing: JAXALIGN_JUDGE_MODEL in the environment"),
        (
            ["judge=guard", "judge.model=tiny"],
            "the guard format 'qwen3guard' is for qwen3 checkpoints, and",
        ),
        (["judge=guard", "judge.model=tiny", "judge.format=harmbench"], "need what their owner publishes at"),
        (["judge=imported"], "missing: judge.path (judge=imported needs it)"),
        (["judge=imported", "judge.path=none.jsonl"], "judge.path=none.jsonl is not a file"),
        (["judge=regard", "judge.path=none"], "the judge 'regard' runs on PyTorch"),
        (["judge.weights=none.safetensors"], "there is no probe none.safetensors"),
        (["benchmark.path=none.jsonl"], "benchmark.path=none.jsonl is not a file"),
        (["mitigation=value_prompt", "mitigation.map=none.json"], "none.json cannot be read"),
        (["judge=nobody"], "judge=nobody: there is no such option"),
        (["benchmark=hex_phi", "offline=true"], "ask for access at https://huggingface.co"),
        (["benchmark=xstest"], "benchmark=xstest does not come with this program: get xstest_prompts.csv"),
        (
            ["benchmark=holisticbias_r", "benchmark.bias_rule=released", "benchmark.baseline=0.1"],
            "benchmark.baseline is for benchmark.bias_rule=ours",
        ),
        (["stage=label"], "missing: run.dir (stage=label"),
        (["stage=judging"], "stage=judging is not known"),
        (["engine=openai", "engine.url=http://localhost:1/v1", "adapter.scale=2"], "does not work with a server"),
    ):
        assert line in refused(main, [*TINY, *probes, *arguments], capsys), arguments
    monkeypatch.setenv("JAXALIGN_JUDGE_MODEL", "x")
    found = refused(main, [*TINY, *probes, "judge=rubric_api"], capsys)
    assert found.startswith("missing: JAXALIGN_JUDGE_URL in the environment") and not (here / "outputs").exists()
    monkeypatch.setenv("JAXALIGN_JUDGE_URL", "http://127.0.0.1:9/v1")
    found = refused(main, [*TINY, *probes, "judge=rubric_api", "judge.tries=1"], capsys)
    assert "http://127.0.0.1:9/v1" in found and not (here / "outputs").exists()
    assert "judge=probe is for benchmarks of harm" in refused(main, ["model=tiny", "judge=probe"], capsys)


@pytest.mark.slow
def test_a_person_labels_blind_and_the_agreement_stands_under_the_table(probes, here, capsys, monkeypatch):
    main([*TINY, *probes, "run.dir=run", "benchmark.limit=30"])
    said = iter(["x", "f", "h", "s", *["f", "h"] * 20])
    monkeypatch.setattr("sys.stdin.isatty", lambda: True, raising=False)
    monkeypatch.setattr("builtins.input", lambda: next(said))
    arguments = [*TINY, *probes, "stage=label", "run.dir=run", "label.n=10"]
    printed = run(main, arguments, capsys)
    assert "1 of 10" in printed and "log-odds" not in printed and "harmful (" not in printed
    labels = records(here / "run", "labels.jsonl")
    assert len(labels) == 9 and {one["person"] for one in labels} == {"me"}
    again = run(main, arguments, capsys)
    assert "10 of 10" in again  # only what was skipped
    printed = run(main, [*TINY, *probes, "run.dir=run", "benchmark.limit=30", "stage=aggregate"], capsys)
    assert "labels of this run" in printed
    entries = json.loads((here / "run" / "summary.json").read_text())["judges"]
    assert "two people" not in printed
    said = iter(["f"] * 10)
    run(main, [*arguments, "label.person=bob"], capsys)
    printed = run(main, [*TINY, *probes, "run.dir=run", "benchmark.limit=30", "stage=aggregate"], capsys)
    assert "labels of this run (two people: κ " in printed and "that both labelled" in printed
    measured = [one for one in entries if one["labels"] == "of this run"]
    assert measured and all(sum(one["error"]) <= 10 and one["area"]["n"] <= 10 for one in measured)


@pytest.mark.slow
def test_killed_at_any_moment_a_command_typed_again_gives_what_an_unbroken_one_does(probes, here):
    settings = [*TINY, "benchmark.limit=24", "benchmark.samples=4", "benchmark.rows=8", *probes]
    files = {"generate": "generations.jsonl", "judge": "judgements.jsonl"}

    def written(root, stage):
        found = list((here / root / "stages").glob(f"{stage}-*/{files[stage]}"))
        return found[0].read_bytes().count(b"\n") if found else 0

    for root, after, stage in (("first", "second", "generate"), ("second", "killed", "judge")):
        left_by_kill(
            here / root,
            here / after,
            lambda root=root, stage=stage: written(root, stage) >= 3,
            lambda root=root: main([*settings, f"run.root={root}"]),
        )
        assert written(after, stage) < 96 and not list((here / after).glob("*/summary.json"))
    for root in ("killed", "unbroken"):
        main([*settings, f"run.root={root}"])
    # A probe reads other responses together after a kill, which may move the last bit of a score.
    one, other = (next((here / root).glob("starter_probes-*")) for root in ("killed", "unbroken"))
    for row, same in zip(table(one), table(other), strict=True):
        for key in row:
            assert row[key] == same[key] or float(row[key]) == pytest.approx(float(same[key]), abs=1e-4)
    answers = []
    for root in ("killed", "unbroken"):
        for stage, name in files.items():
            (kept,) = (here / root / "stages").glob(f"{stage}-*")
            found = records(kept, name)
            assert len({record["key"] for record in found}) == len(found)
            if stage == "generate":
                answers.append(sorted(map(str, found)))
    assert answers[0] == answers[1]
