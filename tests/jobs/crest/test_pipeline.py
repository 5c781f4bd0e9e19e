"""CREST from the command line, on the tiny random model."""

import json
import re

import pytest
import yaml
from command_line import refused
from jobs.crest.runs_of_crest import ADAPTER, ROOMY, SMALL

from jaxalign.crest import main
from jaxalign.runs.records import read_records


@pytest.mark.slow
def test_a_stage_that_there_is_nothing_for_is_refused_before_the_weights_are_read(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("jaxalign.pretrained.sources.ModelFiles.load", lambda *_: pytest.fail("the weights were read"))
    where = f"run.dir={tmp_path / 'run'}"
    for changes, words in (
        (["stage=sft", "experiment=zero_shot"], "stage=sft: with crest.iterations=0 there is no such stage: give"),
        (["stage=sft", "sft.epochs=0"], "stage=sft: with sft.epochs=0 there is no such stage"),
        (["stage=dpo", "dpo.rounds=0"], "stage=dpo: with dpo.rounds=0 there is no such stage"),
        (["stage=rationales", "experiment=label_only"], "stage=rationales: with sft.rationale=false there is no such"),
        (["dataset.solved=0", "stage=seed"], "stage=seed needs solved questions"),
        (["stage=evaluate"], "stage=evaluate needs the results of stage=seed"),
        (["stage=dpo", "dataset.solved=0"], "stage=dpo needs the results of stage=rationales"),
    ):
        assert words in refused(main, [where, *SMALL, *changes], capsys)
    assert "stage=test needs the results of stage=seed" in refused(
        main, [f"run.root={tmp_path}", *SMALL, "stage=test"], capsys
    )


@pytest.mark.slow
def test_a_loss_that_is_no_number_names_the_keys_of_this_program(tmp_path, capsys):
    command = [f"run.dir={tmp_path / 'run'}", *SMALL, "stage=seed", "seed.learning_rate=1e30", "seed.epochs=3"]
    line = refused(main, command, capsys)
    assert "try a smaller seed.learning_rate, optimizer.clip=1" in line and "warmup" not in line


@pytest.mark.slow
@pytest.mark.parametrize(
    ("changes", "models"),
    [
        (["experiment=self_consistency", "test.samples=3", ROOMY], ["base", "seed"]),
        (["experiment=rft", "sft.epochs=1"], ["base", "seed", "sft"]),
        (["experiment=label_only", "sft.epochs=1"], ["base", "seed", "sft"]),
        (["experiment=lmsi", "sft.epochs=1"], ["base", "seed", "sft"]),
        (["experiment=dpo_only", "sft.epochs=0", "dpo.rounds=1"], ["base", "seed", "round 1"]),
    ],
)
def test_baselines_are_configurations(changes, models, tmp_path):
    main([f"run.dir={tmp_path / 'run'}", *SMALL, *changes])
    summary = json.loads((tmp_path / "run" / "summary.json").read_text())
    assert [model["name"] for model in summary["models"]] == models
    if "experiment=label_only" in changes:  # no rationale is sampled
        assert list(summary["stages"]) == ["seed", "sft", "test"] and summary["stages"]["sft"]["kept"] == 12


@pytest.mark.slow
def test_star_gives_hints_begins_anew_at_the_start_and_goes_stage_by_stage(tmp_path, capsys):
    small = [one for one in SMALL if not one.startswith(("crest.samples", "crest.tolerance"))]
    small += ["experiment=star", "crest.iterations=2", "sft.epochs=1", "sampling.temperature=1", "dataset.train=30"]
    main([f"run.dir={tmp_path / 'run'}", *small])
    summary = json.loads((tmp_path / "run" / "summary.json").read_text())
    assert [model["name"] for model in summary["models"]] == ["base", "seed", "sft", "sft-2"]
    pages = [
        read_records(tmp_path / "run" / "stages" / name / "rationales.jsonl") for name in ("evaluate", "evaluate-2")
    ]
    for name, page in zip(("evaluate", "evaluate-2"), pages, strict=True):
        right = {one["question"] for one in page if one["z"] == 1 and one["copies"]}
        drawn = read_records(tmp_path / "run" / "stages" / name / "generations.jsonl")
        hinted = {one["id"] for one in drawn}
        counted = [summary["stages"][name][key] for key in ("hinted", "hinted_kept", "hinted_tokens")]
        kept = sum(not one["copies"] for one in page)
        assert counted == [len(drawn), kept, sum(one["tokens"] for one in drawn)]
        assert hinted and hinted == {one["question"] for one in page} - right
        # So small a model reads by the question alone, so that none may have led to the answer.
        assert all(one["z"] == 1 and one["question"] in hinted for one in page if not one["copies"])
    identities = [
        yaml.safe_load((tmp_path / "run" / "stages" / name / "config.yaml").read_text())["identity"]["content"]["start"]
        for name in ("sft", "sft-2")
    ]
    assert identities[0] == identities[1] != ""
    folder = tmp_path / "by stage"
    for stage in ("seed", "rationales", "evaluate", "sft", "rationales", "evaluate"):
        main([f"run.dir={folder}", *small, f"stage={stage}"])
    assert re.search(r"^evaluate-2: \d+ s", capsys.readouterr().out, re.MULTILINE)
    assert "stage=test needs the results of stage=sft" in refused(
        main, [f"run.dir={folder}", *small, "stage=test"], capsys
    )
    for stage in ("sft", "test"):
        main([f"run.dir={folder}", *small, f"stage={stage}"])
    for name in ("rationales.jsonl", ADAPTER):
        assert (folder / name).read_bytes() == (tmp_path / "run" / name).read_bytes()


@pytest.mark.slow
@pytest.mark.parametrize(
    "switches",
    [
        ["released.letters_in_words=true", "released.followups_by_not=true", "released.threshold=0", "dpo.rounds=0"],
        ["released.no_end_token=true", "released.prompt_without_question=true", "dpo.rounds=1"],
    ],
)
def test_released_behaviours_run(tmp_path, switches):
    main([f"run.dir={tmp_path / 'run'}", *SMALL, *switches, "sft.epochs=1"])
    pages = read_records(tmp_path / "run" / "rationales.jsonl")
    if "released.letters_in_words=true" in switches:
        assert all(one["z"] is not None for one in pages)
        said = [pair for one in pages for pair in one["followups"]]
        assert said and all({pair["affirm"], pair["deny"]} == {0.0, -1.0} for pair in said)
        models = json.loads((tmp_path / "run" / "summary.json").read_text())["models"]
        assert all(model["validation"]["never_read"] == 0 for model in models)


@pytest.mark.slow
def test_bad_input_is_one_line(tmp_path, capsys):
    where = f"run.dir={tmp_path / 'run'}"
    for changes, words in (
        (["crest.samples=0"], "crest.samples=0 is not allowed"),
        (["crest.tolerance=-1"], "crest.tolerance=-1 is not allowed"),
        (["crest.tolerance=9"], "crest.tolerance=9 is above"),
        (["crest.mixing=1.5"], "crest.mixing=1.5 is not allowed"),
        (["dpo.beta=0"], "dpo.beta=0 is not allowed"),
        (["dataset=starter"], "dataset.solved goes with dataset.kind=questions, not with arguments"),
        (["dataset=arc", f"dataset.path={tmp_path}"], "holds no file for train"),
        (["dataset.examples=[]", "crest.few_shot=true"], "has no worked examples"),
        ([f"compare={tmp_path}/none*"], "finds no finished run"),
        (["sampling.max_tokens=100000"], "takes"),
    ):
        assert words in refused(main, [where, *SMALL, *changes], capsys)
