"""The figures of many runs in one table for each benchmark and judge; what cannot stand in one table is refused."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from jaxalign.errors import UserError
from jaxalign.safety.benchmarks.benchmark import REFUSAL_RATE
from jaxalign.safety.benchmarks.sources import BENCHMARKS
from jaxalign.safety.calibration import REFUSALS, judge_doubt, judge_title
from jaxalign.safety.further_rows import further_rows
from jaxalign.safety.measurements import counted_judges
from jaxalign.safety.mitigation import NO_MITIGATION, POLICIES
from jaxalign.safety.summary import ALL, is_whole, learnt_target, model_title
from jaxalign.values.roleplay import ADAPTER_METHOD, BASE_METHOD, ROLE_METHOD
from jaxalign.values.schwartz import VALUES

ModelKey = tuple[str, str]
"""The signature of a base with its number format, as a summary has it, and the hash of an adapter ("" for none)."""


@dataclass(frozen=True)
class HarmRun:
    """A finished run of a benchmark of harm: its directory, and its summary (see summary.py)."""

    path: str
    summary: Mapping[str, Any]


@dataclass
class ReportedModel:
    """A model under one mitigation.

    Attributes:
        about: its entry among the summary's models.
        mitigation: the policy.
        rows: its figures.
        drops: its drops against no mitigation; empty if the run has none.
        run: the directory of the run that it comes from.
        base: the signature of its base model, with the number format.
    """

    about: Mapping[str, Any]
    mitigation: str
    rows: list[Mapping[str, Any]]
    drops: list[Mapping[str, Any]]
    run: str
    base: str = ""

    @property
    def key(self) -> ModelKey:
        """What tells it from the models of all runs: its base and its adapter."""
        return self.base, str(self.about["adapter"])

    @property
    def title(self) -> str:
        """The name in tables, with the scale if that is not 1, and what it is a control of."""
        # A control with shuffled labels has the name of its value, as the adapter beside it has.
        control = self.about.get("control")
        return model_title(self.about) + (f" (control: {control})" if control else "")

    @property
    def is_base(self) -> bool:
        """Whether this is the base without a role."""
        return self.about["method"] == BASE_METHOD

    @property
    def is_adapter(self) -> bool:
        """Whether it is the base with an adapter, at any scale, a control or not."""
        return self.about["method"] == ADAPTER_METHOD

    @property
    def is_whole(self) -> bool:
        """Whether its adapter is at scale 1."""
        return is_whole(self.about)

    @property
    def learnt_target(self) -> tuple[float, ...] | None:
        """The ten scores that its adapter was trained towards (see `learnt_target`)."""
        return learnt_target(self.about)

    @property
    def high_values(self) -> tuple[str, ...]:
        """The values with the highest score of the target, if not all have it."""
        target = self.about.get("target") or {}
        if len(set(target.values())) < 2:
            return ()
        return tuple(value for value in VALUES if target.get(value) == max(target.values()))

    def row(self, category: str, metric: str | None = None) -> Mapping[str, Any] | None:
        """Return the figure of a category: of a metric, or the first one.

        Where several judges have their own categories, the figure of all is by the judge with the most responses.
        """
        found = [one for one in self.rows if one["category"] == category and metric in (None, one["metric"])]
        return max(found, key=lambda one: one["n"], default=None)

    def drop(self, category: str) -> Mapping[str, Any] | None:
        """Return the drop of a category; of several judges, that with the most prompts."""
        found = [one for one in self.drops if one["category"] == category]
        return max(found, key=lambda one: one["n"], default=None)


@dataclass
class Collection:
    """All figures of one benchmark by one judge (or one set of judges, each of its own categories)."""

    benchmark: Mapping[str, Any]
    judges: list[Mapping[str, Any]]
    models: list[ReportedModel] = field(default_factory=list)
    base: str = ""
    """The name of the base model."""
    asking: Mapping[str, Any] = field(default_factory=dict)
    """How all its models were asked (see summary.py)."""
    passed_over: Sequence[Mapping[str, Any]] = ()
    """Other measurements of `judges`, which do not count (see `counted_judges`)."""

    @property
    def name(self) -> str:
        """The benchmark's name."""
        return str(self.benchmark["name"])

    @property
    def judged_by(self) -> str:
        """The names of the judges of harm, in one text; of refusals, if refusing is what is measured."""
        about = REFUSALS if self.metric == REFUSAL_RATE else "harm"
        mine = [one for one in self.judges if one["about"] == about]
        return " and ".join(judge_title(one["judge"], one.get("model")) for one in mine or self.judges)

    @property
    def doubts(self) -> dict[str, str]:
        """Why judges are not believed (see `judge_doubt`), by name; one that is believed is left out.

        If refusing is what is measured, all of them are believed or not as the judge of refusals is.
        """
        refusals = [one for one in self.judges if one["about"] == REFUSALS]
        deciding = refusals[:1] if self.metric == REFUSAL_RATE else []
        return {one["judge"]: why for one in self.judges if (why := judge_doubt(*(deciding or [one])))}

    @property
    def doubted_categories(self) -> set[str]:
        """The categories whose judge is one of `doubts`, and `ALL` if the judge of all is one."""
        every = [row for model in self.models for row in model.rows if row["category"] != ALL]
        return {row["category"] for row in [*every, *self._row_of_all()] if row["judge"] in self.doubts}

    def name_of_all(self) -> str:
        """Return the name of all categories: with the judge's, where several judges have their own categories."""
        judges = {row["judge"] for model in self.models for row in model.rows}
        return next((f"all by {row['judge']}" for row in self._row_of_all() if len(judges) > 1), "all")

    def _row_of_all(self) -> list[Mapping[str, Any]]:
        """Return the figure of all categories of the first model that has one, or nothing."""
        return [row for model in self.models if (row := model.row(ALL, self.metric)) is not None][:1]

    @property
    def metric(self) -> str:
        """The main metric: the benchmark's first one that all models have."""
        there = [{row["metric"] for row in model.rows} for model in self.models]
        known = BENCHMARKS[self.name].metrics if self.name in BENCHMARKS else ()
        every = [row["metric"] for model in self.models for row in model.rows]
        return next((one for one in (*known, *every) if all(one in some for some in there)), "")

    @property
    def categories(self) -> list[str]:
        """The categories, in the order of the runs, without `ALL`."""
        found = dict.fromkeys(row["category"] for model in self.models for row in model.rows)
        return [one for one in found if one != ALL]

    @property
    def mitigations(self) -> list[str]:
        """The policies that were used, in their usual order."""
        used = {model.mitigation for model in self.models}
        return [one for one in POLICIES if one in used] + sorted(used - set(POLICIES))

    def under(self, mitigation: str = NO_MITIGATION) -> list[ReportedModel]:
        """Return the models under one mitigation."""
        return [model for model in self.models if model.mitigation == mitigation]

    def untuned(self) -> ReportedModel | None:
        """Return the base without a role and without mitigation; None if it was not asked."""
        return next((model for model in self.under() if model.is_base), None)


