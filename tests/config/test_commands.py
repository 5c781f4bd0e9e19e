import copy
import functools
import re

import pytest
import yaml
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf

from jaxalign.config.commands import read_config
from jaxalign.config.crest import CrestConfig
from jaxalign.config.dataset import ArgumentsConfig, InstructionsConfig, PairsConfig, QuestionsConfig
from jaxalign.config.evaluate import EvaluateConfig
from jaxalign.config.export import ExportConfig
from jaxalign.config.generate import GenerateConfig
from jaxalign.config.identity import as_dict
from jaxalign.config.presets import CONF
from jaxalign.config.schema import leaf_types
from jaxalign.config.study import StudyConfig
from jaxalign.config.train import TrainConfig
from jaxalign.errors import UserError
from jaxalign.values.targets import extreme_targets

FILES = sorted(path.relative_to(CONF).as_posix() for path in CONF.rglob("*.yaml"))
OPTIONS = [file.removesuffix(".yaml") for file in FILES if file.count("/") == 1]  # value/survey/close needs a table
INSTRUCTIONS = ("alpaca", "dolly", "everyday", "grammar", "samsum")
QUESTIONS = ("arc", "csqa", "puzzles", "reclor")
CREST = [
    path.stem for path in (CONF / "experiment").glob("*.yaml") if "jaxalign.crest" in path.read_text(encoding="utf-8")
]


@functools.cache  # a composition takes a tenth of a second
def composed(name, *overrides):
    with initialize_config_dir(str(CONF), version_base="1.3"):
        return compose(name, list(overrides))


def raw(*choices, change="", name="train"):
    """The composed configuration with options chosen, and then one key changed."""
    made = copy.deepcopy(composed(name, *choices))
    if change:
        key, _, value = change.partition("=")
        OmegaConf.update(made, key, yaml.safe_load(value), merge=False, force_add=True)
    plain_keys = OmegaConf.to_container(made, resolve=True)
    assert isinstance(plain_keys, dict)
    return plain_keys


def config(*choices, change=""):
    return read_config(TrainConfig, raw(*choices, change=change))


@pytest.mark.parametrize("option", OPTIONS)
def test_every_option_of_every_group_composes_and_is_valid(option):
    group, _, name = option.rpartition("/")
    chosen = [f"+value={name}" if group == "value" else f"{group}={name}"]
    crest = group == "reasoning" or name in QUESTIONS or name in CREST
    if group != "value" and name not in (*INSTRUCTIONS, "jsonl", "pairs", "dpo") and not crest:
        chosen.append("+value=power")
    if name in ("pairs", "dpo"):
        chosen = ["objective=dpo", "dataset=pairs", "dataset.path=file", "adapter=run"]
    if name == "hub":
        chosen.append("model.path=folder")
    if name == "jsonl":
        chosen.append("dataset.path=file")
    if name == "openai":
        chosen.append("engine.url=http://localhost:8000/v1")
    harm = group in ("judge", "mitigation") or (group == "benchmark" and name != "portraits")
    if group in ("judge", "mitigation"):
        chosen.append("benchmark=starter_probes")
    if name in ("regard", "imported"):
        chosen.append("judge.path=folder")
    if name == "rubric_local":
        chosen.append("judge.model=folder")
    where, kind = {
        "engine": ("generate", GenerateConfig),
        "run": ("generate", GenerateConfig),
        "roleplay": ("evaluate", EvaluateConfig),
    }.get(group if group == "engine" else name, ("train", TrainConfig))
    if where == "generate":
        chosen.remove("+value=power")
    if harm:
        where, kind = "evaluate", EvaluateConfig
    if crest:
        where, kind = "crest", CrestConfig
    if name == "harms_small":
        where, kind, chosen = "study", StudyConfig, chosen[:1]
    made = read_config(kind, raw(*chosen, name=where))
    if group not in ("experiment", "value", "reasoning"):
        assert getattr(made, group).name == name
    if group == "value":
        assert made.value is not None
        assert tuple(made.value.scores.values()) == extreme_targets()[name].scores


def test_the_defaults_compose_for_every_entry_point():
    assert config("+value=power").model.name == "smollm2_135m"
    with pytest.raises(UserError, match=r"^missing: run, out$"):
        read_config(ExportConfig, raw(name="export"))
    assert read_config(ExportConfig, raw("run=a", "out=b", name="export")).format == "peft"
    assert read_config(GenerateConfig, raw(name="generate")).engine.name == "jaxalign"
    assert read_config(EvaluateConfig, raw(name="evaluate")).benchmark.reading == "both"
    assert read_config(CrestConfig, raw(name="crest")).dataset.name == "puzzles"


