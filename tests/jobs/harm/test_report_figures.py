"""The figures of a report that are about the adapters themselves."""

import json
from pathlib import Path

from synthetic_harm import Lab

from jaxalign.jobs.harm.reported import find_harm_runs
from jaxalign.jobs.harm.reported_trainings import training_losses
from jaxalign.report import main
from jaxalign.values.designed import designed_targets


def test_values_and_training_of_the_adapters_are_drawn_from_their_runs(tmp_path):
    lab = Lab(tmp_path / "runs")
    few = [lab.adapter(target) for target in designed_targets().values()][:3]
    lab.run([lab.base(), *few], "one")
    main([f"runs={lab.root}"])
    figures = lab.root / "report" / "figures"
    assert (figures / "beavertails-profiles.svg").is_file() and not (figures / "beavertails-training.svg").exists()
    for one in few[:2]:
        losses = (("arguments", 10, 3.5), ("survey", 1, 2.5), ("survey", 10, 2.0))
        steps = [{"stage": stage, "step": step, "loss": loss} for stage, step, loss in losses]
        lines = "".join(json.dumps(step) + "\n" for step in steps)
        (Path(one["folder"]).parent / "metrics.jsonl").write_text(lines)
    main([f"runs={lab.root}"])
    assert (figures / "beavertails-training.png").is_file()
    page = (lab.root / "report" / "index.html").read_text(encoding="utf-8")
    assert "a radar of target and measured scores for each adapter" in page
    found = training_losses(find_harm_runs(lab.root)[0], lab.root)
    steps = [("arguments", 10, 3.5), ("survey", 1, 2.5), ("survey", 10, 2.0)]
    assert found == {one["adapter"]: steps for one in few[:2]}
