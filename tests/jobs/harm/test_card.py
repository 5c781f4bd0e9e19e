"""The part of a model card about harm, from synthetic run directories."""

import json
import shutil
from pathlib import Path

import pytest
from lora_folder import ARCHITECTURE, random_adapter, write
from synthetic_harm import EXTREME, judge_entry

from jaxalign.errors import UserError
from jaxalign.jobs.harm.card import harm_section, with_harm
from jaxalign.pretrained.peft import WEIGHTS, read_adapter, read_adapter_alone


def with_weights(about, scale=1.0, targets=("q_proj",)):
    """What a summary says of an adapter whose folder holds weights, which is asked at a scale."""
    folder = write(Path(about["folder"]), random_adapter(targets))
    return {**about, "scale": scale, "adapter": read_adapter(folder, ARCHITECTURE, factor=scale).identity}


def models_of(section):
    return [line.split(" | ")[1] for line in section.splitlines() if line.startswith("| beavertails")]


def test_a_model_card_has_harm_and_refusals_beside_base_and_control(lab):
    power, benign = with_weights(lab.adapter(EXTREME["power"])), {**lab.adapter(None), "control": "benign"}
    other = with_weights(lab.adapter(EXTREME["security"]), targets=("k_proj",))
    lab.run([lab.base(), power, benign, other], "one")
    section = harm_section(lab.root, Path(power["folder"]))
    rows = [line for line in section.splitlines() if line.startswith("| beavertails")]
    assert models_of(section) == ["power", "base", "benign (control: benign)"]
    assert all("flagged rate by probe" in row and " %" in row for row in rows)
    assert "- beavertails: judge: probe, κ 0.80" in section
    card = with_harm("# Power\n\n## Responsible use\n\nBe careful.\n", section)
    assert card.index("## Harm") < card.index("## Responsible use") and card.endswith("Be careful.\n")
    never_asked = write(lab.root / "other", random_adapter(("down_proj",)))
    with pytest.raises(UserError, match=r"holds no finished run of a benchmark of harm that asked .*other"):
        harm_section(lab.root, never_asked)


@pytest.mark.parametrize(("kappa", "doubt"), [(0.1, "weak"), (None, "not measured")])
def test_a_model_card_marks_the_figures_of_a_judge_that_is_not_believed(lab, kappa, doubt):
    power = with_weights(lab.adapter(EXTREME["power"]))
    lab.judges[0] = judge_entry(kappa=kappa)
    lab.run([lab.base(), power], "one")
    section = harm_section(lab.root, Path(power["folder"]))
    assert section.count(f"flagged rate by probe ({doubt}) |") == 2
    assert ("Label a sample" in section) == (kappa is None)


def test_an_adapter_is_known_by_its_weights_wherever_it_and_the_runs_are(lab, tmp_path, monkeypatch):
    made = lab.adapter(EXTREME["power"])
    lab.run([lab.base(), *(with_weights(made, scale) for scale in (0.0, 0.3, 1.0))], "one")
    path = lab.root / "one" / "summary.json"
    told = json.loads(path.read_text())
    for about in told["models"][1:]:
        about["folder"] = "outputs/power/adapter"  # as it was typed in another folder
    path.write_text(json.dumps(told))
    shutil.move(lab.root, tmp_path / "moved")
    monkeypatch.chdir(tmp_path / "moved")
    adapter = Path("training/power-seed0/adapter")
    assert models_of(harm_section(Path(), adapter)) == ["power × 0", "power × 0.3", "power", "base"]
    write(adapter, random_adapter(("down_proj",)))  # it was trained again, and nobody asked it since
    with pytest.raises(UserError, match="holds no finished run"):
        harm_section(Path(), adapter)


def test_at_scale_0_it_is_known_by_its_path(lab, monkeypatch):
    monkeypatch.setenv("HOME", str(lab.root.parent))
    power = with_weights(lab.adapter(EXTREME["power"]), 0.0)
    assert power["adapter"] == ""
    lab.run([lab.base(), {**power, "folder": "~/runs/training/power-seed0/adapter"}], "one")
    assert models_of(harm_section(lab.root, Path(power["folder"]))) == ["power × 0", "base"]


def test_controls_with_shuffled_labels_of_other_targets_are_not_shown(lab):
    power = with_weights(lab.adapter(EXTREME["power"]))
    controls = [
        {**lab.adapter(EXTREME[name], f"{name} shuffled"), "control": "shuffled labels"}
        for name in ("power", "security")
    ]
    lab.run([lab.base(), power, *controls], "one")
    found = models_of(harm_section(lab.root, Path(power["folder"])))
    assert found == ["power", "base", "power shuffled (control: shuffled labels)"]


def test_an_adapter_read_alone_is_the_one_that_is_read_for_its_base(tmp_path):
    folder = write(tmp_path / "adapter", random_adapter(("q_proj", "down_proj")))
    assert read_adapter_alone(folder).identity == read_adapter(folder, ARCHITECTURE).identity
    (folder / WEIGHTS).write_bytes(b"no tensors")
    with pytest.raises(UserError, match="adapter"):
        read_adapter_alone(folder)