@pytest.mark.parametrize("file", [file for file in FILES if file.startswith("experiment/")])
def test_recipes_never_set_the_value(file):
    text = yaml.safe_load((CONF / file).read_text())
    defaults = [key for entry in text.get("defaults", []) if isinstance(entry, dict) for key in entry]
    assert "value" not in text
    assert not any("value" in default for default in defaults)


def test_the_paper_recipe_is_the_papers_and_the_released_one_adds_all_switches():
    paper = config("experiment=vim_llama2_7b", "+value=power")
    released = config("experiment=released_vim", "+value=power")
    assert (paper.lora.rank, paper.lora.alpha, paper.lora.dropout) == (8, 32, 0.1)
    assert paper.lora.targets == ("q_proj", "v_proj")
    assert (paper.optimizer.learning_rate, paper.optimizer.warmup_steps, paper.optimizer.clip) == (2e-5, 0, None)
    assert (paper.training.epochs, paper.training.batch_size) == (5, 8)
    assert not any(as_dict(paper)["released"].values())
    assert all(as_dict(released)["released"].values())
    assert {**as_dict(released), "released": None} == {**as_dict(paper), "released": None}


def test_the_paper_recipe_of_crest_is_the_papers_and_the_released_one_adds_all_switches():
    paper, released = (
        read_config(CrestConfig, raw(f"experiment={name}", name="crest"))
        for name in ("crest_arc_llama3_8b", "released_crest")
    )
    assert (paper.crest.samples, paper.crest.mixing, paper.dpo.steps * paper.dpo.batch_size) == (16, 0.6, 24_000)
    assert paper.dpo.rounds == 4 and paper.dpo.batching == "paired" and paper.lora.alpha == 16
    assert not any(as_dict(paper)["released"].values())
    assert all(as_dict(released)["released"].values())
    assert (released.crest.deduplicate, released.dpo.resample) == (False, False)


def test_preference_optimisation_has_a_learning_rate_of_its_own_which_a_recipe_or_a_key_changes():
    dpo = ("objective=dpo", "dataset=pairs", "dataset.path=file", "adapter=run")
    assert (config(*dpo).optimizer.learning_rate, config("+value=power").optimizer.learning_rate) == (1e-5, 2e-3)
    assert config(*dpo, "optimizer.learning_rate=0.5", "objective.beta=0.3").optimizer.learning_rate == 0.5


@pytest.mark.parametrize("file", FILES)
def test_every_key_in_conf_has_a_comment_beside_or_above_it(file):
    bare, comment_above, block_indent = [], False, None
    for line in (CONF / file).read_text().splitlines():
        indent = len(line) - len(line.lstrip())
        if block_indent is not None and (indent > block_indent or not line.strip()):
            continue
        block_indent = None
        key = re.match(r"\s*(- )?([\w/ ]+):(\s|$)", line)
        if key and not comment_above and not re.search(r"\s#\s", line):
            bare.append(key.group(2))
        # Texts, and worked examples, whose fields are content.
        if key and (re.search(r":\s+[|>]-?\s*(#.*)?$", line) or line == "examples:"):
            block_indent = indent
        comment_above = line.lstrip().startswith("#") and not line.startswith("# @package")
    assert bare == []


def test_every_key_of_the_schema_stands_in_conf():
    def keys(tree, prefix=""):
        for key, value in tree.items():
            yield f"{prefix}{key}"
            if isinstance(value, dict):
                yield from keys(value, f"{prefix}{key}.")

    found = set(keys(yaml.safe_load((CONF / "train.yaml").read_text())))
    for option in [*OPTIONS, "value/survey/close"]:
        group, _, _ = option.rpartition("/")
        text = (CONF / f"{option}.yaml").read_text()
        whole = text.startswith("# @package _global_")
        found |= set(keys(yaml.safe_load(text), "" if whole else f"{group.partition('/')[0]}."))
    assert set(leaf_types(TrainConfig)) - found == set()


def test_no_file_in_conf_can_name_code_to_run():
    assert not any("_target_" in (CONF / file).read_text() for file in FILES)


