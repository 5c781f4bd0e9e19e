"""The part of a model card about harm, from synthetic run directories."""

from pathlib import Path

import pytest
from synthetic_harm import EXTREME, judge_entry

from jaxalign.errors import UserError
from jaxalign.jobs.harm.card import harm_section, with_harm


def test_a_model_card_has_harm_and_refusals_beside_base_and_control(lab):
    power, benign = lab.adapter(EXTREME["power"]), {**lab.adapter(None), "control": "benign"}
    lab.run([lab.base(), power, benign, lab.adapter(EXTREME["security"])], "one")
    section = harm_section(lab.root, Path(power["folder"]))
    rows = [line for line in section.splitlines() if line.startswith("| beavertails")]
    assert [row.split(" | ")[1] for row in rows] == ["power", "base", "benign (control: benign)"]
    assert all("flagged rate by probe" in row and " %" in row for row in rows)
    assert "- beavertails: judge: probe, κ 0.80" in section
    card = with_harm("# Power\n\n## Responsible use\n\nBe careful.\n", section)
    assert card.index("## Harm") < card.index("## Responsible use") and card.endswith("Be careful.\n")
    with pytest.raises(UserError, match=r"holds no finished run of a benchmark of harm that asked .*other"):
        harm_section(lab.root, lab.root / "other")


@pytest.mark.parametrize(("kappa", "doubt"), [(0.1, "weak"), (None, "not measured")])
def test_a_model_card_marks_the_figures_of_a_judge_that_is_not_believed(lab, kappa, doubt):
    power = lab.adapter(EXTREME["power"])
    lab.judges[0] = judge_entry(kappa=kappa)
    lab.run([lab.base(), power], "one")
    section = harm_section(lab.root, Path(power["folder"]))
    assert section.count(f"flagged rate by probe ({doubt}) |") == 2
    assert ("Label a sample" in section) == (kappa is None)
