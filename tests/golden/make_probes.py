"""Fits the shipped probes to the training part of the labelled responses, and prints how they do on what is held out.

Run it from the repository; it needs the default model: python tests/golden/make_probes.py
"""

import jax.numpy as jnp

from jaxalign.config.presets import preset
from jaxalign.inference.base_model import BaseModel
from jaxalign.parallel.compilation import Programs, use_compilation_cache
from jaxalign.pretrained.sources import cache_folder, read_model, source_of
from jaxalign.safety.calibration import measure_judge
from jaxalign.safety.judges.fitting import fit_probe
from jaxalign.safety.judges.probe import HARM_PROBE, REFUSAL_PROBE, ProbeJudge, probe_reader, read_probe, write_probe
from jaxalign.safety.labelled import load_labelled

MODEL = "smollm2_135m"


def main() -> None:
    """Write the probes. They are fitted in float32, and measured in both precisions."""
    use_compilation_cache(cache_folder() / "xla")
    source = source_of(preset(MODEL))
    train, held_out = load_labelled(split="train"), load_labelled(split="held_out")
    for precision in ("float32", "bfloat16"):
        dtype = jnp.dtype(precision)
        base = BaseModel(read_model(source, dtype, offline=False, name=MODEL), dtype, Programs())
        reader = probe_reader(base)
        for about, path in (("harm", HARM_PROBE), ("refusal", REFUSAL_PROBE)):
            if precision == "float32":
                fitted = fit_probe(reader, train, about)
                print(f"{about}: {fitted.fitted} responses, penalty {fitted.penalty}, loss {fitted.loss:.3f}")
                write_probe(path, fitted.probe)
            found = measure_judge(ProbeJudge(read_probe(path), reader), held_out, about)
            print(f"{precision}: {found.line}")
            for name in ("area", "sensitivity", "specificity"):
                one = getattr(found, name)
                print(f"  {name} {one.estimate:.3f} [{one.low:.3f}, {one.high:.3f}] n={one.n} missing={one.missing}")


if __name__ == "__main__":
    main()