COUNT = "a whole number of at least 1"
BAD = [
    ("lora.rank=0", "lora.rank=0 is not allowed: give a whole number from 1 to 65536"),
    ("lora.rank=2.5", "lora.rank=2.5 is not allowed: give a whole number from 1 to 65536"),
    ("lora.rank=true", "lora.rank=true is not allowed: give a whole number from 1 to 65536"),
    ("lora.rank='4'", "lora.rank='4' is not allowed: give a whole number from 1 to 65536"),
    ("training.packing='true'", "training.packing='true' is not allowed: give true or false"),
    ("lora.dropout=1.5", "lora.dropout=1.5 is not allowed: give a number of at least 0 and below 1"),
    ("lora.alpha=0", "lora.alpha=0 is not allowed: give a number greater than 0"),
    ("lora.targets=[]", "lora.targets=[] is not allowed: give a list of one or more projections"),
    ("lora.targets=[q_proj,q_proj]", "lora.targets=[q_proj,q_proj] is not allowed: give a list of one or more"),
    ("lora.targets=q_proj", "lora.targets=q_proj is not allowed: give a list"),
    ("lora.targets=[q_prj]", "lora.targets=q_prj is not known; did you mean 'q_proj'?"),
    ("lora=3", "lora=3 is not allowed: give keys such as lora.rank"),
    ("optimizer.learning_rate=-1", "optimizer.learning_rate=-1 is not allowed: give a number greater than 0"),
    (
        "optimizer.learning_rate=1.0e+39",
        "optimizer.learning_rate is not allowed: its number is too large to compute with",
    ),
    (f"lora.alpha=1{'0' * 400}", "lora.alpha is not allowed: its number is too large to compute with"),
    (f"inspect=-1{'0' * 400}", "inspect is not allowed: its number is too large to compute with"),
    ("optimizer.learning_rate=.nan", "optimizer.learning_rate=nan is not allowed"),
    ("optimizer.betas=[0.9]", "optimizer.betas=[0.9] is not allowed: give two numbers"),
    ("optimizer.betas=[0.9,1]", "optimizer.betas=[0.9,1] is not allowed: give two numbers"),
    ("optimizer.clip=0", "optimizer.clip=0 is not allowed: give a number greater than 0, or null"),
    ("optimizer.schedule=linar", "optimizer.schedule=linar is not known; did you mean 'linear'?"),
    ("optimizer.warmup_steps=-1", "optimizer.warmup_steps=-1 is not allowed: give a whole number of at least 0"),
    ("training.epochs=0", "training.epochs=0 is not allowed: give a number greater than 0"),
    ("training.epochs=1.0e+30", "training.epochs=1e+30 is not allowed: give a number greater than 0, up to 10000"),
    (
        "training.row_length=10000000000",
        "training.row_length=10000000000 is not allowed: give a whole number",
    ),
    ("training.epochs=abc", "training.epochs=abc is not allowed: give a number greater than 0"),
    ("training.epochs=null", "training.epochs=null is not allowed: give a number greater than 0"),
    ("training.batch_size=0", f"training.batch_size=0 is not allowed: give {COUNT}"),
    ("training.max_steps=0", f"training.max_steps=0 is not allowed: give {COUNT}, or null"),
    ("training.seed=-1", "training.seed=-1 is not allowed: give a whole number from 0"),
    ("training.packing=yes please", "training.packing=yes please is not allowed: give true or false"),
    ("benchmark.reading=guess", "benchmark.reading=guess is not known; choose from both, likelihood, parse"),
    ("precision=fp16", "precision=fp16 is not known; choose from auto, bfloat16, float32"),
    ("dataset.limit=1", "dataset.limit=1 is not allowed: give a whole number of at least 2, or null"),
    ("inspect=-1", "inspect=-1 is not allowed"),
    ("value.scores.power=7", "value.scores.power=7 is out of range: give a number from 1 to 6"),
    ("value.scores.power=high", "value.scores.power=high is not a number"),
    ("value.scores.pwer=3", "value.scores.pwer is not one of the ten values; did you mean 'power'?"),
    ("training.epocs=3", "unknown key 'training.epocs'; did you mean 'training.epochs'?"),
    ("lora.learning_rate=3", "unknown key 'lora.learning_rate'; did you mean 'optimizer.learning_rate'?"),
    ("zzz=3", "unknown key 'zzz'; --help shows where every key is explained"),
    ("model.source=random", "missing: model.config (model.source=random needs it)"),
    ("model.system=hello", "model.system is used only in the chat format"),
]


@pytest.mark.parametrize(("override", "line"), BAD, ids=[override[:40] for override, _ in BAD])
def test_a_bad_value_gets_one_line_that_names_the_key_and_what_is_allowed(override, line):
    with pytest.raises(UserError) as caught:
        config("+value=power", change=override)
    assert str(caught.value).startswith(line)


