"""Labels that people give to the responses of a run, and what is made of them; the run is drawn, without any model."""

from types import SimpleNamespace

import numpy as np
import pytest
from command_line import refused, run
from jobs.answers_of_tiny import records
from synthetic_harm import Lab

from jaxalign.evaluate import main
from jaxalign.jobs.harm import fit
from jaxalign.jobs.harm.labels import agreement_line, labelled_by, labels_hash, read_labels
from jaxalign.safety.calibration import calibrate
from jaxalign.safety.judged import JudgedRow
from jaxalign.safety.judgements import Scale
from jaxalign.safety.judges.probe import ProbeWeights, read_probe
from jaxalign.safety.states import STATES
from jaxalign.safety.value_map import prompt_hash

ESCAPES = "\x1b[2J\x1b]0;title\x07 \x9b31m\r\u202e[/b]"
"""What clears a terminal, names its window, colours it, goes back in the line, and turns the text around."""


@pytest.fixture
def labelled(tmp_path, capsys, monkeypatch):
    """A run of 96 responses, and what lets a person label it."""
    monkeypatch.chdir(tmp_path)
    lab = Lab(tmp_path / "runs", prompts=24, text=f"A mild response.{ESCAPES}")
    folder = lab.run([lab.base()], "one")

    def label(said, person="me", n=200):
        typed = iter(said)

        def ask():
            try:
                return next(typed)
            except StopIteration:
                raise EOFError from None

        monkeypatch.setattr("sys.stdin.isatty", lambda: True, raising=False)
        monkeypatch.setattr("builtins.input", ask)
        return run(main, ["stage=label", f"run={folder}", f"label.person={person}", f"label.n={n}"], capsys)

    return folder, label


def test_labels_of_two_people_become_labelled_responses_without_the_disputed_ones(labelled, capsys):
    folder, label = labelled
    harm = ["model=tiny", "benchmark=starter_probes", "judge=toxicity_linear", "judge.refusal=none"]
    line = refused(main, [*harm, "judge.labels=none.jsonl"], capsys)
    assert line.startswith("judge.labels=none.jsonl is not a file (it does not exist): give a file")
    line = refused(main, ["stage=fit_judge", f"judge.labels={folder}"], capsys)
    assert line.startswith(f"nobody has labelled the run {folder}: label it with stage=label run=")
    printed = label(["f", "b", "h", "r"], n=3)
    assert "f fine, h harmful, r refusal, p partial_refusal, o off_topic, s skip" in printed
    assert [one["label"] for one in records(folder, "labels.jsonl")] == ["fine", "harmful", "refusal"]
    before = labels_hash(str(folder))
    said = label(["f", "f", "r", "o"], "bob", n=4)
    assert "two people: κ not known (" in said and "on the 3 that both labelled; disputed, and left out: 1" in said
    rows = read_labels(str(folder))
    assert sorted(row.label for row in rows) == ["fine", "off_topic", "refusal"] and labels_hash(str(folder)) != before
    assert all(row.prompt.startswith("Prompt ") and row.response.startswith("A mild") for row in rows)
    line = refused(main, ["stage=label", f"run={folder}", "label.person=carl"], capsys)
    assert "me and bob have labelled this run" in line and "label.person=me" in line


def test_how_far_two_people_agree_is_told_with_its_interval(labelled):
    folder, label = labelled
    assert agreement_line(folder / "labels.jsonl") == ""
    label(["f", "h"] * 10, n=20)
    assert agreement_line(folder / "labels.jsonl") == ""
    said = label(["f", "h"] * 9 + ["h", "f"], "bob", n=20)
    line = agreement_line(folder / "labels.jsonl")
    assert line in said and line.startswith("two people: κ 0.80 [0.")
    assert line.endswith("] on the 20 that both labelled; disputed, and left out: 2")


def test_the_end_of_the_input_stops_as_q_does(labelled):
    folder, label = labelled
    assert "the same command goes on" in label(["f"])
    assert len(records(folder, "labels.jsonl")) == 1


def test_what_a_response_would_do_to_the_terminal_is_shown_and_not_done(labelled):
    _, label = labelled
    assert "A mild response.?[2J?]0;title? ?31m??[/b] (base, ".replace("?", "\N{REPLACEMENT CHARACTER}") in label(["f"])


def test_a_state_that_is_not_known_is_no_answer_and_what_says_nothing_does_not_measure_refusals():
    labelled = [
        ("probe", f"{state} {n}", JudgedRow(f"{n}", "malware", "", 0, None, state), label)
        for state in STATES
        for n, label in enumerate(["refusal"] * 4 + ["fine"] * 4)
    ]
    rows, given = labelled_by("refusal_probe", "refusal", labelled)
    assert [row.id.rpartition(" ")[0] for row in rows] == ["refused"] * 8 + ["answered"] * 8 + ["not judged"] * 8
    found = calibrate("refusal_probe", Scale(0.0, 1.0, 0.5), rows, given, "refusal")
    assert found.agreement is not None and found.error is not None
    assert (found.agreement.kappa.n, found.agreement.kappa.missing, sum(found.figures["error"])) == (16, 8, 16)


def test_the_line_behind_a_fit_names_the_base_of_each_probe(tmp_path, capsys, monkeypatch):
    probe = ProbeWeights("harm", "base", np.ones(32, np.float32), 0.0)
    monkeypatch.setattr(fit.JudgeModels, "reader", lambda *_: None)
    monkeypatch.setattr(fit, "ProbeJudge", lambda *_: None)
    monkeypatch.setattr(fit, "fit_probe", lambda *_: SimpleNamespace(probe=probe, fitted=40, penalty=1.0))
    monkeypatch.setattr(fit, "measure_judge", lambda *_: SimpleNamespace(line="κ"))
    printed = run(main, ["stage=fit_judge", "judge.model=tiny", f"run.dir={tmp_path}"], capsys)
    assert printed.splitlines()[-1] == (
        f"next: judge=probe judge.model=tiny judge.weights={tmp_path}/probe_harm.safetensors "
        f"judge.refusal_model=tiny judge.refusal_weights={tmp_path}/probe_refusal.safetensors"
    )


@pytest.mark.slow
def test_a_probe_is_fitted_to_the_labels_of_a_run_and_not_measured_on_its_prompts(labelled, capsys):
    folder, label = labelled
    label(["f", "h"] * 60)
    fit = ["stage=fit_judge", f"run={folder}", "judge.model=tiny", "precision=float32"]
    printed = run(main, fit, capsys)
    assert f"labels: {folder}" in printed and "no probe for refusal: 0 of" in printed
    given = ["judge=probe", "judge.model=tiny", f"judge.weights={folder}/probe_harm.safetensors"]
    assert printed.splitlines()[-1] == f"next: {' '.join(given)}"
    run(main, ["model=tiny", "benchmark=starter_probes", "prefetch=true", "judge.refusal=none", *given], capsys)
    probe, rows = read_probe(folder / "probe_harm.safetensors"), read_labels(str(folder))
    fitted_on = {prompt_hash(row.prompt) for row in rows if row.split == "train"}
    assert probe.fitted_on == fitted_on and 0.5 < len(fitted_on) / len(rows) < 0.85
    held_out = read_labels(str(folder), "held_out")
    assert f"with {len(held_out)} labels" in printed and not {prompt_hash(row.prompt) for row in held_out} & fitted_on
