"""Judges are checked when they are opened, before anything is generated."""

import numpy as np
import pytest
from command_line import refused

from jaxalign.config.presets import preset
from jaxalign.evaluate import main
from jaxalign.pretrained.sources import open_model, source_of
from jaxalign.safety.judges.probe import ProbeWeights, write_probe

HARM = ["model=tiny", "benchmark=starter_probes", "precision=float32", "judge.refusal=none", "judge.calibrate=false"]


@pytest.mark.parametrize("width", [7, 33])
def test_a_probe_of_another_width_is_refused_before_anything_is_generated(here, not_loaded, capsys, width):
    identity = open_model(source_of(preset("tiny")), offline=True, name="tiny").identify()[0]
    write_probe("wide.safetensors", ProbeWeights("harm", identity, np.ones(width, np.float32), 0.0))
    line = refused(main, [*HARM, "judge=probe", "judge.model=tiny", "judge.weights=wide.safetensors"], capsys)
    assert line.startswith(f"the probe wide.safetensors has {width} weights, and states of tiny have 32 numbers")


@pytest.mark.parametrize("way", [["--config-dir", "."], ["hydra.searchpath=[.]"]])
def test_a_model_of_ones_own_is_not_passed_over_by_a_judge_without_a_word(here, not_loaded, capsys, way):
    (here / "model").mkdir()
    own = here / "model" / "smollm2_135m.yaml"
    own.write_text("source: random\n")
    line = refused(main, [*way, *HARM, "judge=rubric_local", "judge.model=smollm2_135m"], capsys)
    assert line.startswith(f"{own} has the name of the default, conf/model/smollm2_135m.yaml")
    assert line.endswith("judges read with the shipped one: rename yours")


def test_the_folder_of_a_judge_needs_no_quotes(here, not_loaded, capsys):
    line = refused(main, [*HARM, "judge=rubric_local", "judge.model=./día [1],x=y {z}"], capsys)
    assert line.startswith("model.path: día [1],x=y {z} does not exist")
