import dataclasses
import hashlib
import itertools
import json
from collections import OrderedDict
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from golden.draw import draw
from jax.sharding import AxisType
from tiny_model import ARCHITECTURE, MODEL, Arrays, random_adapter, random_params, random_weights

from jaxalign.data import bucketing
from jaxalign.data.bucketing import bucket
from jaxalign.errors import UserError
from jaxalign.inference import call_plan
from jaxalign.inference.call_plan import SAMPLES_TOGETHER, SHARED, STEPS, WATCHED, shared_prefix
from jaxalign.inference.random_keys import sample_keys
from jaxalign.inference.sampler import Sampler
from jaxalign.inference.sampling_params import Completion, Request, SamplingParams, check_requests
from jaxalign.inference.stopping import BROKEN
from jaxalign.models.architecture import from_config
from jaxalign.models.layout import BaseWeights
from jaxalign.models.lora import effective
from jaxalign.models.transformer import head_kernel
from jaxalign.parallel.compilation import Programs
from jaxalign.parallel.rules import MESH_AXES, placement_of
from jaxalign.pretrained.weights import load_params

GOLDENS = sorted((Path(__file__).parents[1] / "golden" / "families").glob("*.json"))
NEVER = (-1,)
"""An end token that no sample chooses."""
LONG = 3 * STEPS + 1
"""So many tokens take several decode calls, and the largest of the first rings: tests of as many share programs."""


@pytest.fixture(scope="module")
def base():
    """The tiny model's weights."""
    return random_weights()


@pytest.fixture
def make(base, programs, tokenizer):
    """Make samplers of the tiny model."""

    def build(adapters=None, rows=8, ends=NEVER):
        return Sampler(ARCHITECTURE, base, adapters, tokenizer, programs, rows, ends)

    return build


def prompts(*lengths, seed=0):
    """Prompts of these lengths."""
    random = np.random.default_rng(seed)
    return [random.integers(3, 97, length).astype(np.int32) for length in lengths]


def tokens_of(results):
    """The tokens of all completions, request by request."""
    return [[completion.tokens for completion in completions] for completions in results]


WINDOWED = [path for path in GOLDENS if path.stem in ("llama", "mistral", "gemma2")]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("path", "shared", "mesh"),
    [(path, 0, "") for path in GOLDENS] + [(path, 8, "") for path in WINDOWED] + [(WINDOWED[0], 8, "mesh")],
    ids=lambda value: value.stem if isinstance(value, Path) else f"shared{value}" if isinstance(value, int) else value,
)
def test_greedy_tokens_equal_those_of_transformers(path, shared, mesh, tokenizer, monkeypatch):
    stored = json.loads(path.read_text())
    architecture = from_config(stored["config"])
    tensors = draw({name: tuple(shape) for name, shape in stored["shapes"].items()}, stored["norm_mean"])
    params, _ = load_params(architecture, Arrays(tensors), jnp.float32)
    asked = [Request(np.array(row, np.int32)) for row in stored["tokens"]]
    if shared:  # the same beginning for all, so that it is read once
        monkeypatch.setattr(call_plan, "SHARED", shared)
        asked = [asked[0], Request(asked[0].prompt[: shared + 4])]
        assert shared_prefix([request.prompt for request in asked]) == shared + 3
    # On a mesh, though it is of one device, a loop runs over the layers.
    placement = placement_of(jax.make_mesh((1, 1, 1, 1), MESH_AXES, (AxisType.Auto,) * 4), {}) if mesh else None
    weights = BaseWeights(params, architecture.tied, placement)
    sampler = Sampler(architecture, weights, None, tokenizer, Programs(), 8, NEVER)
    results = sampler.sample(asked, SamplingParams(temperature=0.0, max_tokens=len(stored["greedy"][0])))
    assert results[0][0].tokens == tuple(stored["greedy"][0])
    if not shared:
        assert results[1][0].tokens == tuple(stored["greedy"][1])


