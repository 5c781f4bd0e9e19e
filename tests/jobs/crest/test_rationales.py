import dataclasses

import pytest
from jobs.crest.runs_of_crest import QUESTIONS, SMALL, write_questions
from reasoning.few_questions import THREE

from jaxalign.config.generate import SamplingConfig
from jaxalign.crest import main
from jaxalign.jobs.crest.evaluate import _repeated
from jaxalign.jobs.settings import sampling_params
from jaxalign.reasoning.rationales import distinct
from jaxalign.runs.records import read_records

SAMPLING = SamplingConfig(
    temperature=0.8, top_p=0.95, top_k=0, max_tokens=72, stop=("Answer:", "Question:"), seed=3, rows=4
)


@pytest.mark.parametrize(("stop", "stops"), [((), ("So:",)), (("Q:",), ("Q:", "So:")), (("So:", "Q:"), ("So:", "Q:"))])
def test_a_rationale_ends_at_the_marker_whatever_it_is(stop, stops):
    assert sampling_params(dataclasses.replace(SAMPLING, stop=stop), "So:").stop == stops


@pytest.mark.slow
def test_two_questions_of_one_prompt_share_their_samples(tmp_path):
    write_questions(tmp_path / "data", "train", [*QUESTIONS, "sun"])  # as real ARC has them: another id, the same text
    for split in ("validation", "test"):
        write_questions(tmp_path / "data", split, ["oak"])
    command = [f"run.dir={tmp_path / 'run'}", *SMALL, "dataset=arc", f"dataset.path={tmp_path / 'data'}"]
    for stage in ("rationales", "evaluate"):
        main([*command, f"stage={stage}"])
    read = {}
    for one in read_records(tmp_path / "run" / "stages" / "evaluate" / "rationales.jsonl"):
        read.setdefault(one["question"], []).append(one["text"])
    assert len(read) == 7 and read["train-0"] == read["train-6"]


def test_equal_rationales_are_read_once_where_each_counts():
    texts = ["so", "thus", " so\n", ""]
    read = [dataclasses.replace(one, prediction=1) for one in distinct(THREE, texts)]
    again = _repeated(texts, read)
    assert [one.text for one in again] == [text.strip() for text in texts]
    assert all(one.copies == 1 and one.prediction == 1 for one in again)
