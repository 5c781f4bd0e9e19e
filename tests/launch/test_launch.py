"""The files of launch/ with stand-ins for gcloud, sbatch and sky, which do here what the real ones do elsewhere."""

import itertools
import os
import re
import shutil
import stat
import subprocess
from pathlib import Path

import pytest
import yaml

LAUNCH = Path(__file__).parents[2] / "launch"
TOKEN = "hf_a_secret_that_no_argument_may_hold"

LOG = 'printf "%s\\0" "$(basename "$0")" "$@" >> "$FAKES/calls"; printf "\\n\\0" >> "$FAKES/calls"\n'
"""The beginning of a stand-in: its arguments are noted."""

PYTHON = """
env | grep -E '^(JAX_|MEGASCALE_|HF_)' | sort > "$FAKES/environment"
[ ! -s "$FAKES/ends" ] && exit 0
read -r status < "$FAKES/ends"; sed -i 1d "$FAKES/ends"
[ ! -e "$FAKES/state" ] || [ "$status" = 2 ] || echo PREEMPTED > "$FAKES/state"
exit "$status"
"""
"""A job, which ends with the next status of the file `ends`; then its VM is preempted, unless the status is 2."""

GCLOUD = """
case "$*" in
  *' describe '*'value(state)'*) [ -s "$FAKES/state" ] && cat "$FAKES/state" ;;
  *' describe '*) echo '10.0.0.2;10.0.0.3' ;;
  *' create '*) echo READY > "$FAKES/state" ;;
  *' delete '*) rm "$FAKES/state" ;;
  *' scp '*) ;;
  *' ssh '*) for one; do case $one in --command=*) exec bash -c "${one#--command=}" ;; esac; done ;;
  'secrets versions access latest --secret=hf') echo "$TOKEN" ;;
  *) exit 99 ;;
esac
"""

SBATCH = """
while [[ $1 == -* ]]; do shift; done
export SLURM_JOB_ID=7
while true; do
  rm -f "$FAKES/requeued"; status=0
  bash "$@" || status=$?
  [ -e "$FAKES/requeued" ] || exit "$status"
done
"""

FAKES = {
    "gcloud": GCLOUD,
    "curl": "echo 1\n",
    "git": "exit 0\n",
    "python3": "exit 0\n",
    "python": PYTHON,
    "sbatch": SBATCH,
    "srun": 'shift; "$@"\n',
    "squeue": 'cat "$FAKES/job" 2>/dev/null || echo RUNNING\n',
    "scontrol": '[ "$*" = "requeue 7" ] && touch "$FAKES/requeued"\n',
    "sky": "exit 0\n",
    "kubectl": "exit 0\n",
}


class Machine:
    """A machine whose commands are stand-ins."""

    def __init__(self, folder: Path):
        self.folder = folder
        for name, body in FAKES.items():
            self.put(folder / "bin" / name, body)
        self.put(folder / "env" / "bin" / "python", PYTHON)
        (folder / "venv").symlink_to(folder / "env")

    def put(self, path: Path, body: str) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"#!/usr/bin/env bash\n{LOG}{body}")
        path.chmod(path.stat().st_mode | stat.S_IXUSR)

    def run(self, command: str, **variables: str) -> subprocess.CompletedProcess:
        environment = {
            "PATH": f"{self.folder}/bin:{os.environ['PATH']}",
            "HOME": str(self.folder),
            "FAKES": str(self.folder),
            "VENV": str(self.folder / "venv"),
            "TOKEN": TOKEN,
            "HF_TOKEN": TOKEN,
            "PAUSE": "0",
            "MEGASCALE_NUM_SLICES": "2",
            **variables,
        }
        return subprocess.run(
            ["bash", "-c", command], cwd=LAUNCH.parent, env=environment, capture_output=True, text=True, timeout=60
        )

    def ends(self, *statuses: int) -> None:
        (self.folder / "ends").write_text("".join(f"{status}\n" for status in statuses))

    @property
    def calls(self) -> list[list[str]]:
        """The calls of all stand-ins, each a list of its name and arguments."""
        found: list[list[str]] = [[]]
        for word in (self.folder / "calls").read_text().split("\0")[:-1]:
            found[-1].append(word) if word != "\n" else found.append([])
        return found[:-1]

    def of(self, name: str) -> list[list[str]]:
        return [call[1:] for call in self.calls if call[0] == name]

    @property
    def environment(self) -> dict[str, str]:
        """The variables about processes and tokens that the last job saw."""
        return dict(line.split("=", 1) for line in (self.folder / "environment").read_text().splitlines())

    def check_secrets(self) -> None:
        assert not any(TOKEN in word for call in self.calls for word in call)


@pytest.fixture
def machine(tmp_path):
    one = Machine(tmp_path)
    yield one
    if (tmp_path / "calls").exists():
        one.check_secrets()


