"""Runs of the whole loop: what they leave, and how they are done by stages, anew, after a kill, or side by side.

They stand in one file because they share their compiled programs.
"""

import csv
import itertools
import json
import re
import shutil
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import yaml
from child_process import Child
from command_line import refused
from jobs.crest.runs_of_crest import ADAPTER, SMALL, WORKED
from kills import left_by_kill
from openai_server import serving
from runs_of_tiny import read_tiny

from jaxalign.crest import main
from jaxalign.data.encoding import Encoder
from jaxalign.data.preferences import Responses
from jaxalign.inference.base_model import BaseModel
from jaxalign.inference.reference import read_reference
from jaxalign.jobs.crest import evaluate as evaluation
from jaxalign.jobs.crest import sft as fine_tuning
from jaxalign.parallel.compilation import Programs
from jaxalign.pretrained.peft import read_adapter
from jaxalign.pretrained.sources import ModelFiles
from jaxalign.runs.records import read_records

pytestmark = pytest.mark.slow

TOOK = ("seconds", "compilation_seconds", "python_seconds")


@pytest.fixture(scope="module")
def run_and_base(tmp_path_factory):
    """A run of all stages at once, and the base that it went through them with."""
    folder, made = tmp_path_factory.mktemp("whole") / "run", []

    def make(*arguments):
        made.append(BaseModel(*arguments))
        return made[-1]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("jaxalign.jobs.setup.BaseModel", make)
        main([f"run.dir={folder}", *SMALL])
    return folder, *made


@pytest.fixture(scope="module")
def whole(run_and_base):
    """A run of all stages at once; not to be changed."""
    return run_and_base[0]


@pytest.fixture(scope="module")
def base(run_and_base):
    """The base of that run."""
    return run_and_base[1]


def test_the_whole_loop_leaves_what_a_person_would_read(whole, capsys):
    summary = json.loads((whole / "summary.json").read_text())
    assert [model["name"] for model in summary["models"]] == ["base", "seed", "sft", "round 1", "round 2"]
    assert list(summary["stages"]) == ["seed", "rationales", "evaluate", "sft", "preferences", "dpo", "test"]
    assert summary["stages"]["evaluate"]["sampled"] == 72
    assert summary["stages"]["evaluate"]["followups_alike"] < 1
    pages = read_records(whole / "rationales.jsonl")
    assert sum(one["copies"] for one in pages) == 72
    for one in pages:
        assert (one["z"] is None) == (one["prediction"] is None) and bool(one["followups"]) == (one["z"] == 1)
    pairs = read_records(whole / "pairs.jsonl")
    assert {(one["round"], one["kind"]) for one in pairs} == {(n, kind) for n in (1, 2) for kind in ("z", "z_tilde")}
    measured = [model[split] for model in summary["models"] for split in ("validation", "test") if split in model]
    assert any(one["accuracy"] > 0 for one in measured)
    assert any(one["consistency"] is not None for one in measured)
    with (whole / "table.csv").open() as file:
        assert len(list(csv.DictReader(file))) == 5
    page = (whole / "report.md").read_text()
    for name, stage in summary["stages"].items():
        assert (whole / stage["path"] / "sessions.jsonl").is_file() and not Path(stage["path"]).is_absolute()
        assert stage["path"] in page, name
        assert 1.01 * stage["seconds"] > stage["python_seconds"] >= 0, name  # they are of two clocks
    assert "### Wrong" in page and "![accuracy](figures/accuracy.png)" in page
    for picture in ("accuracy.png", "z_tilde.png"):
        assert (whole / "figures" / picture).read_bytes().startswith(b"\x89PNG")
    assert (whole / "adapter" / "adapter_model.safetensors").exists()
    card = (whole / "adapter" / "README.md").read_text()
    assert "(12 train, 4 validation, 4 test questions)" in card
    assert f"Accuracy of this model (`{summary['final']}`) on the test: " in card
    main([f"run.dir={whole}", *SMALL])
    shown = capsys.readouterr().out
    assert "test accuracy" in shown and "compiled" not in shown and "% of the time" in shown
    main([f"compare={whole}"])
    assert "round" in capsys.readouterr().out


