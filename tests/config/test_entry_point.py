import functools
import gc
import json
import logging
import os
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
from command_line import refused
from hostile import BOMB, FRAGMENTS, VALUES, damaged, few, survives
from hydra._internal.config_search_path_impl import ConfigSearchPathImpl
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.plugins import Plugins
from hypothesis import given
from hypothesis import strategies as st

from jaxalign.config.crest import CrestConfig
from jaxalign.config.entry_point import RARELY, entry_point
from jaxalign.config.evaluate import EvaluateConfig
from jaxalign.config.export import ExportConfig
from jaxalign.config.flags import split_flags
from jaxalign.config.generate import GenerateConfig
from jaxalign.config.overrides import CheckedFiles, CommandLine, one_line
from jaxalign.config.presets import CONF
from jaxalign.config.train import TrainConfig
from jaxalign.errors import UserError
from jaxalign.values.designed import designed_targets
from jaxalign.values.targets import extreme_targets


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """An empty current directory."""
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    return tmp_path / "here"


def configs(*arguments):
    """The configurations that a command line runs."""
    seen: list[TrainConfig] = []
    entry_point("train", TrainConfig)(seen.append)(arguments)
    return seen


def crest_configs(*arguments):
    """The configurations that a command line of jaxalign.crest runs."""
    seen: list[CrestConfig] = []
    entry_point("crest", CrestConfig)(seen.append)(arguments)
    return seen


def refusal(capsys, *arguments):
    """The one line on standard error of a command line that runs nothing."""
    ran = []
    line = refused(entry_point("train", TrainConfig)(ran.append), arguments, capsys, silent=True)
    assert ran == []
    return line


def test_a_path_whose_name_is_too_long_is_one_line(capsys):
    name = "x" * 300
    assert f"{name} cannot be used: File name too long; give another" in refusal(capsys, "--config-dir", name)
    command = entry_point("train", TrainConfig)(lambda config: print(Path(name).is_dir()))
    assert refused(command, ["value=power"], capsys) == f"{name} cannot be used: File name too long; give another path"


@pytest.mark.parametrize("written", ["value=power", "+value=power", "++value=power"])
def test_a_value_is_chosen_with_or_without_plus(written):
    (config,) = configs(written, "+training.epochs=3", "+model=tiny")
    assert config.value is not None
    assert (config.value.name, config.training.epochs, config.model.name) == ("power", 3, "tiny")


@pytest.mark.parametrize("first", [True, False])
def test_scores_are_changed_in_any_order(first):
    changes = ["value.scores.security=4", "value.name=mine"]
    (config,) = configs(*(["+value=power", *changes] if first else [*changes, "value=power"]))
    assert config.value is not None
    assert (config.value.name, config.value.scores["security"], config.value.scores["power"]) == ("mine", 4, 6)


def test_a_recipe_goes_with_a_value():
    (config,) = configs("experiment=released_vim", "+value=security")
    assert config.value is not None
    assert (config.value.name, config.dataset.name, config.released.label_shift) == ("security", "touche23", True)


def test_keys_that_an_option_leaves_out_can_still_be_given():
    (config,) = configs("value=power", "model=tiny", "model.date=2026-01-31", "model.config.hidden_size=64")
    assert config.model.date == "2026-01-31"
    assert config.model.config is not None
    assert config.model.config["hidden_size"] == 64


@pytest.mark.parametrize(
    ("given", "words"),
    [
        (["model.path=MINE"], "model.path is read with model=hub alone: add model=hub, or leave model.path out"),
        (["model=tiny", "model.path=MINE"], "model.path is read with model=hub alone"),
        (["model.revision=main"], "model.revision is not read with model=smollm2_135m: leave it out"),
        (["model=hub", "model.path=MINE", "model.file=a.gguf"], "model.file is not read with model=hub: leave it out"),
    ],
)
def test_a_key_that_the_model_s_source_would_pass_over_is_refused(given, words, capsys):
    with pytest.raises(SystemExit):
        configs("value=power", *given)
    assert words in capsys.readouterr().err


