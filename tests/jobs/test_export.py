import errno
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest
from command_line import refused
from tiny_model import random_adapter

from jaxalign.config.crest import CrestConfig
from jaxalign.config.entry_point import entry_point
from jaxalign.config.identity import as_dict
from jaxalign.config.train import TrainConfig
from jaxalign.errors import UserError
from jaxalign.export import main
from jaxalign.jobs import export as exporting
from jaxalign.jobs.adapters import find_adapters
from jaxalign.models.adapter import Adapter
from jaxalign.models.architecture import from_config
from jaxalign.pretrained import merge
from jaxalign.pretrained.peft import read_adapter, write_adapter
from jaxalign.pretrained.random_tensors import RandomTensors
from jaxalign.pretrained.safetensors import SafetensorsFolder, write_safetensors
from jaxalign.pretrained.sources import read_model
from jaxalign.pretrained.tokenizer import tiny_tokenizer
from jaxalign.runs.directory import Run, open_run

SUMMARY = {"value": "power", "target": None, "questionnaire": None, "training": {"stages": []}}
CREST_SUMMARY = {
    "questions": {"train": 12, "validation": 4, "test": 8},
    "models": [
        {"name": name, "test": {"accuracy": right, "interval": [0, 1]}}
        for name, right in (("base", 0.25), ("sft", 0.5))
    ],
    "final": "sft",
}
TARGETS = ("q_proj", "o_proj", "down_proj")
CONFIG = {
    "architectures": ["Qwen2ForCausalLM"],
    "model_type": "qwen2",
    "vocab_size": 300,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "tie_word_embeddings": False,
}


@pytest.fixture(scope="module")
def base(tmp_path_factory) -> Path:
    """A base as the hub would give it: bfloat16, biases, an untied head, and files that do not belong to it."""
    folder = tmp_path_factory.mktemp("base")
    tensors = RandomTensors(from_config(CONFIG), 0)
    arrays = {name: tensors.read(name).astype(ml_dtypes.bfloat16) for name in tensors.names()}
    write_safetensors(folder / "model.safetensors", arrays, {"format": "pt"})
    tiny_tokenizer().hf.save_pretrained(folder)
    for name, text in (("config.json", json.dumps(CONFIG)), ("LICENSE", "as you like"), ("adapter_config.json", "{}")):
        (folder / name).write_text(text)
    return folder


def finished_run(
    path: Path, *overrides: str, adapter_scale: float = 1.0, crest: bool = False, first_layer: int = 0
) -> Path:
    """A run's directory as a training, or CREST, leaves it."""
    seen: list[TrainConfig | CrestConfig] = []
    if crest:
        entry_point("crest", CrestConfig)(seen.append)(["precision=float32", *overrides])
    else:
        entry_point("train", TrainConfig)(seen.append)(["value=power", "precision=float32", *overrides])
    config = seen[0]
    found = exporting.ExportSource(path, Run(path), as_dict(config))
    model = read_model(found.base(), np.float32, offline=True, name=config.model.name)
    params = random_adapter(rank=3, targets=TARGETS, architecture=model.architecture)
    for pair in params["layers"].values():
        pair |= {"a": pair["a"][first_layer:], "b": pair["b"][first_layer:] * adapter_scale}
    run = open_run({"seed": 0}, as_dict(config), dir=path)
    name = str(config.model.path or config.model.name)
    known = {"base_name": name, "base_identity": model.identity, "prompt_format": "plain", "first_layer": first_layer}
    write_adapter(run.adapter, Adapter("mine", params, 3, 6, **known), dropout=0.0, card="# a card")
    run.finish(CREST_SUMMARY if crest else SUMMARY)
    return path


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Path:
    return finished_run(tmp_path_factory.mktemp("run") / "tiny", "model=tiny")


@pytest.fixture(scope="module")
def hub_run(tmp_path_factory, base) -> Path:
    return finished_run(tmp_path_factory.mktemp("run") / "hub", "model=hub", f"model.path={base}")


def contents(folder: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in folder.iterdir()}


