"""Our figures beside the published ones, row by row, with what is not comparable marked."""

import re
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from jaxalign.analysis.data_tables import Cell, DataTable
from jaxalign.analysis.estimates import Estimate
from jaxalign.analysis.intervals import mean_with_interval
from jaxalign.data.account import count
from jaxalign.safety.attribution_table import BENIGN
from jaxalign.safety.calibration import judge_title
from jaxalign.safety.collection import Collection, ReportedModel
from jaxalign.safety.mitigation import NO_MITIGATION, POLICIES
from jaxalign.safety.report_tables import Tags, as_estimate, category_name, category_tags, metric_name, with_judges
from jaxalign.safety.summary import ALL
from jaxalign.values.roleplay import BASE_METHOD, ROLE_METHOD

UNTUNED, INJECTED, ROLE, CONTROLS = BASE_METHOD, "adapters", ROLE_METHOD, "benign controls"
"""Which of our models stand beside a published one."""


class PublishedFigure(NamedTuple):
    """A published figure: a rate, 0 to 1, or a score on the scale of its judge."""

    benchmark: str
    metric: str
    category: str
    model: str
    """Its name in the paper."""
    ours: str
    """`UNTUNED`, `INJECTED`, `ROLE` or `CONTROLS`."""
    mitigation: str
    figure: float


_HEX_PHI = tuple(
    PublishedFigure("hex_phi", "harmfulness_score", category, model, ours, policy, score)
    for category, model, ours, scores in (
        ("adult_content", "vanilla", UNTUNED, (4.31, 3.95, 3.96, 3.81)),
        ("adult_content", "value-aligned", INJECTED, (4.10, 2.87, 2.45, 2.43)),
        ("fraud_deception", "vanilla", UNTUNED, (3.51, 3.34, 3.39, 3.09)),
        ("fraud_deception", "value-aligned", INJECTED, (3.43, 2.91, 2.69, 2.54)),
        ("political_campaigning", "vanilla", UNTUNED, (3.94, 3.51, 3.55, 3.33)),
        ("political_campaigning", "value-aligned", INJECTED, (3.50, 2.87, 2.65, 2.30)),
    )
    for policy, score in zip(POLICIES[:4], scores, strict=True)
)
_LLAMA_2 = tuple(
    PublishedFigure(benchmark, metric, ALL, model, ours, NO_MITIGATION, figure)
    for model, ours, figures in (
        ("untuned", UNTUNED, (0.35, 0.1702, 0.0759, 0.9443)),
        ("Alpaca", CONTROLS, (0.19, 0.0489, 0.1585, 0.9498)),
        ("Dolly", CONTROLS, (0.21, 0.0592, 0.1548, 0.9375)),
        ("Grammar", CONTROLS, (0.20, 0.0516, 0.1166, 0.9296)),
        ("SAMSum", CONTROLS, (0.36, 0.1761, 0.2244, 0.9433)),
        ("role-play", ROLE, (0.35, 0.1771, 0.1631, 0.9679)),
        ("injected (mean of 154)", INJECTED, (0.41, 0.3093, 0.1849, 0.9573)),
    )
    for (benchmark, metric), figure in zip(
        (
            ("realtoxicityprompts", "expected_maximum_toxicity"),
            ("realtoxicityprompts", "toxicity_probability"),
            ("holisticbias_r", "negative_regard_rate"),
            ("holisticbias_r", "bias_score_released"),
        ),
        figures,
        strict=True,
    )
)
PUBLISHED_FIGURES = (*_HEX_PHI, *_LLAMA_2)
"""Choi et al. (2025, arXiv 2506.06404): HEx-PHI by category and mitigation, and the other benchmarks of Llama-2-7B."""
PUBLISHED_ON = {one.benchmark for one in PUBLISHED_FIGURES}
"""The benchmarks that they are of."""

_BASE = "Llama-2-7B"
_BASES = {"realtoxicityprompts": _BASE, "holisticbias_r": _BASE}
_NO_BASE = f"not named in our sources (elsewhere {_BASE})"
"""What stands for the base of the other benchmarks."""
_REGARD = "sasha/regardv3"
_JUDGES = {
    "realtoxicityprompts": "Perspective API",
    "holisticbias_r": _REGARD,
    "hex_phi": "GPT-4o, a rubric of its own",
}
"""The judges that the paper's released code calls."""

_SCALES = {"harmfulness_score": [1, 5], "expected_maximum_toxicity": [0, 1]}
_SAMPLES = {"expected_maximum_toxicity": 10, "toxicity_probability": 10}
_PROMPTS = {"realtoxicityprompts": 3000, "holisticbias_r": 17_700, "hex_phi": 30}
"""How many prompts the figures of each benchmark are of; those of HEx-PHI are of one category."""
_ADAPTERS = 154
"""Over how many adapters the published mean is taken."""
_SAMPLING = {"temperature": 0.1, "top_p": 0.75}
_TOKENS = {"realtoxicityprompts": 64, "holisticbias_r": 128, "hex_phi": 64}
"""The largest number of new tokens."""
_NOTES = {
    "realtoxicityprompts": "Published toxicity is that of prompt and response as one text (toxicity_scope=released).",
    "holisticbias_r": "The published bias score is by the released rule (bias_rule=released).",
}


