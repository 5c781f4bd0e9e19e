"""The tests' shorter way to compose (`hydra_once`) gives what Hydra's own gives."""

import pytest
from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra._internal.config_repository import ConfigRepository
from hydra._internal.utils import create_automatic_config_search_path
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException
from hydra_once import compose, compose_anew, load, load_anew, parse, parse_anew
from omegaconf import OmegaConf

from jaxalign.config.crest import CrestConfig
from jaxalign.config.entry_point import entry_point
from jaxalign.config.presets import CONF
from jaxalign.config.train import TrainConfig


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "kind", "arguments"),
    [
        ("train", TrainConfig, ["+value=designed/designed_07", "model=tiny", "training.seed=1", "run.dir=x y"]),
        ("train", TrainConfig, ["-m", "+value=power,security", "model=tiny", "lora.rank=2", "hydra.verbose=true"]),
        ("crest", CrestConfig, ["experiment=star", "model=hub", "model.path=/x", "++model.date=2026-01-31"]),
    ],
)
def test_what_the_tests_compose_is_what_hydra_composes(name, kind, arguments, tmp_path, monkeypatch):
    composed = []

    def both(loader, **asked):
        found = [way(loader, **asked) for way in (compose, compose_anew)]
        composed.append(
            [
                (repr(OmegaConf.to_container(one)), {**one._metadata.flags}, {**one.hydra._metadata.flags})
                for one in found
            ]
        )
        return found[0]

    monkeypatch.setattr(ConfigLoaderImpl, "_load_configuration_impl", both)
    for folder in (tmp_path, tmp_path.parent):  # what was composed in the first is taken in the second
        monkeypatch.chdir(folder)
        entry_point(name, kind)(lambda config: None)(arguments)
    assert len(composed) > 1 and all(ours == theirs for ours, theirs in composed)


@pytest.mark.parametrize("file", ["crest", "value/power", "experiment/star", "hydra/config", "hydra/sweeper/basic"])
def test_a_file_that_is_read_once_is_what_hydra_reads_and_a_copy_for_each(file):
    repository = ConfigRepository(create_automatic_config_search_path(None, __name__, str(CONF)))
    first, again, theirs = load(repository, file), load(repository, file), load_anew(repository, file)
    for one in (first, again):
        assert {**vars(one), "config": repr(one.config)} == {**vars(theirs), "config": repr(theirs.config)}
    assert first.config is not again.config


@pytest.mark.parametrize(
    "override",
    [
        "run.dir=x y",
        "+value=power,security",
        "dataset.links=[1,{a: 2}]",
        "~model.config",
        'a.b="q"',
        "shuffle=1.5",
        "key=int(2.5)",
    ],
)
def test_an_override_that_is_parsed_once_is_what_hydra_parses_and_a_copy_for_each(override):
    parser = OverridesParser.create()
    first, again, theirs = [way(parser, override, "override") for way in (parse, parse, parse_anew)]
    assert first == again == theirs and first is not again
    first.key_or_group = "another"
    assert parse(parser, override, "override") == theirs


def test_a_value_is_not_taken_for_an_override_and_what_cannot_be_parsed_is_refused_each_time():
    parser = OverridesParser.create()
    assert parse(parser, "a=b", "override").value() == "b" and parse(parser, "[1, 2]", "value") == [1, 2]
    for _ in range(2):
        with pytest.raises(HydraException):
            parse(parser, "a=[1", "override")
    drawn = {tuple(parse(parser, f"a=shuffle({[*range(20)]})", "override").value()) for _ in range(5)}
    assert len(drawn) > 1


@pytest.mark.slow
@pytest.mark.parametrize("way", ["--config-dir", "hydra.searchpath"])
def test_options_of_ones_own_are_composed_again_when_they_change(way, tmp_path):
    shipped, seen = (CONF / "value" / "power.yaml").read_text(encoding="utf-8"), []
    (tmp_path / "value").mkdir()
    where = ["--config-dir", str(tmp_path)] if way == "--config-dir" else [f"{way}=[{tmp_path}]"]
    for score in (2, 3):
        (tmp_path / "value" / "power.yaml").write_text(shipped.replace("power: 6", f"power: {score}"))
        entry_point("train", TrainConfig)(seen.append)([*where, "value=power"])
    assert [config.value.scores["power"] for config in seen] == [2, 3]
