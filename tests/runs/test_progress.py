import io
import re
from pathlib import Path

import pytest
from rich.console import Console
from rich.text import Text

from jaxalign.analysis.tables import terminal_table
from jaxalign.runs import progress
from jaxalign.runs.progress import Progress, duration, plain_console, print_line, say


def shown(*, terminal, steps, seconds_a_step=4.0, done=0, total=6):
    text, now = io.StringIO(), [0.0]
    console = Console(file=text, force_terminal=terminal, width=100)
    with Progress(console, clock=lambda: now[0]) as progress:
        progress.stage("survey", total=total, done=done)
        for step in steps:
            now[0] += seconds_a_step
            progress.update(step, loss=2.3456, tokens_per_second=1234.5)
    return text.getvalue()


def test_without_a_terminal_a_plain_line_comes_at_most_every_ten_seconds_and_at_the_end():
    lines = shown(terminal=False, steps=range(1, 7)).splitlines()
    assert lines == [
        "survey: 6 steps",
        "survey: step 1/6 · loss 2.346 · 1,234 tokens/s · 20 s left",
        "survey: step 4/6 · loss 2.346 · 1,234 tokens/s · 8 s left",
        "survey: step 6/6 · loss 2.346 · 1,234 tokens/s · 0 s left",
    ]


def test_the_time_left_counts_only_the_steps_of_this_process():
    lines = shown(terminal=False, steps=[101], done=100, total=110).splitlines()
    assert lines[-1] == "survey: step 101/110 · loss 2.346 · 1,234 tokens/s · 36 s left"


def test_on_a_terminal_the_stage_is_one_live_line():
    text = shown(terminal=True, steps=[3])
    assert "survey" in text
    assert "3/6 · loss 2.346 · 1,234 tokens/s" in text


def told(*counts, terminal=False):
    text = io.StringIO()
    with Progress(Console(file=text, force_terminal=terminal, width=100), clock=lambda: 0.0) as progress:
        count = progress.samples("asking seed", "answer")
        for done, speed in counts:
            count(done, 60, speed)
    return text.getvalue()


def test_a_stage_begins_once_however_often_an_engine_tells_that_none_is_done():
    counts = ((0, 0.0), (0, 800.0), (0, 900.0), (60, 950.0))
    heading, none, every = told(*counts).splitlines()
    assert heading == "asking seed: 60 answers"
    assert none == "asking seed: answer 0/60 · 800 tokens/s"
    assert every == "asking seed: answer 60/60 · 950 tokens/s · 0 s left"
    assert told(*counts, *counts).splitlines() == [heading, none, every] * 2  # another call of the engine
    assert told(*counts, terminal=True).count("\n") == 1


@pytest.mark.parametrize(
    ("seconds", "words"), [(0.4, "0 s"), (59.6, "1 min 00 s"), (200, "3 min 20 s"), (7500, "2 h 05 min")]
)
def test_times_are_said_in_words(seconds, words):
    assert duration(seconds) == words


def test_lines_cells_and_progress_are_printed_without_what_would_steer_the_terminal():
    hostile, file = "\x1b[31mred\x1b]0;title\x07\x9b2J\x08\x7f", io.StringIO()
    console = plain_console(file=file, force_terminal=True, color_system="standard", no_color=False, width=60)
    say(console, f"line {hostile}")
    say(console, Text(f"ours {hostile}", "green"))
    console.print(terminal_table(["head"], [[hostile], ["plain"]]))
    with Progress(console) as progress:
        progress.stage(f"stage {hostile}", total=2)
        progress.update(1)
    shown, harmless = file.getvalue(), "[31mred]0;title2J"
    assert shown.startswith(f"line {harmless}\n\x1b[32mours {harmless}\x1b[0m\n")
    assert f"\n {harmless} \n" in shown and f"stage {harmless}" in shown
    assert not [one for one in ("\x1b[31m", "\x1b]", "\x07", "\x9b", "\x08", "\x7f") if one in shown]


def test_what_readers_tell_without_a_console_does_not_steer_the_terminal_either(capsys):
    print_line("left aside: 1 tensor (\x1b[31mred\x1b]0;title\x07)")
    assert capsys.readouterr().out == "left aside: 1 tensor ([31mred]0;title)\n"
    bare = re.compile(r"[=,(] ?print[,)\n]")  # as an argument or a default, where it prints what was read
    package = Path(progress.__file__).parents[1]
    assert [path for path in package.rglob("*.py") if bare.search(path.read_text(encoding="utf-8"))] == []
