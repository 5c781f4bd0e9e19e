"""The weights of a golden: drawn by NumPy from the tensors' names, so that no file has to hold them."""

import numpy as np


def draw(shapes: dict[str, tuple[int, ...]], norm_mean: float) -> dict[str, np.ndarray]:
    """Return float32 tensors for these names and shapes; norm scales lie around `norm_mean`, all else around 0."""
    tensors = {}
    for index, name in enumerate(sorted(shapes)):
        noise = np.random.default_rng([20, index]).standard_normal(shapes[name])
        mean, spread = (norm_mean, 0.1) if name.endswith("norm.weight") else (0.0, 0.12)
        tensors[name] = (mean + spread * noise).astype(np.float32)
    return tensors
