"""Fits the shipped probes to the training part of the labelled responses, and prints how they do on what is held out:
on responses that were written to be labelled, on responses of models, and on those that answer starter prompts.

Run it from the repository; it needs the default model: python tests/golden/make_probes.py
"""

import jax.numpy as jnp

from jaxalign.config.presets import preset
from jaxalign.inference.base_model import BaseModel
from jaxalign.parallel.compilation import Programs, use_compilation_cache
from jaxalign.pretrained.sources import cache_folder, read_model, source_of
from jaxalign.safety.calibration import measure_judge
from jaxalign.safety.judgements import Judge
from jaxalign.safety.judges.fitting import fit_probe
from jaxalign.safety.judges.probe import HARM_PROBE, REFUSAL_PROBE, ProbeJudge, probe_reader, read_probe, write_probe
from jaxalign.safety.judges.toxicity_linear import ToxicityJudge
from jaxalign.safety.labelled import LabelledResponse, load_labelled
from jaxalign.safety.starter_prompts import load_over_refusal, load_starter_prompts

MODEL = "smollm2_135m"


def main() -> None:
    """Write the probes. They are fitted in float32, and measured in both precisions."""
    use_compilation_cache(cache_folder() / "xla")
    source = source_of(preset(MODEL))
    train, held_out = load_labelled(split="train"), load_labelled(split="held_out")
    shipped = {one.prompt for one in [*load_starter_prompts(), *load_over_refusal()]}
    models = [row for row in held_out if row.by_model]
    parts = {
        "written": [row for row in held_out if not row.by_model],
        "of models": models,
        "of models, to other prompts than the shipped ones": [row for row in models if row.prompt not in shipped],
        "of models, to the shipped prompts": [row for row in models if row.prompt in shipped],
    }
    show("toxicity_linear", ToxicityJudge(), parts, "harm")
    for precision in ("float32", "bfloat16"):
        dtype = jnp.dtype(precision)
        base = BaseModel(read_model(source, dtype, offline=False, name=MODEL), dtype, Programs())
        reader = probe_reader(base)
        for about, path in (("harm", HARM_PROBE), ("refusal", REFUSAL_PROBE)):
            if precision == "float32":
                fitted = fit_probe(reader, train, about)
                print(f"{about}: {fitted.fitted} responses, penalty {fitted.penalty}, loss {fitted.loss:.3f}")
                write_probe(path, fitted.probe)
            show(precision, ProbeJudge(read_probe(path), reader), parts, about)


def show(title: str, judge: Judge, parts: dict[str, list[LabelledResponse]], about: str) -> None:
    """Print how a judge does on each part."""
    print(f"{title}:")
    for part, rows in parts.items():
        found = measure_judge(judge, rows, about)
        print(f"  {part}: {found.line}")
        for name in ("area", "sensitivity", "specificity"):
            one = getattr(found, name)
            limits = "" if one.low is None else f" [{one.low:.3f}, {one.high:.3f}]"
            print(f"    {name} {one.estimate:.3f}{limits} n={one.n} missing={one.missing}")


if __name__ == "__main__":
    main()
