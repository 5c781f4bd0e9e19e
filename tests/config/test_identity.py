import dataclasses
from typing import get_type_hints

import pytest
from config.test_commands import raw

from jaxalign.config.commands import read_config
from jaxalign.config.crest import CrestConfig
from jaxalign.config.evaluate import EvaluateConfig
from jaxalign.config.fields import UNCOUNTED as UNCOUNTED_MARK
from jaxalign.config.generate import EngineConfig, GenerateConfig
from jaxalign.config.identity import as_dict, identity
from jaxalign.config.model import AdapterConfig, RunConfig
from jaxalign.config.safety import JudgeConfig, LabelConfig, MitigationConfig
from jaxalign.config.train import TrainConfig
from jaxalign.jobs.crest.dpo import DPO_STAGE
from jaxalign.jobs.crest.evaluate import EVALUATE_STAGE
from jaxalign.jobs.crest.preferences import PREFERENCES_STAGE
from jaxalign.jobs.crest.rationales import RATIONALES_STAGE
from jaxalign.jobs.crest.seed import SEED_STAGE
from jaxalign.jobs.crest.sft import SFT_STAGE
from jaxalign.runs.config_file import flat
from jaxalign.runs.directory import open_run
from jaxalign.values.targets import extreme_targets

CONTENT = {"model": "m", "dataset": "d"}
COMMANDS = {
    "train": (TrainConfig, ["+value=power"]),
    "generate": (GenerateConfig, ["prompts=file"]),
    "evaluate": (EvaluateConfig, ["+value=power"]),
    "crest": (CrestConfig, []),
}
MODEL = {
    f"model.{name}" for name in ("name", "source", "path", "revision", "package", "version", "sha256", "file", "config")
}
MODEL |= {"model.date", "model.storage"}
RUN = {"run.dir", "run.root", "run.overwrite", "run.mirror", "prefetch", "offline", "attention"}
RUN |= {f"mesh.{name}" for name in ("name", "data", "fsdp", "tensor", "adapter")}
ADAPTERS = {"adapter.path", "adapter.scale", "adapters"}
LOGGING = {f"training.{name}" for name in ("log_every", "checkpoint_every", "keep_checkpoints", "rematerialisation")}
UNCOUNTED = {
    "train": RUN
    | MODEL
    | LOGGING
    | {"dataset.path", "benchmark.portraits", "benchmark.kind", "adapter", "inspect", "plan", "value.table"},
    "generate": RUN
    | MODEL
    | ADAPTERS
    | {"base", "prompt", "prompts", "sampling.n", "sampling.rows"}
    | {f"engine.{name}" for name in ("url", "models", "concurrency", "retries", "timeout", "check")},
    "evaluate": RUN
    | MODEL
    | ADAPTERS
    | {"benchmark.portraits", "benchmark.kind", "value.table", "stage"}
    | {
        f"{name}.{field.name}"
        for name, kind in (
            *(("judge", JudgeConfig), ("mitigation", MitigationConfig)),
            *(("engine", EngineConfig), ("label", LabelConfig)),
        )
        for field in dataclasses.fields(kind)
    },
    "crest": RUN
    | MODEL
    | LOGGING
    | {"stage", "compare", "judge", "sampling.rows"}
    | {f"dataset.{name}" for name in ("path", "limit", "skip", "solved", "train", "validation", "test", "links")}
    | {"dataset.turned"},
}


@dataclasses.dataclass(frozen=True)
class LaterConfig:
    """Two parts of shipped configurations, to one of which a key was added."""

    @dataclasses.dataclass(frozen=True)
    class Adapter(AdapterConfig):
        merge: str = "sum"

    adapter: Adapter
    run: RunConfig


def test_a_key_that_is_added_to_any_part_counts():
    run = RunConfig(dir=None, root="outputs", overwrite=False, mirror=None)
    later = LaterConfig(LaterConfig.Adapter(path="a", scale=1.0), run)
    assert identity(later, CONTENT) == {"adapter": {"merge": "sum"}, "content": CONTENT}
    # In evaluate, these four count in the identities of the stages that they change (`jobs.harm`).
    of_stages = {JudgeConfig, MitigationConfig, EngineConfig, LabelConfig}
    for kind, _ in COMMANDS.values():
        left_out = [part for part in whole_parts(kind) if UNCOUNTED_MARK in getattr(part, "__metadata__", ())]
        assert {part.__origin__ for part in left_out} <= (of_stages if kind is EvaluateConfig else set())


