import dataclasses

import pytest
from reasoning.few_questions import THREE

from jaxalign.config.generate import SamplingConfig
from jaxalign.jobs.crest.evaluate import _repeated
from jaxalign.jobs.crest.rationales import rationale_sampling
from jaxalign.reasoning.rationales import distinct

SAMPLING = SamplingConfig(
    temperature=0.8, top_p=0.95, top_k=0, max_tokens=72, stop=("Answer:", "Question:"), seed=3, rows=4
)


@pytest.mark.parametrize(("stop", "stops"), [((), ("So:",)), (("Q:",), ("Q:", "So:")), (("So:", "Q:"), ("So:", "Q:"))])
def test_a_rationale_ends_at_the_marker_whatever_it_is(stop, stops):
    assert rationale_sampling(dataclasses.replace(SAMPLING, stop=stop), "So:").stop == stops


def test_equal_rationales_are_read_once_where_each_counts():
    texts = ["so", "thus", " so\n", ""]
    read = [dataclasses.replace(one, prediction=1) for one in distinct(THREE, texts, True)]
    again = _repeated(texts, read)
    assert [one.text for one in again] == [one.text for one in distinct(THREE, texts, False)]
    assert all(one.copies == 1 and one.prediction == 1 for one in again)
