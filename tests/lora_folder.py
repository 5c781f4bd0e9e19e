"""Adapters on disk, of a few hundred random weights."""

import numpy as np
from model_folder import CONFIGS

from jaxalign.models.adapter import Adapter
from jaxalign.models.architecture import PROJECTIONS, from_config, projection_shape
from jaxalign.pretrained.peft import write_adapter

CONFIG = CONFIGS["llama"]
ARCHITECTURE = from_config(CONFIG)


def random_adapter(targets=PROJECTIONS, rank=3, count=3):
    random = np.random.default_rng(0)
    layers = {}
    for name in targets:
        inner, outer = projection_shape(ARCHITECTURE, name)
        a, b = random.standard_normal((count, inner, rank)), random.standard_normal((count, rank, outer))
        layers[name] = {"a": a.astype(np.float32), "b": b.astype(np.float32)}
    return {"layers": layers}


def write(folder, params, alpha=6.0, rank=3, factor=1.0, first_layer=0):
    notes = {"value": "power", "scores": [6, 1]}
    known = {"base_identity": "abc", "base_name": "org/base", "prompt_format": "plain", "notes": notes}
    write_adapter(
        folder,
        Adapter("mine", params, rank, alpha, factor, first_layer=first_layer, **known),
        dropout=0.1,
        card="# A card",
    )
    return folder