def test_every_round_begins_at_the_adapter_that_the_one_before_ended_with(whole, tmp_path):
    stage = whole / "stages" / "dpo"
    metrics = read_records(stage / "metrics.jsonl")
    summary = json.loads((stage / "summary.json").read_text())
    assert [one["reference"]["name"] for one in summary["training"]] == ["sft", "round 1"]
    for name in ("round-1", "round-2"):
        first, *_, last = [record for record in metrics if record["stage"] == name]
        assert first["step"] == 1 and first["loss"] == pytest.approx(np.log(2), abs=1e-4)
        assert last["loss"] != pytest.approx(np.log(2), abs=1e-3)
        assert {"rewards/margins", "rewards/accuracies", "logps/chosen"} <= set(first)
    # The reference's numbers are those of the adapters on the disk, read anew.
    model = read_tiny(max_position_embeddings=384)
    base, encoder = BaseModel(model, jnp.float32, Programs()), Encoder(model.tokenizer)
    pairs = read_records(whole / "pairs.jsonl")
    written = {record["key"]: record["log_prob"] for record in read_records(stage / "reference.jsonl")}
    for number, folder in ((1, whole / "stages" / "sft" / "adapter"), (2, stage / "rounds" / "1")):
        mine = [one for one in pairs if one["round"] == number]
        texts = list(dict.fromkeys((one["prompt"], one[side]) for one in mine for side in ("chosen", "rejected")))
        data = Responses(
            [encoder.prompt(prompt) for prompt, _ in texts],
            [encoder.branches(prompt, [text], end=True)[1][0] for prompt, text in texts],
            list(range(len(texts))),
            np.zeros(len(texts)),
        )
        scorer = base.scorer(read_adapter(folder, model.architecture).params, 2.0)
        path = tmp_path / f"{number}.jsonl"
        found = read_reference(scorer, data, range(len(texts)), path, model=f"{model.signature}-float32")
        np.testing.assert_allclose([written[record["key"]] for record in read_records(path)], found, atol=1e-4)


def test_the_base_is_what_it_was_after_all_rounds_and_changes_of_layout(whole, base):
    jax.tree.map(np.testing.assert_array_equal, base.weights(False), read_tiny().params)


def test_stage_by_stage_is_the_whole_and_says_what_is_missing(whole, tmp_path, capsys):
    folder = tmp_path / "run"
    line = refused(main, [f"run.dir={folder}", "stage=evaluate", *SMALL], capsys)
    assert "stage=evaluate needs the results of stage=seed" in line
    stages = ("seed", "rationales", "evaluate", "sft", "preferences", "dpo", "test")
    for stage, following in itertools.zip_longest(stages, stages[1:]):
        main([f"run.dir={folder}", f"stage={stage}", *SMALL])
        shown = capsys.readouterr().out
        assert following is None or shown.endswith(f"next: the same command with stage={following}\n")
    for name in ("rationales.jsonl", "pairs.jsonl", "table.csv"):
        assert (folder / name).read_bytes() == (whole / name).read_bytes()
    weights = "adapter/adapter_model.safetensors"
    assert (folder / weights).read_bytes() == (whole / weights).read_bytes()
    line = refused(main, [f"run.dir={folder}", "stage=sft", *SMALL, "crest.samples=5"], capsys)
    assert "belongs to another configuration: crest.samples was 6 and is 5" in line


def test_a_stage_is_done_anew_where_that_is_asked_for(whole, tmp_path, capsys):
    folder = tmp_path / "run"
    shutil.copytree(whole, folder)
    stage = folder / "stages" / "sft"
    for _ in range(2):
        main([f"run.dir={folder}", *SMALL, "stage=sft", "crest.tolerance=2", "sft.epochs=1", "run.overwrite=true"])
        assert len(read_records(stage / "sessions.jsonl")) == 1 and not (folder / "summary.json").exists()
        assert yaml.safe_load((stage / "config.yaml").read_text())["identity"]["crest"]["tolerance"] == 2
    command = [f"run.dir={folder}", *SMALL, "stage=sft", "crest.samples=5", "run.overwrite=true"]
    assert "give stage=rationales run.overwrite=true first, or another run.dir" in refused(main, command, capsys)


