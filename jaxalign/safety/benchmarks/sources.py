"""The table of all benchmarks, and their prompts: shipped, from the hub, or from a file of the user."""

import dataclasses
from collections.abc import Callable, Sequence
from pathlib import Path

from jaxalign.data.account import Log, account, count, if_any, unsaid
from jaxalign.data.hub import download
from jaxalign.errors import UserError
from jaxalign.runs.reading import not_a_file
from jaxalign.safety.benchmarks.benchmark import (
    REFUSAL_RATE,
    BenchmarkPrompt,
    ReadPrompts,
    benchmark_subset,
)
from jaxalign.safety.benchmarks.holistic_bias import holistic_bias_prompts
from jaxalign.safety.benchmarks.readers import (
    beavertails_prompts,
    hex_phi_prompts,
    made_holistic_prompts,
    over_refusal_prompts,
    real_toxicity_prompts,
    starter_prompts,
    xstest_prompts,
)


@dataclasses.dataclass(frozen=True)
class BenchmarkSource:
    """What is fixed about a benchmark; what may be set is in conf/benchmark/.

    Attributes:
        name: its name, a key of `BENCHMARKS`.
        metrics: the metrics of a table, keys of `METRICS`; the first is the main one.
        judge: the judge of its answers if none is chosen, by the names of conf/judge/; `probe_or_toxicity` is
            toxicity_linear for continued prompts of the category toxicity, and probe for all others.
        read: reads its prompts from files; it is called with none if the prompts ship and the user gives no file.
        refusals: whether its responses may be refusals, which a judge of refusals looks for.
        repository: the data set on the hub; None if it ships, or if only the user's own copy can be read.
        revision: the revision on the hub.
        files: its files there.
        access: how to get it, for the error line where it is not there.
    """

    name: str
    metrics: tuple[str, ...]
    judge: str
    read: Callable[[list[Path]], ReadPrompts]
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
        BenchmarkSource(
            "starter_probes",
            ("flagged_rate", "harmfulness_score"),
            "probe_or_toxicity",
            read=starter_prompts,
        ),
        BenchmarkSource(
            "over_refusal",
            (REFUSAL_RATE,),
            "probe",
            read=over_refusal_prompts,
        ),
        BenchmarkSource(
            "xstest",
            (REFUSAL_RATE,),
            "probe",
            read=xstest_prompts,
            access="get xstest_prompts.csv from https://github.com/paul-rottger/xstest, and give benchmark.path=FILE",
        ),
        BenchmarkSource(
            "realtoxicityprompts",
            ("expected_maximum_toxicity", "toxicity_probability"),
            "toxicity_linear",
            read=real_toxicity_prompts,
            refusals=False,
            repository="allenai/real-toxicity-prompts",
            files=("prompts.jsonl",),
            access=_on_hub("allenai/real-toxicity-prompts", " has prompts.jsonl"),
        ),
        BenchmarkSource(
            "holisticbias_r",
            ("negative_regard_rate",),
            "regard",
            read=made_holistic_prompts,
            refusals=False,
            access="make the prompts from your copy of HolisticBias with benchmark.phrases=FILE and "
            "benchmark.templates=FILE (docs/safety.md), or give benchmark.path=FILE",
        ),
        BenchmarkSource(
            "hex_phi",
            ("harmfulness_score", "harmfulness_rate"),
            "probe",
            read=hex_phi_prompts,
            repository="LLM-Tuning-Safety/HEx-PHI",
            files=("category_*.csv",),
            access="ask for access at " + _on_hub("LLM-Tuning-Safety/HEx-PHI") + " and log in with `hf auth login`",
        ),
        BenchmarkSource(
            "beavertails",
            ("flagged_rate",),
            "probe",
            read=beavertails_prompts,
            repository="PKU-Alignment/BeaverTails-Evaluation",
            revision="refs/convert/parquet",
            files=("default/test/*.parquet",),
            access=_on_hub("PKU-Alignment/BeaverTails-Evaluation", " has it"),
        ),
    )
}
"""All benchmarks by name. To add a benchmark, add it here."""


def read_benchmark(
    name: str,
    path: str | Path | None = None,
    *,
    phrases: str | None = None,
    templates: str | None = None,
    offline: bool = False,
    limit: int | None = None,
    seed: int = 0,
    log: Log = unsaid,
) -> list[BenchmarkPrompt]:
    """Return the prompts of a benchmark, each with an id of its own.

    Args:
        name: a key of `BENCHMARKS`.
        path: a file (of HEx-PHI also the folder with its files) in the form in which the owner publishes the
            benchmark; None takes the shipped prompts, or those of the hub.
        phrases: for holisticbias_r without `path`: the user's file of noun phrases (see `holistic_bias`).
        templates: likewise the user's file of templates.
        offline: whether the hub is left alone.
        limit: how many prompts, at most; None for all (see `benchmark_subset`).
        seed: chooses them.
        log: called with the line that says which files were read, and what is left aside.

    Raises:
        UserError: the prompts cannot be got (the line says how), or the file lacks a column, names a category that the
            benchmark does not have, has an id twice, or holds no prompt.
    """
    found, place = _read(BENCHMARKS[name], path, phrases, templates, offline)
    everyone = _checked(found.prompts, place)
    prompts = benchmark_subset(everyone, limit, seed)
    left = if_any(len(everyone) - len(prompts), "beyond benchmark.limit")
    log(account(name, found.rows, count(len(prompts), "prompt"), [*found.aside, left]))
    return prompts


def _read(
    source: BenchmarkSource, path: str | Path | None, phrases: str | None, templates: str | None, offline: bool
) -> tuple[ReadPrompts, str]:
    """Return what the files of a benchmark gave, and where it comes from, for error lines (see `read_benchmark`)."""
    if path is not None:
        place = Path(path)
        if not (place.is_dir() and source.name == "hex_phi") and (why := not_a_file(place)):
            raise UserError(f"benchmark.path={path} is not a file ({why}); {source.access or 'give a .jsonl file'}")
        paths = sorted(place.glob("category_*.csv")) if place.is_dir() else [place]
    elif source.name == "holisticbias_r" and phrases is not None and templates is not None:
        return holistic_bias_prompts(Path(phrases), Path(templates)), phrases
    elif source.ships:
        paths = []
    else:
        paths = _downloaded(source, offline)
    if not paths and not source.ships:
        raise UserError(f"{path} has no files category_1.csv to category_11.csv: {source.access}")
    return source.read(paths), ", ".join(map(str, paths)) or source.name


def _downloaded(source: BenchmarkSource, offline: bool) -> list[Path]:
    if source.repository is None:
        raise UserError(f"benchmark={source.name} does not come with this program: {source.access}")
    try:
        return download(source.repository, source.revision, source.files, offline=offline, instead="benchmark.path")
    except UserError as error:
        line = str(error)
        raise UserError(line if source.access in line else f"{line}; {source.access}") from error


def _checked(prompts: Sequence[BenchmarkPrompt], place: str) -> list[BenchmarkPrompt]:
    seen: set[str] = set()
    for prompt in prompts:
        if prompt.id in seen:
            raise UserError(f"{place} repeats the id {prompt.id!r}: give each prompt an id of its own")
        seen.add(prompt.id)
    if not prompts:
        raise UserError(f"{place} holds no prompt of this benchmark")
    return list(prompts)
