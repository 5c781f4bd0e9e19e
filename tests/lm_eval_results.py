"""Results files of lm-evaluation-harness, in the form in which lm-eval 0.4.13 writes them."""

import json
from pathlib import Path

RIGHT = {"arc": 0.5, "boolq": 0.6}
"""The share of right answers in each of two tasks."""


def results(adapter="", right=RIGHT, error=0.03, date=1.0, shots=0, model="jaxalign", base="base", more=None):
    """What lm-eval writes of two tasks, their group, a perplexity without a standard error, and a task with filters."""
    both = ("arc", "boolq")
    told = {
        "results": {
            **{
                task: {
                    **{"name": task, "alias": f" - {task}", "sample_len": 200},
                    **{"acc,none": right[task], "acc_stderr,none": error},
                    **{"acc_norm,none": right[task] - 0.1, "acc_norm_stderr,none": error},
                }
                for task in both
            },
            "text": {
                "name": "text",
                "alias": "text",
                "word_perplexity,none": 40.0,
                "word_perplexity_stderr,none": "N/A",
            },
            "sums": {
                **{"name": "sums", "alias": "sums", "exact_match,strict": 0.1, "exact_match_stderr,strict": 0.02},
                **{"exact_match,flexible": 0.3, "exact_match_stderr,flexible": 0.04},
            },
        },
        "groups": {"both": {"alias": "both", "name": "both", "acc,none": 0.55, "acc_stderr,none": 0.02, " ": " "}},
        "group_subtasks": {"both": list(both)},
        "configs": {task: {"task": task, "metadata": {"version": 1.0, "adapter": adapter}} for task in both},
        "versions": {"arc": 1.0, "boolq": 2.0, "both": "N/A"},
        "n-shot": {"arc": shots, "boolq": 0, "both": 0},
        "higher_is_better": {
            **{task: {"acc": True, "acc_norm": True} for task in both},
            "text": {"word_perplexity": False},
        },
        "n-samples": {task: {"original": 200, "effective": 200} for task in (*both, "text", "sums")},
        "config": {
            **{"model": model, "model_args": {"model": "tiny", "adapter": "RUN"}, "limit": None, "fewshot_seed": 1234},
            **{"jaxalign_base": base, "jaxalign_precision": "float32", "jaxalign_adapter": adapter},
        },
        "date": date,
        "chat_template_sha": None,
    }
    return {**told, **(more or {})}


def write(path: Path, told: object) -> Path:
    """Write an object as JSON, and return its path."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(told))
    return path
