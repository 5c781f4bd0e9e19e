"""What CONTRIBUTING.md says of adding a data set, an objective and a model family, done from outside the package."""

import json
from pathlib import Path

import jax.numpy as jnp
import pytest
from command_line import refused
from golden_model import FAMILY_GOLDENS, assert_logits_equal, golden_model

from jaxalign.jobs.readers import ARGUMENT_READERS
from jaxalign.models.families import FAMILIES, Family
from jaxalign.objectives.sft import sft_loss
from jaxalign.train import main
from jaxalign.training.step import OBJECTIVES
from jaxalign.values.schwartz import VALUES
from jaxalign.values.touche import Argument

QUICK = [
    *("model=tiny", "precision=float32", "lora.rank=2", "training.max_steps=2", "training.batch_size=2"),
    "alignment.regulariser.weight=0",
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


def test_the_recipe_s_line_adds_a_family_with_the_logits_of_transformers(monkeypatch):
    recipe = (Path(__file__).parents[1] / "CONTRIBUTING.md").read_text()
    (line,) = [line for line in recipe.splitlines() if line.startswith('FAMILIES["')]
    added = dict(FAMILIES)
    exec(line, {"FAMILIES": added, "Family": Family})
    ((name, family),) = added.items() - FAMILIES.items()
    monkeypatch.setitem(FAMILIES, name, family)
    stored, model, params = golden_model(FAMILY_GOLDENS / "added" / "ministral.json")
    assert (model.architecture.family, model.architecture.windows) == ("ministral", (7, 0, 7))
    assert_logits_equal(stored, model, params)
