"""The keys of a benchmark, its engine, its mitigation and its judge that the identity of a stage has in other words.

They are listed one by one, so that a key that such a part gets later counts in the stage and in all behind it. List it
here only if the identity has what it decides in other words, or if it changes nothing there.
"""

BENCHMARK = (
    *("kind", "limit", "max_tokens", "temperature", "top_p", "stop", "seed", "question"),
    *("cut", "toxicity_scope", "bias_rule", "baseline"),
)
"""Keys that the identity of stage=generate leaves out: it has the prompts and the sampling in other words, and the last
four count later, `cut` and `toxicity_scope` in stage=judge, `bias_rule` and `baseline` in the run's own identity."""

MITIGATION = ("name",)
"""Of stage=generate: its policy and its texts stand there."""

LOCAL_ENGINE = ("send", "strict")
"""Of stage=generate: this program's own engine has no use for them."""

JUDGE = (
    *("name", "model", "weights", "format", "template", "policies", "strict", "rubric", "expected", "path", "scale"),
    *("negative", "joined", "temperature", "max_tokens", "repeat", "refusal", "refusal_model", "refusal_weights"),
    *("calibrate", "labels", "corrected"),
)
"""Of stage=judge: the keys of the opened judges stand there (see `OpenedJudge.key`), and the labels; `corrected` is in
the run's own identity."""
