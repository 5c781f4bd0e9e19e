"""The keys of each part of the configuration, for the stages whose numbers the part does not change.

They are listed one by one, so that a key that conf/crest.yaml gets later counts in every stage. List it here only if it
changes no number of any stage that names the list.
"""


def _keys(part: str, *names: str) -> tuple[str, ...]:
    return tuple(f"{part}.{name}" for name in names)


METHOD = (
    *_keys("crest", "samples", "few_shot", "tolerance", "mixing", "deduplicate", "label", "hint", "iterations"),
    "crest.continue_adapter",
)
SAMPLING = _keys("sampling", "temperature", "top_p", "top_k", "max_tokens", "stop", "seed")
SEED = _keys("seed", "epochs", "learning_rate", "batch_size")
SFT = _keys("sft", "epochs", "max_steps", "batch_size", "rationale", "learning_rate", "schedule", "warmup_steps")
DPO_LEARNING = (
    *_keys("dpo", "loss", "beta", "label_smoothing", "likelihood", "batching"),
    *_keys("dpo", "learning_rate", "schedule", "warmup_steps"),
)
DPO = (*DPO_LEARNING, *_keys("dpo", "rounds", "steps", "batch_size", "resample"))
TEST = _keys("test", "max_tokens", "few_shot", "samples", "temperature", "top_p")
LORA = _keys("lora", "rank", "alpha", "dropout", "targets", "layers")
OPTIMIZER = _keys("optimizer", "betas", "epsilon", "weight_decay", "clip")
TRAINING = _keys("training", "seed", "row_length", "max_rows")
RELEASED = (
    *_keys("released", "prompt_without_question", "no_end_token", "letters_in_words", "followups_by_not"),
    *_keys("released", "threshold", "examples_in_train"),
)
