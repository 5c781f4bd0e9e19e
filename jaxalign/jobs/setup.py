"""The beginning of every job: the model's files, its encoder, its weights, and the directory of the run."""

import contextlib
import dataclasses
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
from rich.console import Console

from jaxalign.config.identity import as_dict, identity
from jaxalign.config.model import ModelCommandConfig, check_system
from jaxalign.data.encoding import Encoder
from jaxalign.errors import UserError
from jaxalign.inference.base_model import BaseModel, signature_in
from jaxalign.jobs.mirroring import mirror_of, open_mirror
from jaxalign.models.kernels import check_attention, choose_attention
from jaxalign.models.linear import CODES, SCALE_GROUP, stored_sizes
from jaxalign.parallel.compilation import Programs, use_compilation_cache
from jaxalign.parallel.distributed import by_first, check_joined
from jaxalign.parallel.joining import all_processes
from jaxalign.parallel.mesh import build_mesh, check_memory, device_lines
from jaxalign.parallel.rules import Placement, placement_of, undivided_lines
from jaxalign.pretrained import sources
from jaxalign.pretrained.chat_template import DATE
from jaxalign.pretrained.sources import Model, ModelFiles, cache_folder, source_of
from jaxalign.pretrained.weights import abstract_params, bytes_on_device
from jaxalign.runs.config_file import differing_keys, flat, older_runs
from jaxalign.runs.directory import Run, open_run
from jaxalign.runs.of_first import open_run_of_first
from jaxalign.runs.progress import compilations, say


@dataclasses.dataclass(frozen=True)
class OpenedModel:
    """A model whose weights are not read yet: its files, and the encoder that puts prompts into its format.

    `keys` are the keys of the `model` configuration, or those of the adapter's run (`jobs.adapters.keys_of_base`).
    """

    config: ModelCommandConfig
    keys: Mapping[str, Any]
    files: ModelFiles
    encoder: Encoder
    console: Console
    placement: Placement | None = None
    """How the base is laid out on several devices; None for one device."""

    @property
    def attention(self) -> str:
        """What computes attention over packed rows (see `models.kernels`)."""
        return self._chosen_attention[0]

    @cached_property
    def _chosen_attention(self) -> tuple[str, str | None]:
        """The attention, and why no kernel computes it, on a device that has one; chosen when it is first used."""
        # The first of several processes chooses, because all must run the same program.
        asked, dtype = self.config.attention, jnp.dtype(self.config.precision)
        name, no_kernel = by_first(lambda: choose_attention(asked, self.files.architecture, dtype))
        return name, no_kernel

    @property
    def context(self) -> int:
        """The longest input of the model, in tokens."""
        return self.files.architecture.context

    @property
    def storage(self) -> str:
        """How the base is kept: bfloat16, float32, int8 or int4."""
        return self.files.storage or self.config.precision

    @cached_property
    def _identified(self) -> tuple[str, str]:
        return self.files.identify()  # once, because it reads all weights

    @property
    def identity(self) -> str:
        """The hash of the base's weights, without them in memory."""
        return self._identified[0]

    @property
    def signature(self) -> str:
        """The name of the base in records, which is `BaseModel.signature`, without its weights in memory."""
        return signature_in(self._identified[1], self.config.precision)

    @property
    def load_name(self) -> str:
        """The id or path by which PEFT and vLLM load the base."""
        return str(self.keys.get("path") or self.keys["name"])

    def load(self, *, describe: bool = False) -> BaseModel:
        """Read the weights, and print where they are: on one device without kernels only if `describe` asks for it.

        Raises:
            UserError: they are damaged, or more than a device can hold; or the attention asked for refuses the model.
        """
        dtype, placement = jnp.dtype(self.config.precision), self.placement
        check_memory(self._describe(describe))
        model = self.files.load(dtype, placement)
        return BaseModel(model, dtype, Programs(compilations(self.console)), placement, self.attention)

    def planned(self) -> BaseModel:
        """Return the base as shapes and types, without its weights, and print where they would be."""
        self._describe(True)
        files, dtype = self.files, jnp.dtype(self.config.precision)
        params = abstract_params(files.architecture, dtype, self.placement, files.storage)
        model = Model(files.architecture, params, files.tokenizer, "", files.name, files.storage)
        return BaseModel(model, dtype, Programs(compilations(self.console)), self.placement, self.attention)

    def _describe(self, always: bool) -> int:
        """Print where the weights are, on one device only if `always`; return the bytes of them on each device."""
        precision, placement, files = self.config.precision, self.placement, self.files
        held = bytes_on_device(files.architecture, jnp.dtype(precision), placement, files.storage)
        attention, no_kernel = self._chosen_attention
        attention += "" if no_kernel is None else f" ({no_kernel})"
        if always or len(jax.devices()) > 1 or attention != "blocks":
            first, *more = device_lines(None if placement is None else placement.mesh)
            kind = f"{self.storage} (embedding and head {precision})" if files.storage in CODES else self.storage
            base = f"base: {kind}, {held / 1e6:,.0f} MB on each device"
            sizes = stored_sizes(files.storage, files.architecture)
            undivided = [] if placement is None else undivided_lines(placement.mesh, sizes)
            if files.storage == "int4":
                undivided = [f"{line} (int4 is divided in groups of {SCALE_GROUP})" for line in undivided]
            for line in (f"{first}; attention: {attention}; {base}", *more, *undivided):
                say(self.console, line)
        return held


