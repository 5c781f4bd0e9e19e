"""Eight devices do what one does. Run as a script, this file computes on eight fake ones, and prints what it found."""

import dataclasses
import json
import os
import sys
from pathlib import Path

import pytest
from child_process import Child

MESHES = {  # adapter, data, fsdp, tensor
    "8x1": (1, 8, 1, 1),
    "4x2": (1, 4, 2, 1),
    "2x2x2": (1, 2, 2, 2),
    "adapter 2x4": (2, 1, 4, 1),
}

RANK = 3
"""The rank of the adapters, a size that no axis of a kernel has."""


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    flags = f"{os.environ.get('XLA_FLAGS', '')} --xla_force_host_platform_device_count=8"
    folder = tmp_path_factory.mktemp("runs")
    child = Child("parallel.test_several_devices", [folder], os.environ | {"XLA_FLAGS": flags})
    return json.loads(child.printed().splitlines()[-1])


@pytest.mark.slow
@pytest.mark.parametrize("mesh", MESHES)
def test_training_scoring_and_sampling_on_a_mesh_are_those_of_one_device(found, mesh):
    assert found[mesh].keys() >= {"sft loss", "sft adapter", "dpo loss", "dpo adapter", "scores", "tokens"}
    assert found[mesh].pop("tokens") == 0
    assert {what: difference for what, difference in found[mesh].items() if difference > 1e-6} == {}


@pytest.mark.slow
def test_no_collective_carries_the_whole_batch_and_the_head_is_never_gathered(found):
    for mesh, sent in found["collectives"].items():
        shapes = [tuple(shape) for shape in sent]
        rows, length, layers, vocabulary = found["sizes"][mesh]
        assert not [shape for shape in shapes if shape[:2] == (rows, length) and len(shape) > 2], mesh
        stacks = [shape for shape in shapes if len(shape) == 3 and shape[0] == layers]
        assert not [shape for shape in stacks if RANK not in shape[1:]], mesh  # of kernels; those of adapters are small
        assert not [shape for shape in shapes if vocabulary in shape], mesh
    assert found["gathers in loops"]["4x2"] > 0  # a layer's kernels, one by one


@pytest.mark.slow
def test_a_device_holds_its_share_of_the_base_and_the_host_reads_one_share_at_a_time(found):
    whole, largest, peak = found["loading"]
    assert largest <= whole / 8 * 1.05
    parts = 4 * found["largest slice"]  # a part as it is stored, in its number format, and checked
    assert parts < whole / 3 and peak < parts + 300_000  # and what Python itself needs, which its version decides


@pytest.mark.slow
def test_a_plan_without_weights_is_what_the_program_with_them_takes(found):
    planned, taken, base = found["planned"]
    assert abs(sum(planned.values()) - taken) <= 0.01 * taken
    assert planned["base"] == base
    assert min(planned.values()) > 0


@pytest.mark.slow
def test_what_would_be_compiled_ahead_is_what_a_run_compiles(found):
    assert found["compiled twice"] == 0


@pytest.mark.slow
def test_a_run_goes_on_with_another_mesh(found):
    assert found["resumed"] < 1e-6


