"""The study: its steps are checked together, run in order, and the first that fails ends it."""

import signal

import pytest

from jaxalign.config.presets import CONF
from jaxalign.jobs import study as job
from jaxalign.safety.categories import CATEGORIES
from jaxalign.study import main

PLAN = "report plan=true categories=3"


def refused(capsys, *arguments):
    with pytest.raises(SystemExit) as ended:
        main(list(arguments))
    assert ended.value.code == 2
    return capsys.readouterr().err


def test_every_step_is_checked_before_the_first_runs(capsys, monkeypatch):
    monkeypatch.setattr(job, "_run", lambda command, arguments: pytest.fail("a step ran"))
    lines = {
        "[]": "choose a study, such as experiment=harms_small",
        "{a: train}": "steps must be a list, such as steps=[a,b], and no keys with values",
        f"['{PLAN}', 'reprot plan=true']": "step 2 (reprot plan=true): 'reprot' is no command of a study; did you mean",
        f"['{PLAN}', 'train +value=powr']": "step 2 (train +value=powr): value=powr: there is no such option",
        f"['{PLAN}', 'train']": "step 2 (train): missing: value",
        **{
            f"['{PLAN}', 'train +value=power {flag}']": f"{shown} shows something and runs nothing: leave it out"
            for flag, shown in {
                **{"--version": "--version", "-h": "--help", "--cfg=job": "--cfg", "-cjob": "--cfg"},
                **{"--info": "--info", "--hydra-help": "--hydra-help"},
            }.items()
        },
    }
    lines[f"['{PLAN}', 'train +value=power --vers']"] = "unrecognized arguments: --vers"
    for steps, line in lines.items():
        assert line in refused(capsys, f"steps={steps}")
    assert "add has keys, such as add.KEY=VALUE, and is no list" in refused(capsys, f"steps=['{PLAN}']", "add=[1]")
    assert "step 1 (report plan=true categories=3): unknown key 'no'" in refused(
        capsys, f"steps=['{PLAN}']", "add.report=no=1"
    )


def test_steps_run_in_order_with_what_is_added_until_one_fails(capsys, monkeypatch):
    ran = []

    def run(command, arguments):
        ran.append((command, *arguments))
        return 3 if len(ran) == 2 else 0

    monkeypatch.setattr(job, "_run", run)
    steps = [f"train +value=power run.root=${{root}}/{name}" for name in "abc"]
    with pytest.raises(SystemExit) as ended:
        main([f"steps={steps}", "root=here", "add.train=model=tiny training.epochs=1", "offline=true"])
    assert ended.value.code == 3
    more = ("model=tiny", "training.epochs=1")
    assert ran == [("train", "+value=power", f"run.root=here/{n}", *more, "offline=true") for n in "ab"]
    assert "step 2 of 3: python -m jaxalign.train +value=power run.root=here/b" in capsys.readouterr().out


def test_options_of_one_s_own_are_those_of_the_steps_too(tmp_path, monkeypatch):
    (tmp_path / "experiment").mkdir()
    (tmp_path / "experiment/mine.yaml").write_text("# @package _global_\nsteps: [train +value=calm]\n")
    (tmp_path / "value").mkdir()
    (tmp_path / "value/calm.yaml").write_text((CONF / "value/power.yaml").read_text())
    ran = []
    monkeypatch.setattr(job, "_run", lambda command, arguments: ran.append((command, *arguments)))
    main(["experiment=mine", "--config-dir", str(tmp_path)])
    main(["experiment=mine", more := f"hydra.searchpath=[{tmp_path}]"])
    assert ran == [("train", "--config-dir", str(tmp_path), "+value=calm"), ("train", "+value=calm", more)]


def test_an_interrupt_reaches_the_step_once_and_ends_the_study_when_the_step_has_saved(monkeypatch, capsys):
    events = []

    class Step:
        def __init__(self, command, start_new_session):
            events.append(start_new_session)  # else Ctrl-C would reach it as well, as a second signal

        def wait(self):
            if len(events) == 1:
                raise KeyboardInterrupt
            events.append("ended")
            return 130

        def send_signal(self, number):
            events.append(number)

    monkeypatch.setattr(job.subprocess, "Popen", Step)
    before = signal.getsignal(signal.SIGHUP)
    with pytest.raises(SystemExit) as ended:
        main([f"steps=['{PLAN}', '{PLAN}']"])
    assert ended.value.code == 130 and events == [True, signal.SIGTERM, "ended"]
    assert signal.getsignal(signal.SIGHUP) == before
    assert "interrupted; the same command resumes" in capsys.readouterr().err


@pytest.mark.parametrize("hangup", [signal.SIG_DFL, signal.SIG_IGN])
def test_a_terminal_that_closes_interrupts_once_and_not_under_nohup(monkeypatch, hangup):
    sent = []

    class Step:
        def __init__(self, *_, **__):
            self.asked = 0

        def wait(self):
            self.asked += 1
            if self.asked < 3:
                signal.raise_signal(signal.SIGHUP)
            return 0

        def send_signal(self, number):
            sent.append(number)

    monkeypatch.setattr(job.subprocess, "Popen", Step)
    before = signal.signal(signal.SIGHUP, hangup)
    try:
        if hangup == signal.SIG_IGN:
            main([f"steps=['{PLAN}']"])
        else:
            with pytest.raises(SystemExit):
                main([f"steps=['{PLAN}']"])
    finally:
        signal.signal(signal.SIGHUP, before)
    assert sent == ([] if hangup == signal.SIG_IGN else [signal.SIGTERM])


@pytest.mark.slow
def test_a_step_runs_in_a_process_of_its_own(capfd):
    main([f"steps=['{PLAN}']"])
    assert "designed" in capfd.readouterr().out


@pytest.mark.slow
def test_the_shipped_study_has_valid_steps(monkeypatch):
    ran = []
    monkeypatch.setattr(job, "_run", lambda command, arguments: ran.append([command, *arguments]) or 0)
    main(["experiment=harms_small"])
    # The power of the design is printed before anything is trained.
    assert ran[0] == ["report", "plan=true", f"categories={len(CATEGORIES['starter_probes'])}"]
    assert ran[1][0] == "train" and ran[-1][0] == "report"
    # The benign control is trained before the controls are asked, and where they are looked for.
    benign = ran.index(["train", "dataset=everyday", "run.root=outputs/harms_small/controls"])
    asked = [n for n, step in enumerate(ran) if "adapters=outputs/harms_small/controls/*" in step]
    assert benign < min(asked)
    # Each folder of adapters is asked.
    trained = {place for step in ran for place in step if step[0] == "train" and place.startswith("run.root=")}
    folders = {place.removeprefix("run.root=") for place in trained} - {"outputs/harms_small"}
    assert folders == {f"outputs/harms_small/{name}" for name in ("controls", "seeds")}
    assert all(any(f"adapters={folder}/*" in step for step in ran) for folder in folders)
