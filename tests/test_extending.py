"""What CONTRIBUTING.md says of adding to jaxalign, done from outside the package."""

import csv
import json
import re
import shutil
import sys
from pathlib import Path

import pytest
from command_line import refused, run
from golden_model import FAMILY_GOLDENS, assert_logits_equal, golden_model
from runs_of_tiny import CONF

from jaxalign.jobs.harm.judges import JUDGES
from jaxalign.jobs.readers import ARGUMENT_READERS
from jaxalign.models.families import FAMILIES, Family
from jaxalign.report import main as report
from jaxalign.safety.benchmarks.sources import BENCHMARKS
from jaxalign.training.step import OBJECTIVES
from jaxalign.values.schwartz import VALUES

RECIPES = (Path(__file__).parents[1] / "CONTRIBUTING.md").read_text(encoding="utf-8")

QUICK = [
    *("model=tiny", "precision=float32", "lora.rank=2", "training.max_steps=2", "training.batch_size=4"),
    *("alignment=short", "alignment.regulariser.weight=0", "training.row_length=128"),
    *("training.questionnaire=false", "training.log_every=1"),
]


def recipe(title):
    """The files of a recipe by name, which are a worked example under 40 lines."""
    part = RECIPES.split(f"## Recipe: {title}\n")[1].split("\n## ")[0]
    files = {text.split()[1].rstrip(":"): text for _, text in re.findall(r"```(python|yaml)\n(.*?)```", part, re.S)}
    assert sum(len(text.splitlines()) for text in files.values()) < 40
    return files


def write(folder, files):
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)


def forget(monkeypatch, registry, name):
    """Take a name from a registry when the test ends."""
    monkeypatch.setitem(registry, name, None)
    del registry[name]


def execute(monkeypatch, script, arguments):
    """Run a recipe's script as its first line types it, with further arguments."""
    name, *typed = script.splitlines()[0].split(": python ")[1].split()
    monkeypatch.setattr(sys, "argv", [name, *typed, *arguments])
    exec(compile(script, name, "exec"), {"__name__": "__main__"})


@pytest.fixture
def added(tmp_path, monkeypatch):
    """The recipes of a data set and an objective: their files in a folder, and what trains with both of them."""
    data, objective = recipe("add a data set"), recipe("add an objective")
    assert {*data, *objective} == {"my_train.py", "my_conf/dataset/proverbs.yaml", "my_conf/objective/focal.yaml"}
    write(tmp_path, {**data, **objective})
    rows = [f"We need it\trule {number} serves us all\t{VALUES[number % 10]}\n" for number in range(12)]
    (tmp_path / "proverbs.tsv").write_text("".join(rows))
    shutil.copytree(CONF / "alignment", tmp_path / "my_conf" / "alignment")
    monkeypatch.chdir(tmp_path)
    forget(monkeypatch, ARGUMENT_READERS, "proverbs")
    forget(monkeypatch, OBJECTIVES, "focal")

    def train(arguments):
        registers, runs = data["my_train.py"].rsplit("main()", 1)
        assert runs == "\n"
        exec(compile(registers, "my_train.py", "exec"), {})
        execute(monkeypatch, objective["my_train.py"], ["dataset=proverbs", "run.dir=run", *arguments])

    return train


@pytest.mark.slow
def test_a_data_set_and_an_objective_are_added_from_outside(added, tmp_path):
    added(QUICK)
    summary = json.loads((tmp_path / "run" / "summary.json").read_text())
    assert [stage["examples"] for stage in summary["training"]["stages"]] == [11, 11]
    records = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert all(0 < record["certain"] < 1 for record in records)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ("dataset.name=proverb", "dataset.name='proverb' is not known; did you mean 'proverbs'?"),
        ("objective.name=fokal", "objective.name=fokal is not known; did you mean 'focal'?"),
        ("objective.name=hinge", "objective.name=hinge is not known; choose from dpo, focal, sft"),
    ],
)
def test_a_name_that_nobody_registered_is_refused_in_one_line(added, change, said, capsys):
    assert said in refused(added, [*QUICK, change], capsys)


@pytest.fixture
def manners(tmp_path, monkeypatch):
    """The recipe of a benchmark and a judge: its files in a folder, and what runs it with further arguments."""
    files = recipe("add a benchmark of harm or a judge")
    assert set(files) == {"my_evaluate.py", "my_conf/benchmark/manners.yaml", "my_conf/judge/shouting.yaml"}
    write(tmp_path, files)
    (tmp_path / "manners.txt").write_text("What is polite?\nWho may speak first?\nIs it rude to sing?\n")
    monkeypatch.chdir(tmp_path)
    forget(monkeypatch, BENCHMARKS, "manners")
    forget(monkeypatch, JUDGES, "shouting")
    return lambda arguments: execute(monkeypatch, files["my_evaluate.py"], arguments)


TINY_HARM = ["model=tiny", "model.config.num_hidden_layers=1", "precision=float32", "run.dir=run"]
TINY_HARM += ["benchmark.max_tokens=4", "benchmark.samples=2", "benchmark.top_p=1"]
TINY_HARM += ["alignment.validation_fraction=0.002"]  # of the texts whose perplexity is read


@pytest.mark.slow
def test_the_recipe_s_files_add_a_benchmark_and_a_judge_to_all_stages(manners, capsys):
    printed = run(manners, TINY_HARM, capsys)
    assert "judge: shouting, uncalibrated" in printed
    with open("run/table.csv", encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert {(row["judge"], row["metric"], row["category"]) for row in rows} == {
        ("shouting", "flagged_rate", category) for category in ("all", "hate_speech")
    }
    summary = json.loads(Path("run/summary.json").read_text())
    assert (summary["benchmark"]["name"], summary["benchmark"]["prompts"]) == ("manners", 3)
    assert [one["judge"] for one in summary["judges"]] == ["shouting"]
    # The usual judge of the benchmark is the one that the benchmark names.
    usual = run(manners, [*TINY_HARM, "judge.name=auto", "+judge.model=tiny", "run.dir=other"], capsys)
    assert "judge: shouting, uncalibrated" in usual
    assert "manners, judged by shouting: 1 model" in run(report, ["runs=run", "out=page"], capsys)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ("benchmark.name=maners", "benchmark.name=maners is not known; did you mean 'manners'?"),
        ("judge.name=shout", "judge.name=shout is not known; did you mean 'shouting'?"),
        ("benchmark.path=null", "benchmark=manners does not come with this program: give benchmark.path=FILE"),
    ],
)
def test_a_benchmark_or_a_judge_that_nobody_registered_is_refused_in_one_line(manners, change, said, capsys):
    assert said in refused(manners, [*TINY_HARM, change], capsys)


def test_the_recipe_s_line_adds_a_family_with_the_logits_of_transformers(monkeypatch):
    (line,) = [line for line in RECIPES.splitlines() if line.startswith('FAMILIES["')]
    added = dict(FAMILIES)
    exec(line, {"FAMILIES": added, "Family": Family})
    ((name, family),) = added.items() - FAMILIES.items()
    monkeypatch.setitem(FAMILIES, name, family)
    stored, model, params = golden_model(FAMILY_GOLDENS / "added" / "ministral.json")
    assert (model.architecture.family, model.architecture.windows) == ("ministral", (7, 0, 7))
    assert_logits_equal(stored, model, params)
