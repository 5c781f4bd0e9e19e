"""The rounds of preference optimisation in a run of the whole loop."""

import json

import jax.numpy as jnp
import numpy as np
import pytest
from runs_of_tiny import read_tiny

from jaxalign.data.encoding import Encoder
from jaxalign.data.preferences import Responses
from jaxalign.inference.base_model import BaseModel
from jaxalign.inference.reference import read_reference
from jaxalign.parallel.compilation import Programs
from jaxalign.pretrained.peft import read_adapter
from jaxalign.runs.records import read_records


def test_every_round_begins_at_the_adapter_that_the_one_before_ended_with(whole, tmp_path):
    stage = whole / "stages" / "dpo"
    metrics = read_records(stage / "metrics.jsonl")
    summary = json.loads((stage / "summary.json").read_text())
    assert [one["reference"]["name"] for one in summary["training"]] == ["sft", "round 1"]
    for name in ("round-1", "round-2"):
        first, *_, last = [record for record in metrics if record["stage"] == name]
        assert first["step"] == 1 and first["loss"] == pytest.approx(np.log(2), abs=1e-4)
        assert last["loss"] != pytest.approx(np.log(2), abs=1e-3)
        assert {"rewards/margins", "rewards/accuracies", "logps/chosen"} <= set(first)
    # The reference's numbers are those of the adapters on the disk, read anew.
    model = read_tiny(384)
    base, encoder = BaseModel(model, jnp.float32, Programs()), Encoder(model.tokenizer)
    pairs = read_records(whole / "pairs.jsonl")
    written = {record["key"]: record["log_prob"] for record in read_records(stage / "reference.jsonl")}
    for number, folder in ((1, whole / "stages" / "sft" / "adapter"), (2, stage / "rounds" / "1")):
        mine = [one for one in pairs if one["round"] == number]
        texts = list(dict.fromkeys((one["prompt"], one[side]) for one in mine for side in ("chosen", "rejected")))
        data = Responses(
            [encoder.prompt(prompt) for prompt, _ in texts],
            [encoder.branches(prompt, [text], end=True)[1][0] for prompt, text in texts],
            list(range(len(texts))),
            np.zeros(len(texts)),
        )
        scorer = base.scorer(read_adapter(folder, model.architecture).params, 2.0)
        path = tmp_path / f"{number}.jsonl"
        found = read_reference(scorer, data, range(len(texts)), path, model=f"{model.signature}-float32")
        np.testing.assert_allclose([written[record["key"]] for record in read_records(path)], found, atol=1e-4)