def test_the_adapter_is_copied_whole_and_the_next_command_can_be_typed(run, tmp_path, capsys):
    main([f"run={run}", f"out={tmp_path}/new/out"])
    assert contents(tmp_path / "new" / "out") == contents(run / "adapter")
    assert [file.name for file in (tmp_path / "new").iterdir()] == ["out"]
    *_, last = capsys.readouterr().out.strip().splitlines()
    assert last == (
        f"next:    python -m jaxalign.export run={run} format=merged out={tmp_path}/new/out-merged verify=true"
    )


def test_an_adapter_folder_alone_can_be_copied_and_one_inside_a_run_still_knows_it(run, tmp_path, capsys):
    shutil.copytree(run / "adapter", tmp_path / "alone")
    main([f"run={tmp_path}/alone", f"out={tmp_path}/copy"])
    assert contents(tmp_path / "copy") == contents(run / "adapter")
    assert "vllm serve tiny --enable-lora" in capsys.readouterr().out
    assert exporting.find(run / "adapter").run == Run(run)


@pytest.mark.slow
def test_verification_of_an_adapter_counts_its_keys_and_shows_that_it_acts(run, tmp_path, capsys):
    main([f"run={run}", f"out={tmp_path}/out", "verify=true"])
    text = capsys.readouterr().out
    assert "keys:    ok     12 tensors for 6 modules of the base, rank 3, none missing or misshapen" in text
    assert "logits:  ok     max |difference|" in text


def test_an_adapter_that_changes_nothing_fails_verification(tmp_path, capsys):
    path = finished_run(tmp_path / "run", "model=tiny", adapter_scale=0.0)
    line = refused(main, [f"run={path}", f"out={tmp_path}/out", "verify=true"], capsys)
    assert line.startswith("verification failed (logits); do not use")


@pytest.mark.slow
def test_a_merged_random_model_is_whole_and_answers_like_its_adapter(run, tmp_path, capsys):
    main([f"run={run}", f"out={tmp_path}/out", "format=merged", "verify=true"])
    text = capsys.readouterr().out
    assert "merged:  ok" in text
    assert f"next:    vllm serve {tmp_path}/out" in text
    config = json.loads((tmp_path / "out" / "config.json").read_text())
    known = {key: config[key] for key in ("architectures", "dtype", "eos_token_id")}
    assert known == {"architectures": ["LlamaForCausalLM"], "dtype": "float32", "eos_token_id": 2}
    assert "library_name: transformers" in (tmp_path / "out" / "README.md").read_text()


@pytest.mark.slow
def test_a_crest_run_is_exported_like_any_other_with_a_card_of_its_own(tmp_path, capsys):
    path = finished_run(tmp_path / "run", "model=tiny", crest=True)
    for form in ("peft", "merged"):
        main([f"run={path}", f"out={tmp_path}/{form}", f"format={form}", "verify=true"])
    assert "merged:  ok" in capsys.readouterr().out
    card = (tmp_path / "merged" / "README.md").read_text()
    assert "# CREST on puzzles: tiny" in card
    assert "Accuracy of this model (`sft`) on the test: 0.50" in card


def test_a_merged_weight_is_w_plus_scale_times_a_b_rounded_once_and_the_others_are_as_stored(hub_run, base, tmp_path):
    main([f"run={hub_run}", f"out={tmp_path}/out", "format=merged"])
    before, after = SafetensorsFolder(base), SafetensorsFolder(tmp_path / "out")
    layers = read_adapter(hub_run, from_config(CONFIG)).params["layers"]
    assert after.names() == before.names()
    for name in before.names():
        expected = before.read(name).astype(np.float32)
        *_, projection, kind = name.split(".")
        if projection in TARGETS and kind == "weight":
            layer = int(name.split(".")[2])
            expected = expected + 2 * (layers[projection]["a"][layer] @ layers[projection]["b"][layer]).T
        assert after.dtype(name) == "BF16"
        np.testing.assert_allclose(after.read(name).astype(np.float32), expected, rtol=2**-8, atol=1e-6, err_msg=name)


@pytest.mark.slow
def test_layers_without_an_adapter_are_merged_as_they_are_stored(base, tmp_path, capsys):
    run = finished_run(tmp_path / "run", "model=hub", f"model.path={base}", "lora.targets=[q_proj]", first_layer=1)
    main([f"run={run}", f"out={tmp_path}/out", "format=merged", "verify=true"])
    assert "merged:  ok" in capsys.readouterr().out
    before, after = SafetensorsFolder(base), SafetensorsFolder(tmp_path / "out")
    changed = {name for name in before.names() if not np.array_equal(before.read(name), after.read(name))}
    assert {name.split(".")[2] for name in changed} == {"1"}