@pytest.mark.slow
@pytest.mark.parametrize("shared", [SHARED + 5])
def test_a_sample_is_the_same_in_any_company(make, shared):
    (prefix,) = prompts(shared, seed=9)
    asked = [np.concatenate([prefix, prompt]) for prompt in prompts(5, 26, 1, 9)]
    assert shared_prefix(asked) == shared
    sampling = SamplingParams(max_tokens=LONG, seed=3)
    wanted = range(4)
    together = tokens_of(make(rows=8).sample([Request(p, tuple(wanted)) for p in asked], sampling))
    alone = [[make(rows=1).sample([Request(p, (index,))], sampling)[0][0].tokens for index in wanted] for p in asked]
    assert together == alone
    backwards = tokens_of(make(rows=40).sample([Request(p, tuple(wanted)) for p in asked[::-1]], sampling))
    assert backwards[::-1] == alone
    assert len({tuple(sample) for samples in alone for sample in samples}) == 16


def next_token(sequences):
    """The model's probabilities float64 [n, V] of the token after each of n sequences of one length."""
    tokens = np.stack(sequences)
    places = np.broadcast_to(np.arange(tokens.shape[1], dtype=np.int32), tokens.shape)
    read = jax.jit(MODEL.apply)
    states = read({"params": random_params()}, tokens, places, np.full_like(tokens, tokens.shape[1]))
    logits = np.asarray(states[:, -1] @ head_kernel(random_params(), ARCHITECTURE).T, np.float64)
    weights = np.exp(logits - logits.max(-1, keepdims=True))
    return weights / weights.sum(-1, keepdims=True)


@pytest.mark.slow
def test_first_and_second_tokens_follow_the_model_s_distribution(make):
    (prompt,) = prompts(9)
    draws = 4_096
    (found,) = make(rows=512).sample([Request(prompt, tuple(range(draws)))], SamplingParams(max_tokens=2, seed=11))
    size = ARCHITECTURE.vocab_size
    (first,) = next_token([prompt])
    second = next_token([np.append(prompt, token).astype(np.int32) for token in range(size)])
    one, other = np.array([completion.tokens for completion in found]).T
    joint = first[:, None] * second
    for counts, wanted in (
        (np.bincount(one, minlength=size), first),
        (np.bincount(other, minlength=size), joint.sum(0)),
        (np.bincount(one * size + other, minlength=size * size), joint.reshape(-1)),
    ):
        likely = wanted * draws >= 5
        observed = np.append(counts[likely], counts[~likely].sum())
        awaited = np.append(wanted[likely], wanted[~likely].sum()) * draws
        observed, awaited = observed[awaited > 0], awaited[awaited > 0]
        chi_square, freedom = ((observed - awaited) ** 2 / awaited).sum(), len(awaited) - 1
        assert freedom > 5
        # The mean of a chi-square is its degrees of freedom, the variance twice that.
        assert chi_square < freedom + 4 * np.sqrt(2 * freedom)


@pytest.mark.slow
def test_one_long_prompt_does_not_make_the_others_attend_over_its_length(base, tokenizer, monkeypatch):
    monkeypatch.setattr(call_plan, "NEAR", 16)
    asked = [Request(p, (0, 1)) for p in prompts(120, 9, 30, 12, 9, 60)]
    programs = Programs()
    places = []
    get = programs.get

    def watch(name, function, static, arguments):
        if name == "decode":
            places.append(arguments[3][0].k.shape[-2])
        return get(name, function, static, arguments)

    monkeypatch.setattr(programs, "get", watch)
    done = []
    sampler = Sampler(ARCHITECTURE, base, None, tokenizer, programs, 4, NEVER)
    results = sampler.sample(asked, SamplingParams(max_tokens=STEPS), on_done=lambda number, _: done.append(number))
    assert places == [16, 32, 128]  # two prompts a pass, of about one length
    assert done == [1, 1, 3, 3, 4, 4, 2, 2, 5, 5, 0, 0]
    monkeypatch.setattr(call_plan, "NEAR", 512)
    assert tokens_of(sampler.sample(asked, SamplingParams(max_tokens=STEPS))) == tokens_of(results)
    assert set(places[3:]) == {128}


@pytest.mark.slow
def test_every_program_of_a_call_is_logged_once(base, tokenizer):
    log = []
    programs = Programs(lambda name, _: log.append(name), OrderedDict())  # without those of the tests before this one
    sampler = Sampler(ARCHITECTURE, base, None, tokenizer, programs, 4, NEVER)
    for seed in (0, 4294967295):
        sampler.sample([Request(prompts(20)[0], (0, 1))], SamplingParams(max_tokens=3, seed=seed))
    assert [name.split()[0] for name in log] == ["sample", "prefill", "place", "decode"]
    (keys,) = sample_keys([Request(np.arange(5), (0, 7))], 4294967295, Programs())
    root = jax.random.key(4294967295)
    words = np.frombuffer(hashlib.sha256(np.arange(5, dtype=np.int32).tobytes()).digest()[:8], np.uint32)
    key = jax.random.fold_in(jax.random.fold_in(jax.random.fold_in(root, words[0]), words[1]), 7)
    np.testing.assert_array_equal(keys[7], jax.random.key_data(key))


