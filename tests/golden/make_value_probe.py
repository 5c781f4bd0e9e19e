"""Fits the shipped probe for values to the starter arguments, and prints how it does on conclusions that were left out.

Run it from the repository; it needs the default model: python tests/golden/make_value_probe.py
"""

import jax.numpy as jnp

from jaxalign.config.presets import preset
from jaxalign.inference.base_model import BaseModel
from jaxalign.parallel.compilation import Programs, use_compilation_cache
from jaxalign.pretrained.sources import cache_folder, read_model, source_of
from jaxalign.safety.judges.probe import probe_reader
from jaxalign.safety.value_probe import VALUE_PROBE, fit_value_probe, write_value_probe
from jaxalign.values.starter import load_starter

MODEL = "smollm2_135m"


def main() -> None:
    """Write the probe, which is fitted in float32."""
    use_compilation_cache(cache_folder() / "xla")
    dtype = jnp.dtype("float32")
    base = BaseModel(read_model(source_of(preset(MODEL)), dtype, offline=False, name=MODEL), dtype, Programs())
    probe = fit_value_probe(probe_reader(base), load_starter())
    write_value_probe(VALUE_PROBE, probe)
    for value, area in probe.held_out.items():
        print(f"{value:16} {area.estimate:.3f} [{area.low:.3f}, {area.high:.3f}] n={area.n}")


if __name__ == "__main__":
    main()
