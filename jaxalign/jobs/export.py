"""The export job, from its configuration to a folder: find the run, write its adapter or the whole model, verify it."""

import contextlib
import dataclasses
import gc
import shlex
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
from rich.console import Console
from rich.text import Text

from jaxalign.config.export import ExportConfig
from jaxalign.data.encoding import Encoder
from jaxalign.errors import UserError
from jaxalign.jobs.adapters import adapter_folder, stored_model
from jaxalign.jobs.card_inputs import check_card_inputs
from jaxalign.jobs.harm.card import harm_section, with_harm
from jaxalign.jobs.model_card import model_card, served_name, vllm_command
from jaxalign.models.adapter import BASE
from jaxalign.models.claims import Claims
from jaxalign.models.linear import compute_type
from jaxalign.pretrained.merge import write_merged
from jaxalign.pretrained.peft import AGAIN, CARD, CONFIG, WEIGHTS, check_lora, read_adapter, read_ours
from jaxalign.pretrained.safetensors import SafetensorsFolder
from jaxalign.pretrained.sources import Model, ModelSource, fetch, open_checkpoint, read_model, source_of
from jaxalign.pretrained.verify import (
    PROMPT,
    Check,
    check_config,
    check_effect,
    check_keys,
    check_merged,
    check_tensors,
    prompt_logits,
)
from jaxalign.runs.config_file import stored_config
from jaxalign.runs.directory import Run
from jaxalign.runs.progress import all_here, plain_console, say
from jaxalign.runs.reading import check_regular, read_text
from jaxalign.runs.records import entries, filled_folder, is_leftover, named_errors, read_json_object, scratch_folder

LONGEST_NAME = 4096
"""The longest name of a base, in characters: no path is longer, and it is printed."""


@dataclasses.dataclass(frozen=True)
class ExportSource:
    """What is exported: the folder of an adapter, and the run that made it with its configuration, if it is known.

    The configuration is not checked against the current schema, so that runs of older versions can be exported too.
    """

    adapter: Path
    run: Run | None = None
    config: Mapping[str, Any] = dataclasses.field(default_factory=dict)

    def base(self) -> ModelSource:
        """Return where the base comes from; UserError if the run is not known."""
        if self.run is None:
            raise UserError(
                f"{self.adapter} is an adapter without its run, and only the run names the base: give run=RUN_DIR"
            )
        return source_of(self.config["model"])

    @property
    def bfloat16(self) -> bool:
        """Whether the run computed in bfloat16 and not in float32."""
        assert self.run is not None
        claims = Claims(self.config, str(self.run.config), "get the run again")
        return claims.text("precision") == "bfloat16"


def export(config: ExportConfig) -> None:
    """Export as configured.

    Raises:
        UserError: `run` is not a finished run, `out` is not empty, the base is not the adapter's, or a check failed.
    """
    console = plain_console()
    found, out = find(Path(config.run)), Path(config.out)
    whole = config.format == "merged"
    if config.prefetch:
        what = "nothing but the run itself"
        if whole or config.verify:
            what = str(fetch(found.base(), offline=config.offline))
        say(console, all_here(what))
        return
    if whole and found.run is None:
        raise UserError(f"run={config.run} is an adapter without its run: format=merged needs the run's directory")
    if found.run is not None:
        told = found.run.results(**needed_results(found.config)) if whole else None
        check_card_inputs(found.config, told, found.run.path)
    if not whole:
        check_regular(found.adapter, f"remove it, or {AGAIN}", is_leftover)
    check_out(out)
    section = None if config.harm is None else harm_section(Path(config.harm), found.adapter)
    model = load_base(found, config.offline) if whole or config.verify else None
    with appearing(out) as folder:
        if whole:
            assert model is not None
            write_whole(folder, found, model, config.offline)
        else:
            shutil.copytree(found.adapter, folder, ignore=leftovers, dirs_exist_ok=True)
        if section is not None:
            card = folder / CARD
            text = read_text(card) if card.is_file() else ""
            card.write_text(with_harm(text, section), encoding="utf-8")
    if whole and (storage := found.config["model"].get("storage")):
        line = f"trained on a base stored as {storage}, and merged into the original weights of the base"
        say(console, line)
    say(console, f"written: {out}")
    if config.verify:
        assert model is not None
        verify(console, found, model, out, whole)
    say(console, f"next:    {next_command(found, out, whole)}")