def whole_parts(kind):
    """The types of the parts of a configuration, and of the parts of these, as they are declared."""
    for declared in get_type_hints(kind, include_extras=True).values():
        bare = getattr(declared, "__origin__", declared)
        if dataclasses.is_dataclass(bare):
            yield declared
            yield from whole_parts(bare)


def made(command, *overrides, change=""):
    kind, chosen = COMMANDS[command]
    return read_config(kind, raw(*chosen, *overrides, change=change, name=command))


@pytest.mark.parametrize("command", COMMANDS)
def test_every_key_of_every_command_counts_but_those_that_are_listed_here(command):
    config = made(command)
    counted = set(flat(identity(config, {}))) - {"content"}
    every = set(flat(as_dict(config)))
    assert every - counted == UNCOUNTED[command]
    assert counted <= every


def test_a_key_that_is_added_later_counts_by_itself():
    @dataclasses.dataclass(frozen=True, kw_only=True)
    class Later(TrainConfig):
        added: int = 1

    config = made("train")
    fields = {field.name: getattr(config, field.name) for field in dataclasses.fields(config)}
    one, other = (identity(Later(**fields, added=number), CONTENT) for number in (1, 2))
    assert one != other


STAGES = {
    "seed": SEED_STAGE,
    "rationales": RATIONALES_STAGE,
    "evaluate": EVALUATE_STAGE,
    "sft": SFT_STAGE,
    "preferences": PREFERENCES_STAGE,
    "dpo": DPO_STAGE,
}


@pytest.mark.parametrize("stage", STAGES)
def test_what_a_stage_passes_over_are_keys_that_there_are(stage):
    config, spec = made("crest"), STAGES[stage]
    assert set(flat(identity(config, {}, spec.without))) == set(flat(identity(config, {}))) - set(spec.without)
    with pytest.raises(KeyError):
        identity(config, {}, [*spec.without, "crest.no_such_key"])


@pytest.mark.parametrize("stage", STAGES)
def test_a_key_that_is_added_later_counts_in_every_stage(stage):
    config = made("crest")
    before = identity(config, CONTENT, STAGES[stage].without)
    parts = {name: part for name, part in vars(config).items() if dataclasses.is_dataclass(part)}
    for name, part in parts.items():
        later = dataclasses.make_dataclass("Later", [("added", int)], bases=(type(part),), frozen=True, kw_only=True)
        fields = {field.name: getattr(part, field.name) for field in dataclasses.fields(part)}
        changed = dataclasses.replace(config, **{name: later(**fields, added=1)})
        assert identity(changed, CONTENT, STAGES[stage].without) != before, name


def test_the_identity_of_a_stage_has_no_part_that_is_empty():
    kept = identity(made("crest"), CONTENT, SEED_STAGE.without)
    assert not {"crest", "sampling", "sft", "dpo", "test", "released"} & set(kept) and kept["lora"]


@pytest.mark.parametrize(
    "override",
    [
        "run.dir=elsewhere",
        "dataset.path=/moved/data",
        "inspect=3",
        "mesh.tensor=2",
        "attention=blocks",
    ],
)
def test_paths_and_logging_do_not_change_the_identity_of_a_run(override):
    assert identity(made("train", change=override), CONTENT) == identity(made("train"), CONTENT)


@pytest.mark.parametrize("override", ["training.seed=1", "lora.rank=4", "dataset.limit=9", "value.scores.security=4"])
def test_what_moves_the_numbers_changes_the_identity_of_a_run(override):
    assert identity(made("train", change=override), CONTENT) != identity(made("train"), CONTENT)


def test_the_content_that_paths_lead_to_is_part_of_the_identity():
    mine = made("train", "adapter=/a", "benchmark.portraits=/b")
    assert identity(mine, CONTENT)["content"] == CONTENT
    assert identity(made("train", "adapter=/c", "benchmark.portraits=/d"), CONTENT) == identity(mine, CONTENT)
    assert identity(mine, {**CONTENT, "dataset": "other"}) != identity(mine, CONTENT)


def test_fourteen_values_are_fourteen_runs(tmp_path):
    runs = set()
    for value in extreme_targets():
        config = read_config(TrainConfig, raw(f"+value={value}"))
        runs.add(open_run(identity(config, CONTENT), as_dict(config), root=tmp_path, name=value).path)
    assert len(runs) == 14
