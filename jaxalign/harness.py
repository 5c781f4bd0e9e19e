"""A model for lm-evaluation-harness, and the harness's command line with this model registered.

    python -m jaxalign.harness run --model jaxalign --model_args model=smollm2_135m,adapter=RUN --tasks TASK

This needs the extra `harness` (pip install 'jaxalign[harness]'). The model runs on this program's own engine, which
computes the beginning that several contexts share only once. On the same weights, it gives the numbers of the
harness's own model `hf`: texts are cut and encoded as there.
"""

import dataclasses
import sys
from collections.abc import Mapping, Sequence
from typing import Annotated, Any

import numpy as np

from jaxalign.api import LanguageModel, load_model
from jaxalign.config.arguments import given_settings
from jaxalign.config.fields import Count, NotNegative, Precision, Seed, Storage, TopK, TopP
from jaxalign.config.schema import Rule
from jaxalign.data.trees import Segment, Tree
from jaxalign.errors import UserError, did_you_mean
from jaxalign.inference.sampling_params import Request, SamplingParams
from jaxalign.models.adapter import BASE, stack_adapters
from jaxalign.parallel.compilation import use_compilation_cache
from jaxalign.pretrained.sources import cache_folder
from jaxalign.safety.task_results import OF_MODEL

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

LENGTHS = ("max_gen_toks", "max_new_tokens", "max_tokens", "max_completion_tokens")
"""The names that tasks use for the number of new tokens; the first one that is there counts."""

IGNORED = ("batch_size", "max_batch_size", "device")
"""What the harness passes to every model and this one does not need."""


@dataclasses.dataclass(frozen=True)
class _Arguments:
    """The arguments of `Harness`."""

    model: str
    adapter: str | None
    scale: float
    precision: Precision
    storage: Storage | None
    rows: Count
    offline: bool


@dataclasses.dataclass(frozen=True)
class _TaskSettings:
    """What a task says about its samples. Its other settings are not used."""

    until: Annotated[tuple[str, ...], Rule("a list of strings", lambda texts: True)] | None = None
    do_sample: bool | None = None
    temperature: NotNegative | None = None
    top_k: TopK | None = None
    top_p: TopP | None = None
    seed: Seed | None = None
    max_gen_toks: Count | None = None
    max_new_tokens: Count | None = None
    max_tokens: Count | None = None
    max_completion_tokens: Count | None = None