def test_several_recipes_go_one_after_the_other(capsys):
    paper, baseline = "crest_arc_llama3_8b", "rft"
    (config,) = crest_configs(f"experiment=[{paper},{baseline}]", "crest.samples=4")
    assert (config.model.name, config.dataset.name, config.sft.batch_size) == ("llama3_8b", "arc", 8)
    assert (config.crest.tolerance, config.dpo.rounds, config.crest.samples) == (None, 0, 4)
    assert [c.crest.hint for c in crest_configs("-m", f"experiment=[{paper},rft],[{paper},star]")] == [False, True]
    line = refused(lambda given: crest_configs(*given), [f"experiment=[{paper},rtf]"], capsys)
    assert line.startswith("experiment=rtf: there is no such option; did you mean 'rft'?")


def test_a_list_of_options_of_a_group_is_refused_because_one_would_win_silently(capsys):
    line = refusal(capsys, "value=[power,hedonism]")
    assert line == "value=[power,hedonism]: give one option; -m value=power,hedonism makes a run for each"


@pytest.mark.parametrize("written", ["dataset.reply=({letter})", "dataset.reply='({letter})'"])
def test_the_form_of_an_answer_is_taken_as_it_stands(written):
    (config,) = crest_configs(written)
    assert config.dataset.reply == "({letter})"


def test_home_is_found_after_the_equals_sign(monkeypatch):
    monkeypatch.setenv("HOME", "/home/me")
    (config,) = configs("value=power", "run.dir=~/runs/one", "dataset.path=~/é x/=~/y", "adapter=a/~/b", "run.root=~")
    assert config.run.dir == "/home/me/runs/one"
    assert config.dataset.path == "/home/me/é x/=~/y"
    assert config.adapter == "a/~/b"
    assert config.run.root == "/home/me"
    found = configs("-m", "value=power", "dataset.path=~/a.jsonl,~/b.jsonl")
    assert [config.dataset.path for config in found] == ["/home/me/a.jsonl", "/home/me/b.jsonl"]


@pytest.mark.parametrize("text", ["~/x is a folder", "why =~/ and ~/?"])
def test_a_free_text_is_not_a_path(text):
    seen = []
    entry_point("generate", GenerateConfig)(seen.append)([f"prompt={text}"])
    assert seen[0].prompt == text


@pytest.mark.parametrize(
    "path", ["/tmp/a${b}/x.jsonl", "${", "${b", "${}", "a${b:c}d", "${b.c}${d}", "${x:${y}}", "\\\\${b}"]
)
def test_what_only_looks_like_an_interpolation_belongs_to_the_path(path):
    (config,) = configs("value=power", f"dataset.path={path}", f"run.dir={path}")
    assert config.dataset.path == config.run.dir == path


def test_what_only_looks_like_an_interpolation_belongs_to_the_paths_of_a_multirun():
    found = configs("-m", "value=power", "dataset.path=a${b:c}d,${b.c}${d},${b,b")
    assert [config.dataset.path for config in found] == ["a${b:c}d", "${b.c}${d}", "${b", "b"]


@pytest.mark.parametrize("flag_first", [True, False])
def test_a_multirun_is_one_run_for_each_combination(flag_first):
    overrides = ["+value=power,benevolence", "training.seed=1,2"]
    seen = configs(*(["-m", *overrides] if flag_first else [overrides[0], "-m", overrides[1]]))
    names = [(config.value.name, config.training.seed) for config in seen if config.value]
    assert names == [("power", 1), ("power", 2), ("benevolence", 1), ("benevolence", 2)]


@pytest.mark.slow
def test_a_pattern_finds_exactly_the_fourteen_extreme_targets():
    seen = configs("-m", "+value=glob(*)", "model=tiny")
    assert {config.value.name for config in seen if config.value} == set(extreme_targets())
    assert len(seen) == 14


@pytest.mark.parametrize("written", ["+value=designed/", "value=designed/", "+value/designed=", "value/designed="])
def test_a_target_in_a_folder_of_targets_is_chosen_by_either_spelling(written):
    (config,) = configs(f"{written}designed_07", "model=tiny")
    assert config.value is not None
    assert config.value.scores == designed_targets()["designed_07"].by_value


@pytest.mark.slow
def test_a_pattern_finds_exactly_the_designed_targets():
    seen = configs("-m", "+value/designed=glob(*)", "model=tiny")
    assert [config.value.name for config in seen if config.value] == list(designed_targets())


