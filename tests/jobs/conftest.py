"""Adapters that one step made, folders to work in, and a model that must not be loaded."""

import pytest


@pytest.fixture(scope="session")
def adapters(tmp_path_factory):
    """A folder of two finished runs, power and security, and of a file that is no adapter; not to be changed."""
    from runs_of_tiny import train  # not before pytest checks the shapes in what it imports

    folder = tmp_path_factory.mktemp("adapters")
    for value in ("power", "security"):
        train(folder, value)
    return folder


@pytest.fixture
def here(tmp_path, monkeypatch):
    """A folder of the test's own, which it works in."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def not_loaded(monkeypatch):
    """No weights may be read."""
    from jaxalign.pretrained.sources import ModelFiles

    def load(*_):
        raise AssertionError("the weights were read before the input was refused")

    monkeypatch.setattr(ModelFiles, "load", load)


@pytest.fixture
def lab(tmp_path):
    """A folder for synthetic runs of benchmarks of harm."""
    from synthetic_harm import Lab

    return Lab(tmp_path / "runs")