JOB = ["-m", "jaxalign.crest", "run.mirror=gs://b/runs", "model.system=Say 'no' & go", "dataset.limit=4"]
TYPED = """COMMAND=crest ZONE=us-east5-a launch/tpu_vm.sh run.mirror=gs://b/runs \
    "model.system=Say 'no' & go" dataset.limit=4"""


def test_a_tpu_vm_that_is_preempted_three_times_is_made_anew_and_the_job_resumed_three_times(machine):
    machine.ends(255, 130, 1)
    done = machine.run(TYPED, HF_SECRET="hf")
    assert done.returncode == 0, done.stderr
    assert machine.of("python") == [JOB] * 4
    words = ["compute", "tpus", "tpu-vm"]
    where = ["--zone=us-east5-a", "--quiet"]
    did = [call[3] for call in machine.of("gcloud") if call[:3] == words and "--format=value(state)" not in call]
    once = ["create", "scp", "ssh", "describe", "ssh"]
    assert did == once + ["delete", *once] * 3
    (create,) = {tuple(call[3:]) for call in machine.of("gcloud") if call[3:4] == ["create"]}
    asked = ("--accelerator-type=v6e-8", "--version=v2-alpha-tpuv6e", "--spot")
    assert create == ("create", "jaxalign", *asked, *where)
    (delete,) = {tuple(call[3:]) for call in machine.of("gcloud") if call[3:4] == ["delete"]}
    assert delete == ("delete", "jaxalign", *where)
    for call in machine.of("gcloud"):
        if call[3:4] in (["ssh"], ["scp"]):
            assert "--worker=all" in call and call[-2:] == where
    assert machine.environment == {
        "JAX_COORDINATOR_ADDRESS": "10.0.0.2:8476",
        "JAX_NUM_PROCESSES": "2",
        "JAX_PROCESS_ID": "1",
        "HF_SECRET": "hf",
        "HF_TOKEN": TOKEN,
    }


def test_a_tpu_vm_that_is_ready_is_used_again_and_bad_input_ends_at_once(machine):
    (machine.folder / "state").write_text("READY\n")
    machine.ends(2)
    assert machine.run(TYPED).returncode == 2
    assert machine.of("python") == [JOB]
    assert not [call for call in machine.of("gcloud") if call[3:4] == ["create"]]


def test_a_spot_vm_without_a_mirror_is_refused_in_one_line_before_anything_is_made(machine):
    done = machine.run("ZONE=z launch/tpu_vm.sh +value=power")
    assert done.returncode == 2 and done.stderr.startswith("error: add run.mirror=gs://")
    assert not (machine.folder / "calls").exists()
    assert machine.run("SPOT=false ZONE=z launch/tpu_vm.sh +value=power").returncode == 0
    assert machine.of("python") == [["-m", "jaxalign.train", "+value=power"]]
    assert "--spot" not in [word for call in machine.of("gcloud") for word in call]


def test_a_slurm_job_whose_time_is_up_three_times_is_requeued_three_times(machine):
    machine.ends(130, 130, 130)
    done = machine.run("COMMAND=evaluate sbatch --nodes=2 launch/slurm.sbatch 'adapters=outputs/*' +value=power")
    assert done.returncode == 0, done.stderr
    assert machine.of("python") == [["-m", "jaxalign.evaluate", "adapters=outputs/*", "+value=power"]] * 4
    assert machine.of("scontrol") == [["requeue", "7"]] * 3
    assert machine.of("srun")[0][:2] == ["--wait=300", f"{machine.folder}/venv/bin/python"]
    assert machine.environment == {"HF_TOKEN": TOKEN}


@pytest.mark.parametrize(("status", "job"), [(2, "RUNNING"), (130, "CANCELLED")])
def test_a_slurm_job_with_bad_input_or_cancelled_is_not_requeued(machine, status, job):
    machine.ends(status)
    (machine.folder / "job").write_text(f"{job}\n")
    assert machine.run("sbatch launch/slurm.sbatch +value=power").returncode == status
    assert not machine.of("scontrol")


def test_slurm_is_asked_for_a_process_a_node_a_warning_and_the_queue(machine):
    options = re.findall(r"^#SBATCH (\S+)$", (LAUNCH / "slurm.sbatch").read_text(), re.MULTILINE)
    assert {"--ntasks-per-node=1", "--requeue", "--signal=USR2@300", "--open-mode=append"} <= set(options)