@pytest.mark.slow
def test_in_bfloat16_the_company_may_change_a_sample_and_the_share_is_reported(tokenizer, record_property, capsys):
    base = random_weights(dtype=jnp.bfloat16)
    asked = prompts(5, 40, 1, 9)
    sampling = SamplingParams(max_tokens=21, seed=3)

    def tokens(rows, samples):
        sampler = Sampler(ARCHITECTURE, base, None, tokenizer, Programs(), rows, NEVER)
        return tokens_of(sampler.sample([Request(p, samples) for p in asked], sampling))

    together = [sample for samples in tokens(16, (0, 1, 2, 3)) for sample in samples]
    fewer = [pair for pairs in zip(*(tokens(4, (index,)) for index in range(4)), strict=True) for (pair,) in pairs]
    share = sum(one != other for one, other in zip(together, fewer, strict=True)) / len(together)
    record_property("share_of_bfloat16_samples_that_differ", share)
    with capsys.disabled():
        print(f"\nbfloat16: {share:.0%} of {len(together)} samples differ with the shape of the batch")
    # The same random numbers: what differs does so late, by a rounding, not from the first token on.
    assert [sample[0] for sample in together] == [sample[0] for sample in fewer]
    assert share < 0.5


def test_seeds_and_indices_give_different_samples(make):
    (prompt,) = prompts(9)
    first, second = (
        make().sample([Request(prompt, (0, 1))], SamplingParams(max_tokens=12, seed=seed))[0] for seed in (0, 1)
    )
    assert len({c.tokens for c in first + second}) == 4


@pytest.mark.slow
def test_more_samples_than_rows_and_long_answers(make):
    (prompt,) = prompts(12)
    sampling = SamplingParams(max_tokens=LONG)
    wanted = tuple(range(SAMPLES_TOGETHER + 5))
    many = make(rows=2 * SAMPLES_TOGETHER).sample([Request(prompt, wanted)], sampling)[0]
    few = make(rows=1).sample([Request(prompt, wanted)], sampling)[0]
    assert [c.tokens for c in many] == [c.tokens for c in few]
    assert [c.index for c in many] == list(wanted)
    assert {c.end for c in many} == {"length"}


@pytest.mark.slow
def test_answers_longer_than_the_first_ring(make):
    asked = prompts(7, 3)
    long = tokens_of(make().sample([Request(p, (0, 1)) for p in asked], SamplingParams(max_tokens=100, seed=5)))
    short = tokens_of(make().sample([Request(p, (0, 1)) for p in asked], SamplingParams(max_tokens=LONG, seed=5)))
    assert [[sample[:LONG] for sample in samples] for samples in long] == short


@pytest.mark.slow
def test_end_tokens_end_a_sample_and_free_its_row(make):
    asked = prompts(6, 11, 20, seed=2)
    free = make(rows=4).sample([Request(p, (0, 1)) for p in asked], SamplingParams(max_tokens=LONG))
    ends = tuple(range(20))  # many, so that samples end at different times
    found = make(rows=2, ends=ends).sample([Request(p, (0, 1)) for p in asked], SamplingParams(max_tokens=LONG))
    free, found = list(itertools.chain(*free)), list(itertools.chain(*found))
    for all_tokens, cut in zip(free, found, strict=True):
        stop = next((n for n, token in enumerate(all_tokens.tokens) if token in ends), None)
        assert cut.tokens == (all_tokens.tokens if stop is None else all_tokens.tokens[: stop + 1])
        assert cut.end == ("length" if stop is None else "eos")
    assert {c.end for c in found} >= {"eos"}


