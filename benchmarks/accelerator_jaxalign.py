"""The jaxalign side of accelerator.py. Weights are random, and drawn on the device."""

import argparse
import dataclasses
import resource
import time
import zlib
from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from accelerator_turns import WARM, wait_for_turn
from accelerator_work import examples, operations, questions
from sampling import product_peak
from shapes import SIZES
from timed_steps import timed_steps

from jaxalign.data.encoding import Encoded
from jaxalign.data.preferences import PreferencePair, Responses
from jaxalign.data.trees import Segment
from jaxalign.inference.base_model import BaseModel
from jaxalign.inference.reference import read_reference
from jaxalign.inference.sampling_params import Request, SamplingParams
from jaxalign.models.architecture import PROJECTIONS, from_config
from jaxalign.models.kernels import choose_attention
from jaxalign.models.lora import init_adapter
from jaxalign.models.precision import to_bits
from jaxalign.parallel.compilation import Programs
from jaxalign.parallel.processor import fast_precision
from jaxalign.pretrained.sources import Model
from jaxalign.pretrained.tokenizer import tiny_tokenizer
from jaxalign.pretrained.weights import abstract_params
from jaxalign.training.feed import Stage, StageSettings
from jaxalign.training.optimizer import Hyperparameters
from jaxalign.training.preference import PreferenceStage
from jaxalign.training.state import init_state
from jaxalign.training.supervised import SupervisedStage


def random_base(size: str) -> BaseModel:
    """Return a base of a size with random weights: normal with standard deviation 0.02, and norms of one."""
    architecture, dtype = from_config(SIZES[size]), jnp.dtype(fast_precision()[0])

    @partial(jax.jit, static_argnums=1)
    def normal(key: jax.Array, shape: tuple[int, ...]) -> jax.Array:
        return to_bits(jax.random.normal(key, shape, dtype) * jnp.asarray(0.02, dtype))

    def drawn(path: tuple[Any, ...], leaf: jax.ShapeDtypeStruct) -> jax.Array:
        if path[-1].key == "scale":
            return jnp.ones(leaf.shape, leaf.dtype)
        return normal(jax.random.key(zlib.crc32(str(path).encode()) % 2**31), leaf.shape)

    params = jax.tree_util.tree_map_with_path(drawn, abstract_params(architecture, dtype, None))
    attention, _ = choose_attention("auto", architecture, dtype)
    model = Model(architecture, params, tiny_tokenizer(), "random", size)
    return BaseModel(model, dtype, Programs(), attention=attention)


def settings_of(args: argparse.Namespace, batch: int) -> StageSettings:
    return StageSettings(
        epochs=1,
        max_steps=args.steps + 1,
        batch_size=batch,
        row_length=2 * args.length,
        hyper=Hyperparameters(1e-4, clip=1.0, scale=1.0),
        schedule="constant",
        validate=False,
    )


def sft(args: argparse.Namespace, size: str, name: str) -> dict[str, Any]:
    """Time steps of supervised fine-tuning."""
    base, pairs = random_base(size), examples(args, size)
    prompts, responses = map(list, zip(*pairs, strict=True))
    data = Encoded(prompts, responses, [1.0] * len(pairs), [False] * len(pairs))
    seconds, loss, members = train(args, base, SupervisedStage("sft", data, data), settings_of(args, args.batch))
    tokens = sum(data.tokens(index) for index in members)
    work = f"{args.batch} examples of up to {args.length} tokens a step, rank {args.rank}"
    needed = 2 * operations(size, tokens, sum(len(responses[index]) for index in members))
    return finished(base, work, tokens, needed, seconds, loss)