def judge_key(summary: Mapping[str, Any]) -> tuple[str, ...]:
    """Return the identities of the judges of a summary."""
    return tuple(sorted({one["identity"] for one in summary["judges"]}))


def collect(runs: Sequence[HarmRun]) -> list[Collection]:
    """Return the figures of runs, benchmark by benchmark and judge by judge.

    The judges that most runs have come first. A model that several runs share, such as the base, is taken once.

    Raises:
        UserError: two runs are of different versions of a benchmark, or of different bases, or did not ask alike (see
            summary.py); two judges have judged different models, so that nothing can be compared; or two different
            models have the same name.
    """
    found = []
    by_name: dict[str, list[HarmRun]] = {}
    for run in runs:
        by_name.setdefault(run.summary["benchmark"]["name"], []).append(run)
    for name, mine in by_name.items():
        _check_alike(name, mine)
        by_judge: dict[tuple[str, ...], list[HarmRun]] = {}
        for run in mine:
            by_judge.setdefault(judge_key(run.summary), []).append(run)
        parts = [_collection(some) for some in sorted(by_judge.values(), key=len, reverse=True)]
        for other in parts[1:]:
            _check_shared(name, parts[0], other)
        found += parts
    return found


def _check_alike(name: str, runs: Sequence[HarmRun]) -> None:
    first, before = runs[0], _asked(runs[0])
    for run in runs[1:]:
        now = _asked(run)
        for key in {**before, **now}:
            one, other = before.get(key), now.get(key)
            if one != other:
                raise UserError(
                    f"{first.path} and {run.path} did not ask {name} alike ({key} {one!r} and {other!r}), and do not "
                    "stand in one table: move one of them to another folder, or evaluate it again"
                )
        if first.summary["model"]["signature"] != run.summary["model"]["signature"]:
            names = " and ".join(str(one.summary["model"]["name"]) for one in (first, run))
            raise UserError(
                f"{first.path} and {run.path} asked different base models or number formats ({names}): "
                "move one of them to another folder"
            )


