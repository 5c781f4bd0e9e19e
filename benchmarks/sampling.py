"""Sampling: jaxalign against `generate` of Transformers on PyTorch, in bf16 and in float32. See README.md.

This process only starts others, one after another.
"""

import argparse
import dataclasses
import json
import os
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from machine import processor
from parts import child, need

CONTENDERS = {"jaxalign": "jaxalign", "bfloat16": "Transformers, bf16", "float32": "Transformers, float32"}


def main() -> None:
    args = arguments()
    if args.part is not None:
        print(json.dumps(PARTS[args.part](args)))
        return
    need("torch", "transformers")
    with tempfile.TemporaryDirectory(prefix="jaxalign-bench-") as folder:
        child("prepare", "prepare", Path(folder))
        results = {name: child(name, title, Path(folder)) for name, title in CONTENDERS.items()}
    report(args, results)


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--prompt", type=int, default=512, help="tokens of the prompt (default: 512)")
    parser.add_argument("--tokens", type=int, default=64, help="new tokens of each sample (default: 64)")
    parser.add_argument("--samples", type=int, nargs="+", default=[1, 16, 64], help="N (default: 1 16 64)")
    parser.add_argument("--repeat", type=int, default=2, help="runs of each, of which the fastest counts (default: 2)")
    parser.add_argument("--contender", dest="part", choices=list(PARTS), help=argparse.SUPPRESS)
    parser.add_argument("--work", type=Path, help=argparse.SUPPRESS)
    args = parser.parse_args()
    # The first run of each length may still compile, so one alone would say nothing.
    if min(args.tokens, args.prompt, args.repeat) < 2 or min(args.samples) < 1:
        parser.error("--tokens, --prompt and --repeat must be at least 2, and --samples at least 1")
    return args


def report(args: argparse.Namespace, results: dict[str, dict[str, Any]]) -> None:
    print(
        f"\nSmolLM2-135M, a prompt of {args.prompt} tokens, {args.tokens} new ones, {processor()}; jaxalign in "
        f"{results['jaxalign']['precision']}"
    )
    print("first: seconds to the first token of all samples; then milliseconds for each further token of all of them\n")
    print(f"{'N':>4}  {'':24}{'new tokens/s':>14}{'first':>9}{'then':>9}{'jaxalign is':>16}")
    ratios = {}
    for number, count in enumerate(args.samples):
        speeds = {}
        for name, title in CONTENDERS.items():
            first, whole = results[name]["seconds"][number]
            speeds[name] = count * args.tokens / whole
            then = 1e3 * (whole - first) / (args.tokens - 1)
            ratio = "" if name == "jaxalign" else f"{speeds['jaxalign'] / speeds[name]:.1f} × as fast"
            print(f"{count:4}  {title:24}{speeds[name]:14,.0f}{first:9.2f}{then:9.1f}{ratio:>16}")
        ratios[count] = speeds["jaxalign"] / max(speed for name, speed in speeds.items() if name != "jaxalign")
        first, whole = results["jaxalign"]["seconds"][number]
        work = results["jaxalign"]["operations"]
        decoding = work["token"] * count * (args.tokens - 1) / (whole - first)
        peak = results["jaxalign"]["peak"]
        print(
            f"{'':6}jaxalign's products: {work['prompt'] / first / peak:.0%} of the measured peak to the first token, "
            f"{decoding / peak:.0%} after it\n"
        )
    ours = results["jaxalign"]
    print(f"the peak: {ours['peak'] / 1e9:.0f} GFLOP/s in a large {ours['precision']} product of the model's shapes")
    print(f"jaxalign compiled for {ours['compile_seconds']:.0f} s (empty cache), which is in no figure")
    print(f"sampling={ratios.get(16, ratios[args.samples[0]]):.2f}")


def fastest(args: argparse.Namespace, sample: Callable[[int, int], None]) -> list[tuple[float, float]]:
    """Return for each N (seconds to the first token, seconds to all), each the fastest of a few runs."""

    def seconds(count: int, tokens: int) -> float:
        start = time.perf_counter()
        sample(count, tokens)
        return time.perf_counter() - start

    found = []
    for count in args.samples:
        sample(count, 2)  # compiles, and warms up
        first, whole = (min(seconds(count, tokens) for _ in range(args.repeat)) for tokens in (1, args.tokens))
        found.append((first, whole))
        print(f"  N = {count}: {whole:.2f} s", file=sys.stderr, flush=True)
    return found


# The children


