"""The rows of a benchmark of harm: figures by model, category, judge and metric, and their tables.

summary.json of a run of `jaxalign.evaluate` with a benchmark of harm holds:

    kind        "harm"
    benchmark   {name, version, prompts, samples, limit, cut, toxicity_scope (what its judge scores: response or
                released; null for other benchmarks)}; runs of another version must not be mixed
    asking      what decides the responses besides the model and the mitigation {temperature, top_k, top_p, max_tokens,
                stop, seed, prompt_format, prompt (the form of a question), engine, send, strict}; runs that differ in
                it must not be mixed
    model       {name, signature} of the base
    mitigation  {name, left_aside}: the policy, and the titles of categories that it has no value for
    models      for each asked model {model (its name), method (base, role-play or adapter), adapter (a hash; "" for the
                base), folder (of the adapter, or null), scale, value (the target's name or null), target ({value:
                score} or null), measured ({value: score of the portrait questionnaire} or null), control ("shuffled
                labels", "benign" or null), trained_tokens (of its training run, or null), perplexity (of held-out plain
                text, or null), text_values (of the probe for values {probe, n, means}, or null), dictionary_values (of
                pyvalues' dictionary {dictionary, n, silent, means, arguments}, see value_dictionary.py, or null),
                states ({state: number of responses}), sampling_noise ({judge: how far the mean score would move if the
                samples were drawn again, or null}), generate and judge (the directories of its stages, relative to
                the run, with generations.jsonl, and judged.jsonl and judgements.jsonl), files (the hashes of
                generations.jsonl and judged.jsonl, whose records the figures are of; see `content_hashes`)}
    judges      for each judge {judge, identity, about (harm or refusal), scale [low, high, threshold or null], kappa
                and area (estimates or null), error [counts], labels, line}; `judge_doubt` says if it is believed
    corrected   whether rates were to be corrected for the judges' errors (judge.corrected)
    second_judges  for each other set of judges of the same responses {judges (names), models (how many), kappa}
    rows        the figures; each is {model, method, adapter, folder, scale, value, target, measured, control,
                mitigation, benchmark, version, judge, judge_identity, several (judges in the run), category ("all" is
                all of them), metric, estimate, low, high, n, missing, left_out, clusters, reason,
                states ({state: share} of the responses in the row), failing (of a bias score: the [axis, descriptor] of
                the groups that fail)}
    drops       with a mitigation, and if the same responses without one are judged: for each model, judge and category
                the same keys, with the metric "drop", none minus the mitigation, paired by prompt; and p, size, noise
                (the standard deviation of the drop between seeds of one target, or null), states_before ({state: share}
                without the mitigation, of the same prompts as states)

An estimate that is null has a `reason`. Rates are from 0 to 1, scores on the judge's scale.
"""

import csv
import io
from collections.abc import Mapping, Sequence
from typing import Any

from jaxalign.analysis.comparison import paired_difference
from jaxalign.analysis.corrected_rates import JudgeError, corrected_rate
from jaxalign.analysis.estimates import Estimate
from jaxalign.safety.benchmarks.benchmark import REFUSAL_RATE
from jaxalign.safety.calibration import HARM, Calibration
from jaxalign.safety.categories import category_title
from jaxalign.safety.judged import JudgedTable
from jaxalign.safety.judgements import Scale
from jaxalign.safety.labelled import SHIPPED_LABELS, WHO_LABELLED
from jaxalign.safety.metrics import METRICS, bias_score, prompt_means, state_shares
from jaxalign.safety.states import REFUSED, shown_shares, silent_share
from jaxalign.values.roleplay import ADAPTER_METHOD
from jaxalign.values.schwartz import VALUES

ALL = "all"
"""What stands in the place of a category in rows over all of them."""

OWN_LABELS = "of this run"
"""What a summary calls labels that people gave to responses of the run itself."""

CORRECTABLE = ("flagged_rate", "negative_regard_rate", REFUSAL_RATE)
"""The rates that a judge's errors at its threshold can be taken out of, by `judge.corrected`."""

HARM_COLUMNS = (
    *("model", "method", "scale", "value", "mitigation", "judge", "category", "metric"),
    *("estimate", "low", "high", "n", "missing", "left_out", "reason"),
)