def dpo(args: argparse.Namespace, size: str, name: str) -> dict[str, Any]:
    """Time steps on preference pairs, and the reading of their reference."""
    base, asked = random_base(size), questions(args, size, args.pairs * (args.steps + 1), 2, args.response)
    prompts = [np.array(one["prompt"], np.int32) for one in asked]
    responses = [np.array(response, np.int32) for one in asked for response in one["responses"]]
    owner = [n // 2 for n in range(len(responses))]
    pairs = [PreferencePair(2 * n, 2 * n + 1) for n in range(len(asked))]
    data = Responses(prompts, responses, owner, np.zeros(len(responses)))
    settings = settings_of(args, args.pairs)
    timed = [n for _, step in PreferenceStage("dpo", data, pairs).feed(settings).steps[1:] for n in step]
    scorer, members = base.scorer(adapter_of(args, base), 1.0), [r for n in timed for r in (2 * n, 2 * n + 1)]
    read = partial(read_reference, scorer, data, members)
    reading = elapsed(read)
    rest = sorted(set(range(len(responses))) - set(members))
    data = dataclasses.replace(data, reference=read() + read_reference(scorer, data, rest))
    seconds, loss, _ = train(args, base, PreferenceStage("dpo", data, pairs), settings)
    tokens = len(timed) * (2 * args.prompt + 2 * args.response)
    work = f"{args.pairs} pairs a step, prompts of {args.prompt} tokens, responses of {args.response}, rank {args.rank}"
    needed = 3 * operations(size, len(timed) * (args.prompt + 2 * args.response), len(members) * args.response)
    return finished(base, work, tokens, needed, seconds + reading, loss)


def sampling(args: argparse.Namespace, size: str, name: str) -> dict[str, Any]:
    """Time the sampler."""
    base = random_base(size)
    # No token ends a sample, so that all have the same length.
    sampler = dataclasses.replace(base.sampler(None, args.samples), ends=(-1,))
    (asked,) = questions(args, size, 1, 0, 0)
    request = Request(np.array(asked["prompt"], np.int32), tuple(range(args.samples)))
    seconds = elapsed(lambda: sampler.sample([request], SamplingParams(max_tokens=args.tokens)))
    tokens = args.samples * args.tokens
    work = f"{args.samples} samples of {args.tokens} tokens after a prompt of {args.prompt}"
    needed = operations(size, args.prompt + tokens, tokens)
    return finished(base, work, tokens, needed, seconds)


def scoring(args: argparse.Namespace, size: str, name: str) -> dict[str, Any]:
    """Time the scorer on trees: a prompt, and all its answers."""
    base, asked = random_base(size), questions(args, size, args.questions, args.answers, args.answer)
    trees = []
    for one in asked:
        answers = (Segment(np.array(answer, np.int32), 0, True) for answer in one["responses"])
        trees.append((Segment(np.array(one["prompt"], np.int32), -1), *answers))
    scorer = base.scorer(None, 0.0)
    seconds = elapsed(lambda: scorer.score(trees))
    count = args.questions * args.answers
    tokens = count * (args.prompt + args.answer)
    work = f"{args.questions} prompts of {args.prompt} tokens, {args.answers} answers of {args.answer} to each"
    needed = operations(size, args.questions * args.prompt + count * args.answer, count * args.answer)
    return finished(base, work, tokens, needed, seconds)


def adapter_of(args: argparse.Namespace, base: BaseModel) -> Any:
    return init_adapter(jax.random.key(0), base.model.architecture, args.rank, PROJECTIONS)


def train(
    args: argparse.Namespace, base: BaseModel, stage: Stage, settings: StageSettings
) -> tuple[float, float, list[int]]:
    """Return the seconds of the timed steps, the first loss, and the examples or pairs of the timed steps."""
    feed, state = stage.feed(settings), init_state(adapter_of(args, base), 0)
    members = [number for _, step in feed.steps[1:] for number in step]
    # Less is kept where the rest of the memory would not do.
    for kept in ("projections", "full"):
        network = base.network(kept)
        try:
            for timed in (False, True):  # the first time warms up: a GPU loads a program when it first runs it
                start = jax.tree.map(jnp.copy, state)
                if timed:
                    wait_for_turn(WARM)
                found = timed_steps(feed, network, base.weights(False), start, settings.hyper, base.programs)
            return *found, members
        except jax.errors.JaxRuntimeError as error:
            if "RESOURCE_EXHAUSTED" not in str(error):
                raise
    raise SystemExit("error: the step does not fit into the memory of the card: lower --batch or --pairs")


def elapsed(work: Callable[[], Any]) -> float:
    """Return the seconds of a piece of work, done once before, so that it is compiled."""
    work()
    wait_for_turn(WARM)
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def finished(
    base: BaseModel, work: str, tokens: int, needed: int, seconds: float, loss: float | None = None
) -> dict[str, Any]:
    """Return a task's result, with the largest memory so far and the speed of a large product."""
    device = jax.devices()[0]
    memory = (device.memory_stats() or {}).get("peak_bytes_in_use") or resource.getrusage(
        resource.RUSAGE_SELF
    ).ru_maxrss * 1024
    return {
        "device": f"{device.device_kind}, {np.dtype(base.dtype).name}",
        "work": work,
        "tokens": tokens,
        "operations": needed,
        "seconds": seconds,
        "loss": loss,
        "memory": memory,
        "peak": product_peak(base.model.architecture, base.dtype, 1024 if device.platform == "cpu" else 16384),
        "note": f"compiled in {base.programs.seconds:.0f} s, which is in no figure",
    }
