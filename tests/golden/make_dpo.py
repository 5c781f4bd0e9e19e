"""Write dpo.json: losses, gradients and rewards of TRL's DPOTrainer for given log-probabilities.

Run by hand, with the extra `bench` installed: python tests/golden/make_dpo.py. The trainer's own loss is called on a
model whose log-probabilities are the leaves that the gradient is taken in.
"""

import json
from collections import defaultdict
from pathlib import Path
from types import SimpleNamespace

import torch
import trl
from trl import DPOTrainer


class Given(torch.nn.Module):
    """A model that returns log-probabilities as they are given."""

    def __init__(self, log_probs):
        super().__init__()
        self.log_probs = torch.nn.Parameter(log_probs)

    def forward(self, **_):
        zeros = torch.zeros_like(self.log_probs)
        return SimpleNamespace(log_probs=self.log_probs, entropy=zeros, mean_logits=zeros, is_top1=zeros.bool())


def main() -> None:
    random = torch.Generator().manual_seed(0)
    cases = []
    for loss, beta in [("sigmoid", 0.1), ("sigmoid", 1.0), ("ipo", 0.1), ("ipo", 0.5), ("hinge", 0.1), ("hinge", 1.0)]:
        cases.append(case(loss, beta, random))
    # TRL smooths the labels of its `aot` loss, which of a single pair is the sigmoid's.
    cases += [case("aot", beta, random, pairs=1, smoothing=0.2) | {"loss": "sigmoid"} for beta in (0.1, 1.0)]
    text = json.dumps({"trl": trl.__version__, "cases": cases}, indent=1)
    (Path(__file__).parent / "dpo.json").write_text(text + "\n")


def case(loss: str, beta: float, random: torch.Generator, pairs: int = 5, smoothing: float = 0.0) -> dict:
    longest = 7
    lengths = torch.randint(2, longest + 1, (2 * pairs,), generator=random)
    mask = (torch.arange(longest) < lengths[:, None]).float()
    tokens = -2.0 * torch.rand((2 * pairs, longest), generator=random) * mask
    reference = (tokens - 0.5 * torch.randn(tokens.shape, generator=random) * mask).sum(1)
    model = Given(tokens)
    metrics = defaultdict(list)
    trainer = SimpleNamespace(
        accelerator=SimpleNamespace(
            device=torch.device("cpu"), gather_for_metrics=lambda x: x, gather=lambda x: x, unwrap_model=lambda m: m
        ),
        precompute_ref_logps=True,
        loss_types=[loss],
        loss_weights=[1.0],
        beta=beta,
        label_smoothing=smoothing,
        ld_alpha=None,
        f_divergence_type="reverse_kl",
        use_weighting=False,
        aux_loss_enabled=False,
        model=model,
        _metrics={"train": metrics, "eval": metrics},
        _is_vision_dataset=False,
        _total_train_tokens=0,
        _tp_size=1,
    )
    inputs = {
        "input_ids": torch.cat([torch.zeros((2 * pairs, 1)), torch.ones_like(mask)], 1).long(),
        "attention_mask": torch.cat([torch.ones((2 * pairs, 1)), mask], 1).long(),
        "completion_mask": torch.cat([torch.zeros((2 * pairs, 1)), mask], 1).long(),
        "ref_chosen_logps": reference[:pairs],
        "ref_rejected_logps": reference[pairs:],
    }
    value = loss_of(trainer, model, inputs)
    value.backward()
    assert model.log_probs.grad is not None
    # Every token of a response has the same gradient: that of the response's log-probability.
    gradient = model.log_probs.grad[:, 0]
    sums = tokens.sum(1)
    return {
        "loss": loss,
        "beta": beta,
        "smoothing": smoothing,
        "chosen": sums[:pairs].tolist(),
        "rejected": sums[pairs:].tolist(),
        "reference_chosen": reference[:pairs].tolist(),
        "reference_rejected": reference[pairs:].tolist(),
        "lengths": lengths.tolist(),
        "value": value.item(),
        "gradient": gradient.tolist(),
        "rewards/chosen": metrics["rewards/chosen"][0],
        "rewards/rejected": metrics["rewards/rejected"][0],
        "rewards/margins": metrics["rewards/margins"][0],
        "rewards/accuracies": metrics["rewards/accuracies"][0],
    }


def loss_of(trainer, model, inputs) -> torch.Tensor:
    """Call the part of TRL that turns log-probabilities into the loss."""
    return DPOTrainer._compute_loss(trainer, model, inputs, return_outputs=False)  # type: ignore[arg-type]


if __name__ == "__main__":
    main()