def main(folder: Path) -> None:
    """Print as JSON how far each mesh is from one device, and what its programs send from device to device."""
    import tracemalloc
    from collections.abc import Callable

    import few_examples
    import jax
    import jax.numpy as jnp
    import numpy as np
    from compiled_text import collectives
    from few_responses import PAIRS, RESPONSES
    from golden.draw import draw
    from jax.sharding import AxisType
    from tiny_model import CONFIG, random_adapter, random_tokens, random_tree

    from jaxalign.data.placed_batch import on_mesh
    from jaxalign.inference.base_model import BaseModel
    from jaxalign.inference.sampling_params import Request, SamplingParams
    from jaxalign.models.architecture import Architecture, axis_sizes, from_config
    from jaxalign.models.lora import effective, stack_lora
    from jaxalign.parallel import compilation
    from jaxalign.parallel.compilation import Programs
    from jaxalign.parallel.placing import bytes_of_part, placed
    from jaxalign.parallel.rules import MESH_AXES, Placement, map_adapters, placement_of
    from jaxalign.pretrained.safetensors import SafetensorsFolder, write_safetensors
    from jaxalign.pretrained.sources import Model
    from jaxalign.pretrained.tokenizer import tiny_tokenizer
    from jaxalign.pretrained.weights import abstract_params, load_params, parameter_leaves
    from jaxalign.runs.directory import Run
    from jaxalign.runs.records import read_records
    from jaxalign.training.loop import fit, resume_point
    from jaxalign.training.optimizer import Hyperparameters
    from jaxalign.training.planning import bytes_of_program, compile_ahead, planned_step
    from jaxalign.training.preference import PreferenceStage
    from jaxalign.training.regularising_texts import RegularisingTexts
    from jaxalign.training.state import init_state
    from jaxalign.training.step import train_program, train_step

    # Sizes that no row has, so that a shape tells what it is.
    sizes = {"vocab_size": 104, "hidden_size": 40, "head_dim": 8, "intermediate_size": 56, "num_hidden_layers": 3}
    architecture = from_config({**CONFIG, **sizes})
    one_layer = from_config({**CONFIG, **sizes, "num_hidden_layers": 1})  # the sampler compiles each layer
    shapes = {name: leaf.shape for leaf in parameter_leaves(architecture) for name in leaf.names(architecture.layers)}
    write_safetensors(folder / "model.safetensors", draw(shapes, 1.0), {})
    source, random = SafetensorsFolder(folder), np.random.default_rng(0)
    targets = ("q_proj", "o_proj", "down_proj")
    adapters = [random_adapter(seed, targets=targets, architecture=architecture) for seed in range(2)]
    hyper = Hyperparameters(1e-3, eps=1e-4, scale=2.0, beta=0.5, divergence=0.5)
    kinds = [[random_tokens(random, 5, 12) for _ in range(8)] for _ in range(2)]
    changes = {"max_steps": 2, "checkpoint_every": 1, "max_rows": 1, "schedule": "constant", "warmup_steps": 0}
    plain = dataclasses.replace(few_examples.SETTINGS, hyper=hyper, **changes)
    settings = dataclasses.replace(plain, regularising=RegularisingTexts(kinds, kinds, 32))
    dpo_settings = dataclasses.replace(plain, batch_size=4, validate=False, max_rows=None)
    trees = [random_tree(random, 6) for _ in range(6)]
    prompts = [random_tokens(random, 18, 24) for _ in range(4)]  # one program prefills all
    report: dict = {name: {} for name in MESHES} | {"collectives": {}, "gathers in loops": {}, "sizes": {}}
    report["compiled twice"] = 0

    def sft(base: BaseModel, name: str, **changes) -> list:
        run = Run(folder / name)
        point = resume_point(run, adapters[0], "adamw", print)
        adapter, _ = fit(
            base.network("projections"),
            base.weights(False),
            adapters[0],
            few_examples.STAGE,
            dataclasses.replace(settings, **changes),
            run=run,
            prefix="1-survey",
            programs=base.programs,
            extra={"stages": []},
            resume=None if point is None else point[:2],
        )
        ahead = [(few_examples.STAGE, dataclasses.replace(settings, **changes))]
        compile_ahead(base.network("projections"), base.weights(False), adapters[0], ahead, base.programs)
        report["compiled twice"] += len(compilation.STARTED)  # what a run has compiled, it would not compile ahead
        compilation.STARTED.clear()
        records = [*read_records(run.metrics), *read_records(run.validation)]
        return [[record.get("loss", record.get("validation_loss")) for record in records], adapter]

    def dpo(base: BaseModel) -> list:
        network, placement = base.network("projections"), base.placement
        stage, plans = PreferenceStage("dpo", RESPONSES, PAIRS), placement is not None and name == "4x2"
        feed = stage.feed(dpo_settings.shared_on(placement) if plans else dpo_settings)
        batch = on_mesh(placement, feed.batch(feed.steps[0][1])[0])
        state = placed(placement, init_state(adapters[0], 0))
        numbers = jax.tree.map(np.float32, hyper)
        arguments = (base.weights(False), state, numbers, batch)
        program = train_program.lower(network, "adamw", "sigmoid", False, *arguments).compile()
        if placement is not None:
            sent = collectives(program.as_text())
            report["collectives"][name] = [shape for one in sent for shape, _ in one.arrays]
            report["gathers in loops"][name] = sum(one.kind == "all-gather" and one.in_loop for one in sent)
            report["sizes"][name] = (*batch.tokens.shape[1:], architecture.layers, architecture.vocab_size)
        if plans:
            params = abstract_params(architecture, np.float32, placement)
            planned = planned_step(network, params, adapters[0], stage, dpo_settings).memory()
            report["planned"] = planned, bytes_of_program(program), bytes_of_part(base.weights(False))
        state, metrics = program(*arguments)
        return [metrics.loss_sum / metrics.loss_count, state.adapter]

    def fused(base: BaseModel) -> list:
        """Return two adapters, trained together on batches of their own."""
        network, placement = base.network("projections"), base.placement
        feed = few_examples.STAGE.feed(settings)
        batches = [feed.batch(members)[0] for _, members in feed.steps[:2]]  # without regularising texts
        stacked = jax.tree.map(lambda *leaves: np.stack(leaves), *batches)
        states = [init_state(adapter, seed) for seed, adapter in enumerate(adapters)]
        state = placed(placement, jax.tree.map(lambda *leaves: jnp.stack(leaves), *states), "adapters")
        numbers = jax.tree.map(lambda x: np.full(2, x, np.float32), hyper)

        def step(*arguments):
            return train_step(network, "adamw", "sft", False, base.weights(False), *arguments)

        mapped = jax.jit(jax.vmap(step, spmd_axis_name=map_adapters(placement)))
        state, metrics = mapped(state, numbers, on_mesh(placement, stacked, adapters=True))
        return [metrics.loss_sum / metrics.loss_count, state.adapter]

    def scores(base: BaseModel) -> list:
        stack = stack_lora(adapters)
        one = base.scorer(adapters[0], 2.0).score_greedy(trees)
        return [base.scorer(stack, np.full(2, 2.0)).score(trees, adapters=[0, 1] * 3), [score for score, _ in one]]

    def tokens(base: BaseModel) -> list:
        mine = [random_adapter(seed, targets=targets, architecture=one_layer) for seed in range(2)]
        sampler = load(base.placement, one_layer).sampler(stack_lora([effective(one, 1.0) for one in mine]), 16)
        requests = [Request(prompt, tuple(range(2)), n % 2) for n, prompt in enumerate(prompts)]
        found = sampler.sample(requests, SamplingParams(max_tokens=20, temperature=0.9, top_p=0.95, seed=1))
        return [[one.tokens for one in completions] for completions in found]

    def load(placement: Placement | None, architecture: Architecture = architecture) -> BaseModel:
        params, identity = load_params(architecture, source, np.float32, placement)
        model = Model(architecture, params, tiny_tokenizer(), identity, "tiny")
        return BaseModel(model, np.dtype(np.float32), Programs(), placement)

    def on(shape: tuple[int, ...]) -> Placement:
        count = int(np.prod(shape))
        mesh = jax.make_mesh(shape, MESH_AXES, (AxisType.Auto,) * 4, devices=jax.devices()[:count])
        return placement_of(mesh, axis_sizes(architecture))

    def apart(ours, theirs) -> float:
        """Return the largest difference, for numbers above 1 as a share of them."""
        pairs = zip(jax.tree.leaves(ours), jax.tree.leaves(theirs), strict=True)
        arrays = [(np.asarray(a, np.float64), np.asarray(b, np.float64)) for a, b in pairs]
        return max(float((np.abs(a - b) / np.maximum(np.abs(b), 1)).max()) for a, b in arrays)

    parts: dict[str, Callable] = {"dpo": dpo, "fused": fused, "scores": scores, "tokens": tokens}
    alone = load(None)
    wanted = {"sft": sft(alone, "one")} | {what: compute(alone) for what, compute in parts.items()}
    bases = {name: load(on(shape)) for name, shape in MESHES.items()}
    for name, base in bases.items():
        for what, compute in (("sft", lambda base, name=name: sft(base, name)), *parts.items()):
            if what != "fused" or name.startswith("adapter"):
                found = compute(base)
                if what in ("scores", "tokens"):
                    report[name][what] = apart(found, wanted[what])
                else:
                    report[name][f"{what} loss"] = apart(found[0], wanted[what][0])
                    report[name][f"{what} adapter"] = apart(found[1], wanted[what][1])
    sft(bases["4x2"], "moved", max_steps=1)
    report["resumed"] = apart(sft(alone, "moved")[1], wanted["sft"][1])

    wide = from_config({**CONFIG, "vocab_size": 4096, "hidden_size": 256, "intermediate_size": 512, "head_dim": 16})
    shapes = {name: leaf.shape for leaf in parameter_leaves(wide) for name in leaf.names(wide.layers)}
    (folder / "wide").mkdir()
    write_safetensors(folder / "wide" / "model.safetensors", draw(shapes, 1.0), {})
    wide_source, placement = SafetensorsFolder(folder / "wide"), on((1, 1, 8, 1))
    tracemalloc.start()
    params, _ = load_params(wide, wide_source, np.float32, placement)
    peak, leaves = tracemalloc.get_traced_memory()[1], jax.tree.leaves(params)
    held = [sum(leaf.addressable_shards[n].data.nbytes for leaf in leaves) for n in range(8)]
    report["loading"] = (sum(leaf.nbytes for leaf in leaves), max(held), peak)
    report["largest slice"] = max(leaf.addressable_shards[0].data.nbytes for leaf in leaves)
    print(json.dumps(report))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
