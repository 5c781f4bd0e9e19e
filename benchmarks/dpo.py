"""Preference optimisation: jaxalign against TRL's DPOTrainer, the reference being an adapter in both. See README.md.

This process only starts others, one after another.
"""

import argparse
import json
import os
import resource
import tempfile
import time
from pathlib import Path
from typing import Any

from machine import processor
from parts import child, need
from sampling import load

CONTENDERS = {
    "grouped": "jaxalign, by question",
    "paired": "jaxalign, pair by pair",
    "trl": "TRL, reference in every step",
    "precomputed": "TRL, reference precomputed",
}


def main() -> None:
    args = arguments()
    if args.part is not None:
        print(json.dumps(PARTS[args.part](args)))
        return
    need("torch", "trl", "peft")
    with tempfile.TemporaryDirectory(prefix="jaxalign-bench-") as folder:
        work = Path(folder)
        child("prepare", "prepare", work)
        formats = child("formats", "formats of TRL", work)
        (work / "format").write_text(min(formats, key=lambda name: formats[name]))
        results = {name: child(name, title, work) for name, title in CONTENDERS.items()}
    report(args, results, formats)


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--prompt", type=int, default=200, help="tokens of a prompt (default: 200)")
    parser.add_argument("--response", type=int, default=100, help="tokens of a response (default: 100)")
    parser.add_argument("--pairs", type=int, default=8, help="pairs of a step, pair by pair (default: 8)")
    parser.add_argument("--steps", type=int, default=8, help="steps that are timed, pair by pair (default: 8)")
    parser.add_argument("--rank", type=int, default=16, help="rank of the adapter (default: 16)")
    parser.add_argument("--contender", dest="part", choices=list(PARTS), help=argparse.SUPPRESS)
    parser.add_argument("--work", type=Path, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if min(args.prompt, args.response, args.pairs, args.steps, args.rank) < 1:
        parser.error("every number must be at least 1")
    return args


def report(args: argparse.Namespace, results: dict[str, dict[str, Any]], formats: dict[str, float]) -> None:
    print(
        f"\nSmolLM2-135M, rank {args.rank} on all projections, prompts of {args.prompt} tokens, responses of "
        f"{args.response}, {args.pairs} pairs a step (by question: {RESPONSES} responses and {PAIRS} pairs of each), "
        f"{processor()}\n"
    )
    heads = f"{'pairs/s':>9}{'responses/s':>13}{'first loss':>12}{'GiB':>7}{'reference s':>13}{'of steps s':>12}"
    print(f"{'':32}{heads}")
    for name, title in CONTENDERS.items():
        r = results[name]
        spent = r["seconds"] + r["reference_seconds"]
        r["speed"] = r["pairs"] / spent
        cells = f"{r['speed']:9.2f}{r['responses'] / spent:13.2f}{r['first_loss']:12.4f}{r['memory']:7.2f}"
        print(f"{title:32}{cells}{r['reference_seconds']:13.1f}{r['seconds']:12.1f}")
    tried = ", ".join(f"{took:.2f} s in {name}" for name, took in formats.items())
    print(f"\na step of TRL on one pair took {tried}: the faster format is taken")
    best = max(results[name]["speed"] for name in ("trl", "precomputed"))
    memory = min(results[name]["memory"] for name in ("trl", "precomputed"))
    print("all figures hold the reference's passes: TRL's once for each pair, ours once for each distinct response")
    for name in ("grouped", "paired"):
        share = results[name]["memory"] / memory
        print(f"{CONTENDERS[name]}: {share:.0%} of the peak memory of the leaner TRL")
    print(f"jaxalign compiled for {results['grouped']['compile_seconds']:.0f} s (empty cache), which is in no figure")
    print(f"paired={results['paired']['speed'] / best:.2f} grouped={results['grouped']['speed'] / best:.2f}")


RESPONSES, PAIRS = 8, 6
"""Of a question, where pairs are grouped."""


# The children


def prepare(args: argparse.Namespace) -> dict[str, Any]:
    """Write texts cut to the lengths, the base as a Hugging Face folder, and a starting adapter."""
    import jax
    import numpy as np
    from hf_tensors import hf_tensors

    from jaxalign.models.adapter import Adapter
    from jaxalign.models.architecture import PROJECTIONS
    from jaxalign.models.lora import init_adapter
    from jaxalign.pretrained.gguf import GgufFile
    from jaxalign.pretrained.peft import write_adapter
    from jaxalign.pretrained.safetensors import write_safetensors
    from jaxalign.pretrained.sources import fetch
    from jaxalign.values.starter import load_starter

    model, source = load(offline=False)
    text = "\n".join(f"{argument.conclusion}: {argument.premise}" for argument in load_starter())
    tokens = model.tokenizer.encode(text)
    random = np.random.default_rng(0)

    def cut(length: int) -> list[int]:
        start = int(random.integers(len(tokens) - length))
        return tokens[start : start + length].tolist()

    questions = args.pairs * (args.steps + 1)
    grouped = [{"prompt": cut(args.prompt), "responses": [cut(args.response) for _ in range(RESPONSES)]}
               for _ in range(questions)]  # fmt: skip
    (args.work / "questions.json").write_text(json.dumps(grouped))
    base = args.work / "base"
    base.mkdir()
    write_safetensors(base / "model.safetensors", dict(hf_tensors(model.architecture, model.params)), {"format": "pt"})
    (base / "config.json").write_text(json.dumps(GgufFile(fetch(source, offline=True)).config()))
    drawn = init_adapter(jax.random.key(0), model.architecture, args.rank, PROJECTIONS)
    layers = {
        name: {"a": np.asarray(p["a"]), "b": 1e-3 * random.standard_normal(p["b"].shape).astype(np.float32)}
        for name, p in drawn["layers"].items()
    }
    known = {"base_name": str(base), "base_identity": model.identity, "prompt_format": "plain"}
    adapter = Adapter("start", {"layers": layers}, args.rank, args.rank, **known)
    write_adapter(args.work / "adapter", adapter, dropout=0.0, card="# benchmark\n")
    return {}


def jaxalign(args: argparse.Namespace) -> dict[str, Any]:
    """Time steps of training, and the reading of their reference."""
    import jax
    import jax.numpy as jnp
    import numpy as np
    from timed_steps import timed_steps

    from jaxalign.data.preferences import PreferencePair, Responses
    from jaxalign.inference.base_model import BaseModel
    from jaxalign.inference.reference import read_reference
    from jaxalign.parallel.compilation import Programs, use_compilation_cache
    from jaxalign.parallel.processor import fast_precision
    from jaxalign.pretrained.peft import read_adapter
    from jaxalign.training.feed import StageSettings
    from jaxalign.training.optimizer import Hyperparameters
    from jaxalign.training.preference import PreferenceStage
    from jaxalign.training.state import init_state

    use_compilation_cache(args.work / "xla")
    precision = fast_precision()[0]
    model, _ = load(precision, offline=True)
    programs = Programs()
    base = BaseModel(model, jnp.dtype(precision), programs)
    questions = json.loads((args.work / "questions.json").read_text())
    grouped = args.part == "grouped"
    each = RESPONSES if grouped else 2
    prompts = [np.array(one["prompt"], np.int32) for one in questions]
    responses = [np.array(r, np.int32) for one in questions for r in one["responses"][:each]]
    owner = [number for number in range(len(questions)) for _ in range(each)]
    data = Responses(prompts, responses, owner, np.zeros(len(responses)))
    places = [(0, 1), (2, 3), (4, 5), (6, 7), (0, 4), (2, 6)] if grouped else [(0, 1)]
    pairs = [PreferencePair(each * q + a, each * q + b) for q in range(len(questions)) for a, b in places]
    hyper = Hyperparameters(6e-6, clip=1.0, scale=1.0, beta=0.1)
    settings = StageSettings(
        epochs=1,
        max_steps=args.steps + 1,
        max_tokens=None,
        batch_size=args.pairs,
        seed=0,
        log_every=1,
        checkpoint_every=10**6,
        keep_checkpoints=1,
        row_length=1024,
        max_rows=None,
        packing=True,
        share_prompts=True,
        validate=False,
        optimizer="adamw",
        schedule="constant",
        warmup_steps=0,
        hyper=hyper,
    )
    adapter = jax.tree.map(jnp.asarray, read_adapter(args.work / "adapter", model.architecture).params)
    stage = PreferenceStage("dpo", data, pairs, grouped=grouped)
    steps = [step for _, step in stage.feed(settings).steps]
    used = [sorted({r for n in step for r in pairs[n]}) for step in steps]
    scorer = base.scorer(adapter, 1.0)
    members = [r for part in used[1:] for r in part]
    read_reference(scorer, data, members)  # compiles
    start = time.perf_counter()
    reference = read_reference(scorer, data, members)
    reference_seconds = time.perf_counter() - start
    reference += read_reference(scorer, data, used[0])
    feed = PreferenceStage("dpo", Responses(prompts, responses, owner, reference), pairs, grouped=grouped).feed(
        settings
    )
    network, params = base.network("projections"), base.weights(False)
    seconds, first_loss = timed_steps(feed, network, params, init_state(adapter, 0), hyper, programs)
    return {
        "seconds": seconds,
        "reference_seconds": reference_seconds,
        "pairs": sum(map(len, steps[1:])),
        "responses": len(members),
        "first_loss": first_loss,
        "memory": peak(),
        "compile_seconds": programs.seconds,
    }


def peak() -> float:
    """Return the largest resident size of this process, in GiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


def trl(args: argparse.Namespace) -> dict[str, Any]:
    """Time TRL's trainer in the number format that was faster."""
    bf16 = (args.work / "format").read_text() == "bf16"
    found = trl_steps(args, args.pairs, args.steps + 1, precomputed=args.part == "precomputed", bf16=bf16)
    return {**found, "memory": peak()}


def trl_formats(args: argparse.Namespace) -> dict[str, float]:
    """Return the seconds of a step of TRL on one pair, with the base in bf16 and in float32.

    Without bf16 instructions, a whole step in bf16 takes minutes.
    """
    return {
        name: trl_steps(args, 1, 2, precomputed=False, bf16=name == "bf16")["seconds"] for name in ("bf16", "float32")
    }


def trl_steps(args: argparse.Namespace, pairs: int, steps: int, *, precomputed: bool, bf16: bool) -> dict[str, Any]:
    """Time TRL's trainer on tokens given, two responses to each prompt; the adapter is float32."""
    import torch
    from peft import PeftModel
    from transformers import AutoModelForCausalLM, PreTrainedTokenizerFast

    torch.set_num_threads(os.cpu_count() or 1)
    questions = json.loads((args.work / "questions.json").read_text())[: pairs * steps]
    model, _ = load(offline=True)
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=model.tokenizer.hf.backend_tokenizer)
    tokenizer.pad_token = tokenizer.eos_token = tokenizer.convert_ids_to_tokens(model.tokenizer.eos_id)
    network = AutoModelForCausalLM.from_pretrained(args.work / "base", dtype=torch.bfloat16 if bf16 else torch.float32)
    adapted = PeftModel.from_pretrained(network, args.work / "adapter", is_trainable=True, autocast_adapter_dtype=True)
    return train_pairs(adapted, tokenizer, questions, pairs, args.work, precomputed=precomputed, bf16=bf16)