def test_an_unknown_target_of_a_folder_is_an_error_that_names_the_nearest(capsys):
    assert refusal(capsys, "value/designed=designed_25").endswith("did you mean 'designed_24'?")


def test_hydra_leaves_nothing_in_the_current_directory(folder):
    configs("value=power")
    configs("-m", "value=power,security")
    assert os.listdir(folder) == []


OWN_VALUE = "name: own\nscores:\n" + "".join(f"  {value}: 3\n" for value in list(extreme_targets())[:10])


@pytest.mark.slow
@pytest.mark.parametrize("way", ["--config-dir", "hydra.searchpath"])
def test_options_of_ones_own_are_found(way, tmp_path):
    (tmp_path / "own" / "value" / "survey").mkdir(parents=True)
    (tmp_path / "own" / "value" / "own.yaml").write_text(OWN_VALUE)
    (tmp_path / "own" / "value" / "survey" / "mine.yaml").write_text(f"# @package value\n{OWN_VALUE}")
    where = ["--config-dir", f"{tmp_path}/own"] if way == "--config-dir" else [f"hydra.searchpath=[{tmp_path}/own]"]
    for written in ("value=own", "+value=own", "+value=survey/mine"):
        (config,) = configs(*where, written)
        assert config.value is not None
        assert config.value.name == "own"


@pytest.mark.slow
@pytest.mark.parametrize("way", ["--config-dir", "hydra.searchpath", "++hydra.searchpath"])
def test_an_option_of_ones_own_wins_over_a_shipped_one_of_its_name(way, tmp_path):
    (tmp_path / "value").mkdir()
    shipped = (CONF / "value" / "power.yaml").read_text(encoding="utf-8")
    (tmp_path / "value" / "power.yaml").write_text(shipped.replace("power: 6", "power: 2"))
    where = ["--config-dir", str(tmp_path)] if way == "--config-dir" else [f"{way}=[{tmp_path}]"]
    for written in ("value=power", "+value=power"):
        (config,) = configs(*where, written)
        assert config.value is not None and config.value.scores["power"] == 2
    for one in configs("-m", *where, "value=power", "training.seed=1,2"):
        assert one.value is not None and one.value.scores["power"] == 2
    (config,) = configs("value=power")  # the folder is forgotten after its command
    assert config.value is not None and config.value.scores["power"] == 6


def test_the_folder_of_config_dir_comes_before_those_of_the_search_path_in_their_order(tmp_path):
    shipped = (CONF / "value" / "power.yaml").read_text(encoding="utf-8")
    folders = [tmp_path / name for name in "abc"]
    for number, folder in enumerate(folders, start=1):
        (folder / "value").mkdir(parents=True)
        (folder / "value" / "power.yaml").write_text(shipped.replace("power: 6", f"power: {number}"))
    more = f"hydra.searchpath=[{folders[1]},{folders[2]}]"
    for where, score in ((["--config-dir", str(folders[0]), more], 1), ([more], 2)):
        (config,) = configs(*where, "value=power")
        assert config.value is not None and config.value.scores["power"] == score


@pytest.mark.slow
def test_a_recipe_of_ones_own_may_set_the_value_and_the_command_line_still_decides(tmp_path):
    (tmp_path / "experiment").mkdir()
    (tmp_path / "experiment" / "own.yaml").write_text(
        "# @package _global_\ndefaults: [{/value: hedonism}]\nlora: {rank: 3}\n"
    )
    for chosen, name in (([], "hedonism"), (["value=power"], "power"), (["+value=power"], "power")):
        (config,) = configs("--config-dir", str(tmp_path), "experiment=own", *chosen)
        assert config.value is not None
        assert (config.value.name, config.lora.rank) == (name, 3)