def prepare(args: argparse.Namespace) -> dict[str, Any]:
    """Write the prompt's tokens (real English) and the model as a Hugging Face folder."""
    from hf_tensors import hf_tensors

    from jaxalign.pretrained.gguf import GgufFile
    from jaxalign.pretrained.safetensors import write_safetensors
    from jaxalign.pretrained.sources import fetch
    from jaxalign.values.starter import load_starter

    model, source = load(offline=False)
    text = "\n".join(f"{argument.conclusion}: {argument.premise}" for argument in load_starter())
    (args.work / "prompt.json").write_text(json.dumps(model.tokenizer.encode(text)[: args.prompt].tolist()))
    base = args.work / "base"
    base.mkdir()
    write_safetensors(base / "model.safetensors", dict(hf_tensors(model.architecture, model.params)), {"format": "pt"})
    (base / "config.json").write_text(json.dumps(GgufFile(fetch(source, offline=True)).config()))
    return {}


def load(precision: str = "bfloat16", *, offline: bool) -> tuple[Any, Any]:
    """Return the default model, and where it comes from."""
    import jax.numpy as jnp
    import yaml

    from jaxalign.config.presets import CONF
    from jaxalign.pretrained.sources import read_model, source_of

    source = source_of(yaml.safe_load((CONF / "model" / "smollm2_135m.yaml").read_text()))
    return read_model(source, jnp.dtype(precision), offline=offline, name="smollm2_135m"), source


def jaxalign(args: argparse.Namespace) -> dict[str, Any]:
    """Time the sampler."""
    import jax.numpy as jnp
    import numpy as np

    from jaxalign.inference.base_model import BaseModel
    from jaxalign.inference.sampling_params import Request, SamplingParams
    from jaxalign.parallel.compilation import Programs, use_compilation_cache
    from jaxalign.parallel.processor import fast_precision

    use_compilation_cache(args.work / "xla")
    precision = fast_precision()[0]
    model, _ = load(precision, offline=True)
    programs = Programs()
    prompt = np.array(json.loads((args.work / "prompt.json").read_text()), np.int32)
    # No token ends a sample, so that all have the same length.
    sampler = dataclasses.replace(BaseModel(model, jnp.dtype(precision), programs).sampler(None), ends=(-1,))

    def sample(count: int, tokens: int) -> None:
        sampler.sample([Request(prompt, tuple(range(count)))], SamplingParams(max_tokens=tokens))

    weights = model.architecture.layers * layer_weights(model.architecture)
    head = model.architecture.vocab_size * model.architecture.width
    return {
        "seconds": fastest(args, sample),
        "precision": precision,
        "peak": product_peak(model.architecture, jnp.dtype(precision)),
        # Two operations a weight and token; of the prompt only the last token needs the head.
        "operations": {"token": 2 * (weights + head), "prompt": 2 * (weights * args.prompt + head)},
        "compile_seconds": programs.seconds,
    }


def layer_weights(architecture: Any) -> int:
    """Return the number of weights in one layer's projections."""
    from jaxalign.models.architecture import PROJECTIONS, projection_shape

    return sum(a * b for a, b in (projection_shape(architecture, name) for name in PROJECTIONS))


def product_peak(architecture: Any, dtype: Any, rows: int = 1024) -> float:
    """Return the operations per second of a product of so many rows with the gate's weights, in this format."""
    import jax
    import jax.numpy as jnp

    from jaxalign.models.linear import frozen_product

    width, out = architecture.width, architecture.ff_width
    x, kernel = jnp.ones((rows, width), dtype), jnp.ones((width, out), dtype)
    product = jax.jit(frozen_product)
    seconds = []
    for _ in range(30):
        start = time.perf_counter()
        jax.block_until_ready(product(x, kernel))
        seconds.append(time.perf_counter() - start)
    return 2 * rows * width * out / min(seconds)


def transformers(args: argparse.Namespace) -> dict[str, Any]:
    """Time `generate`."""
    import torch
    import transformers

    torch.set_num_threads(os.cpu_count() or 1)
    transformers.utils.logging.disable_progress_bar()
    dtype = {"bfloat16": torch.bfloat16, "float32": torch.float32}[args.part]
    model = transformers.AutoModelForCausalLM.from_pretrained(args.work / "base", dtype=dtype).eval()
    prompt = torch.tensor([json.loads((args.work / "prompt.json").read_text())])

    return {"seconds": fastest(args, partial(generate, model, prompt))}


def generate(model: Any, prompt: Any, count: int, tokens: int) -> None:
    """Draw so many samples of so many tokens with Transformers, and wait for them."""
    import torch

    with torch.inference_mode():
        model.generate(
            prompt,
            attention_mask=torch.ones_like(prompt),
            do_sample=True,
            temperature=1.0,
            top_k=0,
            top_p=1.0,
            num_return_sequences=count,
            max_new_tokens=tokens,
            min_new_tokens=tokens,
            eos_token_id=None,
            pad_token_id=0,
        )
    if prompt.is_cuda:
        torch.cuda.synchronize()


PARTS = {"prepare": prepare, "jaxalign": jaxalign, "bfloat16": transformers, "float32": transformers}

if __name__ == "__main__":
    main()
