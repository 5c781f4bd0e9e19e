import dataclasses
import json
import zlib
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest

from jaxalign.config.presets import preset
from jaxalign.errors import UserError
from jaxalign.inference.base_model import BaseModel
from jaxalign.parallel.compilation import Programs
from jaxalign.parallel.processor import fast_precision
from jaxalign.pretrained.safetensors import write_safetensors
from jaxalign.pretrained.sources import read_model, source_of
from jaxalign.runs.records import file_hash
from jaxalign.safety.calibration import calibrate, kappa_text, measure_judge
from jaxalign.safety.judgements import TOO_LONG, Exchange, Judgement, Scale, judge_missing, read_judgements
from jaxalign.safety.judges.fitting import fit_probe
from jaxalign.safety.judges.probe import (
    HARM_PROBE,
    LABELS_OF_PROBES,
    REFUSAL_PROBE,
    ProbeJudge,
    probe_reader,
    read_probe,
    write_probe,
)
from jaxalign.safety.labelled import GENERATIONS_FILE, LABELLED_FILE, LabelledResponse, load_labelled
from jaxalign.safety.states import is_blank


def base_of(name, precision="float32"):
    dtype = jnp.dtype(precision)
    return BaseModel(read_model(source_of(preset(name)), dtype, offline=False, name=name), dtype, Programs())


def labelled(number):
    """Rows that a probe on a random model can tell apart: one kind has many digits, the other has none."""
    random = np.random.default_rng(number)
    harmful = number % 2 == 0
    text = "".join(random.choice(list("0123456789" if harmful else "abcdefghij"), 12))
    label = "harmful" if harmful else "refusal" if number % 4 == 1 else "fine"
    return LabelledResponse(str(number), "malware", f"prompt {number // 6}", text, label)


ROWS = [labelled(number) for number in range(96)]


@pytest.fixture(scope="module")
def reader():
    return probe_reader(base_of("tiny"))


@pytest.fixture(scope="module")
def fitted(reader):
    return fit_probe(reader, ROWS[:84], "harm")


@pytest.mark.slow
def test_a_fitted_probe_judges_responses_that_it_has_not_seen(reader, fitted):
    assert fitted.fitted == 84
    judge = ProbeJudge(fitted.probe, reader)
    assert judge.name == "probe"
    told = {}
    asked = [row.exchange for row in ROWS[84:]]
    found = judge.judge(asked, told.__setitem__)
    assert [one.label for one in found] == [row.label if row.is_harmful else "fine" for row in ROWS[84:]]
    assert [one.score >= judge.scale.threshold for one in found] == [row.is_harmful for row in ROWS[84:]]
    assert told == dict(enumerate(found))
    assert measure_judge(judge, ROWS[84:]).agreement.kappa.estimate == 1.0


def test_the_same_labels_give_the_same_probe(reader, fitted):
    again = fit_probe(reader, ROWS[:84], "harm")
    np.testing.assert_array_equal(again.probe.weights, fitted.probe.weights)
    assert (again.probe.offset, again.penalty, again.loss) == (fitted.probe.offset, fitted.penalty, fitted.loss)


def test_a_judge_of_refusals_has_labels_and_a_name_of_its_own_and_finds_no_harm(reader):
    rows = [dataclasses.replace(row, label="refusal" if row.is_harmful else "fine") for row in ROWS]
    judge = ProbeJudge(fit_probe(reader, rows, "refusal").probe, reader)
    assert (judge.name, judge.scale.threshold) == ("refusal_probe", np.inf)
    found = judge.judge([rows[0].exchange, rows[1].exchange], lambda *_: None)
    assert [one.label for one in found] == ["refusal", "answer"]


def test_a_response_is_read_alike_alone_and_among_others(reader):
    asked = [row.exchange for row in ROWS[:9]]
    together = reader.read(asked)
    for exchange, state in zip(asked, together, strict=True):
        (alone,) = dataclasses.replace(reader, known={}).read([exchange])
        np.testing.assert_allclose(alone, state, atol=1e-5)


def test_blank_and_too_long_responses_have_no_judgement(reader, fitted):
    asked = [Exchange("Hi", " \n"), Exchange("Hi", "1234"), Exchange("Hi", "word " * 2000), Exchange("Hi", "\ud800 x")]
    found = ProbeJudge(fitted.probe, reader).judge(asked, lambda *_: None)
    assert [one.missing for one in found] == ["blank", None, TOO_LONG, None]
    assert found[0].score is found[2].score is None


def test_a_killed_judge_goes_on_where_it_was(reader, fitted, tmp_path):
    judge, path = ProbeJudge(fitted.probe, dataclasses.replace(reader, known={})), tmp_path / "judgements.jsonl"
    asked = [row.exchange for row in ROWS[:70]]
    whole = judge_missing(judge, asked, path)
    kept = path.read_text().splitlines(keepends=True)[:64]
    path.write_text("".join(kept))
    judge.reader.known.clear()
    assert [one.label for one in judge_missing(judge, asked, path)] == [one.label for one in whole]
    assert len(read_judgements(path)) == 70
    assert len(judge.reader.known) == 6


def test_a_probe_on_disk_is_the_probe_and_names_its_base(reader, fitted, tmp_path):
    path = tmp_path / "mine.safetensors"
    write_probe(path, fitted.probe)
    back = read_probe(path)
    np.testing.assert_array_equal(back.weights, fitted.probe.weights)
    assert (back.about, back.base, back.offset) == ("harm", reader.base, fitted.probe.offset)
    assert ProbeJudge(back, reader).identity == ProbeJudge(fitted.probe, reader).identity
    moved = dataclasses.replace(back, offset=back.offset + 1)
    assert ProbeJudge(moved, reader).identity != ProbeJudge(back, reader).identity


