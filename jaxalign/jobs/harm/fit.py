"""stage=fit_judge: probes for harm and refusals are fitted to labelled responses, and measured on the held-out part."""

from pathlib import Path

from rich.console import Console

from jaxalign.config.evaluate import EvaluateConfig
from jaxalign.errors import UserError
from jaxalign.jobs.harm.judges import JudgeModels
from jaxalign.jobs.harm.labels import LABELS_FILE, read_labels
from jaxalign.runs.progress import say
from jaxalign.runs.records import check_writable
from jaxalign.safety.calibration import PURPOSES, measure_judge
from jaxalign.safety.judges.fitting import fit_probe
from jaxalign.safety.judges.probe import ProbeJudge, write_probe
from jaxalign.safety.labelled import HELD_OUT_PART, TRAIN_PART


def fit_judge(config: EvaluateConfig, console: Console) -> None:
    """Fit a probe for harm and one for refusals on the base `judge.model`, and write them to run.dir.

    They are fitted to `judge.labels`, or else to the labels that people gave to the run run.dir, or else to the shipped
    ones. If there are too few labels for one of them, the other one is fitted, and the console says why.

    Raises:
        UserError: the labelled responses cannot be used, or are too few for both; or the folder cannot be written
            (raised before the model is read).
    """
    if config.judge.name not in ("auto", "probe"):
        raise UserError(f"stage=fit_judge fits a probe, not judge={config.judge.name}: give judge=probe")
    labels = config.judge.labels
    if labels is None and config.run.dir is not None and (Path(config.run.dir) / LABELS_FILE).is_file():
        labels = config.run.dir
    folder = Path(config.run.dir or Path(config.run.root) / "probe")
    check_writable(folder)
    rows = read_labels(labels)
    say(console, f"labels: {labels or 'the shipped ones'}; {len(rows):,} responses")
    fitted = [row for row in rows if row.split == TRAIN_PART]
    held_out = [row for row in rows if row.split == HELD_OUT_PART]
    model = str(config.judge.model)
    reader = JudgeModels(config, console).reader(model)
    written, refused = [], []
    for about, part in zip(PURPOSES, ("", "refusal_"), strict=True):
        try:
            found = fit_probe(reader, fitted, about)
        except UserError as error:
            refused.append(f"no probe for {about}: {error}")
            continue
        path = folder / f"probe_{about}.safetensors"
        write_probe(path, found.probe)
        measured = measure_judge(ProbeJudge(found.probe, reader), held_out, about)
        line = measured.line if held_out else "not measured, because no label is in the part held_out"
        line = f"{path}: {found.fitted} labels, penalty {found.penalty:g}; {line}"
        say(console, line)
        written.append(f"judge.{part}model={model} judge.{part}weights={path}")
    if not written:
        raise UserError("; ".join(refused))
    for line in refused:
        say(console, line)
    say(console, f"next: judge=probe {' '.join(written)}")
