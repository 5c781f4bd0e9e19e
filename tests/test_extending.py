"""What CONTRIBUTING.md says of adding to jaxalign, done from outside the package."""

import csv
import json
import re
import shutil
import sys
from pathlib import Path

import jax.numpy as jnp
import pytest
from command_line import refused, run
from golden_model import FAMILY_GOLDENS, assert_logits_equal, golden_model
from runs_of_tiny import CONF

from jaxalign.jobs.harm.judges import JUDGES
from jaxalign.jobs.readers import ARGUMENT_READERS
from jaxalign.models.families import FAMILIES, Family
from jaxalign.objectives.sft import sft_loss
from jaxalign.report import main as report
from jaxalign.safety.benchmarks.sources import BENCHMARKS
from jaxalign.train import main
from jaxalign.training.step import OBJECTIVES
from jaxalign.values.schwartz import VALUES
from jaxalign.values.touche import Argument

RECIPES = (Path(__file__).parents[1] / "CONTRIBUTING.md").read_text(encoding="utf-8")

QUICK = [
    *("model=tiny", "precision=float32", "lora.rank=2", "training.max_steps=2", "training.batch_size=4"),
    *("alignment=short", "alignment.regulariser.weight=0", "training.row_length=128"),
    *("training.questionnaire=false", "training.log_every=1", "+value=power"),
]


def read_proverbs(dataset, offline):
    """Return the arguments of a data set of one's own."""
    texts = [f"rule {number} serves us all" for number in range(12)][: dataset.limit]
    return [Argument(f"p{n}", "We need it", "in favor of", text, (VALUES[n % 10],)) for n, text in enumerate(texts)]


def focal(log_probs, batch, hyper):
    """Weigh tokens down that are certain already (Lin et al., 2017): (1 - p)^2 times minus the log-probability."""
    weight = batch.weight * (1.0 - jnp.exp(log_probs)) ** 2
    total, _ = sft_loss(log_probs, weight)
    return total, batch.weight.sum(), {"confidence": (jnp.exp(log_probs) * batch.weight).sum()}


@pytest.fixture
def added(tmp_path, monkeypatch):
    """The two registered, and a folder with an option for each."""
    monkeypatch.setitem(ARGUMENT_READERS, "proverbs", read_proverbs)
    monkeypatch.setitem(OBJECTIVES, "focal", focal)
    for group, text in {"dataset": "name: proverbs\nkind: arguments\n", "objective": "name: focal\n"}.items():
        (tmp_path / "conf" / group).mkdir(parents=True)
        name = text.split()[1]
        (tmp_path / "conf" / group / f"{name}.yaml").write_text(text)
    shutil.copytree(CONF / "alignment", tmp_path / "conf" / "alignment")
    return [
        "--config-dir",
        str(tmp_path / "conf"),
        "dataset=proverbs",
        "objective=focal",
        f"run.dir={tmp_path / 'run'}",
    ]


@pytest.mark.slow
def test_a_data_set_and_an_objective_are_added_from_outside(added, tmp_path):
    main([*added, *QUICK])
    summary = json.loads((tmp_path / "run" / "summary.json").read_text())
    assert [stage["examples"] for stage in summary["training"]["stages"]] == [11, 11]
    records = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert all(0 < record["confidence"] < 1 for record in records)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ("dataset.name=proverb", "dataset.name='proverb' is not known; did you mean 'proverbs'?"),
        ("objective.name=fokal", "objective.name=fokal is not known; did you mean 'focal'?"),
        ("objective.name=hinge", "objective.name=hinge is not known; choose from dpo, focal, sft"),
    ],
)
def test_a_name_that_nobody_registered_is_refused_in_one_line(added, change, said, capsys):
    assert said in refused(main, [*added, *QUICK, change], capsys)


@pytest.fixture
def manners(tmp_path, monkeypatch):
    """The recipe of a benchmark and a judge: its files in a folder, and what runs it with further arguments."""
    recipe = RECIPES.split("## Recipe: add a benchmark of harm or a judge\n")[1].split("\n## ")[0]
    files = {text.split()[1].rstrip(":"): text for _, text in re.findall(r"```(python|yaml)\n(.*?)```", recipe, re.S)}
    assert set(files) == {"my_evaluate.py", "my_conf/benchmark/manners.yaml", "my_conf/judge/shouting.yaml"}
    assert sum(len(text.splitlines()) for text in files.values()) < 40
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    (tmp_path / "manners.txt").write_text("What is polite?\nWho may speak first?\nIs it rude to sing?\n")
    monkeypatch.chdir(tmp_path)
    for registry, name in ((BENCHMARKS, "manners"), (JUDGES, "shouting")):
        monkeypatch.setitem(registry, name, None)
        del registry[name]  # at the end of the test, it goes again

    def ask(arguments):
        typed = files["my_evaluate.py"].splitlines()[0].split("python my_evaluate.py ")[1].split()
        monkeypatch.setattr(sys, "argv", ["my_evaluate.py", *typed, *arguments])
        exec(compile(files["my_evaluate.py"], "my_evaluate.py", "exec"), {"__name__": "__main__"})

    return ask


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