BAD = [
    (["+value=pwer"], "value=pwer: there is no such option; did you mean 'power'?"),
    (["+valeu=power"], "unknown key 'valeu'; did you mean 'value'?"),
    (["dataset=starer"], "dataset=starer: there is no such option; did you mean 'starter'?"),
    (["experiment=vim_lama2_7b"], "experiment=vim_lama2_7b: there is no such option; did you mean 'vim_llama2_7b'?"),
    ([], "missing: value (dataset=starter needs one: add for example +value=power)"),
    (["value.scores.security=4"], "no value is chosen: add value=OPTION"),
    (["value=power", "training.epocs=3"], "unknown key 'training.epocs'; did you mean 'training.epochs'?"),
    (["value=power", "epochs=3"], "unknown key 'epochs'; did you mean 'training.epochs'?"),
    (["value=power", "mesh.data=2", "mesh.data=4"], "mesh.data is given twice: leave one of them out"),
    (["value=power", "mesh=fsdp", "+mesh=data"], "mesh is given twice: leave one of them out"),
    (["value=power", "lora={rnak: 3}"], "unknown key 'lora.rnak'; did you mean 'lora.rank'?"),
    (["value=power", "value.scores.pwer=3"], "unknown key 'value.scores.pwer'; did you mean 'value.scores.power'?"),
    (
        ["value=power", "model=tiny", "model.config.hidden_sise=3"],
        "unknown key 'model.config.hidden_sise'; did you mean 'model.config.hidden_size'?",
    ),
    (["value=power", "lora.rank=0"], "lora.rank=0 is not allowed: give a whole number from 1 to 65536"),
    (["value=power", "training.epochs=(3"], "cannot read 'training.epochs=(3': it must be key=value"),
    (["power"], "cannot read 'power': it must be key=value"),
    (["--value", "power"], "unrecognized arguments: --value; settings are written key=value"),
    (["value=power,security"], "value=power,security: several values need -m, which makes"),
    (["-m", "value=glob(zz*)"], "value=glob(zz*): no option matches the pattern"),
    (["-m", "value=power,pwer"], "job 2 of 2 (value=pwer): value=pwer: there is no such option; did you mean 'power'?"),
    (["-m", "value=power", "lora.rank=1,0"], "job 2 of 2 (value=power lora.rank=0): lora.rank=0 is not allowed"),
    (
        ["-m", "value=power", "training.seed=range(1,10000000)"],
        "value=power training.seed=range(1,10000000) asks for",
    ),
    (
        ["-m", "value=power", "training.seed=shuffle(range(0,1e12))"],
        "value=power training.seed=shuffle(range(0,1e12))",
    ),
    (
        ["-m", "value=glob(*)", "training.seed=range(0,1000)"],
        "value=glob(*) training.seed=range(0,1000) asks for",
    ),
    (["value=power", f"lora.rank={'9' * 5000}"], "Exceeds the limit (4300 digits) for integer string conversion"),
    (["-m", "value=power", "--cfg", "job"], "--cfg does not go with -m"),
    (["-m", "value=power,security", "run.dir=here"], "run.dir=here: 2 jobs cannot share a directory"),
    (["value=power", "alignment.name=roleplay"], "alignment=roleplay trains nothing"),
    (["--config-dir", "/nowhere", "value=power"], "--config-dir /nowhere is not a folder"),
    (["hydra.searchpath=[/nowhere]", "value=power"], "provider=hydra.searchpath in command-line, path=/nowhere is not"),
    (["value=power", "hydra.foo=1"], "unknown key 'hydra.foo'"),
]


@pytest.mark.parametrize(("arguments", "line"), BAD, ids=[" ".join(arguments)[:60] for arguments, _ in BAD])
def test_bad_input_gets_one_line_and_status_2_before_anything_runs(capsys, arguments, line):
    assert refusal(capsys, *arguments).startswith(line)


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("lora: [1\n a: 3\n", "own.yaml is not YAML: while parsing a flow sequence"),
        ("lora: {rank: '${nothing.here}'}\n", "Interpolation key 'nothing.here' not found"),
        ("lora: {rnak: 3}\n", "unknown key 'lora.rnak'; did you mean 'lora.rank'?"),
        ("trainig: {epochs: 3}\n", "unknown key 'trainig'"),
        (
            r'alignment: {prompts: {mine: [{x: "a\ud83d"}]}}',
            "alignment.prompts.mine.x=a\ufffd holds half of a character: write the whole of it",
        ),
        (r'alignment: {prompts: {"\ud83d": x}}', "alignment.prompts.\ufffd=\ufffd holds half of a character"),
        (r'model: {config: {act: "\ud83d"}}', "model.config.act=\ufffd holds half of a character"),
    ],
)
def test_a_bad_file_of_ones_own_gets_one_line(capsys, tmp_path, text, line):
    (tmp_path / "experiment").mkdir()
    (tmp_path / "experiment" / "own.yaml").write_text(f"# @package _global_\n{text}")
    assert line in refusal(capsys, "--config-dir", str(tmp_path), "experiment=own", "value=power")