def find(path: Path) -> ExportSource:
    """Return what to export from a run's directory or an adapter's folder.

    Raises:
        UserError: the path is neither of them, the run is not finished or made no adapter, or the adapter is damaged.
    """
    if path.name == "adapter" and Run(path.parent).config.is_file():
        return find(path.parent)  # the folder `adapter` inside a run's directory stands for the run
    if (path / CONFIG).is_file():
        check_adapter(path)
        return ExportSource(path)
    run = Run(path)
    try:
        stored = stored_config(path)
    except UserError as error:
        raise UserError(
            f"run={path} is not a run: it has neither {CONFIG} nor a readable config.yaml that a training wrote"
        ) from error
    if not run.finished:
        raise UserError(f"run={path} is not finished: type its training command again, which resumes it")
    if not isinstance(stored.get("model"), dict):
        raise UserError(f"run={path} is damaged: its config.yaml names no model; get the run again")
    stored_model(stored["model"], path)
    adapter = adapter_folder("run", path)  # first: a run that trains nothing lacks results of a training, and is whole
    run.results(**needed_results(stored))
    check_adapter(adapter)
    return ExportSource(adapter, run, stored)


def needed_results(config: Mapping[str, Any]) -> dict[str, type]:
    """Return the keys that the summary of a run must have, and their types, as its configuration tells."""
    if "stage" in config.get("identity", ()):  # a stage of CREST
        return {"seconds": float}
    return {"models": list} if "crest" in config else {"training": dict}


def load_base(found: ExportSource, offline: bool) -> Model:
    """Load the base that the run was trained on, in its precision.

    Raises:
        UserError: the base cannot be found or fetched, or its weights are not those that the adapter was trained on.
    """
    source, dtype = found.base(), jnp.bfloat16 if found.bfloat16 else jnp.float32
    model = read_model(source, dtype, offline=offline, name=found.config["model"]["name"])
    hint = "its weights have changed since the training; bring the old ones back"
    read_adapter(found.adapter, model.architecture).check_base(model.identity, str(source.path or model.name), hint)
    return model


def write_whole(folder: Path, found: ExportSource, model: Model, offline: bool) -> None:
    """Write the base with the adapter merged into its weights as they are in its files, and the model card."""
    assert found.run is not None
    source = found.base()
    adapter = read_adapter(found.adapter, model.architecture)
    write_merged(
        folder,
        source,
        fetch(source, offline=offline),
        model.architecture,
        model.tokenizer,
        adapter,
        bfloat16=found.bfloat16,
    )
    summary = found.run.results(**needed_results(found.config))
    (folder / CARD).write_text(model_card(found.config, summary, merged=True), encoding="utf-8")


def check_adapter(folder: Path) -> None:
    """Raise UserError if the files of an adapter are missing or damaged, or it is not plain LoRA.

    This needs no base, so it comes before anything is fetched. Whether the adapter fits its base, `verify` checks.
    """
    config = Claims(read_json_object(folder / CONFIG, AGAIN), str(folder / CONFIG), AGAIN, "LoRA")
    check_lora(folder, config)
    base = config.text("base_model_name_or_path", "")
    if not base.isprintable() or len(base) > LONGEST_NAME:
        words = f"a text of at most {LONGEST_NAME:,} characters, without control characters"
        raise config.refused("base_model_name_or_path", base, words)
    read_ours(folder)
    if not (folder / WEIGHTS).is_file():
        raise UserError(f"{folder} has no {WEIGHTS}; {AGAIN}")
    source = SafetensorsFolder(folder / WEIGHTS)
    names = set(source.names())
    if not names:
        raise UserError(f"{folder / WEIGHTS} is damaged: it holds no tensors; {AGAIN}")
    for name in names:
        for mine, other in (("lora_A", "lora_B"), ("lora_B", "lora_A")):
            if f".{mine}." in name and name.replace(f".{mine}.", f".{other}.") not in names:
                raise UserError(f"{folder / WEIGHTS} is damaged: '{name}' is there without its {other}; {AGAIN}")
        with np.errstate(over="ignore", invalid="ignore"):  # what float32 cannot hold becomes infinite
            finite = np.isfinite(source.read(name).astype(np.float32)).all()
        if not finite:
            raise UserError(f"{folder / WEIGHTS} is damaged: '{name}' holds numbers that are not finite; {AGAIN}")