def test_base_fine_tuned_model_and_best_round_are_graded_from_their_records(whole, tmp_path, capsys, monkeypatch):
    folder = tmp_path / "run"
    shutil.copytree(whole, folder)
    monkeypatch.setattr(ModelFiles, "load", lambda *_: pytest.fail("the weights of the graded models were read"))
    with serving() as server:
        score = {"content": json.dumps({"reason": "So.", "score": 4})}
        server.reply = lambda body: {"message": score, "finish_reason": "stop"}
        monkeypatch.setenv("JAXALIGN_JUDGE_URL", server.url)
        monkeypatch.setenv("JAXALIGN_JUDGE_MODEL", "base")
        main([f"run.dir={folder}", *SMALL, "stage=grade", "judge=rubric_api"])
    assert "test accuracy" in capsys.readouterr().out
    (found,) = json.loads((folder / "grades.json").read_text())
    tested = [one["name"] for one in json.loads((whole / "summary.json").read_text())["models"] if "test" in one]
    assert [one["name"] for one in found["models"]] == tested and {"base", "seed", "sft"} < set(tested)
    for one in found["models"]:
        grades = [grade for name, grade in one.items() if name != "name"]
        assert len(grades) == 3 and all(grade["n"] + grade["left_out"] == 4 for grade in grades)
        assert {grade["estimate"] for grade in grades} <= {4.0, None}
    assert len(read_records(folder / "judgements.jsonl")) >= 3
    assert (folder / "summary.json").read_bytes() == (whole / "summary.json").read_bytes()


def without(folder: Path, target: Path, *stages: str) -> Path:
    """Copy a run, but for some of its stages and its results."""
    shutil.copytree(folder, target, ignore=lambda where, _: stages if where.endswith("stages") else ())
    (target / "summary.json").unlink()
    return target


@pytest.mark.parametrize(
    ("stage", "name", "asked"),
    [
        ("rationales", "generations.jsonl", "evaluate"),
        ("evaluate", "rationales.jsonl", "dpo"),
        ("preferences", "pairs.jsonl", "dpo"),
    ],
)
def test_a_finished_stages_file_that_was_changed_is_named(whole, tmp_path, capsys, stage, name, asked):
    after = ("evaluate", "sft", "preferences", "dpo") if asked == "evaluate" else ("dpo",)
    folder = without(whole, tmp_path / "run", *after)
    path = folder / "stages" / stage / name
    path.write_text("".join(path.read_text().splitlines(keepends=True)[:-1]))
    command = [f"run.dir={folder}", *SMALL, f"stage={asked}"]
    assert f"{path} was changed since the run was finished; do it again with stage={stage}" in refused(
        main, command, capsys
    )
    path.unlink()
    assert f"{path} is missing since" in refused(main, command, capsys)


def test_a_summary_is_damaged_if_a_part_of_it_is(whole, tmp_path, capsys):
    folder = without(whole, tmp_path / "run")
    path = folder / "stages" / "dpo" / "summary.json"
    for content in ("{}", path.read_text().replace('"seconds": ', '"seconds": "x", "was": ')):
        path.write_text(content)
        line = refused(main, [f"run.dir={folder}", *SMALL], capsys)
        assert f"{path} is damaged ('seconds' is missing or damaged); do it again with stage=dpo" in line
    folder = shutil.copytree(whole, tmp_path / "finished")
    found = json.loads((folder / "summary.json").read_text())
    found["models"][0]["test"] = {"accuracy": 0.5}
    (folder / "summary.json").write_text(json.dumps(found))
    for command in ([f"run.dir={folder}", *SMALL], [f"compare={folder}"]):
        line = refused(main, command, capsys)
        assert "summary.json is damaged (models 1: 'test' is missing or damaged); remove " in line


def test_readings_that_a_kill_tore_are_those_of_an_unbroken_run(whole, tmp_path, monkeypatch):
    monkeypatch.setattr(evaluation, "QUESTIONS_AT_A_TIME", 5)
    after = ("evaluate", "sft", "preferences", "dpo")
    stage = without(whole, tmp_path / "run", *after) / "stages" / "evaluate"
    command = [f"run.dir={tmp_path / 'run'}", *SMALL, "stage=evaluate", "crest.hint=true", "run.overwrite=true"]
    main(command)
    unbroken, summary = (stage / "rationales.jsonl").read_bytes(), json.loads((stage / "summary.json").read_text())
    for torn_at in (0.4, 0.95):
        (stage / "summary.json").unlink()
        (stage / "rationales.jsonl").write_bytes(unbroken[: int(torn_at * len(unbroken))])
        main(command[:-1])
        assert (stage / "rationales.jsonl").read_bytes() == unbroken
        resumed = json.loads((stage / "summary.json").read_text())
        assert resumed | dict.fromkeys(TOOK) == summary | dict.fromkeys(TOOK)