def _asked(run: HarmRun) -> dict[str, Any]:
    benchmark = run.summary["benchmark"]
    return {**{key: benchmark.get(key) for key in ("version", "samples", "cut")}, **run.summary["asking"]}


def _check_shared(name: str, first: Collection, other: Collection) -> None:
    shared = {(m.title, m.mitigation) for m in first.models} & {(m.title, m.mitigation) for m in other.models}
    if not shared:
        raise UserError(
            f"{first.models[0].run} and {other.models[0].run} hold {name} judged by {first.judged_by} and by "
            f"{other.judged_by}, and no model was judged by both: the figures of two judges do not stand in one table; "
            f"judge all runs with one of them (judge={first.judges[0]['judge']}), or move one to another folder"
        )


def _collection(runs: Sequence[HarmRun]) -> Collection:
    summary = runs[0].summary
    judges, others = counted_judges({run.path: run.summary["judges"] for run in runs})
    found = Collection(summary["benchmark"], judges, [], summary["model"]["name"], summary["asking"], others)
    known: dict[tuple[str, str], ReportedModel] = {}
    for run in runs:
        policy = run.summary["mitigation"]["name"]
        for about in run.summary["models"]:
            model = ReportedModel(
                about,
                policy,
                list(_of_model(run.summary["rows"], about)),
                list(_of_model(run.summary["drops"], about)),
                run.path,
                str(run.summary["model"]["signature"]),
            )
            key = (model.title, policy)
            if key in known:
                known[key].rows += _further_rows(found.name, known[key], model)
                known[key].drops = known[key].drops or model.drops
                continue
            known[key] = model
            found.models.append(model)
    found.models.sort(key=_order)
    return found


def _of_model(rows: Iterable[Mapping[str, Any]], about: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    keys = ("model", "method", "adapter", "scale")
    wanted = [about.get(key) for key in keys]
    return [row for row in rows if [row.get(key) for key in keys] == wanted]


def _further_rows(name: str, one: ReportedModel, other: ReportedModel) -> list[Mapping[str, Any]]:
    both = f"{one.run} and {other.run} both hold {name} of a model called {one.title}"
    if one.about["adapter"] != other.about["adapter"]:
        raise UserError(f"{both}, and these are two adapters: ask both in one command, which numbers them")
    return further_rows(one.rows, other.rows, f"{both} (mitigation {one.mitigation})")


def _order(model: ReportedModel) -> tuple[Any, ...]:
    """The base first, then a role, then adapters by name and scale; without mitigation first."""
    methods = (BASE_METHOD, ROLE_METHOD, ADAPTER_METHOD)
    method = str(model.about["method"])
    place = methods.index(method) if method in methods else len(methods)
    policy = POLICIES.index(model.mitigation) if model.mitigation in POLICIES else len(POLICIES)
    return policy, place, str(model.about["model"]), model.about.get("scale") or 0.0
