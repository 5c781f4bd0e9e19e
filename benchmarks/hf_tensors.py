"""The parameters of a loaded model under their Hugging Face names, for other programs."""

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from jaxalign.models.architecture import Architecture
from jaxalign.models.linear import compute_type
from jaxalign.pretrained.parameters import LAST_NORM, parameter_leaves


def hf_tensors(architecture: Architecture, params: Mapping[str, Any]) -> Iterator[tuple[str, np.ndarray]]:
    """Yield every tensor with its Hugging Face name and shape: the inverse of `load_params`.

    All tensors have the type of the embedding, also the norms, as Transformers writes them.
    """
    dtype = compute_type(params)
    for leaf in parameter_leaves(architecture):
        values: Any = params
        for key in leaf.path:
            values = values[key]
        values = np.asarray(values)
        values = values.view(dtype) if values.dtype == np.uint16 else values
        names = leaf.names(architecture.layers)
        offset = 1 if leaf.norm and architecture.norm_offset else 0
        for name, row in zip(names, values if leaf.stacked else values[None], strict=True):
            array = row.T if leaf.transposed else row - offset if offset else row
            array = array / np.float32(architecture.logit_scale) if leaf.path == LAST_NORM else array
            yield name, np.ascontiguousarray(array, dtype)