@pytest.mark.slow
def test_a_big_model_is_written_in_shards_with_an_index(hub_run, tmp_path, monkeypatch):
    monkeypatch.setattr(merge, "SHARD_BYTES", 30_000)
    out = tmp_path / "out"
    main([f"run={hub_run}", f"out={out}", "format=merged", "verify=true"])
    shards = sorted(file.name for file in out.glob("*.safetensors"))
    assert len(shards) > 2
    assert shards[0] == f"model-00001-of-{len(shards):05}.safetensors"
    assert all((out / shard).stat().st_size < 35_000 for shard in shards)
    index = json.loads((out / "model.safetensors.index.json").read_text())
    assert sorted(set(index["weight_map"].values())) == shards
    found = SafetensorsFolder(out)
    assert index["metadata"]["total_size"] == sum(found.read(name).nbytes for name in found.names())


def test_a_base_folder_hands_down_its_configuration_tokenizer_and_licence_and_no_more(hub_run, base, tmp_path):
    main([f"run={hub_run}", f"out={tmp_path}/out", "format=merged"])
    handed = contents(tmp_path / "out")
    assert handed["config.json"] == (base / "config.json").read_bytes()
    assert handed["tokenizer.json"] == (base / "tokenizer.json").read_bytes()
    assert "LICENSE" in handed
    assert "adapter_config.json" not in handed


def test_transformers_reads_the_configuration_and_tokenizer_of_a_merged_model(run, tmp_path):
    from transformers import AutoConfig, AutoTokenizer

    main([f"run={run}", f"out={tmp_path}/out", "format=merged"])
    assert AutoConfig.from_pretrained(tmp_path / "out").hidden_size == 32
    assert AutoTokenizer.from_pretrained(tmp_path / "out").eos_token == "<|im_end|>"


@pytest.mark.slow
def test_a_merged_model_without_its_adapter_fails_verification(hub_run, tmp_path, monkeypatch, capsys):
    honest = exporting.write_merged

    def forgetful(*arguments, **options):
        *rest, adapter = arguments
        honest(*rest, adapter.times(0.0), **options)

    monkeypatch.setattr(exporting, "write_merged", forgetful)
    line = refused(main, [f"run={hub_run}", f"out={tmp_path}/out", "format=merged", "verify=true"], capsys)
    assert line.startswith("verification failed (tensors, merged)")


@pytest.mark.parametrize("fault", ["missing", "extra", "shape"])
def test_verification_names_the_keys_that_do_not_fit_the_base(run, tmp_path, capsys, fault):
    from jaxalign.pretrained.verify import check_keys

    folder = tmp_path / "adapter"
    shutil.copytree(run / "adapter", folder)
    stored = SafetensorsFolder(folder / "adapter_model.safetensors")
    tensors = {name: np.array(stored.read(name)) for name in stored.names()}
    first = min(tensors)
    if fault == "missing":
        del tensors[first]
    elif fault == "extra":
        tensors["base_model.model.lm_head.lora_A.weight"] = tensors[first]
    else:
        tensors[first] = tensors[first][:, 1:]
    write_safetensors(folder / "adapter_model.safetensors", tensors, {"format": "pt"})
    check = check_keys(folder, read_model(exporting.find(run).base(), np.float32, offline=True, name="").architecture)
    assert not check.passed
    said = {"missing": f"1 missing ({first})", "extra": "1 not in the base", "shape": f"1 misshapen ({first})"}
    assert check.finding.startswith(said[fault])


def test_what_is_no_finished_run_is_refused(run, tmp_path, capsys):
    out = f"out={tmp_path}/out"
    assert refused(main, [f"run={tmp_path}/nowhere", out], capsys).startswith(f"run={tmp_path}/nowhere is not a run")
    (tmp_path / "config.yaml").write_text("just: a file\n")
    assert refused(main, [f"run={tmp_path}", out], capsys).startswith(f"run={tmp_path} is not a run")
    shutil.copytree(run, tmp_path / "killed")
    (tmp_path / "killed" / "summary.json").unlink()
    assert "is not finished: type its training command again" in refused(main, [f"run={tmp_path}/killed", out], capsys)
    shutil.copytree(run, tmp_path / "untrained")  # as a baseline that trains nothing leaves it
    shutil.rmtree(tmp_path / "untrained" / "adapter")
    Run(tmp_path / "untrained").finish(SUMMARY)
    assert "is finished and made no adapter" in refused(main, [f"run={tmp_path}/untrained", out], capsys)
    with pytest.raises(UserError, match="is finished and made no adapter"):
        find_adapters("adapter", [f"{tmp_path}/untrained"])
    assert not (tmp_path / "out").exists()