@contextlib.contextmanager
def working_together(config: ModelCommandConfig) -> Iterator[None]:
    """Work with the other processes of the job, if there are any (see `all_processes`).

    Raises:
        UserError: not all of them are there, or this one has other settings than the first. Paths may differ.
    """
    with all_processes():
        mine = without_paths(as_dict(config))
        if differs := differing_keys(by_first(lambda: mine), mine):
            raise UserError(f"it has other settings than the first process: {differs}; start one command on all hosts")
        yield


def without_paths(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return settings, nested or not, as a flat dictionary without those that name a path, and without `run.dir`."""
    found = {key: value for key, value in flat(settings).items() if key not in ("run.dir", "run.root")}
    return {key: value for key, value in found.items() if os.sep not in json.dumps(value, ensure_ascii=False)}


def open_base(
    config: ModelCommandConfig, console: Console, keys: Mapping[str, Any] | None = None
) -> OpenedModel | None:
    """Fetch the model if it is not here yet, and open its files; with `prefetch`, only fetch it and return None.

    Args:
        config: the configuration of the command.
        console: prints what was fetched, and what of the model's files is left aside.
        keys: the keys of the model; None takes those of `config.model`. If their `prompt_format` is None, it is chat
            for a model with a chat template, and plain for any other.

    Raises:
        UserError: a file of the model is missing, damaged or not supported, the mesh or the attention does not fit the
            devices, `run.mirror` cannot be used, or the job has several processes and works in one.
    """
    keys = as_dict(config)["model"] if keys is None else keys
    assert keys is not None
    source = source_of(keys)
    if config.prefetch:
        say(console, sources.prefetch(source, offline=config.offline))
        return None
    check_joined()
    by_first(lambda: check_attention(config.attention, jnp.dtype(config.precision)))
    use_compilation_cache(cache_folder() / "xla")
    open_mirror(config)
    log = partial(say, console)
    files = sources.open_model(source, offline=config.offline, name=keys["name"], log=log)
    tokenizer = dataclasses.replace(files.tokenizer, date=keys.get("date") or DATE)
    files = dataclasses.replace(files, tokenizer=tokenizer).stored_as(keys.get("storage"), config.precision)
    if keys["prompt_format"] is None:
        keys = {**keys, "prompt_format": tokenizer.prompt_format}
        check_system(keys)
    if keys["prompt_format"] == "chat" and tokenizer.template.asks_date:
        log(f"the chat template asks for the date, and gets {tokenizer.date} (model.date)")
    encoder = Encoder(tokenizer, keys["prompt_format"], keys.get("system"))
    mesh = build_mesh(config.mesh.sizes)
    placement = None if mesh is None else placement_of(mesh, stored_sizes(files.storage, files.architecture))
    return OpenedModel(config, keys, files, encoder, console, placement)


def open_job_run(
    config: ModelCommandConfig,
    console: Console,
    *,
    content: Mapping[str, Any],
    name: str,
    files: Sequence[str],
    without: Sequence[str] = (),
    more: bool = False,
) -> Run:
    """Make or find the directory of a job's run, and print where it is.

    Runs of the same name that an older version of jaxalign made are printed too, and nothing in them is changed.

    Args:
        config: the configuration of the command.
        console: prints the directories.
        content: hashes of what the configuration's paths lead to (see `config.identity.identity`).
        name: the readable part of the directory's name.
        files: the files that the job writes there.
        without: keys of the configuration that do not change the numbers of this run.
        more: whether a finished run may still have work to do; it is then not printed as done.

    Raises:
        UserError: the directory belongs to another run or cannot be written, or the run is done and a file of its
            results is damaged or missing.
    """
    run_identity = identity(config, content, without)
    made = open_run_of_first(
        run_identity,
        lambda: open_run(
            run_identity,
            as_dict(config),
            files=files,
            dir=config.run.dir,
            root=config.run.root,
            name=name,
            overwrite=config.run.overwrite,
            mirror=mirror_of(config),
        ),
        files,
    )
    older = older_runs(config.run.root, name) if config.run.dir is None else []
    if older and not made.finished:
        listed = ", ".join(str(path) for path in older[:3])
        line = f"made by another version of jaxalign, and left as it is: {listed}"
        say(console, line)
    if made.finished and not more:
        by_first(made.check_files)
        line = f"this run is done: {made.path} (run.overwrite=true runs it again)"
    else:
        line = f"run directory: {made.path}"
    say(console, line)
    return made


def print_places(console: Console, **places: Path) -> None:
    """Print the path of each file or folder that exists, in a line with its name."""
    for name, path in places.items():
        if path.exists():
            say(console, f"{name + ':':9}{path}")
