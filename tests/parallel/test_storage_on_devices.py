"""A base in fewer bits, divided between eight devices, is that of one. Run as a script, this file computes that."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    paths = [str(Path(__file__).parents[1]), str(Path(__file__).parents[2])]
    flags = "--xla_force_host_platform_device_count=8 --xla_backend_optimization_level=0"
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(paths), "XLA_FLAGS": flags}
    command = [sys.executable, __file__, str(tmp_path_factory.mktemp("base"))]
    child = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=900)
    assert child.returncode == 0, child.stderr[-4000:]
    return json.loads(child.stdout.splitlines()[-1])


@pytest.mark.slow
@pytest.mark.parametrize("storage", ["int8", "int4"])
def test_a_divided_base_has_the_same_numbers_and_trains_alike(found, storage):
    report = found[storage]
    assert report["same numbers"]
    assert report["largest share"] == 1 / 4  # fsdp and tensor divide each kernel by two
    assert report["loss"] < 1e-6 and report["adapter"] < 1e-6


@pytest.mark.slow
def test_a_layer_is_gathered_in_few_bits(found):
    assert "u8" in found["int4"]["gathered"] and "s8" in found["int8"]["gathered"]


def main(folder: Path) -> None:
    """Print as JSON for each storage how far a base on eight devices is from one on one."""
    import re

    import few_examples
    import jax
    import numpy as np
    from golden.draw import draw
    from jax.sharding import AxisType
    from tiny_model import CONFIG, random_adapter

    from jaxalign.data.placed_batch import on_mesh
    from jaxalign.models.architecture import from_config
    from jaxalign.models.linear import stored_sizes
    from jaxalign.models.transformer import Transformer
    from jaxalign.parallel.placing import placed
    from jaxalign.parallel.rules import MESH_AXES, placement_of
    from jaxalign.pretrained.parameters import parameter_leaves
    from jaxalign.pretrained.safetensors import SafetensorsFolder, write_safetensors
    from jaxalign.pretrained.weights import load_params
    from jaxalign.training.state import init_state
    from jaxalign.training.step import train_program

    architecture = from_config({**CONFIG, "hidden_size": 128, "head_dim": 64, "intermediate_size": 256})
    shapes = {name: leaf.shape for leaf in parameter_leaves(architecture) for name in leaf.names(architecture.layers)}
    write_safetensors(folder / "model.safetensors", draw(shapes, 1.0), {})
    source = SafetensorsFolder(folder)
    adapter = random_adapter(targets=("q_proj", "down_proj"), architecture=architecture)
    mesh = jax.make_mesh((1, 2, 2, 2), MESH_AXES, (AxisType.Auto,) * 4)
    feed = few_examples.STAGE.feed(few_examples.SETTINGS)
    batch, _ = feed.batch(feed.steps[0][1])
    hyper = jax.tree.map(np.float32, few_examples.SETTINGS.hyper)
    report = {}
    for storage in ("int8", "int4"):
        outcomes, kept = [], []
        for placement in (None, placement_of(mesh, stored_sizes(storage, architecture))):
            params, _ = load_params(architecture, source, np.float32, placement, storage)
            network = Transformer(architecture, np.float32, "projections", placement)
            arguments = (params, placed(placement, init_state(adapter, 0)), hyper, on_mesh(placement, batch))
            program = train_program.lower(network, "adamw", "sft", False, *arguments).compile()
            state, metrics = program(*arguments)
            outcomes.append((metrics.loss_sum / metrics.loss_count, state.adapter))
            kept.append(params)
            text = program.as_text()
        (loss, trained), (other, theirs) = outcomes
        apart = jax.tree.map(lambda a, b: float(np.abs(np.asarray(a) - np.asarray(b)).max()), trained, theirs)
        same = jax.tree.map(lambda a, b: np.array_equal(np.asarray(a), np.asarray(b)), *kept)
        codes = [leaf for leaf in jax.tree.leaves(kept[1]["layers"]) if leaf.dtype.itemsize == 1]
        largest = max(leaf.addressable_shards[0].data.nbytes / leaf.nbytes for leaf in codes)
        report[storage] = {
            "same numbers": all(jax.tree.leaves(same)),
            "largest share": largest,
            "loss": abs(float(loss) / float(other) - 1),
            "adapter": max(jax.tree.leaves(apart)),
            "gathered": sorted(set(re.findall(r"= (\w+)\[[\d,]*\]\S* all-gather", text))),
        }
    print(json.dumps(report))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
