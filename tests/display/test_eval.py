"""The table on terminals of several widths, and a comparison."""

import io
from dataclasses import replace

import pytest
from rich.cells import cell_len

from rsd_cli.display.eval import show_comparison, show_evaluation
from rsd_cli.evaluation.comparing import compare
from rsd_cli.evaluation.runs import TaskRun
from tests.display.screens import console_on
from tests.evaluation.made import evaluation_of, runs_of

MADE = evaluation_of(10, limit=10)


def shown(width, show, value):
    file = io.StringIO()
    show(console_on(file, width, 100, force_terminal=False), value)
    return file.getvalue()


@pytest.mark.parametrize("width", [50, 80, 100, 200])
def test_every_strategy_has_one_line_that_fits(width):
    text = shown(width, show_evaluation, MADE)
    lines = text.splitlines()
    for name in ("rsd", "rsd:threshold=0.4", "majority@8"):
        (row,) = [line for line in lines if f"{name} " in line and "%" in line and "±" in line]
        assert cell_len(row) <= width
    assert "budget= 4: accuracy=" in text


def test_what_has_no_room_is_named_and_odd_ends_are_not_lost():
    text = shown(80, show_evaluation, MADE)
    assert "Δ to first" in text
    assert "No room for" in text
    assert "cut short" in text
    assert "No room" not in shown(200, show_evaluation, MADE)
    assert "Not comparable" in text


def test_several_tasks_are_told_apart_on_a_narrow_terminal():
    two = replace(MADE, tasks=(MADE.tasks[0], TaskRun("math500", runs_of(4, ("rsd", "target")))))
    lines = shown(80, show_evaluation, two).splitlines()
    assert sum(line.startswith("math500") for line in lines) >= 2


def test_names_are_no_markup_and_steer_no_terminal():
    hostile = "[red]\x1b[2J"
    run = replace(MADE.tasks[0].strategies[0], name=hostile)
    text = shown(120, show_evaluation, replace(MADE, tasks=(TaskRun("a[b]c", (run,)),)))
    assert "\x1b" not in text
    assert "[red]" in text
    assert "a[b]c" in text


def test_a_comparison_names_settings_differences_and_flips():
    other = evaluation_of(10, ("rsd", "target"), seed=1, config={"threshold": 0.9})
    text = shown(100, show_comparison, compare(MADE, other))
    assert "config.threshold: 0.7 → 0.9" in text
    assert "gsm8k rsd" in text
    assert "gained" in text
    assert "only in the first: gsm8k rsd:threshold=0.4" in text
    flips = [line for line in text.splitlines() if line.startswith(("  + ", "  - "))]
    assert flips
    assert all(cell_len(line) <= 100 for line in flips)
