from reasoning.few_questions import THREE, WORDING

from jaxalign.reasoning.rationales import read_response
from jaxalign.reasoning.released import LettersInWords


def test_the_released_reading_serves_the_test_as_well():
    released = LettersInWords.of(WORDING)
    assert released.prompt(THREE) == WORDING.prompt(THREE)
    assert read_response("So.\nAnswer: the Cat", THREE, WORDING) == ("So.", None, True)
    assert read_response("So.\nAnswer: the Cat", THREE, released) == ("So.", 2, True)
    assert released.read("nothing", THREE) == released.read("", THREE) == 0
