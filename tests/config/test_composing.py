"""The tests' shorter way to compose (`hydra_once`) gives what Hydra's own gives."""

import pytest
from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra_once import compose, compose_anew
from omegaconf import OmegaConf

from jaxalign.config.crest import CrestConfig
from jaxalign.config.entry_point import entry_point
from jaxalign.config.train import TrainConfig


@pytest.mark.parametrize(
    ("name", "kind", "arguments"),
    [
        ("train", TrainConfig, ["+value=designed/designed_07", "model=tiny", "training.seed=1", "run.dir=x y"]),
        ("train", TrainConfig, ["-m", "+value=power,security", "model=tiny", "lora.rank=2,4", "hydra.verbose=true"]),
        ("crest", CrestConfig, ["experiment=star", "model=hub", "model.path=/x", "++model.config.rope_theta=3.0"]),
    ],
)
def test_what_the_tests_compose_is_what_hydra_composes(name, kind, arguments, tmp_path, monkeypatch):
    composed = []

    def both(loader, **asked):
        found = [way(loader, **asked) for way in (compose, compose_anew)]
        composed.append(
            [(OmegaConf.to_yaml(one), {**one._metadata.flags}, {**one.hydra._metadata.flags}) for one in found]
        )
        return found[0]

    monkeypatch.setattr(ConfigLoaderImpl, "_load_configuration_impl", both)
    for folder in (tmp_path, tmp_path.parent):  # what was composed in the first is taken in the second
        monkeypatch.chdir(folder)
        entry_point(name, kind)(lambda config: None)(arguments)
    assert len(composed) > 1 and all(ours == theirs for ours, theirs in composed)
