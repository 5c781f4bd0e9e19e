"""A model for lm-evaluation-harness, and the harness's command line with this model registered.

    python -m jaxalign.harness run --model jaxalign --model_args model=smollm2_135m,adapter=RUN --tasks TASK

This needs the extra `harness` (pip install 'jaxalign[harness]'). The model runs on this program's own engine, which
computes the beginning that several contexts share only once.
"""

import sys
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from jaxalign.api import LanguageModel, load_model
from jaxalign.data.trees import Segment
from jaxalign.errors import UserError
from jaxalign.inference.sampling_params import Request, SamplingParams
from jaxalign.models.adapter import BASE, stack_adapters

try:
    from lm_eval.api.model import LM  # pyright: ignore[reportMissingImports]
    from lm_eval.api.registry import register_model  # pyright: ignore[reportMissingImports]
except ImportError:  # this class works, and is tested, without the harness
    LM = object

    def register_model(*names: str):
        """Return a decorator that changes nothing."""
        return lambda cls: cls


GENERATED = 256
"""The largest number of new tokens if a task does not set one."""


@register_model("jaxalign")
class Harness(LM):  # type: ignore[misc]
    """A base model with or without an adapter, as lm-evaluation-harness calls it.

    Args:
        model: a preset of conf/model, an id on the hub, a folder or a .gguf file.
        adapter: a run's directory or a PEFT folder; "" for the bare base.
        scale: the factor on the adapter's effect.
        precision: bfloat16, float32, or auto: the one that the processor multiplies fast.
        rows: the largest number of samples that are drawn together.
        offline: whether the network is never used.
        ignored: other arguments that the harness passes to every model (batch_size, device, ...).
    """

    def __init__(
        self,
        model: str = "smollm2_135m",
        adapter: str = "",
        scale: float = 1.0,
        precision: str = "auto",
        rows: int = 64,
        offline: bool = False,
        **ignored: Any,
    ):
        super().__init__()
        self.language: LanguageModel = load_model(model, precision=precision, offline=bool(offline))
        found = self.language.load_adapter(adapter) if adapter else None
        self.adapter = BASE if found is None else found.times(float(scale))
        self.rows = int(rows)

    @property
    def tokenizer_name(self) -> str:
        """The name that the harness gives to its caches of chat-formatted requests."""
        return self.language.name.replace("/", "__")

    def apply_chat_template(self, chat_history: list[dict[str, str]], add_generation_prompt: bool = True) -> str:
        """Return messages as one text in the model's chat format."""
        if not add_generation_prompt:
            raise UserError("jaxalign needs add_generation_prompt=true: it renders a chat up to the model's answer")
        return self.language.tokenizer.chat(chat_history)

    def loglikelihood(self, requests: Sequence[Any]) -> list[tuple[float, bool]]:
        """Return for each (context, continuation) the continuation's log-probability in nats, and whether it is the
        text that greedy decoding writes after the context."""
        pairs = [self._cut(*request.args) for request in requests]
        trees = [(Segment(context, -1), Segment(rest, 0, True)) for context, rest in pairs]
        scores = [float(found[1]) for found in self._scorer().score(trees)]
        longest: dict[bytes, tuple[np.ndarray, int]] = {}
        for context, rest in pairs:
            _, size = longest.get(context.tobytes(), (context, 0))
            longest[context.tobytes()] = (context, max(size, len(rest)))
        greedy: dict[bytes, tuple[int, ...]] = {}
        for size in sorted({size for _, size in longest.values()}):
            members = [(key, context) for key, (context, most) in longest.items() if most == size]
            texts = self._sample([Request(context) for _, context in members], SamplingParams(0.0, max_tokens=size))
            greedy |= {key: found[0].tokens for (key, _), found in zip(members, texts, strict=True)}
        return [
            (score, greedy[context.tobytes()][: len(rest)] == tuple(rest.tolist()))
            for score, (context, rest) in zip(scores, pairs, strict=True)
        ]

    def loglikelihood_rolling(self, requests: Sequence[Any]) -> list[float]:
        """Return the log-probability of each whole text, in nats.

        A text longer than the model's context is read in windows. Each token is predicted once, and the last window
        also holds as many earlier tokens as fit.
        """
        trees, owners = [], []
        for number, request in enumerate(requests):
            for tree in self._windows(self.language.encoder.text(request.args[0])):
                trees.append(tree)
                owners.append(number)
        sums = [0.0] * len(requests)
        for owner, found in zip(owners, self._scorer().score(trees), strict=True):
            sums[owner] += float(found[-1])
        return sums

    def generate_until(self, requests: Sequence[Any]) -> list[str]:
        """Return a generated text for each (context, settings); it ends before the first of the `until` strings."""
        groups: dict[SamplingParams, list[int]] = {}
        for number, request in enumerate(requests):
            groups.setdefault(task_sampling_params(request.args[1]), []).append(number)
        texts = [""] * len(requests)
        for how, members in groups.items():
            prompts = [self._context(requests[number].args[0], how.max_tokens) for number in members]
            for number, found in zip(members, self._sample([Request(one) for one in prompts], how), strict=True):
                texts[number] = found[0].text
        return texts

    def _cut(self, context: str, continuation: str) -> tuple[np.ndarray, np.ndarray]:
        """Return the tokens of both; spaces at the end of the context go to the continuation, because texts are cut
        before a space."""
        kept = context.rstrip(" ")
        continuation = context[len(kept) :] + continuation
        rest = self.language.encoder.text(continuation)
        if not len(rest):
            raise UserError("a continuation is empty: there is nothing to score")
        return self._context(kept, len(rest)), rest

    def _context(self, text: str, room: int) -> np.ndarray:
        """Return a context's tokens; if it leaves less than `room` tokens, its beginning is cut off after the BOS."""
        tokens = self.language.encoder.root(text) if text else self._first()
        most = self.language.architecture.context - room
        if most < 1:
            raise UserError(f"{room} tokens leave no room for a prompt in a context of {most + room}")
        if len(tokens) <= most:
            return tokens
        first = tokens[: 0 if self.language.tokenizer.bos_id is None else 1]
        return np.concatenate([first, tokens[len(tokens) - most + len(first) :]])

    def _first(self) -> np.ndarray:
        """Return the one token of an empty context: the model's BOS, or its end token if it has no BOS."""
        tokenizer = self.language.tokenizer
        return np.array([tokenizer.eos_id if tokenizer.bos_id is None else tokenizer.bos_id], np.int32)

    def _windows(self, tokens: np.ndarray) -> list:
        size = self.language.architecture.context - 1
        trees = []
        for start in range(0, len(tokens), size):
            part = tokens[start : start + size]
            before = self._first() if start == 0 else tokens[start + len(part) - size - 1 : start]
            trees.append((Segment(before, -1), Segment(part, 0, True)))
        return trees

    def _scorer(self):
        return self.language._base.scorer(self.adapter.params, self.adapter.scale)

    def _sample(self, requests: Sequence[Request], sampling: SamplingParams):
        return self.language._base.sampler(stack_adapters([self.adapter]), self.rows).sample(requests, sampling)


def task_sampling_params(settings: Mapping[str, Any]) -> SamplingParams:
    """Return the sampling settings of a task: greedy, unless it has `do_sample` and a temperature."""
    until = settings.get("until") or ()
    until = (until,) if isinstance(until, str) else tuple(until)
    temperature = float(settings.get("temperature", 0.0)) if settings.get("do_sample") else 0.0
    return SamplingParams(
        temperature=temperature,
        top_k=int(settings.get("top_k", 0) or 0) if temperature else 0,
        top_p=float(settings.get("top_p", 1.0)) if temperature else 1.0,
        max_tokens=int(settings.get("max_gen_toks", settings.get("max_tokens", GENERATED))),
        stop=tuple(one for one in until if one),
        seed=int(settings.get("seed", 0) or 0),
    )


def main() -> None:
    """Run the command line of lm-evaluation-harness with the model `jaxalign` registered."""
    if LM is object:
        print("error: lm-evaluation-harness is not installed: type pip install 'jaxalign[harness]'", file=sys.stderr)
        raise SystemExit(2)
    from lm_eval.__main__ import cli_evaluate  # pyright: ignore[reportMissingImports]

    try:
        cli_evaluate()
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        raise SystemExit(2) from None


if __name__ == "__main__":
    main()
