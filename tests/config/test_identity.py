import dataclasses

import pytest
from config.test_commands import raw

from jaxalign.config.commands import read_config
from jaxalign.config.crest import CrestConfig
from jaxalign.config.evaluate import EvaluateConfig
from jaxalign.config.generate import GenerateConfig
from jaxalign.config.identity import identity, plain
from jaxalign.config.train import TrainConfig
from jaxalign.jobs.crest import dpo, evaluate, preferences, rationales, seed, sft
from jaxalign.runs.directory import flat, open_run
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
MODEL |= {"model.date"}
RUN = {"run.dir", "run.root", "run.overwrite", "prefetch", "offline"}
ADAPTERS = {"adapter.path", "adapter.scale", "adapters"}
LOGGING = {f"training.{name}" for name in ("log_every", "checkpoint_every", "keep_checkpoints", "rematerialisation")}
UNCOUNTED = {
    "train": RUN | MODEL | LOGGING | {"dataset.path", "benchmark.portraits", "adapter", "inspect", "value.table"},
    "generate": RUN
    | MODEL
    | ADAPTERS
    | {"base", "prompt", "prompts", "sampling.n", "sampling.rows"}
    | {f"engine.{name}" for name in ("url", "models", "concurrency", "retries", "timeout", "check")},
    "evaluate": RUN | MODEL | ADAPTERS | {"benchmark.portraits", "value.table"},
    "crest": RUN
    | MODEL
    | LOGGING
    | {"stage", "compare", "sampling.rows"}
    | {f"dataset.{name}" for name in ("path", "limit", "skip", "solved", "train", "validation", "test", "links")}
    | {"dataset.turned"},
}


def made(command, *overrides, change=""):
    kind, chosen = COMMANDS[command]
    return read_config(kind, raw(*chosen, *overrides, change=change, name=command))


@pytest.mark.parametrize("command", COMMANDS)
def test_every_key_of_every_command_counts_but_those_that_are_listed_here(command):
    config = made(command)
    counted = set(flat(identity(config, {}))) - {"content"}
    every = set(flat(plain(config)))
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


@pytest.mark.parametrize("stage", [seed, rationales, evaluate, sft, preferences, dpo], ids=lambda stage: stage.__name__)
def test_what_a_stage_passes_over_are_keys_that_there_are(stage):
    config = made("crest")
    kept = flat(identity(config, {}, stage.WITHOUT))
    assert set(kept) < set(flat(identity(config, {})))
    with pytest.raises(KeyError):
        identity(config, {}, [*stage.WITHOUT, "crest.no_such_key"])


@pytest.mark.parametrize("override", ["run.dir=elsewhere", "dataset.path=/moved/data", "model.path=/m", "inspect=3"])
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
        runs.add(open_run(identity(config, CONTENT), plain(config), root=tmp_path, name=value).path)
    assert len(runs) == 14
