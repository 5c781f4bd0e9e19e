"""The PyTorch side of sft.py: PEFT with Transformers' own model and loss."""

import json
import os
import sys
import time
import warnings
from pathlib import Path

import peft
import torch
import transformers

from jaxalign.config.train import TrainConfig

RELEASED_BATCH, RELEASED_LENGTH = 8, 128
"""Examples of a step, and tokens of an example, in the code released with the paper."""


class Peft:
    """LoRA by PEFT.

    `released`: float32, batch 8, all padded to 128 tokens and cut there. Otherwise: no token cut, examples of one
    length together, padded to the longest of the step; in float32, or with `bf16` by autocast over a bf16 base (the
    adapter stays float32).
    """

    compiled = 0.0

    def __init__(self, config: TrainConfig, work: Path, *, released: bool, bf16: bool):
        torch.set_num_threads(os.cpu_count() or 1)
        torch.manual_seed(config.training.seed)
        transformers.utils.logging.disable_progress_bar()
        warnings.filterwarnings("ignore", category=FutureWarning, module="transformers")
        self.optimizer_config, self.released, self.bf16 = config.optimizer, released, bf16
        self.batch_size = RELEASED_BATCH if released else config.training.batch_size
        dtype = torch.bfloat16 if bf16 else torch.float32
        base = transformers.AutoModelForCausalLM.from_pretrained(work / "base", dtype=dtype)
        base.config.use_cache = False
        rank, alpha, targets = config.lora.rank, config.lora.alpha, list(config.lora.targets)
        adapter = peft.LoraConfig(r=rank, lora_alpha=alpha, target_modules=targets, task_type="CAUSAL_LM")
        self.model = peft.get_peft_model(base, adapter)

    def begin(self, stage: dict[str, list]) -> list[int]:
        """Cut the examples into steps: shuffled as released, otherwise sorted by length and the steps shuffled."""
        train, self.validation = stage["train"], stage["validation"]
        generator = torch.Generator().manual_seed(0)

        def shuffled(items: list) -> list:
            return [items[i] for i in torch.randperm(len(items), generator=generator).tolist()]

        self.steps = self._cut(shuffled(train)) if self.released else shuffled(self._cut(by_length(train)))
        self.weights = [p for p in self.model.parameters() if p.requires_grad]
        o = self.optimizer_config
        self.optimizer = torch.optim.AdamW(
            self.weights, o.learning_rate, betas=tuple(o.betas), eps=o.epsilon, weight_decay=o.weight_decay
        )
        self.length = RELEASED_LENGTH if self.released else None
        limit = self.length or sys.maxsize
        self.tokens = [sum(min(len(p) + len(r), limit) for p, r in step) for step in self.steps]
        return self.tokens

    def _cut(self, examples: list) -> list[list]:
        return [examples[i : i + self.batch_size] for i in range(0, len(examples), self.batch_size)]

    def _loss(self, examples: list, length: int | None):
        """Return the mean loss over the responses' tokens, padded (and cut) to a length, or padded to the longest."""
        size = length or max(len(p) + len(r) for p, r in examples)
        ids = torch.zeros(len(examples), size, dtype=torch.long)
        mask, labels = torch.zeros_like(ids), torch.full_like(ids, -100)
        for row, (prompt, response) in enumerate(examples):
            tokens = torch.tensor((prompt + response)[:size])
            ids[row, : len(tokens)], mask[row, : len(tokens)] = tokens, 1
            labels[row, len(prompt) : len(tokens)] = tokens[len(prompt) :]
        with torch.autocast("cpu", torch.bfloat16, enabled=self.bf16):
            return self.model(input_ids=ids, attention_mask=mask, labels=labels).loss

    def step(self, number: int) -> None:
        """Train one step."""
        self._loss(self.steps[number], self.length).backward()
        if self.optimizer_config.clip is not None:
            torch.nn.utils.clip_grad_norm_(self.weights, self.optimizer_config.clip)
        self.optimizer.step()
        self.optimizer.zero_grad()

    def wait(self) -> None:
        """PyTorch has computed a step on the processor when it returns."""

    def validate(self) -> float:
        """Return the validation loss, on whole examples whatever the training cuts."""
        total = count = 0
        with torch.no_grad():
            for examples in self._cut(by_length(self.validation)):
                tokens = sum(len(response) for _, response in examples)
                total, count = total + self._loss(examples, None).item() * tokens, count + tokens
        return total / count

    def breakdown(self) -> str:
        """Say what share of the computed tokens was padding."""
        computed = sum(len(step) * (self.length or max(len(p) + len(r) for p, r in step)) for step in self.steps)
        return f"padding {1 - sum(self.tokens) / computed:.0%}"


def faster_format(config: TrainConfig, work: Path) -> dict[str, float]:
    """Return the seconds of a small step, best configured, with bf16 and with float32.

    It has two examples of middle length: without bf16 instructions, a whole step in bf16 takes minutes.
    """
    stage = next(iter(json.loads((work / "examples.json").read_text()).values()))
    ordered = by_length(stage["train"])
    stage = {**stage, "train": ordered[len(ordered) // 2 :][:2]}
    seconds = {}
    for name in ("bf16", "float32"):
        contender = Peft(config, work, released=False, bf16=name == "bf16")
        contender.begin(stage)
        contender.step(0)
        start = time.perf_counter()
        contender.step(0)
        seconds[name] = time.perf_counter() - start
    return seconds


def by_length(examples: list) -> list:
    """Return examples in the order of their number of tokens."""
    return sorted(examples, key=lambda example: len(example[0]) + len(example[1]))