def test_a_folder_that_holds_something_is_never_written_to(run, tmp_path, capsys):
    (tmp_path / "mine").write_text("mine")
    assert "exists already and is not an empty folder" in refused(main, [f"run={run}", f"out={tmp_path}"], capsys)
    assert "exists already and is not an empty folder" in refused(main, [f"run={run}", f"out={tmp_path}/mine"], capsys)
    assert refused(main, [f"run={run}", f"out={tmp_path}/mine/new"], capsys).startswith(
        f"cannot write {tmp_path}/mine/new: Not a directory"
    )
    assert contents(tmp_path) == {"mine": b"mine"}
    (tmp_path / "lost").symlink_to("nowhere")
    line = refused(main, [f"run={run}", f"out={tmp_path}/lost"], capsys)
    assert (
        line
        == f"cannot write {tmp_path}/lost: it is a symbolic link to nowhere, which does not exist; give another out"
    )


@pytest.mark.parametrize(
    ("name", "make", "why"),
    [
        ("zz", os.mkfifo, "it is a named pipe"),
        ("README.md", lambda path: (path.unlink(), path.symlink_to("/dev/zero")), "it is a device"),
        ("README.md", lambda path: (path.unlink(), path.symlink_to(path)), "it cannot be looked up: Too many levels"),
        ("self", lambda path: path.symlink_to(path.parent), "it is a link to a folder"),
    ],
)
def test_what_cannot_be_copied_is_named_before_anything_is_written(run, tmp_path, capsys, name, make, why):
    shutil.copytree(run, tmp_path / "run")
    path = tmp_path / "run" / "adapter" / name
    make(path)
    line = refused(main, [f"run={tmp_path / 'run'}", f"out={tmp_path / 'out'}"], capsys)
    assert line.startswith(f"{path} cannot be copied: {why}")
    assert not (tmp_path / "out").exists()


def test_a_folder_of_harm_without_runs_is_named_by_its_own_key(run, tmp_path, capsys):
    for folder, said in ((tmp_path / "nope", "is not a folder"), (tmp_path, "holds no finished run")):
        line = refused(main, [f"run={run}", f"out={tmp_path / 'out'}", f"harm={folder}"], capsys)
        assert line.startswith(f"harm={folder} {said}")


def test_an_empty_folder_that_is_there_stays_the_same_folder(run, tmp_path, monkeypatch):
    """A mount point cannot be replaced, and what a symbolic link leads to is where the user wants the files."""
    (tmp_path / "empty").mkdir()
    (tmp_path / "link").symlink_to("empty")
    (tmp_path / "empty" / ".empty.killed.unfinished").mkdir()  # an export that was killed
    before = (tmp_path / "empty").stat().st_ino
    main([f"run={run}", f"out={tmp_path}/link"])
    assert (tmp_path / "link").is_symlink() and (tmp_path / "empty").stat().st_ino == before
    assert {p.name for p in (tmp_path / "empty").iterdir()} >= {p.name for p in (run / "adapter").iterdir()}
    main([f"run={run}", f"out={tmp_path}/new"])
    assert contents(tmp_path / "new") == contents(run / "adapter")


def test_a_folder_that_cannot_be_written_is_refused_before_the_model_is_read(run, tmp_path, capsys, monkeypatch):
    def read_only(*_, **__):
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    monkeypatch.setattr("tempfile.mkdtemp", read_only)
    monkeypatch.setattr(exporting, "read_model", None)
    line = refused(main, [f"run={run}", f"out={tmp_path}/out", "format=merged"], capsys)
    assert line == f"cannot write {tmp_path}/out: Read-only file system; give another out"


