"""Bfloat16 is kept as bits on a CPU alone."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxalign.models.linear import compute_type, to_stored
from jaxalign.models.precision import bits_type, from_bits, take_rows, to_bits


@pytest.mark.parametrize(("backend", "stored"), [("cpu", np.uint16), ("gpu", jnp.bfloat16), ("tpu", jnp.bfloat16)])
def test_only_a_cpu_keeps_bfloat16_as_bits(backend, stored, monkeypatch):
    monkeypatch.setattr(jax, "default_backend", lambda: backend)
    values = np.arange(12, dtype=np.float32).reshape(4, 3)
    kept = to_stored(values.astype(jnp.bfloat16))
    assert kept.dtype == bits_type(jnp.bfloat16) == stored
    assert compute_type({"embedding": {"kernel": kept}}) == jnp.bfloat16
    rows = take_rows(jnp.asarray(kept), np.array([3, 0]))
    assert rows.dtype == jnp.bfloat16 and rows.tolist() == values[[3, 0]].tolist()
    assert to_bits(from_bits(jnp.asarray(kept))).dtype == stored
    assert to_stored(values).dtype == np.float32
