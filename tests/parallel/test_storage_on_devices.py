"""A base in fewer bits, divided between eight devices, is that of one. Run as a script, this file computes that."""

import json
import os
import sys
from pathlib import Path

import pytest
from child_process import Child


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    flags = f"{os.environ.get('XLA_FLAGS', '')} --xla_force_host_platform_device_count=8"
    folder = tmp_path_factory.mktemp("base")
    child = Child("parallel.test_storage_on_devices", [folder], os.environ | {"XLA_FLAGS": flags})
    return json.loads(child.printed().splitlines()[-1])


@pytest.mark.slow
@pytest.mark.parametrize("storage", ["int8", "int4"])
def test_a_divided_base_has_the_same_numbers_and_trains_alike(found, storage):
    report = found[storage]
    assert report["same numbers"]
    assert report["largest share"] == 1 / 4  # fsdp and tensor divide each kernel by two
    # Adam divides a gradient by its own size, so in its first step the rounding of the smallest ones counts.
    assert report["loss"] < 1e-6 and report["adapter"] < 2e-6


@pytest.mark.slow
def test_a_kernel_is_read_once_unless_a_scale_belongs_to_several_parts(found):
    assert found["int4"]["read"] == 1
    assert found["int8"]["read"] == 2  # fsdp and tensor divide the inputs of all kernels
    assert found["rows of inputs"] == {"down_proj": 1, "o_proj": 1, "up_proj": 2}  # fsdp alone


@pytest.mark.slow
def test_a_layer_is_gathered_in_few_bits(found):
    assert "u8" in found["int4"]["gathered"] and "s8" in found["int8"]["gathered"]


def main(folder: Path) -> None:
    """Print as JSON for each storage how far a base on eight devices is from one on one."""
    import math
    import re
    from collections import Counter

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
    read: Counter[str] = Counter()

    class Counted(np.ndarray):
        """The values of a tensor, which count those that are converted for the model."""

        name = ""

        def astype(self, *arguments, **settings):
            read[self.name] += self.size
            return np.asarray(self).astype(*arguments, **settings)

        def __array_finalize__(self, other):
            self.name = getattr(other, "name", "")

    class Counting(SafetensorsFolder):
        def read(self, name):
            values = super().read(name).view(Counted)
            values.name = name
            return values

    def times_read() -> dict[str, float]:
        """Return how often each value of the second layer's kernels was read since the last call."""
        names = {name.split(".")[-2]: name for name in shapes if ".1." in name and "proj" in name}
        times = {kind: read[name] / math.prod(shapes[name]) for kind, name in names.items()}
        read.clear()
        return times

    source = Counting(folder)
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
            times = times_read()
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
            "read": set(times.values()).pop() if len(set(times.values())) == 1 else times,
            "loss": abs(float(loss) / float(other) - 1),
            "adapter": max(jax.tree.leaves(apart)),
            "gathered": sorted(set(re.findall(r"= (\w+)\[[\d,]*\]\S* all-gather", text))),
        }
    alone = jax.make_mesh((1, 1, 8, 1), MESH_AXES, (AxisType.Auto,) * 4)
    load_params(architecture, source, np.float32, placement_of(alone, stored_sizes("int8", architecture)), "int8")
    times = times_read()
    report["rows of inputs"] = {kind: times[kind] for kind in ("down_proj", "o_proj", "up_proj")}
    print(json.dumps(report))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