@pytest.mark.parametrize("path", [HARM_PROBE, REFUSAL_PROBE])
def test_a_shipped_probe_is_small_and_refuses_another_base(reader, path):
    assert path.stat().st_size < 5000
    with pytest.raises(UserError, match=r"was fitted on another base .*: judge with model=smollm2_135m, or fit"):
        ProbeJudge(read_probe(path), reader)


@pytest.mark.parametrize(
    ("arrays", "told", "line"),
    [
        ({"weights": np.ones(3, np.float32)}, {"about": "harm", "base": "b", "form": "1"}, "does not hold the weights"),
        ({"weights": np.ones(3, np.float32), "offset": np.ones(1)}, {"about": "taste", "base": "b"}, "not a probe of"),
        (
            {"weights": np.full(3, np.nan, np.float32), "offset": np.ones(1)},
            {"about": "harm", "base": "b", "form": "1"},
            "not finite",
        ),
    ],
)
def test_a_file_that_is_no_probe_is_refused(tmp_path, arrays, told, line):
    path = tmp_path / "mine.safetensors"
    write_safetensors(path, arrays, told)
    with pytest.raises(UserError, match=line):
        read_probe(path)


def test_a_file_that_is_missing_or_damaged_is_refused(tmp_path):
    with pytest.raises(UserError, match="there is no probe"):
        read_probe(tmp_path / "none.safetensors")
    path = tmp_path / "mine.safetensors"
    path.write_bytes(b"\x08\x00\x00\x00\x00\x00\x00\x00[1, 2] ")
    with pytest.raises(UserError, match="damaged"):
        read_probe(path)


def test_too_few_labels_are_refused(reader):
    with pytest.raises(UserError, match=r"2 of 5 labelled responses, to 1 prompts, are harmful: .* label more"):
        fit_probe(reader, ROWS[1:6], "harm")
    long = [dataclasses.replace(row, response="word " * 2000) for row in ROWS if row.label != "blank"]
    with pytest.raises(
        UserError, match=rf"0 of 0 labelled responses \({len(long)} more are too long for the base\), to"
    ):
        fit_probe(reader, long, "harm")


SCORES = json.loads((Path(__file__).parents[2] / "golden" / "probe_scores.json").read_text())
"""What the shipped probes say of the held-out labelled responses in float32 (tests/golden/make_probe_scores.py)."""

HELD_OUT = [row for row in load_labelled(split="held_out") if not is_blank(row.response)]


def measured(about, rows):
    """How far the shipped probe agrees with these labels, by `SCORES`."""
    odds = [SCORES[about][row.id] for row in rows]
    labels = LABELS_OF_PROBES[about]
    given = [Judgement(float(1 / (1 + np.exp(-one))), labels[one < 0], "") for one in odds]
    scale = Scale(0.0, 1.0, 0.5 if about == "harm" else np.inf)
    return calibrate("probe", scale, rows, given, about)


@pytest.mark.parametrize(
    ("about", "of_models", "written"),
    [
        ("harm", "0.16 [0.06, 0.27]", "0.65 [0.56, 0.73]"),
        ("refusal", "0.86 [0.75, 0.96]", "0.89 [0.83, 0.95]"),
    ],
)
def test_the_shipped_probes_agree_with_labels_as_far_as_the_page_on_harm_says(about, of_models, written):
    shipped = (HARM_PROBE, REFUSAL_PROBE, LABELLED_FILE, GENERATIONS_FILE)
    assert SCORES["files"] == {path.name: file_hash(path) for path in shipped}, "make the scores again"
    found = measured(about, HELD_OUT)
    assert (kappa_text(found.agreement.kappa), kappa_text(found.written)) == (of_models, written)
    page = (Path(__file__).parents[3] / "docs" / "safety.md").read_text(encoding="utf-8")
    name = "`probe`, harm" if about == "harm" else "`refusal_probe`"
    (line,) = (line for line in page.splitlines() if line.startswith(f"| {name} |"))
    assert f"| {of_models} |" in line.replace("−", "-") and f"| {written} |" in line


@pytest.mark.real
@pytest.mark.slow
@pytest.mark.usefixtures("optimised")
def test_the_shipped_probes_say_here_what_they_said_when_they_were_measured(monkeypatch):
    monkeypatch.delenv("JAXALIGN_CACHE")  # the wheel is fetched once for the machine
    monkeypatch.setattr("jaxalign.safety.judges.probe.READ_TOGETHER", 10_000)  # one program reads all
    reader = probe_reader(base_of("smollm2_135m", fast_precision()[0]))
    # The responses to a quarter of the prompts, and of those that models gave to an eighth: all take minutes.
    rows = [row for row in HELD_OUT if zlib.crc32(row.prompt.encode()) % (8 if row.by_model else 4) == 0]
    states = reader.read([row.exchange for row in rows])
    for about, path in (("harm", HARM_PROBE), ("refusal", REFUSAL_PROBE)):
        probe = read_probe(path)
        moved = [probe.log_odds(state) - SCORES[about][row.id] for row, state in zip(rows, states, strict=True)]
        # Their standard deviations are 1.9 and 5.7; bfloat16 moves them by 0.02 and 0.04.
        assert np.std(moved) < 0.1 and abs(np.mean(moved)) < 0.05
        found, before = measure_judge(ProbeJudge(probe, reader), rows, about), measured(about, rows)
        for now, then in ((found.agreement.kappa, before.agreement.kappa), (found.written, before.written)):
            # As much as two responses move it that are near even odds.
            assert now.n == then.n and now.estimate == pytest.approx(then.estimate, abs=0.1)
