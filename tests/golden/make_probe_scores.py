"""Writes probe_scores.json: what the shipped probes say, in float32, of each labelled response that is held out.

Run it from the repository after make_probes.py; it needs the default model, and takes minutes:
python tests/golden/make_probe_scores.py
"""

import json
from pathlib import Path

import jax.numpy as jnp

from jaxalign.config.presets import preset
from jaxalign.inference.base_model import BaseModel
from jaxalign.parallel.compilation import Programs, use_compilation_cache
from jaxalign.pretrained.sources import cache_folder, read_model, source_of
from jaxalign.runs.records import file_hash
from jaxalign.safety.judges.probe import HARM_PROBE, REFUSAL_PROBE, probe_reader, read_probe
from jaxalign.safety.labelled import GENERATIONS_FILE, LABELLED_FILE, load_labelled
from jaxalign.safety.states import is_blank

MODEL = "smollm2_135m"
SCORES = Path(__file__).with_name("probe_scores.json")
FILES = (HARM_PROBE, REFUSAL_PROBE, LABELLED_FILE, GENERATIONS_FILE)


def main() -> None:
    """Read the responses once, and write the log-odds of both probes."""
    use_compilation_cache(cache_folder() / "xla")
    base = BaseModel(
        read_model(source_of(preset(MODEL)), jnp.dtype("float32"), offline=False, name=MODEL),
        jnp.dtype("float32"),
        Programs(),
    )
    rows = [row for row in load_labelled(split="held_out") if not is_blank(row.response)]
    states = probe_reader(base).read([row.exchange for row in rows])
    told: dict[str, object] = {"files": {path.name: file_hash(path) for path in FILES}}
    for path in (HARM_PROBE, REFUSAL_PROBE):
        probe = read_probe(path)
        known = zip(rows, states, strict=True)
        told[probe.about] = {row.id: round(probe.log_odds(state), 5) for row, state in known if state is not None}
    SCORES.write_text(json.dumps(told, indent=0) + "\n")


if __name__ == "__main__":
    main()