def test_the_first_job_that_fails_ends_a_multirun_and_is_named(capsys):
    seen = []

    def run(config: TrainConfig) -> None:
        seen.append(config.training.seed)
        if config.training.seed == 2:
            raise UserError("the disk is full")

    line = refused(entry_point("train", TrainConfig)(run), ["-m", "value=power", "training.seed=1,2,3"], capsys)
    assert line == "job 2 of 3 (value=power training.seed=2): the disk is full"
    assert seen == [1, 2]


def test_ctrl_c_says_that_the_same_command_resumes(capsys):
    def run(config: TrainConfig) -> None:
        raise KeyboardInterrupt

    for arguments, words in (([], "the same command"), (["run.overwrite=true"], "without run.overwrite=true")):
        with pytest.raises(SystemExit) as caught:
            entry_point("train", TrainConfig)(run)(["value=power", *arguments])
        assert caught.value.code == 130
        assert words in capsys.readouterr().err


def test_sigterm_ends_a_command_as_ctrl_c_does(capsys):
    def run(config: TrainConfig) -> None:
        os.kill(os.getpid(), signal.SIGTERM)
        pytest.fail("it went on")

    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(SystemExit) as caught:
        entry_point("train", TrainConfig)(run)(["value=power"])
    assert caught.value.code == 130
    assert capsys.readouterr().err == "interrupted; the same command resumes\n"
    assert signal.getsignal(signal.SIGTERM) == before


def test_a_bug_keeps_its_traceback(capsys):
    def run(config: TrainConfig) -> None:
        raise ZeroDivisionError("ours")

    with pytest.raises(SystemExit) as caught:
        entry_point("train", TrainConfig)(run)(["value=power"])
    assert caught.value.code == 1
    assert "ZeroDivisionError: ours" in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.parametrize(("name", "kind"), [("train", TrainConfig), ("crest", CrestConfig), ("export", ExportConfig)])
def test_help_says_what_to_type_next_and_where_the_keys_are_explained(capsys, tmp_path, name, kind):
    (tmp_path / "experiment").mkdir()  # with a recipe that composes only for crest
    (tmp_path / "experiment" / "own.yaml").write_text(
        "# @package _global_\ndefaults: [{override /reasoning: default}]\n"
    )
    own = [] if name == "export" else ["--config-dir", str(tmp_path)]
    entry_point(name, kind)(lambda config: None)([*own, "--help"])
    text = capsys.readouterr().out
    assert f"python -m jaxalign.{name} " in text
    assert f"conf/{name}.yaml" in text
    assert "Hydra" not in text
    recipes = [line for line in text.splitlines() if line.startswith("experiment: ")]
    if name == "train":
        assert "value: achievement, benevolence," in text and "\nvalue/survey: close\n" in text
        assert "\nvalue/designed: designed_01, " in text
        lines = text.splitlines()
        assert "benchmark: portraits" in lines  # not those of harm, which are for evaluate
        (models,) = (line for line in lines if line.startswith("model: "))
        assert " hub," in models and " run," not in models  # run is the model of an adapter that is asked
        assert recipes == ["experiment: released_vim, thorough, vim_llama2_7b"] and '"$(jaxalign-train -sc' in text
    elif name == "crest":
        assert "rft" in recipes[0] and "vim" not in recipes[0] and "\nvalue: " not in text
        assert "own" in recipes[0].removeprefix("experiment: ").split(", ")
    else:
        assert not recipes


