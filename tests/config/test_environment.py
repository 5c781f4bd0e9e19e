import pytest
from command_line import refused
from omegaconf import OmegaConf

from jaxalign.config.entry_point import entry_point
from jaxalign.config.generate import GenerateConfig

TOKEN = "sk-1234567890"


def configuration(*arguments):
    seen = []
    entry_point("generate", GenerateConfig)(seen.append)(["prompt=?", *arguments])
    return seen[0]


@pytest.mark.parametrize(
    "name", ["OPENAI_API_KEY", "HF_TOKEN", "my_apikey", "DB_PASSWORD", "PASS", "CLIENT_SECRETS", "HTTP_AUTH", "Keys2"]
)
@pytest.mark.parametrize(
    "arguments",
    [
        ["sampling.stop=['${oc.env:NAME}']"],
        ["sampling.n=${oc.env:NAME}"],
        ["model=${oc.env:NAME}"],
        ["run.dir=${oc.env:NAME,here}"],
        ["run.dir=${oc.env:${oc.env:ABSENT,NAME}}"],
        ["run.dir=${oc.env:NAME}", "--cfg", "job", "--resolve"],
        ["-m", "sampling.seed=1,2", "model.path=${oc.env:NAME}"],
    ],
)
def test_a_secret_of_the_environment_is_no_value(name, arguments, capsys, monkeypatch):
    monkeypatch.setenv(name, TOKEN)
    monkeypatch.delenv("ABSENT", raising=False)
    typed = ["prompt=?", *(one.replace("NAME", name) for one in arguments)]
    line = refused(entry_point("generate", GenerateConfig)(print), typed, capsys, silent=True)
    assert f"${{oc.env:{name}}} is not allowed" in line and TOKEN not in line


def test_a_file_of_the_user_gets_no_secret_either(tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "mine.yaml").write_text("defaults: [tiny]\nrevision: ${oc.env:HF_TOKEN}\n")
    typed = ["prompt=?", "--config-dir", str(tmp_path), "model=mine"]
    line = refused(entry_point("generate", GenerateConfig)(print), typed, capsys, silent=True)
    assert line.startswith("${oc.env:HF_TOKEN} is not allowed")


@pytest.mark.parametrize("name", ["PATH_TO_RUNS", "PWD", "KEYBOARD", "COMPASS", "AUTHOR", "PATIENT"])
def test_a_place_in_the_environment_is_a_value(name, monkeypatch):
    monkeypatch.setenv(name, "/scratch/me")
    assert configuration(f"run.root=${{oc.env:{name}}}/runs").run.root == "/scratch/me/runs"


def test_a_number_in_the_environment_is_a_number(monkeypatch):
    monkeypatch.setenv("SLURM_ARRAY_TASK_ID", "7")
    monkeypatch.setenv("WARM", "0.5")
    monkeypatch.setenv("AGENT", "007")
    found = configuration(
        "sampling.seed=${oc.env:SLURM_ARRAY_TASK_ID}", "sampling.temperature=${oc.env:WARM}", "run.dir=${oc.env:AGENT}"
    )
    assert (found.sampling.seed, found.sampling.temperature, found.run.dir) == (7, 0.5, "007")


def test_a_variable_that_is_not_there_is_named(capsys, monkeypatch):
    monkeypatch.delenv("ABSENT", raising=False)
    for more in ([], ["--cfg", "job", "--resolve"]):
        typed = ["prompt=?", "run.root=${oc.env:ABSENT}", *more]
        line = refused(entry_point("generate", GenerateConfig)(print), typed, capsys, silent=True)
        assert line.startswith("the environment has no ABSENT") and line.endswith("${oc.env:ABSENT,VALUE}")
    assert configuration("run.root=${oc.env:ABSENT,there}").run.root == "there"
    assert configuration("run.dir=${oc.env:ABSENT,null}").run.dir is None


def test_other_programs_in_the_process_keep_their_resolver(monkeypatch):
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    configuration()
    assert OmegaConf.create({"a": "${oc.env:HF_TOKEN}"}).a == TOKEN