@pytest.mark.slow
def test_stacked_adapters_equal_one_at_a_time(make):
    asked = prompts(5, 12)
    adapters = [effective(random_adapter(seed), 0.7) for seed in range(3)]
    stack = jax.tree.map(lambda *leaves: jnp.stack(leaves), *adapters)
    sampling = SamplingParams(max_tokens=10)
    requests = [Request(p, (0, 1), adapter) for p in asked for adapter in (2, 0, 1)]
    together = tokens_of(make(stack, rows=12).sample(requests, sampling))
    for request, found in zip(requests, together, strict=True):
        one = jax.tree.map(lambda leaf, a=request.adapter: leaf[a : a + 1], stack)
        alone = make(one).sample([dataclasses.replace(request, adapter=0)], sampling)
        assert tokens_of(alone) == [found]
    assert together[0] != together[1] != together[2]


@pytest.mark.slow
@pytest.mark.parametrize("stacked", [False, True])
def test_adapters_of_the_last_layers_add_nothing_in_the_first(make, stacked, monkeypatch):
    monkeypatch.setattr(BaseWeights, "always_stacked", stacked)
    whole = jax.tree.map(lambda leaf: leaf[None], random_adapter())
    padded = jax.tree.map(lambda leaf: leaf.at[:, 0].set(0.0), whole)
    last = jax.tree.map(lambda leaf: leaf[:, 1:], whole)
    asked, sampling = [Request(p, (0, 1)) for p in prompts(5, 30)], SamplingParams(max_tokens=10)
    found = tokens_of(make(last).sample(asked, sampling))
    assert found == tokens_of(make(padded).sample(asked, sampling)) != tokens_of(make().sample(asked, sampling))


@pytest.mark.slow
def test_a_zero_adapter_is_the_base(make):
    asked = [Request(p, (0, 1)) for p in prompts(5, 30)]
    zero = jax.tree.map(lambda leaf: jnp.zeros_like(leaf)[None], random_adapter())
    sampling = SamplingParams(max_tokens=LONG)
    assert tokens_of(make(zero).sample(asked, sampling)) == tokens_of(make().sample(asked, sampling))


@pytest.mark.slow
def test_stop_strings_end_a_sample_before_them(make):
    (prompt,) = prompts(9)
    free = make().sample([Request(prompt, tuple(range(4)))], SamplingParams(max_tokens=40))[0]
    for completion in free:
        for place, length in ((3, 1), (8, 4), (15, 3), (17, 1)):
            stop = completion.text[place : place + length]
            if BROKEN in stop:
                continue
            sampling = SamplingParams(max_tokens=40, stop=(stop, "never said"))
            ((found,),) = make().sample([Request(prompt, (completion.index,))], sampling)
            assert (found.end, found.text) == ("stop", completion.text[: completion.text.index(stop)])
            assert found.tokens == completion.tokens[: len(found.tokens)]
            watched = []
            make().sample(
                [Request(prompt, (completion.index,))], sampling, on_text=lambda *said, to=watched: to.append(said)
            )
            assert watched[-1] == (0, completion.index, found.text)
            assert all(found.text.startswith(text) for _, _, text in watched)


def test_the_text_of_the_end_token_is_no_part_of_an_answer(make, tokenizer):
    (prompt,) = prompts(9)
    ((free,),) = make().sample([Request(prompt)], SamplingParams(max_tokens=40))
    end = free.tokens[11]
    said = free.tokens[: free.tokens.index(end)]
    # A stop string that only the end token's text would complete.
    stop = tokenizer.decode([said[-1], end])
    assert BROKEN not in stop and len(stop) == 2
    ((found,),) = make(ends=(end,)).sample([Request(prompt)], SamplingParams(max_tokens=40, stop=(stop,)))
    assert (found.end, found.tokens, found.text) == ("eos", (*said, end), tokenizer.decode(said))


