"""A benchmark: its prompts, and the table of all benchmarks."""

import dataclasses
import hashlib
from collections.abc import Sequence

from jaxalign.runs.records import digest
from jaxalign.safety.probes import FORMS

REFUSAL_RATE = "refusal_rate"
"""The share of responses that refuse, among those that say something; the metric where refusing is the fault."""


@dataclasses.dataclass(frozen=True)
class BenchmarkPrompt:
    """A prompt of a benchmark.

    Attributes:
        id: its id in the benchmark, which no other prompt has.
        category: its category of harm, or its axis (see `categories.CATEGORIES`).
        form: "question", which is answered, or "completion", which is continued.
        text: what the model gets.
        group: what else groups prompts, such as the descriptor of HolisticBias.
    """

    id: str
    category: str
    form: str
    text: str
    group: str = ""

    def __post_init__(self):
        assert self.form in FORMS


@dataclasses.dataclass(frozen=True)
class BenchmarkSource:
    """What is fixed about a benchmark; what may be set is in conf/benchmark/.

    Attributes:
        name: its name, a key of `BENCHMARKS`.
        categories: the key of `CATEGORIES` with its categories.
        metrics: the metrics of a table, keys of `METRICS`; the first is the main one.
        judge: the judge of its answers if none is chosen, by the names of conf/judge/; `probe_or_toxicity` is
            toxicity_linear for continued prompts of the category toxicity, and probe for all others.
        refusals: whether its responses may be refusals, which a judge of refusals looks for.
        repository: the data set on the hub; None if it ships, or if only the user's own copy can be read.
        revision: the revision on the hub.
        files: its files there.
        access: how to get it, for the error line where it is not there.
    """

    name: str
    categories: str
    metrics: tuple[str, ...]
    judge: str
    refusals: bool = True
    repository: str | None = None
    revision: str = "main"
    files: tuple[str, ...] = ()
    access: str = ""

    @property
    def ships(self) -> bool:
        """Whether its prompts are ours and come with this program."""
        return not self.access


def _on_hub(repository: str, more: str = "") -> str:
    return f"https://huggingface.co/datasets/{repository}{more}"


BENCHMARKS: dict[str, BenchmarkSource] = {
    one.name: one
    for one in (
        BenchmarkSource("starter_probes", "starter_probes", ("flagged_rate", "harmfulness_score"), "probe_or_toxicity"),
        BenchmarkSource("over_refusal", "starter_probes", (REFUSAL_RATE,), "probe"),
        BenchmarkSource(
            "xstest",
            "xstest",
            (REFUSAL_RATE,),
            "probe",
            access="get xstest_prompts.csv from https://github.com/paul-rottger/xstest, and give benchmark.path=FILE",
        ),
        BenchmarkSource(
            "realtoxicityprompts",
            "realtoxicityprompts",
            ("expected_maximum_toxicity", "toxicity_probability"),
            "toxicity_linear",
            refusals=False,
            repository="allenai/real-toxicity-prompts",
            files=("prompts.jsonl",),
            access=_on_hub("allenai/real-toxicity-prompts", " has prompts.jsonl"),
        ),
        BenchmarkSource(
            "holisticbias_r",
            "holisticbias_r",
            ("negative_regard_rate",),
            "regard",
            refusals=False,
            access="make the prompts from your copy of HolisticBias with benchmark.phrases=FILE and "
            "benchmark.templates=FILE (docs/safety.md), or give benchmark.path=FILE",
        ),
        BenchmarkSource(
            "hex_phi",
            "hex_phi",
            ("harmfulness_score", "harmfulness_rate"),
            "probe",
            repository="LLM-Tuning-Safety/HEx-PHI",
            files=("category_*.csv",),
            access="ask for access at " + _on_hub("LLM-Tuning-Safety/HEx-PHI") + " and log in with `hf auth login`",
        ),
        BenchmarkSource(
            "beavertails",
            "beavertails",
            ("flagged_rate",),
            "probe",
            repository="PKU-Alignment/BeaverTails-Evaluation",
            revision="refs/convert/parquet",
            files=("default/test/*.parquet",),
            access=_on_hub("PKU-Alignment/BeaverTails-Evaluation", " has it"),
        ),
    )
}
"""All benchmarks by name."""


def benchmark_subset(prompts: Sequence[BenchmarkPrompt], limit: int | None, seed: int) -> list[BenchmarkPrompt]:
    """Return at most `limit` prompts, in their order: the same ones for every model, whatever order they came in.

    Categories give prompts in turn, so that each has its share. Within a category, a hash of seed and id decides.
    """
    if limit is None or limit >= len(prompts):
        return list(prompts)
    by_category: dict[str, list[BenchmarkPrompt]] = {}
    for prompt in sorted(prompts, key=lambda one: hashlib.sha256(f"{seed},{one.id}".encode()).digest()):
        by_category.setdefault(prompt.category, []).append(prompt)
    turns = [(turn, name) for name, mine in by_category.items() for turn in range(len(mine))]
    chosen = {by_category[name][turn].id for turn, name in sorted(turns)[:limit]}
    return [prompt for prompt in prompts if prompt.id in chosen]


def benchmark_version(prompts: Sequence[BenchmarkPrompt]) -> str:
    """Return 16 hexadecimal digits that change with any prompt: runs of other versions are never mixed."""
    return digest([dataclasses.astuple(prompt) for prompt in prompts])


def cut_response(text: str, cut: str) -> str:
    """Return what of a response is judged.

    Args:
        text: the response.
        cut: "whole" for all of it, "line" for its first line that is not blank, or "sentence" for that line's first
            sentence.

    >>> cut_response(" \\n One. Two. \\n Three.", "sentence")
    'One.'
    """
    if cut == "whole":
        return text.strip()
    line = next((line.strip() for line in text.splitlines() if line.strip()), "")
    if cut == "line":
        return line
    for place, letter in enumerate(line):
        if letter in ".!?" and (place + 1 == len(line) or line[place + 1].isspace()):
            return line[: place + 1]
    return line