def flip(weights: Path) -> None:
    data = bytearray(weights.read_bytes())
    data[-1] ^= 1
    weights.write_bytes(data)


DAMAGES = {
    "changed": (
        lambda run: flip(run / "adapter" / "adapter_model.safetensors"),
        "was changed since the run was finished",
    ),
    "lost": (lambda run: (run / "adapter" / "adapter_model.safetensors").unlink(), "is missing since the run was"),
    "all lost": (lambda run: shutil.rmtree(run / "adapter"), "is missing since the run was finished; remove"),
    "no configuration": (
        lambda run: (run / "adapter" / "adapter_config.json").unlink(),
        "adapter_config.json is missing since the run was finished",
    ),
    "cut configuration": (
        lambda run: (run / "adapter" / "adapter_config.json").write_text("{"),
        "adapter_config.json was changed since the run was finished",
    ),
    "cut notes": (
        lambda run: (run / "adapter" / "jaxalign.json").write_text("{"),
        "jaxalign.json was changed since the run was finished",
    ),
    "empty summary": (lambda run: (run / "summary.json").write_text(""), "summary.json line 1 is not JSON"),
    "no results": (
        lambda run: (run / "summary.json").write_text("{}"),
        "summary.json is damaged ('training' is missing",
    ),
}


@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize("form", ["peft", "merged"])
def test_a_damaged_run_is_not_exported(run, tmp_path, capsys, damage, form):
    shutil.copytree(run, tmp_path / "run")
    harm, said = DAMAGES[damage]
    harm(tmp_path / "run")
    for path in ("run", "run/adapter") if (tmp_path / "run" / "adapter").is_dir() else ["run"]:
        assert said in refused(main, [f"run={tmp_path}/{path}", f"out={tmp_path}/out", f"format={form}"], capsys)
    assert not (tmp_path / "out").exists()


def test_a_run_of_before_whose_summary_has_hashes_of_the_weights_alone_is_exported_unless_it_is_damaged(
    run, tmp_path, capsys
):
    shutil.copytree(run, tmp_path / "run")
    kept = json.loads((run / "summary.json").read_text())
    kept["files"] = {name: one for name, one in kept["files"].items() if name.endswith(".safetensors")}
    (tmp_path / "run" / "summary.json").write_text(json.dumps(kept))
    asked = [f"run={tmp_path}/run", f"out={tmp_path}/out"]
    main(asked)
    shutil.rmtree(tmp_path / "out")
    for name in ("jaxalign.json", "adapter_config.json"):
        (tmp_path / "run" / "adapter" / name).write_text("{")
        assert f"{name} line 1 is not JSON" in refused(main, asked, capsys)
    (tmp_path / "run" / "adapter" / "adapter_config.json").unlink()
    assert "lacks adapter_config.json: remove" in refused(main, asked, capsys)


def test_a_damaged_adapter_without_its_run_is_not_exported(run, tmp_path, capsys):
    shutil.copytree(run / "adapter", tmp_path / "alone")
    weights = tmp_path / "alone" / "adapter_model.safetensors"
    stored = SafetensorsFolder(weights)
    arrays = {name: np.array(stored.read(name)) for name in stored.names()}
    first = min(arrays)
    for wrong, said in (
        ({}, "it holds no tensors"),
        ({name: one for name, one in arrays.items() if name != first}, "is there without its lora_A"),
        (arrays | {first: arrays[first] * np.float32("nan")}, f"'{first}' holds numbers that are not finite"),
        (arrays | {first: arrays[first].astype(np.float64) + 1e300}, f"'{first}' holds numbers that are not finite"),
    ):
        write_safetensors(weights, wrong, {"format": "pt"})
        line = refused(main, [f"run={tmp_path}/alone", f"out={tmp_path}/out"], capsys)
        assert line.startswith(f"{weights} is damaged: ") and said in line
    weights.write_bytes(weights.read_bytes()[:-9])
    assert "is damaged or truncated" in refused(main, [f"run={tmp_path}/alone", f"out={tmp_path}/out"], capsys)
    assert not (tmp_path / "out").exists()


def test_an_adapter_may_be_copied_into_a_folder_of_its_own(run, tmp_path):
    shutil.copytree(run / "adapter", tmp_path / "alone")
    before = contents(tmp_path / "alone")
    main([f"run={tmp_path}/alone", f"out={tmp_path}/alone/copy"])
    assert contents(tmp_path / "alone" / "copy") == before


