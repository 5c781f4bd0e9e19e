"""stage=fit_judge: probes for harm and refusals are fitted to labelled responses, and measured on the held-out part."""

from pathlib import Path

from rich.console import Console

from jaxalign.config.evaluate import EvaluateConfig
from jaxalign.errors import UserError
from jaxalign.jobs.harm.judges import JudgeModels
from jaxalign.safety.calibration import PURPOSES, measure_judge
from jaxalign.safety.judges.fitting import fit_probe
from jaxalign.safety.judges.probe import ProbeJudge, write_probe
from jaxalign.safety.labelled import HELD_OUT_PART, TRAIN_PART, load_labelled


def fit_judge(config: EvaluateConfig, console: Console) -> None:
    """Fit a probe for harm and one for refusals on the base `judge.model`, and write them to run.dir.

    Raises:
        UserError: the labelled responses cannot be used, or are too few.
    """
    if config.judge.name not in ("auto", "probe"):
        raise UserError(f"stage=fit_judge fits a probe, not judge={config.judge.name}: give judge=probe")
    rows = load_labelled(config.judge.labels)
    fitted = [row for row in rows if row.split == TRAIN_PART]
    held_out = [row for row in rows if row.split == HELD_OUT_PART]
    reader = JudgeModels(config, console).reader(str(config.judge.model))
    folder = Path(config.run.dir or Path(config.run.root) / "probe")
    folder.mkdir(parents=True, exist_ok=True)
    for about in PURPOSES:
        found = fit_probe(reader, fitted, about)
        path = folder / f"probe_{about}.safetensors"
        write_probe(path, found.probe)
        measured = measure_judge(ProbeJudge(found.probe, reader), held_out, about)
        line = measured.line if held_out else "not measured, because no label is in the part held_out"
        line = f"{path}: {found.fitted} labels, penalty {found.penalty:g}; {line}"
        console.print(line, highlight=False, soft_wrap=True)
    told = f"judge.weights={folder}/probe_harm.safetensors judge.refusal_weights={folder}/probe_refusal.safetensors"
    console.print(f"next: {told}", highlight=False, soft_wrap=True)
