"""The part of a model card about harm, from synthetic run directories."""

from pathlib import Path

import pytest
from synthetic_harm import EXTREME

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