def harm_rows(
    table: JudgedTable,
    metrics: Sequence[str],
    scale: Scale,
    *,
    regard: bool = False,
    bias_rule: str | None = None,
    bias_baseline: float | None = None,
    error: JudgeError | None = None,
    refusal_error: JudgeError | None = None,
) -> list[dict[str, Any]]:
    """Return the figures of one model by one judge: of all categories together, and of each.

    Args:
        table: the judged responses.
        metrics: keys of `METRICS`.
        scale: the judge's scale.
        regard: whether the judge's labels say if a response is `NEGATIVE`; without it there is no rate of negative
            regard and no bias score. The labels of one model cannot tell: perhaps none of its responses is negative.
        bias_rule: the rule of the bias score; None leaves it out.
        bias_baseline: see `bias_score`. A given one makes another figure, and its name has it.
        error: the judge's errors, to correct its rates for (see `CORRECTABLE`); None leaves corrected rates out.
        refusal_error: the errors of the judge of refusals, for the refusal rate.
    """
    rows = []
    known = set(table.categories[place] for place in set(table.category.tolist()))
    for category in (ALL, *(name for name in table.categories if name in known)):
        part = table if category == ALL else table.of_category(category)
        states = state_shares(part)
        for metric in dict.fromkeys(_fitting(name, regard, scale) for name in metrics):
            found = METRICS[metric](part, scale)
            rows.append({"category": category, "metric": metric, **_told(found), "states": states})
            known_error = refusal_error if metric == REFUSAL_RATE else error
            if known_error is not None and metric in CORRECTABLE:
                corrected = _told(corrected_rate(found, known_error))
                rows.append({"category": category, "metric": f"{metric}_corrected", **corrected, "states": states})
        if bias_rule is not None and category == ALL and regard:
            found = bias_score(table, bias_rule, bias_baseline)
            which = bias_rule if bias_baseline is None else f"above_{bias_baseline:g}"
            told = {"metric": f"bias_score_{which}", **_told(found.score), "failing": found.failing}
            rows.append({"category": ALL, **told, "states": states})
    return rows


def _fitting(metric: str, regard: bool, scale: Scale) -> str:
    """Return the metric, or the flagged rate where the judge does not say what the metric needs."""
    if metric == "negative_regard_rate" and not regard:
        return "flagged_rate"
    if metric == "harmfulness_rate" and scale.high - scale.low < 2:
        return "flagged_rate"
    return metric


def harm_drops(without: JudgedTable, with_policy: JudgedTable, scale: Scale) -> list[dict[str, Any]]:
    """Return by how much mean scores drop with a mitigation, paired by prompt: of all categories, and of each.

    Beside each drop stand the shares of states with the mitigation and without it, of the same prompts.
    """
    rows = []
    names = [name for name in with_policy.categories if name in without.categories]
    for category in (ALL, *names):
        before, after = (one if category == ALL else one.of_category(category) for one in (without, with_policy))
        there = {after.prompts[place] for place in set(after.prompt.tolist())}
        before = before.of_prompts(there)
        means = [{id: mean for id, mean in prompt_means(one).items() if id in there} for one in (before, after)]
        found = paired_difference(*means)
        told = {"category": category, "metric": "drop", **_told(found.mean), "p": found.mean.p, "size": found.size}
        rows.append({**told, "states": state_shares(after), "states_before": state_shares(before)})
    return rows


def _told(found: Estimate) -> dict[str, Any]:
    keys = ("estimate", "low", "high", "n", "missing", "left_out", "clusters", "reason")
    return {key: getattr(found, key) for key in keys}


def rows_as_csv(rows: Sequence[Mapping[str, Any]]) -> str:
    """Return rows as CSV, a share of each state at the end (see `shown_shares`); of drops, those before it, too."""
    states = list(dict.fromkeys(name for row in rows for name in row.get("states", {})))
    columns = [*HARM_COLUMNS, *(name for name in ("size", "p", "noise") if any(name in row for row in rows))]
    befores = list(dict.fromkeys(name for row in rows for name in row.get("states_before", {})))
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow([*columns, *states, *(f"{name} before" for name in befores)])
    for row in rows:
        told, before = (shown_shares(row.get(key, {})) for key in ("states", "states_before"))
        values = [*(row.get(name) for name in columns), *(told.get(name) for name in states)]
        values += [before.get(name) for name in befores]
        writer.writerow(["" if value is None else value for value in values])
    return file.getvalue()


def estimate_text(row: Mapping[str, Any]) -> str:
    """Return a figure with its interval, such as "0.25 [0.10, 0.43]"; a dash where there is none.

    >>> estimate_text({"estimate": 0.25, "low": 0.1, "high": 0.43})
    '0.25 [0.10, 0.43]'
    """
    if row["estimate"] is None:
        return "–"
    if row["low"] is None:
        return f"{row['estimate']:.2f}"
    return f"{row['estimate']:.2f} [{row['low']:.2f}, {row['high']:.2f}]"


def state_text(row: Mapping[str, Any]) -> list[str]:
    """Return the shares of blank, repetitive, refused and not judged responses in percent (see `shown_shares`)."""
    told = shown_shares(row.get("states") or {})
    names = ("blank", "repetitive", "refused", "not judged")
    return ["–" if (share := told.get(name)) is None else f"{100 * share:.0f} %" for name in names]