def test_a_managed_job_resumes_from_its_bucket_with_the_arguments_as_they_were_typed(machine):
    machine.ends(143, 143, 143)
    typed = "--env MIRROR=gs://b/runs --env COMMAND=crest --env ARGS=\"'model.system=Say no' x=1\" --secret HF_TOKEN"
    assert machine.run(f"sky jobs launch launch/sky.yaml {typed}").returncode == 0
    (call,) = machine.of("sky")
    task = yaml.safe_load((LAUNCH / "sky.yaml").read_text())
    given = dict(word.split("=", 1) for before, word in itertools.pairwise(call) if before == "--env")
    nodes = {"SKYPILOT_NUM_NODES": "2", "SKYPILOT_NODE_IPS": "10.0.0.2\n10.0.0.3", "SKYPILOT_NODE_RANK": "1"}
    for status in (143, 143, 143, 0):  # what the managed job does: it begins anew on another machine
        variables = {**task["envs"], **given, **nodes}
        assert machine.run(task["setup"] + task["run"], **variables).returncode == status
    ours = ["-m", "jaxalign.crest", "run.mirror=gs://b/runs", "model.system=Say no", "x=1"]
    assert machine.of("python") == [ours] * 4
    processes = {"JAX_COORDINATOR_ADDRESS": "10.0.0.2:8476", "JAX_NUM_PROCESSES": "2", "JAX_PROCESS_ID": "1"}
    assert machine.environment == {**processes, "HF_TOKEN": TOKEN}


def test_the_managed_job_has_the_keys_that_sky_knows():
    task = yaml.safe_load((LAUNCH / "sky.yaml").read_text())
    assert set(task) == {"name", "resources", "num_nodes", "workdir", "envs", "setup", "run"}
    assert set(task["resources"]) == {"accelerators", "use_spot", "disk_size"} and task["resources"]["use_spot"] is True
    assert task["envs"]["MIRROR"] is None  # sky refuses a job without it
    assert all(value is None or isinstance(value, str) for value in task["envs"].values())


def test_the_jobset_restarts_as_a_whole_but_not_after_bad_input(machine):
    found = yaml.safe_load((LAUNCH / "gke-jobset.yaml").read_text())
    assert (found["apiVersion"], found["kind"]) == ("jobset.x-k8s.io/v1alpha2", "JobSet")
    policy = found["spec"]["failurePolicy"]
    assert policy["maxRestarts"] >= 3
    assert policy["rules"] == [{"action": "FailJobSet", "onJobFailureReasons": ["PodFailurePolicy"]}]
    (hosts,) = found["spec"]["replicatedJobs"]
    job = hosts["template"]["spec"]
    assert job["backoffLimit"] == 0
    assert job["podFailurePolicy"]["rules"][0]["onExitCodes"]["values"] == [2]
    pod = job["template"]["spec"]
    (container,) = pod["containers"]
    assert job["podFailurePolicy"]["rules"][0]["onExitCodes"]["containerName"] == container["name"]
    assert pod["restartPolicy"] == "Never" and pod["terminationGracePeriodSeconds"] >= 120
    known = {one["name"]: one.get("value") for one in container["env"]}
    assert known["JAX_NUM_PROCESSES"] == str(job["completions"]) == str(job["parallelism"])
    assert container["resources"]["limits"]["google.com/tpu"] == 4
    known |= {"JOBSET_NAME": "jaxalign-x", "JOB_COMPLETION_INDEX": "3"}
    words = " ".join(map(_quoted, [*container["command"], *container["args"]]))
    assert machine.run(words, **known).returncode == 0
    assert machine.of("python") == [["-m", "jaxalign.train", "+value=power", "run.mirror=gs://BUCKET/runs"]]
    assert machine.environment["JAX_COORDINATOR_ADDRESS"] == f"jaxalign-x-{hosts['name']}-0-0.jaxalign-x:8476"
    assert machine.environment["JAX_PROCESS_ID"] == "3" and "MEGASCALE_NUM_SLICES" not in machine.environment


def _quoted(word: str) -> str:
    return "'" + word.replace("'", "'\\''") + "'"


def typed_in_the_readme() -> list[str]:
    rows = [line for line in (LAUNCH / "README.md").read_text().splitlines() if line.startswith("| ")]
    cells = [re.search(r"`([^`]+)`", row.split("|")[2]) for row in rows[1:11]]
    return [cell[1] for cell in cells if cell]


@pytest.mark.parametrize("command", typed_in_the_readme())
def test_what_the_readme_says_to_type_starts_the_job(machine, command):
    done = machine.run(command)
    assert done.returncode == 0, done.stderr
    if command.startswith("kubectl"):
        assert (LAUNCH.parent / machine.of("kubectl")[0][2]).is_file()
    elif command.startswith("sky"):
        assert (LAUNCH.parent / machine.of("sky")[0][2]).is_file()
    else:
        assert machine.of("python") and all("+value=power" in call for call in machine.of("python"))


def test_the_readme_has_a_row_for_each_file():
    commands = typed_in_the_readme()
    assert len(commands) == 10
    for name in ("tpu_vm.sh", "slurm.sbatch", "sky.yaml", "gke-jobset.yaml"):
        assert any(name in command for command in commands)
        assert len((LAUNCH / name).read_text().splitlines()) < 60


@pytest.mark.skipif(shutil.which("shellcheck") is None, reason="shellcheck is not installed")
def test_the_scripts_pass_shellcheck():
    done = subprocess.run(
        ["shellcheck", "--shell=bash", LAUNCH / "tpu_vm.sh", LAUNCH / "slurm.sbatch"], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout
