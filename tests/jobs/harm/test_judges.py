"""The table of judges."""

from jaxalign.jobs.harm.judges import JUDGES
from jaxalign.safety.benchmarks.sources import BENCHMARKS


def test_the_usual_judge_of_every_benchmark_is_there():
    assert {one.judge for one in BENCHMARKS.values()} <= {*JUDGES, "probe_or_toxicity"}
