"""What a stage of CREST counted, in words."""

from collections.abc import Mapping
from typing import Any

from jaxalign.reasoning.preferences import PAIR_KIND_NAMES

COUNTED = {
    "sampled": "sampled",
    "distinct": "distinct",
    "unread": "unread",
    "right": "with z = 1",
    "hinted": "sampled with a hint",
    "hinted_kept": "of those added",
    "hinted_tokens": "tokens of hinted samples",
    "kept": "kept",
    "distinct_responses": "distinct responses",
    "tokens": "tokens",
}
"""Keys of a stage's summary, and what a number there is of."""


def counts_in_words(stage: Mapping[str, Any]) -> list[str]:
    """Return what a stage's summary counts: samples and tokens, the histogram of z~ by number of options, pairs of each
    kind, and which epoch or round was best."""
    words = []
    for key, what in COUNTED.items():
        if key in stage:
            samples = f" ({stage[f'{key}_samples']:,} of the samples)" if f"{key}_samples" in stage else ""
            words.append(f"{stage[key]:,} {what}{samples}")
    for options, found in stage.get("z_tilde", {}).items():
        words.append(f"z~ 0 to {options}: {' '.join(str(found[key]) for key in sorted(found, key=int))}")
    words += [f"{count:,} pairs {PAIR_KIND_NAMES[kind]}" for kind, count in stage.get("there", {}).items()]
    if stage.get("followups_alike") is not None:
        words.append(f"follow-ups all alike on {stage['followups_alike']:.0%} of the questions")
    words += [f"best {key[5:]} {stage[key]}" for key in ("best_epoch", "best_round") if key in stage]
    return words