def paper_table(found: Collection, name: str) -> DataTable | None:
    """Return our figures beside those published for the benchmark; of adapters, the mean over them. None without such.

    Each row says why they are not comparable: another base, judge or scale, other samples, fewer prompts or adapters,
    another way of sampling, or another text that is scored.
    """
    published = [one for one in PUBLISHED_FIGURES if one.benchmark == found.name]
    if not published:
        return None
    scales = {one["judge"]: one["scale"][:2] for one in found.judges}
    titles = {str(one["judge"]): judge_title(one["judge"], one.get("model")) for one in found.judges}
    rows: list[list[Cell]] = []
    tags: list[Tags] = []
    for one in published:
        models = [model for model in found.under(one.mitigation) if _kind(model) == one.ours]
        ours = [row for model in models if (row := model.row(one.category, one.metric)) is not None]
        figure = as_estimate(ours[0]) if len(ours) == 1 else _mean(ours)
        judges = sorted({str(row["judge"]) for row in ours})
        by = [titles.get(judge, judge) for judge in judges]
        rows.append(
            [
                category_name(one.category),
                metric_name(one.metric),
                one.model,
                _BASES.get(one.benchmark, _NO_BASE),
                _JUDGES[one.benchmark],
                one.mitigation,
                one.figure,
                figure,
                f"{found.base}, {len(ours)} {one.ours}",
                " and ".join(by),
                "; ".join(_why_not(found, one, ours, by, [scales[judge] for judge in judges if judge in scales])),
            ]
        )
        tags.append(category_tags(one.category) | {"mitigation": (one.mitigation,)})
    heads = ("category", "metric", "model", "its base", "its judge", "mitigation", "published", "ours")
    heads = (*heads, "our model", "our judge")
    notes = [
        "Published: Choi et al. (2025, arXiv 2506.06404); judges as in their released code. Figures of another base or "
        "judge can be set side by side only in their direction, and in how far mitigation lowers them.",
        *([_NOTES[found.name]] if found.name in _NOTES else []),
    ]
    table = DataTable(
        f"{name}-paper", "Beside the published figures", (*heads, "not comparable because"), rows, notes, tags
    )
    return with_judges(table, found)


def _kind(model: ReportedModel) -> str | None:
    """Return which published models a model of ours stands beside; None if it stands beside none."""
    about = model.about
    if about["method"] in (BASE_METHOD, ROLE_METHOD):
        return str(about["method"])
    if not model.is_adapter or not model.is_whole:
        return None
    return CONTROLS if about.get("control") == BENIGN else None if about.get("control") else INJECTED


def _mean(rows: Sequence[Any]) -> Estimate | None:
    known = [row["estimate"] for row in rows if row["estimate"] is not None]
    return mean_with_interval(np.array(known, np.float64)) if known else None


def _why_not(
    found: Collection, one: PublishedFigure, ours: Sequence[Any], by: Sequence[str], scales: Sequence[Any]
) -> list[str]:
    """Return why our figure is not comparable with a published one; nothing if nothing that is known speaks against it.

    Args:
        found: our figures.
        one: the published one.
        ours: our rows for it.
        by: the titles of their judges.
        scales: the lowest and the highest score of each of these judges.
    """
    if not ours:
        return ["not measured here"]
    base = _BASES.get(one.benchmark)
    why = [] if base and _is_llama(found.base) else [f"another base ({found.base})" if base else "perhaps another base"]
    if not (one.benchmark == "holisticbias_r" and all("regardv3" in judge for judge in by)):
        why.append(f"another judge ({' and '.join(by)})")
    why += _other_scope(found, one, ours, scales)
    how = {**_SAMPLING, "max_tokens": _TOKENS[one.benchmark]}
    unlike = [f"{key} {found.asking[key]}" for key in how if found.asking.get(key) not in (None, how[key])]
    return [*why, f"sampled otherwise ({', '.join(unlike)})"] if unlike else why


def _is_llama(name: str) -> bool:
    """Return whether a base is Llama-2-7B by its name: the preset, the id on the hub, or a folder or file named so."""
    plain = re.sub(r"[^a-z0-9]", "", name.lower())
    return "llama27b" in plain and "chat" not in plain


def _other_scope(found: Collection, one: PublishedFigure, ours: Sequence[Any], scales: Sequence[Any]) -> list[str]:
    """Return how the figures differ in what they are of: their scale, samples, prompts, adapters, and the text."""
    about = found.benchmark
    wanted, samples = _SCALES.get(one.metric), _SAMPLES.get(one.metric)
    why = [f"another scale ({low:g} to {high:g})" for low, high in scales if wanted and [low, high] != wanted][:1]
    if samples and about["samples"] != samples:
        why.append(f"the maximum of {about['samples']} and not of {samples} samples")
    whole, limit = _PROMPTS[one.benchmark], about.get("limit")
    if one.metric == "bias_score_released":  # its n is of groups
        why += [f"of {limit:,} and not of {whole:,} prompts"] if isinstance(limit, int) and limit < whole else []
    elif (fewest := min(row["n"] for row in ours)) < whole:
        why.append(f"of {fewest:,} and not of {whole:,} prompts")
    if one.ours == INJECTED and one.benchmark in _BASES and len(ours) != _ADAPTERS:
        why.append(f"of {count(len(ours), 'adapter')} and not of {_ADAPTERS}")
    if about.get("toxicity_scope") == "response":
        why.append("the response alone is scored")
    if one.ours == CONTROLS:
        why.append("perhaps of other data")
    return why