@pytest.mark.parametrize(
    ("name", "kind", "recipe", "key"),
    [
        ("train", TrainConfig, "rft", "crest and no dpo"),
        ("crest", CrestConfig, "vim_llama2_7b", "alignment"),
        ("crest", CrestConfig, "[rft,released_vim]", "alignment"),
    ],
)
def test_a_recipe_for_another_command_is_named(capsys, name, kind, recipe, key):
    line = refused(entry_point(name, kind)(lambda config: None), [f"experiment={recipe}"], capsys)
    assert line == f"experiment={recipe} is not for jaxalign.{name}, which has no {key}"


def test_a_reader_who_leaves_early_is_no_error():
    command = f"{sys.executable} -m jaxalign.export --help | true; exit ${{PIPESTATUS[0]}}"
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, check=False)
    assert done.returncode in (0, 141) and done.stderr == ""


def test_export_names_all_that_it_lacks_and_knows_no_groups(capsys):
    main = entry_point("export", ExportConfig)(lambda config: None)
    assert refused(main, [], capsys) == "missing: run, out"
    assert refused(main, ["value=power"], capsys).startswith("unknown key 'value'")


def test_a_configuration_is_checked_and_a_report_is_made_without_loading_jax():
    modules = "jaxalign.config.entry_point, jaxalign.runs.directory, jaxalign.runs.progress, jaxalign.jobs.report"
    code = f"import sys, {modules}; sys.exit('jax' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_a_command_looks_for_reference_cycles_seldom_and_a_call_from_python_leaves_them_to_its_caller(monkeypatch):
    main, kept = entry_point("train", TrainConfig)(lambda config: None), gc.get_threshold()
    monkeypatch.setattr(sys, "argv", ["train", "--version"])
    try:
        gc.set_threshold(700, 10, 10)
        main(["--version"])
        assert gc.get_threshold() == (700, 10, 10)
        main()
        assert gc.get_threshold() == RARELY
    finally:
        gc.set_threshold(*kept)


def test_completion_offers_the_values(capsys, monkeypatch):
    monkeypatch.setenv("COMP_LINE", "jaxalign-train +value=po")
    configs("-sc", "query=bash")
    assert capsys.readouterr().out.strip() == "+value=power"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--vers"], "unrecognized arguments: --vers"),  # Hydra's own --version
        (["--hel"], "unrecognized arguments: --hel"),
        (["--run", "-m"], "--run does not go with --multirun"),
        (["--info", "-m"], "--multirun does not go with --info"),
        (["-sc"], "--shell-completion needs what to do, such as install=bash"),
        (["-sc", "install=csh"], "--shell-completion needs what to do"),
        (["-sc", "install=bash", "value=power"], "--shell-completion needs what to do"),
        (["--config-dir", ""], "--config-path and --config-name need a name, and one of them is empty"),
        (["-cp", ""], "need a name"),
        (["-cn", ""], "need a name"),
    ],
)
def test_flags_that_cannot_be_followed_are_one_line(capsys, arguments, said):
    assert said in refusal(capsys, "value=power", *arguments)


@pytest.mark.parametrize("kind", ["[harm]", "{a: 1}", "true", "7"])
def test_a_kind_that_is_no_text_is_one_line(capsys, kind):
    command = entry_point("evaluate", EvaluateConfig)(lambda config: None)
    assert " is not known; " in refused(command, [f"benchmark.kind={kind}"], capsys)


def test_a_pickle_of_hydra_s_is_never_loaded(capsys, tmp_path):
    (tmp_path / "config.pickle").write_bytes(b"cos\nsystem\n(S'touch PICKLED'\ntR.")
    line = refusal(capsys, "value=power", "--experimental-rerun", str(tmp_path / "config.pickle"))
    assert line.startswith("--experimental-rerun is refused, because it runs code from a file (a pickle)")
    assert not Path("PICKLED").exists()


def test_two_dashes_before_the_overrides_mean_nothing():
    assert (
        configs("--", "value=power", "lora.rank=3")[0].lora.rank
        == configs("value=power", "--", "lora.rank=3")[0].lora.rank
        == 3
    )


@pytest.fixture
def logging_kept():
    """Take back what Hydra does to the log for --info, which would print in all tests that come after."""
    root = logging.getLogger()
    level, handlers = root.level, root.handlers[:]
    yield
    root.setLevel(level)
    root.handlers[:] = handlers