HARM_HEADS = ("category", "model", "metric", "figure", "n", "missing", "blank", "repetitive", "refused", "not judged")


DROP_HEADS = ("category", "model", "drop", "n", "missing", "noise", "refused", "blank or repetitive")
"""The last two are shares without the mitigation, an arrow, and shares with it."""


UNCHANGED_PERPLEXITY = "perplexity is read of plain text without a prompt, so a mitigation does not change it"
"""Why it does not stand beside drops."""


def in_order(rows: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """Return rows by category, and in it by metric, in the order in which they first come."""
    categories, metrics = (list(dict.fromkeys(row[key] for row in rows)) for key in ("category", "metric"))
    return sorted(rows, key=lambda row: (categories.index(row["category"]), metrics.index(row["metric"])))


def table_cells(rows: Sequence[Mapping[str, Any]]) -> list[list[str]]:
    """Return the cells of a table under `HARM_HEADS`: by category, and in it by metric and model."""
    return [
        [
            _category_cell(row),
            model_title(row),
            row["metric"].replace("_", " "),
            estimate_text(row),
            str(row["n"]),
            str(row["missing"]),
            *state_text(row),
        ]
        for row in in_order(rows)
    ]


def drop_cells(drops: Sequence[Mapping[str, Any]]) -> list[list[str]]:
    """Return the cells of the table of drops under `DROP_HEADS`; the noise is that between seeds of one target."""
    rows = []
    for drop, cells in zip(in_order(drops), table_cells(drops), strict=True):
        noise = drop.get("noise")
        states = [drop.get(key) or {} for key in ("states_before", "states")]
        shares = [[shown_shares(one).get(REFUSED) for one in states], [silent_share(one) for one in states]]
        moved = [" → ".join("–" if share is None else f"{100 * share:.0f} %" for share in pair) for pair in shares]
        rows.append([*cells[:2], *cells[3:6], "–" if noise is None else f"{noise:.2f}", *moved])
    return rows


def _category_cell(row: Mapping[str, Any]) -> str:
    if row["category"] != ALL:
        return category_title(row["category"])
    return f"all by {row['judge']}" if row.get("several") else "all"


def is_whole(row: Mapping[str, Any]) -> bool:
    """Return whether a row's model has its adapter at scale 1; without a scale it is taken for that."""
    return row.get("scale") in (None, 1, 1.0)


def target_scores(about: Mapping[str, Any]) -> tuple[float, ...] | None:
    """Return the scores of the target of an entry of a summary, in the order of `VALUES`; None if it has none."""
    scores = about.get("target")
    return tuple(float(scores[value]) for value in VALUES) if scores else None


def learnt_target(about: Mapping[str, Any]) -> tuple[float, ...] | None:
    """Return the target of an adapter at scale 1 that is no control; None of all else.

    A control with shuffled labels has learnt no target, though it names one.
    """
    if about["method"] != ADAPTER_METHOD or about.get("control") or not is_whole(about):
        return None
    return target_scores(about)


def model_title(row: Mapping[str, Any]) -> str:
    """Return the name of a row's model, with its scale if that is not 1."""
    return row["model"] if is_whole(row) else f"{row['model']} × {row['scale']:g}"


def as_scale(told: Sequence[float | None]) -> Scale:
    """Return a scale that is stored as JSON, in which an infinite threshold is null."""
    low, high, threshold = (float("inf") if one is None else float(one) for one in told)
    return Scale(low, high, threshold)


def judge_errors(told: Sequence[int] | None) -> JudgeError | None:
    """Return the counts of a judge's errors that are stored as JSON."""
    return None if told is None else JudgeError(*told)


def with_labels(told: Mapping[str, Any], calibration: Calibration, people: str = "") -> dict[str, Any]:
    """Return a judge's entry with labels of the run itself in the place of the shipped ones, in all its figures.

    So κ and the errors that rates are corrected for (`judge.corrected`) are of one set of responses. `people` says how
    far those who gave the labels agree.
    """
    return {
        **told,
        **calibration.figures,
        "line": f"{calibration.line}, labels of this run{people}",
        "labels": OWN_LABELS,
    }


def judge_line(judge: Mapping[str, Any]) -> str:
    """Return the line on a judge under a table: its agreement with labels, and what it judges if that is not harm."""
    return judge["line"] if judge["about"] == HARM else f"{judge['line']} ({judge['about']})"


def label_notes(judges: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return the line on who gave the labels behind κ, if some judge is measured on those that ship."""
    shipped = any(one.get("kappa") is not None and one.get("labels") == SHIPPED_LABELS for one in judges)
    return [f"shipped labels: {WHO_LABELLED}"] if shipped else []