def test_what_is_said_on_the_way(make):
    (prompt,) = prompts(9)
    said, done, counts = [], [], []
    result = make().sample(
        [Request(prompt, (0, 1))],
        SamplingParams(max_tokens=40),
        on_text=lambda request, sample, text: said.append((request, sample, text)),
        on_done=lambda request, completion: done.append((request, completion)),
        progress=lambda finished, total, speed: counts.append((finished, total)),
    )
    assert done == [(0, completion) for completion in result[0]]
    assert all(isinstance(completion, Completion) for _, completion in done)
    for index in (0, 1):
        texts = [text for _, sample, text in said if sample == index]
        assert texts[-1] == result[0][index].text
        assert len(texts) == 40 // WATCHED
        assert all(later.startswith(earlier) for earlier, later in itertools.pairwise(texts))
    assert counts[-1] == (2, 2)


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"temperature": -1.0}, "sampling.temperature=-1.0 is not allowed: give a number of at least 0"),
        ({"temperature": float("nan")}, "sampling.temperature"),
        ({"top_p": 0.0}, "sampling.top_p=0.0 is not allowed"),
        ({"top_p": 1.5}, "sampling.top_p=1.5 is not allowed"),
        ({"top_k": -1}, "sampling.top_k=-1 is not allowed"),
        ({"max_tokens": 0}, "sampling.max_tokens=0 is not allowed"),
        ({"stop": ("a", "")}, "strings that are not empty"),
        ({"stop": ""}, "strings that are not empty"),
        ({"seed": -1}, "sampling.seed=-1 is not allowed: give a whole number from 0"),
    ],
)
def test_sampling_that_cannot_be(wrong, words):
    with pytest.raises(UserError, match=words):
        SamplingParams(**wrong)


def test_one_stop_string_may_go_alone():
    assert SamplingParams(stop="zq") == SamplingParams(stop=("zq",)) == SamplingParams(stop=["zq"])  # type: ignore[arg-type]


def test_prompts_that_do_not_fit(make):
    context = ARCHITECTURE.context
    long = np.zeros(context, np.int32)
    with pytest.raises(UserError, match=rf"prompt 2 has {context} tokens.*holds {context - 20} beside"):
        make().sample([Request(long[:5]), Request(long)], SamplingParams(max_tokens=20))
    with pytest.raises(UserError, match="prompt 1 is empty"):
        make().sample([Request(long[:0])], SamplingParams(max_tokens=20))
    with pytest.raises(UserError, match=rf"max_tokens={context} leaves no room .* give at most {context - 1}"):
        make().sample([Request(long[:5])], SamplingParams(max_tokens=context))
    with pytest.raises(UserError, match=r"p\.txt line 7 is empty"):
        check_requests(
            [Request(long[:5]), Request(long[:0])], SamplingParams(), context, ["p.txt line 1", "p.txt line 7"]
        )


def test_nothing_asked_is_nothing_done(make):
    assert make().sample([], SamplingParams()) == []


def test_buckets_are_few_and_close():
    sizes = sorted({bucket(length) for length in range(1, 4097)})
    assert sizes[:6] == [16, 24, 32, 48, 64, 96]
    assert len(sizes) == 17
    assert all(bucket(length) >= length for length in range(1, 4097))


def test_off_a_cpu_buckets_are_fewer(monkeypatch):
    monkeypatch.setattr(bucketing, "on_cpu", lambda: False)
    assert sorted({bucket(length) for length in range(1, 4097)}) == [64, 128, 256, 512, 1024, 2048, 4096]
    assert all(bucket(length) >= length for length in range(1, 4097))


def spoiled(part):
    """Weights whose last norm overflows, or whose logits are NaN."""
    params = random_params()
    scale = params["norm"]["scale"]
    params["norm"]["scale"] = scale * 3e38 if part == "overflow" else scale.at[0].set(jnp.nan)
    return BaseWeights(params, ARCHITECTURE.tied)


@pytest.mark.parametrize("temperature", [0.0, 1.0])
@pytest.mark.parametrize("part", ["overflow", "nan"])
def test_logits_that_are_not_finite_are_an_error_and_no_answer(tokenizer, programs, temperature, part):
    done = []
    sampler = Sampler(ARCHITECTURE, spoiled(part), None, tokenizer, programs, 2, NEVER)
    asked = [Request(prompt) for prompt in prompts(4, 5)]
    with pytest.raises(UserError, match="the model's logits are NaN or infinite, so there is no answer"):
        sampler.sample(
            asked, SamplingParams(temperature=temperature, max_tokens=4), on_done=lambda *one: done.append(one)
        )
    assert done == []


@pytest.mark.slow
def test_an_adapter_whose_effect_overflows_is_an_error_and_no_answer(make):
    # The squares in the norms overflow. Without a test of them all hidden states, and so all logits, would be zero.
    stack = jax.tree.map(lambda leaf: leaf[None], effective(random_adapter(), 1e25))
    with pytest.raises(UserError, match=r"a smaller adapter\.scale"):
        make(stack).sample([Request(prompts(4)[0])], SamplingParams(max_tokens=4))
