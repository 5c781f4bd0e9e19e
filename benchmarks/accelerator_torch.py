"""The PyTorch side of accelerator.py: PEFT, TRL and Transformers, with random weights drawn on the device."""

import argparse
import gc
import os
import resource
import time
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import peft
import torch
import transformers
from accelerator_turns import WARM, wait_for_turn
from accelerator_work import examples, questions
from shapes import SIZES

CUDA = torch.cuda.is_available()
DEVICE = torch.device("cuda" if CUDA else "cpu")
DTYPE = torch.bfloat16 if CUDA else torch.float32  # bf16 is slow on many CPUs


def base_of(size: str) -> Any:
    """Return Transformers' own model of a size, with random weights and PyTorch's fused attention."""
    torch.manual_seed(0)
    torch.set_float32_matmul_precision("high")
    torch.set_num_threads(os.cpu_count() or 1)
    config = transformers.AutoConfig.for_model(**SIZES[size])
    with DEVICE:
        return transformers.AutoModelForCausalLM.from_config(config, dtype=DTYPE, attn_implementation="sdpa")


def adapted(args: argparse.Namespace, size: str) -> Any:
    """Return the model with a new adapter on all projections, which is float32."""
    names = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
    adapter = peft.LoraConfig(r=args.rank, lora_alpha=args.rank, target_modules=names, task_type="CAUSAL_LM")
    base = base_of(size)
    base.config.use_cache = False
    return peft.get_peft_model(base, adapter, autocast_adapter_dtype=True)


def sft(args: argparse.Namespace, size: str, name: str) -> dict[str, Any]:
    """Time steps of PEFT with Transformers' own loss: examples of one length together, padded to the longest."""
    model, pairs = adapted(args, size), examples(args, size)
    trained = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(trained, 1e-4, weight_decay=0.01, fused=CUDA)
    if name == "compiled":
        compile_repeated(model)
    # The longest first: they need the most memory, and warm up.
    pairs.sort(key=lambda pair: -len(pair[0]) - len(pair[1]))
    steps = [pairs[i : i + args.batch] for i in range(0, len(pairs), args.batch)]

    def loss_of(step: list) -> Any:
        longest = max(len(prompt) + len(response) for prompt, response in step)
        ids, labels, mask = np.zeros((3, len(step), longest), np.int64)
        labels -= 100
        for row, (prompt, response) in enumerate(step):
            ids[row, : len(prompt) + len(response)] = np.concatenate([prompt, response])
            mask[row, : len(prompt) + len(response)] = 1
            labels[row, len(prompt) : len(prompt) + len(response)] = response
        given = [torch.from_numpy(array).to(DEVICE) for array in (ids, mask, labels)]
        with torch.autocast(DEVICE.type, torch.bfloat16, enabled=CUDA):
            return model(**dict(zip(("input_ids", "attention_mask", "labels"), given, strict=True))).loss

    def train(step: list) -> Any:
        loss = loss_of(step)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(trained, 1.0)
        optimizer.step()
        optimizer.zero_grad()
        return loss.detach()

    def run() -> tuple[float, float]:
        first = train(steps[0]).item()
        for step in steps[1:]:
            train(step)  # a GPU loads a kernel when a length first asks for it, and torch.compile compiles
        return first, elapsed(lambda: [train(step) for step in steps])

    (first, seconds), note = with_less_memory(model, run)
    return finished(seconds, first, note) | {"tokens": sum(len(prompt) + len(response) for prompt, response in pairs)}


def compile_repeated(model: Any) -> None:
    """Compile a layer, once for all layers, and the loss, for any length of rows.

    Compiling the whole model would do the same work in one program, which takes minutes.
    """
    inner = model.base_model.model
    for layer in inner.model.layers:
        layer.compile(dynamic=True)
    inner.loss_function = torch.compile(inner.loss_function, dynamic=True)


def with_less_memory(model: Any, run: Callable[[], Any]) -> tuple[Any, str]:
    """Return what `run` returns, and a note: with checkpoints of activations if it does not fit otherwise."""
    try:
        return run(), ""
    except torch.OutOfMemoryError:
        pass  # outside of the handler, because the traceback holds the memory
    model.zero_grad()
    gc.collect()
    torch.cuda.empty_cache()
    model.enable_input_require_grads()
    model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    return run(), "with gradient checkpointing"


def dpo(args: argparse.Namespace, size: str, name: str) -> dict[str, Any]:
    """Time TRL's trainer; the reference is the base, which is the adapter's start."""
    from dpo import train_pairs

    from jaxalign.pretrained.tokenizer import tiny_tokenizer

    warnings.filterwarnings("ignore")
    tokenizer = transformers.PreTrainedTokenizerFast(tokenizer_object=tiny_tokenizer().hf.backend_tokenizer)
    tokenizer.pad_token = tokenizer.eos_token = tokenizer.convert_ids_to_tokens(0)
    asked = questions(args, size, args.pairs * (args.steps + 1), 2, args.response)
    wait_for_turn(WARM)  # its trainer times itself, and its first step warms up
    model = adapted(args, size)

    def run() -> dict[str, Any]:
        checkpointing = getattr(model.base_model.model, "is_gradient_checkpointing", False)
        settings = {"use_cpu": not CUDA, "gradient_checkpointing": checkpointing}
        return train_pairs(
            model, tokenizer, asked, args.pairs, args.work, precomputed=name == "precomputed", bf16=CUDA, **settings
        )

    found, note = with_less_memory(model, run)
    return finished(found["seconds"] + found["reference_seconds"], found["first_loss"], note)


def sampling(args: argparse.Namespace, size: str, name: str) -> dict[str, Any]:
    """Time `generate`."""
    from sampling import generate

    model = base_of(size).eval()
    (asked,) = questions(args, size, 1, 0, 0)
    prompt = torch.tensor([asked["prompt"]], device=DEVICE)
    generate(model, prompt, args.samples, 2)
    return finished(elapsed(lambda: generate(model, prompt, args.samples, args.tokens)))


def scoring(args: argparse.Namespace, size: str, name: str) -> dict[str, Any]:
    """Time a row for each prompt and answer, 16 in a batch; all have one length, so there is no padding."""
    model, asked = base_of(size).eval(), questions(args, size, args.questions, args.answers, args.answer)
    rows = torch.tensor([one["prompt"] + answer for one in asked for answer in one["responses"]], device=DEVICE)

    def score(count: int) -> None:
        with torch.inference_mode():
            for part in rows[:count].split(16):
                logits = model(part[:, :-1], use_cache=False, logits_to_keep=args.answer).logits.float()
                chosen = logits.log_softmax(-1).gather(2, part[:, -args.answer :, None])
                chosen.sum(1).tolist()

    score(16)
    return finished(elapsed(lambda: score(len(rows))))


def elapsed(work: Callable[[], Any]) -> float:
    """Return the seconds of a piece of work, after this process has warmed up."""
    if CUDA:
        torch.cuda.synchronize()
    wait_for_turn(WARM)
    start = time.perf_counter()
    work()
    if CUDA:
        torch.cuda.synchronize()
    return time.perf_counter() - start


def finished(seconds: float, loss: float | None = None, note: str = "") -> dict[str, Any]:
    """Return a task's result, with the largest memory so far."""
    memory = torch.cuda.max_memory_allocated() if CUDA else resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    return {"seconds": seconds, "loss": loss, "memory": memory, "note": note}