def test_a_control_data_set_takes_no_value():
    with pytest.raises(UserError, match="dataset=alpaca teaches no value: leave value=power out"):
        config("dataset=alpaca", "+value=power")


@pytest.mark.parametrize(
    ("kind", "type"),
    [
        ("instructions", InstructionsConfig),
        ("pairs", PairsConfig),
        ("arguments", ArgumentsConfig),
        ("questions", QuestionsConfig),
    ],
)
def test_a_file_of_ones_own_holds_one_of_four_kinds(kind, type):
    dpo = ("objective=dpo", "adapter=run") if kind == "pairs" else ()
    value = ("+value=power",) if kind == "arguments" else ()
    name, schema = ("crest", CrestConfig) if kind == "questions" else ("train", TrainConfig)
    mine = ("dataset=jsonl", "dataset.path=file", f"dataset.kind={kind}", *dpo, *value)
    made = read_config(schema, raw(*mine, name=name))
    assert isinstance(made.dataset, type) and made.dataset.columns.given == {}


def test_crest_needs_questions():
    with pytest.raises(UserError, match=r"^dataset=starter holds arguments, and crest needs questions: puzzles, arc"):
        read_config(CrestConfig, raw("dataset=starter", name="crest"))


def test_a_key_or_a_column_of_another_kind_of_data_is_refused_with_that_kind():
    with pytest.raises(UserError, match=r"^dataset\.match goes with dataset\.kind=instructions, not with arguments"):
        config("+value=power", "+dataset.match=run")
    own = ("dataset=jsonl", "dataset.path=file")
    with pytest.raises(
        UserError, match=r"^dataset\.columns\.chosen is for dataset\.kind=pairs, and .*instructions has"
    ):
        config(*own, "dataset.columns.chosen=better")
    for columns in (["prompt=response"], ["prompt=x", "response=x"]):
        with pytest.raises(UserError, match=r"^response and prompt would both be the column (response|x): give each"):
            config(*own, *(f"dataset.columns.{one}" for one in columns))
    config(*own, "dataset.columns.prompt=response", "dataset.columns.response=prompt")
    with pytest.raises(UserError, match=r"^dataset\.kind=pair is not known; did you mean 'pairs'\?"):
        config(*own, "dataset.kind=pair")


def test_all_that_is_missing_is_named_together():
    with pytest.raises(UserError, match=r"^missing: model\.path, value \(dataset=starter needs one: .*\+value=power"):
        config("model=hub")


def test_all_that_is_wrong_is_named_together():
    with pytest.raises(UserError, match=r"(?s)(?=.*lora\.rank=0 )(?=.*; )(?=.*precision=fp16 )"):
        config("+value=power", "precision=fp16", "lora.rank=0")


def test_numbers_become_what_the_schema_says_and_home_is_found():
    made = config(
        "+value=power",
        "optimizer.learning_rate=1",
        "model=hub",
        "model.path=a/b",
        "+model.revision=123",
        "dataset.path='~/x'",
    )
    assert isinstance(made.optimizer.learning_rate, float)
    assert made.model.revision == "123"
    assert made.dataset.path is not None
    assert made.dataset.path.startswith("/")
    assert made.lora.targets[0] == "q_proj"


@pytest.mark.parametrize(
    ("name", "kind", "key"),
    [
        ("train", TrainConfig, "lora.rank"),
        ("train", TrainConfig, "training.row_length"),
        ("train", TrainConfig, "training.epochs"),
        ("train", TrainConfig, "alignment.argument_epochs"),
        ("generate", GenerateConfig, "sampling.n"),
        ("generate", GenerateConfig, "sampling.top_k"),
        ("generate", GenerateConfig, "engine.concurrency"),
        ("crest", CrestConfig, "sampling.top_k"),
        ("crest", CrestConfig, "crest.samples"),
        ("crest", CrestConfig, "crest.iterations"),
        ("crest", CrestConfig, "seed.epochs"),
        ("crest", CrestConfig, "sft.epochs"),
        ("crest", CrestConfig, "dpo.rounds"),
        ("crest", CrestConfig, "test.samples"),
        *(("crest", CrestConfig, f"dataset.{part}") for part in ("solved", "train", "validation", "test")),
    ],
)
def test_a_size_that_would_fill_the_memory_or_never_come_to_an_end_is_refused(name, kind, key):
    value = ("+value=power",) if name == "train" else ()
    with pytest.raises(UserError, match=rf"^{key}=10000000000 is not allowed: give .* (from \d to \d+|up to 10000)"):
        read_config(kind, raw(*value, change=f"{key}=10000000000", name=name))
