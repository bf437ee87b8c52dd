from __future__ import annotations

import io
import re
import time

import pytest
from rich.cells import cell_len

from rsd_cli.decoding.events import Ended, Judged, Kept, Streamed
from rsd_cli.display import ask
from rsd_cli.records import Flops, Rejected, Step, Usage
from tests.display.screens import Terminal, console_on, display_on, play, refreshed
from tests.display.scripted import STEPS, events, record

SIZES = [(40, 12), (80, 24), (200, 50)]
PAYLOAD = "\x1b]52;c;cm0gLXJm\x07 \x1b[2J\x1b[31mred \x9b1A done\r\u202egnp [bold]markup[/bold]"


@pytest.mark.parametrize(("width", "height"), SIZES)
def test_the_end_shows_steps_rejection_and_summary(width, height):
    terminal = Terminal(width, height)
    play(console_on(terminal, width, height), events())
    seen = re.sub(r"\s+", " ", re.sub(r"[┃┊]", "", terminal.everything()))
    assert "✗ rejected" in seen
    assert "48 × 2 = 96 clips." in seen
    assert "Clips in May = 48/2 = 24" in seen
    assert "So Natalia sold ⟦72⟧ clips altogether" in seen
    assert "27 draft tokens, 1 rejected" in seen
    assert "75% of what the target alone" in seen
    assert "writes" not in seen
    assert not terminal.screen.cursor.hidden


@pytest.mark.parametrize(("width", "height"), [*SIZES, (20, 3)])
def test_the_region_stays_small_while_a_long_step_streams(width, height):
    terminal = Terminal(width, height)
    with display_on(console_on(terminal, width, height)) as display:
        for _ in range(400):
            display.handle(Streamed("ask", "draft", "many words and 中文字 \\(x^2\\)\n"))
        lines = display._region(console_on(terminal, width, height).size)
        assert len(lines) <= min(ask._LINES + 3, height)
        assert all(cell_len(line.plain) <= width for line in lines[:-1])
        refreshed(display)
        status = [line for line in terminal.shown() if "0:0" in line or "D 0" in line]
        assert len(status) == 1
    if height > 3:
        assert "unfinished" in terminal.everything()


def test_streaming_appears_before_the_step_is_kept():
    terminal = Terminal(80, 24)
    with display_on(console_on(terminal, 80, 24)) as display:
        display.handle(Streamed("ask", "draft", "In April, \\(2 \\times"))
        display.handle(Streamed("ask", "draft", " 3\\)"))
        refreshed(display)
        assert " ┃  In April, 2 × 3" in terminal.shown()
        assert any("draft writes" in line for line in terminal.shown())


def test_long_steps_stream_in_linear_time():
    console = console_on(io.StringIO(), 80, 24, record=True)
    with display_on(console) as display:
        started = time.perf_counter()
        for _ in range(20_000):
            display.handle(Streamed("ask", "draft", "word "))
        assert time.perf_counter() - started < 15


@pytest.mark.parametrize("width", [20, 40, 80, 200])
def test_no_line_is_wider_than_the_console_off_a_terminal(width):
    file = io.StringIO()
    play(console_on(file, width, 24, force_terminal=False), events())
    assert "\x1b" not in file.getvalue()
    assert max(cell_len(line) for line in file.getvalue().splitlines()) <= width
    assert "loading draft" in file.getvalue()


def test_a_dumb_terminal_gets_plain_lines():
    file = io.StringIO()
    play(console_on(file, 80, 24, _environ={"TERM": "dumb"}), events())
    assert "\x1b" not in file.getvalue()
    assert "✗ rejected" in file.getvalue()


def test_no_color_keeps_meaning_without_colours():
    terminal = Terminal(80, 24)
    play(console_on(terminal, 80, 24, no_color=True), events())
    codes = {
        code for group in re.findall(r"\x1b\[([\d;]*)m", terminal.getvalue()) for code in group.split(";")
    }
    assert codes <= {"0", "1", "2", "9", ""}
    assert "✗ rejected" in terminal.everything()
    assert " T  3  rewritten" in terminal.everything()


