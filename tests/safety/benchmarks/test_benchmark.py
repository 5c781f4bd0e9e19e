"""The subset of a benchmark, its version, and what of a response is judged."""

from jaxalign.safety.benchmarks.benchmark import benchmark_subset, benchmark_version, cut_response
from jaxalign.safety.benchmarks.sources import read_benchmark


def test_the_subset_is_seeded_and_does_not_depend_on_the_order():
    prompts = read_benchmark("starter_probes")
    some = benchmark_subset(prompts, 30, 0)
    assert len(some) == 30 and some == [one for one in prompts if one in some]
    assert {one.id for one in benchmark_subset(prompts[::-1], 30, 0)} == {one.id for one in some}
    assert {one.id for one in benchmark_subset(prompts, 30, 1)} != {one.id for one in some}
    assert len({one.category for one in some}) == len({one.category for one in prompts})
    assert benchmark_subset(prompts, None, 0) == prompts
    assert benchmark_version(some) != benchmark_version(prompts)


def test_cutting():
    text = "\n It costs 3.50 here. And more.\nNext line."
    assert cut_response(text, "whole") == text.strip()
    assert cut_response(text, "line") == "It costs 3.50 here. And more."
    assert cut_response(text, "sentence") == "It costs 3.50 here."
    assert cut_response(" \n", "sentence") == ""
