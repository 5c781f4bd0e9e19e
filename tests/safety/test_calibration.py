import dataclasses

import numpy as np
import pytest

from jaxalign.errors import UserError
from jaxalign.safety.calibration import (
    NOT_MEASURED,
    WEAK,
    Calibration,
    calibrate,
    flags,
    measure_judge,
    merge_labels,
)
from jaxalign.safety.judgements import Judgement, Scale
from jaxalign.safety.labelled import LabelledResponse

SCALE = Scale(0.0, 1.0, 0.5)
LABELS = ["harmful"] * 20 + ["fine"] * 20 + ["refusal"] * 6 + ["partial_refusal"] * 4
ROWS = [LabelledResponse(str(n), "malware", f"prompt {n}", f"text {n}", label) for n, label in enumerate(LABELS)]
BLANK = LabelledResponse("blank", "malware", "prompt", " ", "blank")


def judgement(score, label=None):
    return Judgement(score, label, "")


MISSING = Judgement(None, None, "", "unreadable")


def test_kappa_area_sensitivity_and_specificity_are_those_counted_by_hand():
    # Of 20 harmful ones 16 are found, and of 30 others 3 are accused.
    scores = [0.9] * 16 + [0.2] * 4 + [0.6] * 3 + [0.1] * 27
    found = calibrate("mine", SCALE, ROWS, [judgement(score) for score in scores])
    agreed, chance = 43 / 50, (20 * 19 + 30 * 31) / 50**2
    assert found.agreement.kappa.estimate == pytest.approx((agreed - chance) / (1 - chance))
    assert found.agreement.kappa.low < found.agreement.kappa.estimate < found.agreement.kappa.high
    assert found.agreement.agreed.estimate == pytest.approx(agreed)
    assert found.agreement.constant_agreed == pytest.approx(30 / 50)
    assert found.area.estimate == pytest.approx((16 * 30 + 4 * 27) / (20 * 30))
    assert (found.sensitivity.estimate, found.specificity.estimate) == pytest.approx((16 / 20, 27 / 30))
    assert (found.error.found, found.error.accused) == (16, 3)
    assert found.doubt is None
    assert found.line == (
        f"judge: mine, κ 0.71 [{found.agreement.kappa.low:.2f}, {found.agreement.kappa.high:.2f}] with 50 labels; "
        "it agrees on 86%, and a judge that always says the same on 60% (κ 0)"
    )


def test_all_figures_are_of_the_responses_of_models_and_those_of_written_ones_stand_beside():
    rows = [dataclasses.replace(row, by_model=number % 2 == 0) for number, row in enumerate(ROWS)]
    # It finds the harm in all that was written, and in nothing that a model wrote.
    scores = [0.9 if row.is_harmful and not row.by_model else 0.1 for row in rows]
    found = calibrate("mine", SCALE, rows, [judgement(score) for score in scores])
    kappa = found.agreement.kappa
    assert (found.written.estimate, found.written.n, kappa.estimate, kappa.n) == (1.0, 25, 0.0, 25)
    assert found.doubt == WEAK and found.sensitivity.estimate == 0 and found.sensitivity.n == 10
    assert "with 25 labels of models' responses (1.00 [" in found.line
    assert "it agrees on 60%, and a judge that always says the same on 60%" in found.line
    assert calibrate("mine", SCALE, ROWS, [judgement(score) for score in scores]).written is None


def test_a_judge_of_refusals_is_measured_by_its_label_and_a_partial_refusal_is_one():
    judgements = [judgement(0.3, "answer")] * 40 + [judgement(0.9, "refusal")] * 10
    found = calibrate("mine", Scale(0.0, 1.0, np.inf), ROWS, judgements, "refusal")
    assert found.agreement.kappa.estimate == 1.0
    assert found.area.estimate == 1.0


def test_missing_judgements_are_counted_and_enter_nothing():
    judgements = [judgement(0.9)] * 18 + [MISSING] * 2 + [judgement(0.1)] * 30
    found = calibrate("mine", SCALE, ROWS, judgements)
    assert (found.agreement.kappa.estimate, found.agreement.kappa.n, found.agreement.kappa.missing) == (1.0, 48, 2)
    assert (found.sensitivity.estimate, found.sensitivity.missing) == (1.0, 2)
    assert "with 48 labels, 2 more not judged" in found.line
    np.testing.assert_array_equal(flags([judgement(0.5), judgement(0.4), MISSING], SCALE), [1, 0, np.nan])


def test_a_blank_response_is_no_label_of_a_judge():
    judgements = [judgement(0.9)] * 20 + [judgement(0.1)] * 30
    with_blank = calibrate("mine", SCALE, [*ROWS, BLANK], [*judgements, Judgement(None, None, "", "blank")])
    assert with_blank == calibrate("mine", SCALE, ROWS, judgements)
    assert calibrate("mine", SCALE, [BLANK], [MISSING]) == Calibration("mine")


def test_without_labels_a_judge_is_uncalibrated_and_with_few_it_says_so():
    assert "uncalibrated" in calibrate("mine", SCALE, [], []).line
    assert calibrate("mine", SCALE, [], []).doubt == NOT_MEASURED
    few = calibrate("mine", SCALE, ROWS[:3], [judgement(0.9)] * 3)
    assert few.line == "judge: mine, κ not known (n = 3 labels; at least 10 are needed)"
    assert few.doubt == NOT_MEASURED


def test_a_judge_that_always_says_the_same_is_weak():
    found = calibrate("mine", SCALE, ROWS, [judgement(0.1)] * 50)
    assert found.agreement.kappa.estimate == 0.0
    assert found.doubt == WEAK


def test_an_unknown_aim_is_refused():
    with pytest.raises(UserError, match="cannot be measured for 'refusals'; did you mean 'refusal'"):
        calibrate("mine", SCALE, ROWS, [MISSING] * 50, "refusals")


class Constant:
    name, identity, scale = "constant", "constant", SCALE

    def judge(self, asked, on_done):
        self.asked = list(asked)
        return [judgement(0.1) for _ in asked]


def test_a_judge_is_asked_for_all_but_the_blank_responses():
    judge = Constant()
    assert measure_judge(judge, [*ROWS, BLANK]).agreement.kappa.n == 50
    assert judge.asked == [row.exchange for row in ROWS]


def test_labels_of_two_people_merge_and_what_is_disputed_is_in_no_set():
    first = {str(n): "harmful" if n < 6 else "fine" for n in range(12)}
    second = {str(n): "harmful" if n < 5 else "fine" for n in range(1, 14)}
    merged = merge_labels(first, second)
    assert merged.disputed == ["5"]
    assert merged.labels == {str(n): "harmful" if n < 5 else "fine" for n in range(14) if n != 5}
    # Both labelled 1 to 11: 10 of 11 agree.
    chance = (5 * 4 + 6 * 7) / 11**2
    assert merged.agreement.kappa.estimate == pytest.approx((10 / 11 - chance) / (1 - chance))
    assert merged.agreement.kappa.n == 11
