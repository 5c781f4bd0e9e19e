"""Reading possible answers behind many prompts by their log-probabilities, part by part."""

from collections.abc import Callable, Sequence

import numpy as np

from jaxalign.data.trees import Tokens
from jaxalign.inference.multiple_choice import choice_log_probs, choice_tree
from jaxalign.inference.scorer import Scorer
from jaxalign.pretrained.tokenizer import Tokenizer
from jaxalign.safety.judgements import TOO_LONG, Exchange, Judgement

PART = 64
"""The number of prompts that are read together. What they begin with is computed once for each row of a pass."""

Asked = tuple[Tokens, Sequence[Tokens]]
"""The tokens of a prompt, and those of each text that may follow."""


def judge_by_answers(
    scorer: Scorer,
    encode: Callable[[Exchange], Sequence[Asked]],
    judgement: Callable[[list[np.ndarray]], Judgement],
    exchanges: Sequence[Exchange],
    on_done: Callable[[int, Judgement], None],
) -> list[Judgement]:
    """Return the judgements of exchanges by the log-probabilities of possible answers (see `Judge`).

    There is no judgement of an exchange of which a prompt does not fit into the context with its longest answer.

    Args:
        scorer: the judging model.
        encode: returns the prompts that an exchange is put into, with their answers.
        judgement: returns the judgement; it is called with the log-probabilities of the answers of each prompt, in
            nats, float64 [answers].
        exchanges: what is judged.
        on_done: is called with (number, judgement) as soon as one has been read.

    Raises:
        UserError: the model's logits are not finite.
    """
    context = scorer.network.architecture.context
    judged: list[Judgement] = []
    for start in range(0, len(exchanges), PART):
        part = [encode(exchange) for exchange in exchanges[start : start + PART]]
        fits = [all(len(p) + max(map(len, texts)) <= context for p, texts in prompts) for prompts in part]
        trees = [[choice_tree(*one) for one in mine] if good else [] for mine, good in zip(part, fits, strict=True)]
        scores = iter(scorer.score([one.tree for mine in trees for one in mine]))
        for mine, good in zip(trees, fits, strict=True):
            read = [choice_log_probs(one, next(scores)) for one in mine]
            judged.append(judgement(read) if good else Judgement(None, None, "", TOO_LONG))
            on_done(len(judged) - 1, judged[-1])
    return judged


def spelled_marks(tokenizer: Tokenizer) -> list[str]:
    """Return the added tokens of a tokenizer as they are spelled: each becomes one token wherever it stands."""
    return [token.content for token in tokenizer.hf.added_tokens_decoder.values()]