@pytest.mark.usefixtures("logging_kept")
def test_info_may_stand_before_the_overrides(capsys):
    assert configs("--info", "searchpath", "value=power") == []
    assert "Config search path" in capsys.readouterr().out
    assert configs("value=power", "--info") == []
    assert "Installed Hydra Plugins" in capsys.readouterr().out


ODD = "/tmp/día [1],x=y {z}/a's (b):c.jsonl"
"""A path with most of what Hydra's grammar takes for its own."""


@pytest.mark.parametrize(
    "path", [ODD, "a,b", "[x]", "{x}", "x y", "007", "1e3", "true", "nan", "é", "a~b", r"C:\x\y'", "#"]
)
def test_a_path_is_written_as_it_is(path):
    (config,) = configs(
        "value=power", f"dataset.path={path}", f"run.dir={path}", f"adapter={path}", f"run.root=./{path}"
    )
    assert config.dataset.path == config.run.dir == config.adapter == path
    assert config.run.root == f"./{path}"


ADDRESSES = ["http://[::1]:8000/v1", "http://localhost:8000/v1", "https://host/a,b=(c)/v1"]


@pytest.mark.parametrize("url", ADDRESSES)
def test_the_address_of_a_server_is_written_as_it_is(url):
    seen = []
    command = entry_point("generate", GenerateConfig)(seen.append)
    for written in (url, f"'{url}'", f'"{url}"'):
        command(["prompt=?", "engine=openai", f"engine.url={written}"])
    assert [config.engine.url for config in seen] == [url] * 3


def test_a_multirun_takes_several_addresses():
    seen = []
    entry_point("generate", GenerateConfig)(seen.append)(
        ["-m", "prompt=?", "engine=openai", f"engine.url={','.join(ADDRESSES[:2])}"]
    )
    assert [config.engine.url for config in seen] == ADDRESSES[:2]


@pytest.mark.parametrize("url", ["http://[::1", "http://[x]/v1", "http://localhost:0/v1", "localhost:8000", "/v1"])
def test_what_is_no_address_is_refused_as_it_was_written(url, capsys):
    command = entry_point("generate", GenerateConfig)(lambda config: None)
    line = refused(command, ["prompt=?", "engine=openai", f"engine.url={url}"], capsys)
    assert f"engine.url={url} is not the address of a server: give http:// or https://" in line


def test_every_key_that_is_a_path_is_marked_as_one():
    from jaxalign.config.commands import Config
    from jaxalign.config.fields import PATH
    from jaxalign.config.schema import is_marked, leaf_types

    marked = {
        key
        for kind in Config.__constraints__
        for key, declared in leaf_types(kind).items()
        if is_marked(declared, PATH)
    }
    assert marked == {
        *("ability", "adapter", "adapter.path", "adapters", "benchmark.portraits", "compare"),
        *("dataset.match", "dataset.path"),
        *("model.file", "model.path", "out", "path", "prompts", "run", "run.dir"),
        *("run.mirror", "run.root", "runs", "targets", "value.table"),
        *("benchmark.path", "benchmark.phrases", "benchmark.templates", "mitigation.map", "harm"),
        "root",
        *(f"judge.{name}" for name in ("labels", "path", "policies", "refusal_weights", "template", "weights")),
        *("judge.model", "judge.refusal_model", "engine.url"),
    }


@pytest.mark.parametrize("quoted", [f'"{ODD}"', "'a, b'"])
def test_a_path_in_quotes_is_the_same_path(quoted):
    (config,) = configs("value=power", f"dataset.path={quoted}")
    assert config.dataset.path == quoted[1:-1]


def test_a_path_may_hold_an_interpolation(monkeypatch):
    monkeypatch.setenv("HOME", "/home/me")
    (config,) = configs("value=power", "run.root=${oc.env:HOME}/día${b}", "run.dir=${run.root}/x")
    assert config.run.root == "/home/me/día${b}"
    assert config.run.dir == "/home/me/día${b}/x"