@pytest.mark.parametrize("size", [1, 2, 3, 100])
def test_control_sequences_split_over_tokens_are_shown(size):
    terminal = Terminal(200, 50)
    step = Step(PAYLOAD, "draft", 0.5, 9, 1.0, Rejected(PAYLOAD, 0.1, 9))
    pieces = [PAYLOAD[start : start + size] for start in range(0, len(PAYLOAD), size)]
    with display_on(console_on(terminal, 200, 50), question=PAYLOAD) as display:
        display.loading("draft", PAYLOAD)
        for piece in pieces:
            display.handle(Streamed("ask", "draft", piece))
            refreshed(display)
        display.handle(Judged("ask", PAYLOAD, 9, 0.1, accepted=False))
        display.handle(Kept("ask", step))
    written = terminal.getvalue()
    assert "\x1b]" not in written
    assert "\x1b[2J" not in written
    assert not set(written) & set("\x07\x9b\u202e")
    shown = r"\x1b]52;c;cm0gLXJm\x07 \x1b[2J\x1b[31mred \x9b1A done\x0d\u202egnp [bold]markup[/bold]"
    assert terminal.everything().count(shown) == 3


def test_an_exception_gives_the_cursor_back_and_leaves_what_was_written():
    terminal = Terminal(80, 24)
    with pytest.raises(KeyboardInterrupt), display_on(console_on(terminal, 80, 24)) as display:
        display.handle(Streamed("ask", "target", "half a st"))
        assert terminal.screen.cursor.hidden
        raise KeyboardInterrupt
    assert not terminal.screen.cursor.hidden
    assert " T  1  unfinished" in terminal.everything()
    assert "half a st" in terminal.everything()


def test_a_rejection_is_shown_once_even_if_nobody_reported_the_verdict():
    file = io.StringIO()
    play(console_on(file, 80, 24, force_terminal=False), [Kept("ask", STEPS[2])])
    assert file.getvalue().count("✗ rejected") == 1


@pytest.mark.parametrize(
    ("ended_by", "words"),
    [("max_tokens", "--max-tokens"), ("max_steps", "--max-steps"), ("context", "context is full")],
)
def test_an_early_end_is_said_in_words(ended_by, words):
    file = io.StringIO()
    play(console_on(file, 80, 24, force_terminal=False), [Ended("ask", record(ended_by=ended_by))])
    assert words in file.getvalue()


def test_an_empty_record_is_shown():
    file = io.StringIO()
    empty = record(steps=(), usage={}, ended_by="timeout", final_answer=None, answer="")
    play(console_on(file, 40, 24, force_terminal=False), [Ended("ask", empty)])
    assert "stopped at the time limit" in file.getvalue()


def test_a_recording_holds_every_step_once():
    console = console_on(io.StringIO(), 100, 40, record=True)
    play(console, events())
    text = console.export_text(clear=False)
    assert text.count("Clips in May = 48/2 = 24") == 1
    assert "writes" not in text
    assert "<svg" in console.export_svg(title="rsd ask")


def test_a_narrowed_terminal_keeps_no_leftovers():
    terminal = Terminal(80, 24)
    console = console_on(terminal, 80, 24)
    with display_on(console) as display:
        display.handle(Streamed("ask", "draft", "x" * 150))
        drawn = refreshed(display)._region.drawn
        console.width = 40
        before = terminal.getvalue()
        refreshed(display)
        erased = terminal.getvalue()[len(before) :].count("\x1b[1A")
        assert erased == sum(max(1, -(-cells // 40)) for cells in drawn) - 1


def test_without_a_target_no_comparison_with_it_is_made():
    file = io.StringIO()
    alone = record(flops=Flops(1e9, 0.0, 0.0, None), usage={"draft": Usage(10, 20)})
    play(console_on(file, 80, 24, force_terminal=False), [Ended("ask", alone)])
    assert "target alone" not in file.getvalue()
    assert "discarded" not in file.getvalue()