def check_out(out: Path) -> None:
    """Raise UserError if `out` is something else than a new or empty folder, or if it cannot be written."""
    with named_errors(out, "write", "give another out"):
        if out.is_file() or entries(out):
            raise UserError(f"out={out} exists already and is not an empty folder: give another out")
        place = next(folder for folder in (out, *out.absolute().parents) if folder.exists())
        with scratch_folder(place, out.name):
            pass


def leftovers(_folder: str, names: list[str]) -> list[str]:
    """Return the names that are not copied. `out` may be inside the adapter's folder, where its files are written."""
    return [name for name in names if is_leftover(name)]


@contextlib.contextmanager
def appearing(out: Path) -> Iterator[Path]:
    """Give a temporary folder to fill, as `filled_folder` does. Call `check_out` first.

    Raises:
        UserError: the disk is full or the folder cannot be written.
    """
    try:
        with filled_folder(out) as folder:
            yield folder
    except OSError as error:
        raise UserError(f"cannot write out={out}: {error}; free space or give another out") from error


def verify(console: Console, found: ExportSource, model: Model, out: Path, whole: bool) -> None:
    """Read and check what was written, and print the result of each check.

    Raises:
        UserError: a check failed.
    """
    folder = found.adapter if whole else out
    checks = [check_keys(folder, model.architecture)]
    if checks[0].passed:
        adapter = read_adapter(folder, model.architecture)
        tokens = Encoder(model.tokenizer).root(PROMPT)
        base, adapted = (prompt_logits(model, one, tokens) for one in (BASE, adapter))
        checks.append(check_effect(base, adapted))
        if whole:
            base_source = found.base()
            stored, _ = open_checkpoint(base_source, fetch(base_source, offline=True))
            checks += [check_tensors(out, stored, folder), check_config(out, model.architecture)]
            dtype = compute_type(model.params)
            # The base is freed before the merged model is loaded, so that only one of them is in memory.
            model.params.clear()
            gc.collect()
            checks.append(check_whole(out, base, adapted, tokens, dtype))
    for check in checks:
        mark = ("ok    ", "green") if check.passed else ("FAILED", "red")
        say(console, Text.assemble(f"{check.name + ':':9}", mark, f" {check.finding}"))
    failed = [check.name for check in checks if not check.passed]
    if failed:
        raise UserError(f"verification failed ({', '.join(failed)}); do not use {out}")


def check_whole(out: Path, base: np.ndarray, adapted: np.ndarray, tokens: np.ndarray, dtype: Any) -> Check:
    """Load the merged folder as a model, and compare its logits with those of base and adapter."""
    merged = read_model(ModelSource("hub", str(out.resolve())), dtype, offline=True, name=out.name)
    if not np.array_equal(Encoder(merged.tokenizer).root(PROMPT), tokens):
        return Check("merged", False, "its tokenizer gives other tokens than the base's")
    return check_merged(base, adapted, prompt_logits(merged, BASE, tokens))


def next_command(found: ExportSource, out: Path, whole: bool) -> str:
    """Return the command that uses the exported folder."""
    folder = shlex.quote(str(out))
    if whole:
        return f"vllm serve {folder}"
    if found.run is None:
        config = Claims(read_json_object(out / CONFIG, AGAIN), str(out / CONFIG), AGAIN)
        base = config.text("base_model_name_or_path", "BASE")
        return vllm_command(shlex.quote(base), folder, "adapter", config.whole("r", 8))
    source = found.base()
    if source.source == "hub" and not str(source.path).endswith(".gguf"):
        rank = Claims(read_json_object(out / CONFIG, AGAIN), str(out / CONFIG), AGAIN).whole("r")
        return vllm_command(shlex.quote(str(source.path)), folder, served_name(found.config), rank)
    run = shlex.quote(str(found.run.path))
    return f"python -m jaxalign.export run={run} format=merged out={shlex.quote(f'{out}-merged')} verify=true"