def test_paths_of_a_list_and_of_a_multirun_are_written_as_they_are():
    seen = []
    entry_point("generate", GenerateConfig)(seen.append)(["prompt=?", "adapters=[/tmp/día x,runs/*,a[1]=b]"])
    assert seen[0].adapters == ("/tmp/día x", "runs/*", "a[1]=b")
    found = configs("-m", "value=power", "dataset.path=/tmp/día [1]/a.jsonl,b=c.jsonl")
    assert [config.dataset.path for config in found] == ["/tmp/día [1]/a.jsonl", "b=c.jsonl"]


def test_lists_of_paths_may_be_empty_and_a_multirun_takes_several_of_them():
    seen = []
    command = entry_point("generate", GenerateConfig)(seen.append)
    for empty in ("[]", "[ ]"):
        command(["prompt=?", f"adapters={empty}"])
    command(["-m", "prompt=?", "adapters=[],[a b,c],[d=e]"])
    assert [config.adapters for config in seen] == [(), (), (), ("a b", "c"), ("d=e",)]


@pytest.mark.parametrize("key", ["dataset.path", "run.dir", "run.root", "adapter"])
def test_an_empty_path_is_not_the_folder_one_is_in(capsys, key):
    assert refusal(capsys, "value=power", f"{key}=").startswith(f"{key}='' is not allowed: give a path")
    command = entry_point("generate", GenerateConfig)(lambda config: None)
    assert "give a list of paths that are not empty" in refused(command, ["prompt=?", "adapters=[a,]"], capsys)


def test_an_argument_that_is_no_text_is_refused(capsys):
    line = refusal(capsys, "value=power", "dataset.path=a\udcff")
    assert line == r"'dataset.path=a\udcff' is not UTF-8 text; if you typed it as such, set PYTHONUTF8=1"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (BOMB, "own.yaml has aliases (*name) that stand for more than 1,000,000 values"),
        ("lora: &a {rank: *a}\n", "own.yaml is not YAML: the alias in line 2 stands for itself"),
        ("lora: {rank: 1}\nlora: {rank: 2}\n", "own.yaml is not YAML: line 3 has the key 'lora' a second time"),
        ("- lora\n", "own.yaml must hold keys and values"),
        ("lora: {rank: '${lora.alpha}', alpha: '${lora.rank}'}\n", "Recursive interpolation detected"),
        ("defaults: 3\n", "own.yaml cannot be used: Invalid defaults list"),
        ("defaults: [{/value: 3}]\n", "own.yaml cannot be used: Unsupported item value in defaults"),
        ("defaults: [3]\n", "own.yaml cannot be used: Unsupported type in defaults"),
        ("lora: {rank: " + "9" * 5000 + "}\n", "own.yaml cannot be used: Exceeds the limit"),
        ("lora: {rank: é}\n".encode("latin-1"), "own.yaml is not UTF-8 text"),
    ],
)
def test_yaml_of_ones_own_that_cannot_be_used_gets_one_line(capsys, tmp_path, text, words):
    (tmp_path / "experiment").mkdir()
    content = text if isinstance(text, bytes) else text.encode()
    (tmp_path / "experiment" / "own.yaml").write_bytes(b"# @package _global_\n" + content)
    assert words in refusal(capsys, "--config-dir", str(tmp_path), "experiment=own", "value=power")


@few
@given(content=damaged(VALUES.map(lambda value: f"lora: {json.dumps(value)}\nvalue: &a {{name: x}}\n")))
def test_any_bytes_are_a_configuration_or_one_line(content):
    Plugins.instance()  # finds the readers of files
    with tempfile.TemporaryDirectory() as folder:
        path = ConfigSearchPathImpl()
        path.append("own", f"file://{folder}")
        files = CheckedFiles(path)
        survives(lambda file: files.load_config(file.stem), Path(folder) / "own.yaml", content)


@functools.cache  # it reads the names of all options
def train_command():
    return CommandLine("train", TrainConfig, split_flags([])[2])


@pytest.mark.slow
@few
@given(value=st.text(min_size=1, max_size=8) | st.sampled_from(FRAGMENTS))
def test_any_text_is_a_path_as_it_stands(value):
    if value == "null" or (len(value) > 1 and value[0] == value[-1] and value[0] in "'\""):
        return
    with one_line():
        (parsed,) = OverridesParser.create().parse_overrides(train_command().normalised([f"dataset.path={value}"]))
    assert str(parsed.value()) == value