def test_a_kill_at_any_moment_loses_nothing_that_changes_the_result(whole, tmp_path):
    begun = folder = tmp_path / "begun"

    def command(folder: Path) -> list[str]:
        return [f"run.dir={folder}", *SMALL, "training.checkpoint_every=1"]

    for number, watched in enumerate(
        (
            "stages/seed/checkpoints/*/manifest.json",
            "stages/rationales/generations.jsonl",
            "stages/preferences/pairs.jsonl",
            "stages/dpo/checkpoints/*round-2*/manifest.json",
            "generations.jsonl",
        )
    ):
        folder = tmp_path / f"killed-{number}"
        left_by_kill(
            begun,
            folder,
            lambda begun=begun, watched=watched: any(begun.glob(watched)),
            lambda begun=begun: main(command(begun)),
        )
        if number == 1:  # once in earnest, so that another process goes on
            child = Child("jaxalign.crest", command(folder))
            child.kill_when(lambda folder=folder: (folder / "stages/sft/epochs/2").exists())
        assert not (folder / "summary.json").exists()
        begun = folder
    main([f"run.dir={folder}", *SMALL])
    for name in ("rationales.jsonl", "pairs.jsonl", "table.csv", ADAPTER):
        assert (folder / name).read_bytes() == (whole / name).read_bytes()
    steps = [
        [(one["stage"], one["step"], one["loss"]) for one in read_records(run / "stages" / "dpo" / "metrics.jsonl")]
        for run in (folder, whole)
    ]
    assert steps[0] == steps[1]
    # What is counted is counted over all processes.
    stages = [json.loads((run / "summary.json").read_text())["stages"] for run in (folder, whole)]
    assert [one.get("tokens") for one in stages[0].values()] == [one.get("tokens") for one in stages[1].values()]


def test_what_a_kill_left_of_an_adapter_half_written_is_passed_over(whole, tmp_path):
    stage = without(whole, tmp_path / "run", "preferences", "dpo") / "stages" / "sft"
    (stage / "summary.json").unlink()
    (stage / "epochs" / ".2.k7x_e1").mkdir()
    main([f"run.dir={tmp_path / 'run'}", *SMALL, "stage=sft"])
    assert (stage / ADAPTER).read_bytes() == (whole / "stages" / "sft" / ADAPTER).read_bytes()


@pytest.fixture(scope="module")
def shared(tmp_path_factory):
    """A folder of runs that share their stages."""
    return tmp_path_factory.mktemp("shared")


def run_in(root: Path, *changes: str) -> Path:
    """Do a run in a folder of runs, and return its directory."""
    before = set(root.glob("crest-*"))
    main([f"run.root={root}", *SMALL, *changes])
    (made,) = set(root.glob("crest-*")) - before
    return made


ONE = ["dataset.validation=1", "dataset.test=1"]


@pytest.mark.parametrize(
    ("changes", "models"),
    [
        (["experiment=zero_shot"], ["base", "seed"]),
        (["experiment=few_shot", WORKED, *ONE], ["base", "seed"]),
        (["experiment=self_consistency", "test.samples=3", WORKED, *ONE], ["base", "seed"]),
        (["experiment=rft", "sft.epochs=1"], ["base", "seed", "sft"]),
        (["experiment=label_only", "sft.epochs=1"], ["base", "seed", "sft"]),
        (["experiment=lmsi", "sft.epochs=1"], ["base", "seed", "sft"]),
        (["experiment=dpo_only", "sft.epochs=0", "dpo.rounds=1"], ["base", "seed", "round 1"]),
    ],
)
def test_baselines_are_configurations(changes, models, shared):
    summary = json.loads((run_in(shared, *changes) / "summary.json").read_text())
    assert [model["name"] for model in summary["models"]] == models
    if "experiment=label_only" in changes:  # no rationale is sampled
        assert list(summary["stages"]) == ["seed", "sft", "test"] and summary["stages"]["sft"]["kept"] == 12


def test_star_gives_hints_begins_anew_at_the_start_and_goes_stage_by_stage(tmp_path, capsys):
    small = [one for one in SMALL if not one.startswith(("crest.samples", "crest.tolerance"))]
    small += ["experiment=star", "crest.iterations=2", "sft.epochs=1", "sampling.temperature=1"]
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
    for stage in ("seed", "rationales", "evaluate"):  # the test of a whole run by stages does these itself
        shutil.copytree(tmp_path / "run" / "stages" / stage, folder / "stages" / stage)
    shutil.copy(tmp_path / "run" / "config.yaml", folder)
    for stage in ("sft", "rationales", "evaluate"):
        main([f"run.dir={folder}", *small, f"stage={stage}"])
    assert re.search(r"^evaluate-2: \d+ s", capsys.readouterr().out, re.MULTILINE)
    assert "stage=test needs the results of stage=sft" in refused(
        main, [f"run.dir={folder}", *small, "stage=test"], capsys
    )
    for stage in ("sft", "test"):
        main([f"run.dir={folder}", *small, f"stage={stage}"])
    for name in ("rationales.jsonl", ADAPTER):
        assert (folder / name).read_bytes() == (tmp_path / "run" / name).read_bytes()


