"""What a command prints, to whoever reads it, in processes of their own."""

import os
import signal
import subprocess
import sys

import pytest

from jaxalign.runs.progress import plain_console

CODE = """
import sys
from jaxalign.config.entry_point import entry_point
from jaxalign.config.survey import SurveyConfig
from jaxalign.runs.progress import plain_console

def work(config):
    for number in range(int(config.path)):
        print(f"line {number}: κ – ×")
        plain_console().print(f"line {number}: κ – ×")

sys.argv = ["survey", *sys.argv[1:]]
entry_point("survey", SurveyConfig)(work)()
"""


def shell(line, lines, **environment):
    return subprocess.run(
        ["bash", "-c", f'"$0" -c "$1" path={lines} out=x {line}', sys.executable, CODE],
        capture_output=True,
        check=False,
        env={**os.environ, **environment},
    )


@pytest.mark.parametrize("lines", [1, 5000])
def test_a_reader_who_leaves_early_ends_the_command_quietly_with_the_status_of_a_broken_pipe(lines):
    reader, writer = os.pipe()
    os.close(reader)  # before the command begins, so that its first line has no reader
    command = [sys.executable, "-c", CODE, f"path={lines}", "out=x"]
    try:
        done = subprocess.run(command, stdout=writer, stderr=subprocess.PIPE, check=False)
    finally:
        os.close(writer)
    assert (done.returncode, done.stderr) == (128 + signal.SIGPIPE, b"")


@pytest.mark.parametrize("lines", [1, 5000])
def test_no_room_for_what_is_printed_is_one_line(lines):
    done = shell("> /dev/full", lines)
    line = b"error: the command cannot write or print: No space left on device; free space, or print to another place\n"
    assert (done.returncode, done.stderr) == (2, line)


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "utf-8"])
def test_a_character_that_the_output_cannot_show_is_a_question_mark(encoding):
    done = shell("", 1, PYTHONIOENCODING=encoding)
    assert (done.returncode, done.stderr) == (0, b"")
    assert done.stdout == "line 0: κ – ×\n".encode(encoding, "replace") * 2


def test_a_terminal_of_no_width_is_not_taken_at_its_word(monkeypatch, capsys):
    monkeypatch.setenv("COLUMNS", "0")
    plain_console().print("all of it")
    assert capsys.readouterr().out == "all of it\n"
