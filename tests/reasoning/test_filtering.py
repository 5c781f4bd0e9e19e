import pytest
from reasoning.few_questions import rationale

from jaxalign.reasoning.filtering import consistency, count_rationales, passes


@pytest.mark.parametrize(
    ("agreed", "options", "tolerance", "kept"),
    [(3, 3, 0, True), (2, 3, 0, False), (2, 3, 1, True), (4, 5, 0, False), (4, 5, 1, True), (3, 5, 1, False)],
)
def test_the_filter_goes_by_the_questions_own_number_of_options(agreed, options, tolerance, kept):
    assert passes(rationale("so", True, agreed), options, tolerance) is kept


def test_a_wrong_or_unread_rationale_never_passes_and_without_tolerance_every_right_one_does():
    assert not passes(rationale("so", False), 3, 3)
    assert not passes(rationale("so", None), 3, None)
    assert passes(rationale("so", True, 0), 5, None)


def test_the_released_threshold_lets_no_question_of_three_options_pass():
    assert not passes(rationale("so", True, 3), 3, 1, threshold=4)
    assert passes(rationale("so", True, 4), 5, 0, threshold=4)


def test_counts_of_an_evaluation():
    found = {
        "three": [rationale("a", True, 3, copies=2), rationale("b", True, 1), rationale("c", False)],
        "five": [rationale("", None, question="five")],
    }
    report = count_rationales(found, {"three": 3, "five": 5})
    assert report["sampled"] == 5 and report["distinct"] == 4 and report["unread"] == 1 and report["right"] == 2
    assert report["right_samples"] == 3 and report["unread_samples"] == 1 and report["questions_with_right"] == 1
    assert report["z_tilde"] == {"3": {"0": 0, "1": 1, "2": 0, "3": 1}}


def test_consistency_is_over_what_was_read():
    found = [rationale("a", True, 3), rationale("b", True, 2), rationale("c", False, 1), rationale("", None)]
    report = consistency(found, {"three": 3})
    assert report["consistency"] == pytest.approx(2 / 3)
    low, high = report["consistency_interval"]
    assert 1 / 3 <= low < 2 / 3 < high <= 1
    assert report["all_agreed"] == pytest.approx(1 / 3)
    assert report["right_with_contradiction"] == 0.5
    nothing = consistency([rationale("", None)], {})
    assert nothing["consistency"] is None and nothing["consistency_interval"] is None
