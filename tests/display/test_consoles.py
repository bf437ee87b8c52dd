from __future__ import annotations

import pytest

from rsd_cli.display.consoles import show_error, stderr_console, stdout_console
from rsd_cli.errors import ModelError


def test_an_error_off_a_terminal_is_two_plain_lines(capsys):
    show_error(ModelError("model 'x\x1b[2J' is\nmissing [bold]", "run `rsd models pull x`"))
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err == "error: model 'x\\x1b[2J' is missing [bold]\nhint: run `rsd models pull x`\n"


def test_a_long_error_is_one_line(capsys):
    show_error(ModelError("word " * 100))
    assert capsys.readouterr().err.count("\n") == 1


def test_force_color_colours_without_animating(monkeypatch):
    monkeypatch.setenv("FORCE_COLOR", "1")
    console = stderr_console(color=True)
    assert console.is_terminal
    assert not console.is_interactive
    assert not console.no_color


@pytest.mark.parametrize(("color", "value"), [(False, ""), (True, "1"), (False, "1")])
def test_colour_is_off_when_asked_either_way(monkeypatch, color, value):
    monkeypatch.setenv("NO_COLOR", value)
    assert stdout_console(color=color).no_color