@pytest.mark.parametrize(
    "switches",
    [
        ["released.letters_in_words=true", "released.followups_by_not=true", "released.threshold=0", "dpo.rounds=0"],
        ["released.no_end_token=true", "released.prompt_without_question=true", "dpo.rounds=1"],
    ],
)
def test_released_behaviours_run(shared, switches, monkeypatch):
    kept, choose = [], fine_tuning.choose_examples
    monkeypatch.setattr(fine_tuning, "choose_examples", lambda *a, **k: kept.append(choose(*a, **k)) or kept[-1])
    folder = run_in(shared, *switches, "sft.epochs=1")
    ((_, said),) = kept
    ends = {tokens[-1] == read_tiny().tokenizer.eos_id for tokens in said}
    assert ends == {"released.no_end_token=true" not in switches}
    pages = read_records(folder / "rationales.jsonl")
    if "released.letters_in_words=true" in switches:
        assert all(one["z"] is not None for one in pages)
        said = [pair for one in pages for pair in one["followups"]]
        assert said and all({pair["affirm"], pair["deny"]} == {0.0, -1.0} for pair in said)
        models = json.loads((folder / "summary.json").read_text())["models"]
        assert all(model["validation"]["never_read"] == 0 for model in models)
    else:
        stages, encoder = json.loads((folder / "summary.json").read_text())["stages"], Encoder(read_tiny().tokenizer)
        (learnt,) = stages["dpo"]["training"]
        responses: dict[str, set[str]] = {}
        for one in read_records(folder / "pairs.jsonl"):
            responses.setdefault(one["question"], set()).update((one["chosen"], one["rejected"]))
        read = [encoder.branches("\n", sorted(mine), end=False) for mine in responses.values()]
        assert learnt["reference_tokens"] == sum(len(prompt) + sum(map(len, mine)) for prompt, mine in read)


def test_a_sweep_shares_what_comes_before_and_compare_says_what_differs(tmp_path, capsys):
    root, small = tmp_path / "outputs", [*SMALL, "sft.epochs=1"]
    for changes in (
        ["dpo.rounds=0"],
        ["dpo.rounds=1"],
        ["experiment=zero_shot", "test.max_tokens=12"],
        ["experiment=zero_shot"],
    ):
        main([f"run.root={root}", *small, *changes])
    shown = capsys.readouterr().out
    assert shown.count("seed: done before") == 3 and shown.count("rationales: done before") == 1
    for stage in ("seed", "rationales", "evaluate", "sft", "dpo"):
        assert len(list((root / "stages").glob(f"{stage}-*"))) == 1
    main([f"compare={root}/crest-*"])
    shown = capsys.readouterr().out
    assert shown.count("round 1") == 1 and shown.count("base") == 2  # where nothing was trained, all that were asked
    for settings in ("=1 dpo.rounds=0 test.max_tokens=16", "=1 dpo.rounds=1 test.max_tokens=16", "=0 dpo.rounds=2"):
        assert f": crest.iterations{settings}" in shown
    assert "do not compare" not in shown
    # Other questions, and another judge.
    main([f"run.root={root}", *small, "experiment=zero_shot", "dataset.test=5", "seed.learning_rate=0.02"])
    capsys.readouterr()
    main([f"compare={root}/crest-*"])
    alike, other = r"\d \d \d \d", r"\d"
    apart = rf"({alike} \| {other}|{other} \| {alike})"
    shown = capsys.readouterr().out
    assert re.search(rf"^{apart}: different questions, so do not compare their accuracies$", shown, re.MULTILINE)
    assert re.search(rf"^{apart}: different judges of the follow-ups, so do not compare", shown, re.MULTILINE)


def test_a_loss_that_is_no_number_names_the_keys_of_this_program(tmp_path, capsys):
    command = [f"run.dir={tmp_path / 'run'}", *SMALL, "stage=seed", "seed.learning_rate=1e30", "seed.epochs=3"]
    line = refused(main, command, capsys)
    assert "try a smaller seed.learning_rate, optimizer.clip=1" in line and "warmup" not in line