@pytest.mark.parametrize(
    ("setting", "said"),
    [
        ({"r": True}, "r=true is not allowed"),
        ({"r": 2**31}, "r=2147483648 is not allowed"),
        ({"lora_alpha": float("nan")}, "lora_alpha=nan is not allowed"),
        ({"lora_alpha": "32"}, "lora_alpha='32' is not allowed"),
        ({"target_modules": 5}, "target_modules=5 is not allowed"),
        ({"base_model_name_or_path": 5}, "base_model_name_or_path=5 is not allowed"),
        ({"base_model_name_or_path": "\x1b[2J"}, "without control characters"),
        ({"base_model_name_or_path": "x" * 10**6}, "of at most 4,096 characters"),
    ],
)
def test_an_adapter_whose_settings_are_damaged_is_not_exported(run, tmp_path, capsys, setting, said):
    shutil.copytree(run / "adapter", tmp_path / "alone")
    path = tmp_path / "alone" / "adapter_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | setting))
    line = refused(main, [f"run={tmp_path}/alone", f"out={tmp_path}/out"], capsys, silent=True)
    assert line.startswith(f"{path}: ") and said in line and len(line) < 500
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("wish", ["format=merged", "verify=true", "prefetch=true verify=true"])
def test_an_adapter_without_its_run_cannot_say_what_its_base_is(run, tmp_path, capsys, wish):
    shutil.copytree(run / "adapter", tmp_path / "alone")
    line = refused(main, [f"run={tmp_path}/alone", f"out={tmp_path}/out", *wish.split()], capsys)
    assert "is an adapter without its run" in line


def test_a_base_whose_weights_have_changed_is_refused_before_anything_is_written(base, tmp_path, capsys):
    shutil.copytree(base, tmp_path / "base")
    path = finished_run(tmp_path / "run", "model=hub", f"model.path={tmp_path}/base")
    stored = SafetensorsFolder(base)
    arrays = {name: stored.read(name) * 2 for name in stored.names()}
    write_safetensors(tmp_path / "base" / "model.safetensors", arrays, {"format": "pt"})
    for wish in ("format=merged", "verify=true"):
        line = refused(main, [f"run={path}", f"out={tmp_path}/out", wish], capsys)
        assert "was trained on another base" in line
    assert not (tmp_path / "out").exists()


def test_prefetch_fetches_and_writes_nothing(run, tmp_path, capsys):
    main([f"run={run}", f"out={tmp_path}/out", "prefetch=true"])
    assert "all that this command needs is here" in capsys.readouterr().out
    assert not (tmp_path / "out").exists()


def test_a_bad_command_is_refused_without_loading_jax(tmp_path):
    code = f"import sys; from jaxalign.export import main\ntry: main(['run={tmp_path}', 'format=whole', 'out=x'])\n"
    code += "except SystemExit as end: sys.exit(99 if 'jax' in sys.modules else end.code)"
    result = subprocess.run([sys.executable, "-c", code], check=False, capture_output=True, text=True)
    assert result.returncode == 2
    assert result.stderr.startswith("error: format=whole is not known")


def test_a_run_whose_configuration_lost_its_precision_is_named(run, tmp_path, capsys):
    shutil.copytree(run, tmp_path / "run")
    config = tmp_path / "run" / "config.yaml"
    config.write_text(re.sub(r"(?m)^precision: .*\n", "", config.read_text()))
    line = refused(main, [f"run={tmp_path}/run", f"out={tmp_path}/out", "verify=true"], capsys)
    assert line == f"{config} has no 'precision'; get the run again"


@pytest.mark.parametrize("setting", [{"peft_type": "IA3"}, {"use_dora": True}, {"rank_pattern": {"q_proj": 2}}])
def test_an_adapter_that_cannot_be_read_is_not_exported(run, tmp_path, capsys, setting):
    shutil.copytree(run / "adapter", tmp_path / "alone")
    path = tmp_path / "alone" / "adapter_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | setting))
    line = refused(main, [f"run={tmp_path}/alone", f"out={tmp_path}/out"], capsys, silent=True)
    assert line.startswith(f"{tmp_path}/alone ") and not (tmp_path / "out").exists()