@register_model("jaxalign")
class Harness(LM):  # type: ignore[misc]
    """A base model with or without an adapter, as lm-evaluation-harness calls it.

    Args:
        model: a preset of conf/model, an id on the hub, a folder or a .gguf file.
        adapter: a run's directory or a PEFT folder; "" for the bare base.
        scale: the factor on the adapter's effect.
        precision: bfloat16, float32, or auto: the one that the processor multiplies fast.
        storage: how the base is kept: bfloat16, int8, int4, or "" for the number format of `precision`.
        rows: the largest number of samples that are drawn together.
        offline: whether the network is never used.
        others: what the harness passes to every model (`IGNORED`).

    Raises:
        UserError: an argument is not known or not allowed, or the model or the adapter cannot be used.
    """

    def __init__(
        self,
        model: str = "smollm2_135m",
        adapter: str = "",
        scale: float = 1.0,
        precision: str = "auto",
        storage: str = "",
        rows: int = 64,
        offline: bool = False,
        **others: Any,
    ):
        given = {"model": model, "adapter": adapter, "scale": scale, "precision": precision, "rows": rows}
        given |= {"storage": None if storage == "" else storage, "offline": offline}
        for name in others:
            if name not in IGNORED:
                raise UserError(f"--model_args: {name} is not known{did_you_mean(name, given)}")
        r = given_settings(_Arguments, given)
        super().__init__()
        self.language: LanguageModel = load_model(r.model, precision=r.precision, storage=r.storage, offline=r.offline)
        self.adapter = self.language.load_adapter(r.adapter).times(r.scale) if r.adapter else BASE
        self.rows = r.rows

    @property
    def tokenizer_name(self) -> str:
        """The name that the harness gives to its caches of chat-formatted requests."""
        return self.language.name.replace("/", "__")

    def get_model_info(self) -> dict[str, str]:
        """Return what the harness writes into its results on the model: hashes of the base and of the adapter ("" for
        none), by which `jaxalign.report ability=` knows them, and the number format."""
        base = self.language.base
        names = (base.model.signature, np.dtype(base.dtype).name, self.adapter.identity)
        return dict(zip((OF_MODEL["base"], OF_MODEL["precision"], OF_MODEL["adapter"]), names, strict=True))

    @property
    def prefix(self) -> int:
        """The token before a text without a context: the tokenizer's BOS, or its EOS if it has none."""
        bos = self.language.tokenizer.hf.bos_token_id
        return self.language.tokenizer.eos_id if bos is None else bos

    @property
    def context(self) -> int:
        """The longest input of the model, in tokens."""
        return self.language.architecture.context

    def apply_chat_template(self, chat_history: list[dict[str, str]], add_generation_prompt: bool = True) -> str:
        """Return messages as one text in the model's chat format, up to the model's answer, or to the end of the last
        message without closing its turn."""
        tokenizer = self.language.tokenizer
        return tokenizer.chat(chat_history) if add_generation_prompt else tokenizer.continued(chat_history)

    def loglikelihood(self, requests: Sequence[Any]) -> list[tuple[float, bool]]:
        """Return for each (context, continuation) the continuation's log-probability in nats, and whether each of its
        tokens is the most probable one."""
        pairs = [self._pair(*request.args) for request in requests]
        return [(float(sums[1]), bool(best[1])) for sums, best in self._scorer().score_greedy(self._trees(pairs))]

    def loglikelihood_rolling(self, requests: Sequence[Any]) -> list[float]:
        """Return the log-probability of each whole text, in nats.

        A text longer than the model's context is read in windows. Each token is predicted once, and the last window
        also holds as many earlier tokens as fit.
        """
        windows = [self._windows(self._encode(request.args[0])) for request in requests]
        scores = iter(self._scorer().score(self._trees([pair for mine in windows for pair in mine])))
        return [sum((float(next(scores)[1]) for _ in mine), 0.0) for mine in windows]

    def generate_until(self, requests: Sequence[Any]) -> list[str]:
        """Return a generated text for each (context, settings); it ends before the first of the `until` strings."""
        groups: dict[SamplingParams, list[int]] = {}
        for number, request in enumerate(requests):
            groups.setdefault(task_sampling_params(request.args[1]), []).append(number)
        texts = [""] * len(requests)
        for how, members in groups.items():
            most = self.context - how.max_tokens
            if most < 1:
                raise UserError(f"max_gen_toks={how.max_tokens} leaves no room for a prompt in {self.context} tokens")
            asked = [Request(self._encode(requests[number].args[0], 1)[-most:]) for number in members]
            for number, (found,) in zip(members, self._sample(asked, how), strict=True):
                texts[number] = self._text(found.tokens, how.stop)
        return texts

    def _text(self, tokens: Sequence[int], stops: Sequence[str]) -> str:
        """Return the text of generated tokens without special tokens, up to the first stop string or EOS."""
        tokenizer = self.language.tokenizer
        text = tokenizer.hf.decode(list(tokens), skip_special_tokens=True)
        for stop in (*stops, tokenizer.decode([tokenizer.eos_id])):
            text = text.split(stop)[0]
        return text

    def _encode(self, text: str, least: int = 0) -> np.ndarray:
        """Return the tokens of a text with the special tokens that the tokenizer itself adds, but no second BOS; the
        prefix, if there are fewer than `least`."""
        tokenizer = self.language.tokenizer
        special = not text.startswith(tokenizer.decode([self.prefix]))
        ids = tokenizer.encode_with_special(text) if special else tokenizer.encode(text)
        return ids if len(ids) >= least else np.array([self.prefix], np.int32)

    def _pair(self, context: str, continuation: str) -> tuple[np.ndarray, np.ndarray]:
        """Return the tokens of both. White space at the end of the context goes to the continuation.

        The tokens are those of the whole text: the continuation has all from the length of the context's own on. A
        context that is too long loses its beginning.
        """
        if context:
            own = self._encode(context.rstrip())
            rest = self._encode(context + continuation)[len(own) :]
            before = own if len(own) else np.array([self.prefix], np.int32)
        else:
            rest = self.language.tokenizer.encode(continuation)
            before = np.array([self.prefix], np.int32)
            rest = rest[1:] if len(rest) and rest[0] == self.prefix else rest
        if not len(rest):
            raise UserError(f"a continuation has no token of its own ({continuation!r:.60}): there is nothing to score")
        if len(rest) > self.context:
            raise UserError(f"a continuation has {len(rest)} tokens, and the context holds {self.context}: shorten it")
        return before[-(self.context + 1 - len(rest)) :], rest

    def _windows(self, tokens: np.ndarray) -> list[tuple[np.ndarray, np.ndarray]]:
        """Return (tokens before, tokens to predict) for each window of a text."""
        windows, size = [], self.context
        for start in range(0, len(tokens), size):
            stop = min(start + size, len(tokens))
            before = tokens[stop - size - 1 : start] if start else np.array([self.prefix], np.int32)
            windows.append((before, tokens[start:stop]))
        return windows

    def _trees(self, pairs: Sequence[tuple[np.ndarray, np.ndarray]]) -> list[Tree]:
        return [(Segment(before, -1), Segment(rest, 0, True)) for before, rest in pairs]

    def _scorer(self):
        return self.language.base.scorer(self.adapter.params, self.adapter.scale)

    def _sample(self, requests: Sequence[Request], sampling: SamplingParams):
        return self.language.base.sampler(stack_adapters([self.adapter]), self.rows).sample(requests, sampling)


def task_sampling_params(settings: Mapping[str, Any]) -> SamplingParams:
    """Return the sampling settings of a task: greedy without a temperature, or with `do_sample: false`.

    Raises:
        UserError: a setting is not allowed.
    """
    known = {field.name for field in dataclasses.fields(_TaskSettings)}
    r = given_settings(_TaskSettings, {name: value for name, value in settings.items() if name in known})
    temperature = 0.0 if r.do_sample is False else r.temperature or 0.0
    lengths = [length for name in LENGTHS if (length := getattr(r, name)) is not None]
    return SamplingParams(
        temperature=temperature,
        top_k=r.top_k or 0 if temperature else 0,
        top_p=r.top_p or 1.0 if temperature else 1.0,
        max_tokens=[*lengths, GENERATED][0],
        stop=tuple(one for one in r.until or () if one),
        seed=r.seed or 0,
    )


def main() -> None:
    """Run the command line of lm-evaluation-harness with the model `jaxalign` registered."""
    if LM is object:
        if {"-h", "--help"} & {*sys.argv[1:]}:  # the options themselves are the harness's own
            print(__doc__)
            return
        print("error: lm-evaluation-harness is not installed: type pip install 'jaxalign[harness]'", file=sys.stderr)
        raise SystemExit(2)
    from lm_eval.__main__ import cli_evaluate  # pyright: ignore[reportMissingImports]

    use_compilation_cache(cache_folder() / "xla")
    try:
        cli_evaluate()
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        raise SystemExit(2) from None


if __name__ == "__main__":
    main()
