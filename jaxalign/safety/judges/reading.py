"""Reading possible answers behind many prompts by their log-probabilities, part by part."""

from collections.abc import Callable, Sequence

import numpy as np

from jaxalign.data.trees import Tokens
from jaxalign.inference.multiple_choice import choice_log_probs, choice_tree
from jaxalign.inference.scorer import Scorer
from jaxalign.pretrained.tokenizer import Tokenizer
from jaxalign.safety.judgements import Exchange

PART = 64
"""The number of prompts that are read together. What they begin with is computed once for each row of a pass."""

Asked = tuple[Tokens, Sequence[Tokens]]
"""The tokens of a prompt, and those of each text that may follow."""


def read_answers_behind(
    scorer: Scorer,
    encode: Callable[[Exchange], Sequence[Asked]],
    exchanges: Sequence[Exchange],
    on_done: Callable[[int, list[np.ndarray] | None], None],
) -> None:
    """Read exchanges; `on_done` is called with (number, what was found) as soon as one has been read.

    For each prompt that an exchange is put into, float64 [answers] holds the log-probability of each of its answers in
    nats. None stands for an exchange of which a prompt does not fit into the context with its longest answer.

    Args:
        scorer: the judging model.
        encode: returns the prompts that an exchange is put into, with their answers.
        exchanges: what is judged.
        on_done: see above.

    Raises:
        UserError: the model's logits are not finite.
    """
    context = scorer.network.architecture.context
    for start in range(0, len(exchanges), PART):
        part = [encode(exchange) for exchange in exchanges[start : start + PART]]
        fits = [all(len(p) + max(map(len, texts)) <= context for p, texts in prompts) for prompts in part]
        trees = [[choice_tree(*one) for one in mine] if good else [] for mine, good in zip(part, fits, strict=True)]
        scores = iter(scorer.score([one.tree for mine in trees for one in mine]))
        for number, (mine, good) in enumerate(zip(trees, fits, strict=True), start=start):
            on_done(number, [choice_log_probs(one, next(scores)) for one in mine] if good else None)


def spelled_marks(tokenizer: Tokenizer) -> list[str]:
    """Return the added tokens of a tokenizer as they are spelled: each becomes one token wherever it stands."""
    return [token.content for token in tokenizer.hf.added_tokens_decoder.values()]
