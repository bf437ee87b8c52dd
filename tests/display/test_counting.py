"""How far long work is: in a log a line at once, then now and then, and one at the end."""

import re
import time

import pytest

from rsd_cli.display.counting import counting
from rsd_cli.display.progress import transfer_progress
from tests.display.screens import Terminal


def test_a_log_hears_at_once_then_seldom_and_of_the_end(capsys, monkeypatch):
    clock = [100.0]
    monkeypatch.setattr(time, "monotonic", lambda: clock[0])
    with counting("questions", 3) as tell:
        tell("nothing yet", 0)
        tell("one right")
        clock[0] += 31
        tell("still one", 0)
        tell("two")
        tell("all")
        tell("no more", 0)
    assert capsys.readouterr().err.splitlines() == [
        "questions 0 of 3  nothing yet",
        "questions 1 of 3  still one",
        "questions 3 of 3  all",
    ]


def test_forced_colour_animates_nothing_in_a_log(capsys, monkeypatch):
    monkeypatch.setenv("FORCE_COLOR", "1")
    with counting("questions", 1) as tell:
        tell("all")
    with transfer_progress() as progress:
        progress("m", "verifying", 1, 1)
    log = capsys.readouterr().err
    assert "questions 1 of 1  all" in log
    assert "m: verifying 100 %" in log
    assert not set("\r\x1b") & set(log)


@pytest.mark.parametrize("color", [True, False])
def test_bars_have_colour_where_that_is_wanted(color, monkeypatch):
    terminal = Terminal(80, 24)
    monkeypatch.setattr("sys.stderr", terminal)
    monkeypatch.setenv("TERM", "xterm-256color")
    with counting("questions", 2, color=color) as tell:
        tell("one")
    with transfer_progress(color=color) as progress:
        progress("m", "verifying", 1, 2)
    assert "verifying" in terminal.getvalue()
    assert bool(re.search(r"\x1b\[(\d;)?3\d", terminal.getvalue())) == color