def train_pairs(
    adapted: Any,
    tokenizer: Any,
    questions: list[dict[str, Any]],
    pairs: int,
    work: Path,
    *,
    precomputed: bool,
    bf16: bool,
    **settings: Any,
) -> dict[str, Any]:
    """Time TRL's trainer on the first two responses to each prompt, `pairs` in a step; the first step warms up.

    `settings` are further ones of DPOConfig; without any, it computes on the CPU.
    """
    from datasets import Dataset
    from transformers import TrainerCallback
    from trl import DPOConfig, DPOTrainer

    rows = [
        {"prompt_ids": one["prompt"], "chosen_ids": one["responses"][0], "rejected_ids": one["responses"][1]}
        for one in questions
    ]
    steps = len(rows) // pairs
    config = DPOConfig(
        output_dir=str(work / "trl"),
        per_device_train_batch_size=pairs,
        max_steps=steps,
        learning_rate=6e-6,
        lr_scheduler_type="constant",
        max_grad_norm=1.0,
        beta=0.1,
        max_length=None,
        precompute_ref_log_probs=precomputed,
        bf16=bf16,
        logging_steps=1,
        report_to=[],
        save_strategy="no",
        disable_tqdm=True,
        dataloader_pin_memory=False,
        **({"gradient_checkpointing": False, "use_cpu": True} | settings),
    )
    marks: list[float] = []

    class Clock(TrainerCallback):
        """Notes when each step ends."""

        def on_step_end(self, *_args, **_kwargs):
            marks.append(time.perf_counter())

    class Prepared(DPOTrainer):
        """Takes token ids as they are."""

        def _prepare_dataset(self, dataset, *_args, **_kwargs):
            return dataset

    start = time.perf_counter()
    trainer = Prepared(
        adapted, args=config, train_dataset=Dataset.from_list(rows), processing_class=tokenizer, callbacks=[Clock()]
    )
    reference_seconds = time.perf_counter() - start if precomputed else 0.0
    trainer.train()
    timed = pairs * (steps - 1)
    # The first step, which warms up, is left out; of a precomputed reference, its share.
    return {
        "seconds": marks[-1] - marks[0],
        "reference_seconds": reference_seconds * (steps - 1) / steps,
        "pairs": timed,
        "responses": 2 * timed,
        "first_loss": trainer.state.log_history[0]["loss"],
    }


PARTS = {"prepare": prepare, "formats": trl_formats}
PARTS |= {"grouped": jaxalign, "paired": jaxalign, "trl": trl, "precomputed": trl}

if __name__ == "__main__":
    main()
