"""What a conversation's commands show, on terminals of several widths and kinds."""

from __future__ import annotations

import io

import pytest
from rich.cells import cell_len

from rsd_cli.display import chat
from rsd_cli.records import Usage
from tests.display.screens import Terminal, console_on
from tests.display.scripted import REJECTED, STEPS, record

HOSTILE = "\x1b[2J\x1b]0;title\x07 [bold]no markup[/bold] \u202e\x9b31m"
VISIBLE = r"\x1b[2J\x1b]0;title\x07 [bold]no markup[/bold] \u202e\x9b31m"
WIDTHS = (40, 71, 72, 99, 100, 101, 160)


def printed(show, *arguments, width=100):
    """What it writes without colours, in lines."""
    file = io.StringIO()
    show(console_on(file, width, 24, color_system=None), *arguments)
    assert not set(file.getvalue()) & set("\x1b\x07\x9b\u202e")
    return [line.rstrip() for line in file.getvalue().splitlines()]


def fits(lines, width):
    return all(cell_len(line) <= width for line in lines)


def test_pairs_are_two_columns():
    assert printed(chat.pairs, [("threshold", "0.7"), ("seed", "3")]) == ["threshold  0.7", "seed       3"]


def test_a_long_meaning_is_folded_in_its_column():
    lines = printed(chat.pairs, [("system", "word " * 30)], width=40)
    assert len(lines) > 3
    assert fits(lines, 40)
    assert all(line.startswith("        word") for line in lines[1:])


@pytest.mark.parametrize(
    "show",
    [
        lambda console: chat.pairs(console, [(HOSTILE, HOSTILE)]),
        lambda console: chat.notice(console, HOSTILE),
        lambda console: chat.conversations(
            console, [{"id": "1", "changed": "", "turns": "", "question": HOSTILE}]
        ),
        lambda console: chat.all_steps(console, record(steps=(hostile_step(),))),
        lambda console: chat.rewritten(console, hostile_step(), 1),
        lambda console: chat.compared(
            console, record(answer=HOSTILE, strategy=HOSTILE), record(answer=HOSTILE, strategy=HOSTILE)
        ),
    ],
)
def test_hostile_text_is_shown_as_text(show):
    assert any(VISIBLE in line for line in printed(show, width=200))
    printed(show, width=60)


def hostile_step():
    step = STEPS[2]
    rejected = type(REJECTED)(HOSTILE, 0.3, 5)
    return type(step)(HOSTILE, "target", None, 5, 1.0, rejected)


def test_a_notice_is_one_line_whatever_the_width():
    assert printed(chat.notice, "word " * 50, width=40) == [("word " * 50).strip()]


def test_steps_are_shown_with_their_rejected_drafts():
    lines = printed(chat.all_steps, record())
    headings = [line for line in lines if line.startswith((" D ", " T "))]
    assert headings == [
        " D  1  reward 0.94 · 20 tokens",
        " D  2  reward 0.91 · 17 tokens",
        " D  3  ✗ rejected · reward 0.31 · 27 tokens",
        " T  3  rewritten · 31 tokens",
        " D  4  reward 0.88 · 19 tokens",
        " D  5  reward 0.97 · 18 tokens",
    ]
    assert any("48 × 2 = 96" in line for line in lines)


@pytest.mark.parametrize("width", WIDTHS)
def test_nothing_is_wider_than_the_terminal(width):
    long = record(answer="漢字 and wide words " * 40 + "x" * 300)
    assert fits(printed(chat.all_steps, long, width=width), width)
    assert fits(printed(chat.rewritten, STEPS[2], 3, width=width), width)
    assert fits(printed(chat.compared, long, long, width=width), width)


def test_a_step_that_was_not_rejected_has_no_other_side():
    assert printed(chat.rewritten, STEPS[0], 1) == []


def test_a_wide_terminal_shows_both_versions_beside_each_other():
    lines = printed(chat.rewritten, STEPS[2], 3, width=chat.WIDE)
    assert "✗ rejected" in lines[0]
    assert lines[0].index(" T  3  rewritten") == chat.WIDE // 2
    (together,) = [line for line in lines if "48 × 2 = 96" in line]
    assert together.index("┃") > together.index("┊")


def test_a_narrow_terminal_shows_them_below_each_other():
    lines = printed(chat.rewritten, STEPS[2], 3, width=chat.WIDE - 1)
    assert "✗ rejected" in lines[0]
    assert "rewritten" not in lines[0]
    rewritten = next(i for i, line in enumerate(lines) if "rewritten" in line)
    assert lines[rewritten - 1] == ""
    assert not any("┊" in line for line in lines[rewritten:])


def test_columns_of_unlike_heights_stay_in_their_places():
    lines = printed(chat.compared, record(answer="short"), record(answer="line\n\n" * 9), width=120)
    assert "short" in lines[1]
    assert all(line.index("line") == 60 for line in lines[1:] if "line" in line)
    assert sum("line" in line for line in lines) == 9


def test_two_answers_are_headed_with_their_times():
    alone = record(answer="It is 71.", strategy="target", steps=STEPS[:1])
    heading, first, *_ = printed(chat.compared, record(), alone, width=140)
    assert heading.split("  ")[0] == "rsd: 14.4 s, 105 tokens"
    assert heading.rpartition("  ")[2].strip() == "target alone: 14.4 s, 20 tokens"
    assert "It is 71." in first


ROOMS = (chat.Room("draft", 1500, 4096), chat.Room("target", 900, 2048))


def test_statistics_tell_the_last_turn_from_all_of_them():
    one = record(usage={"draft": Usage(10, 20, 3, 40, 50), "target": Usage(), "prm": Usage(1, 2, 3, 4, 5)})
    two = record(usage={"draft": Usage(1, 2000, 3, 4, 5), "target": Usage(0, 7, 0, 8, 0), "prm": Usage()})
    lines = printed(chat.statistics, [one, two], ROOMS)
    assert lines[0].split() == ["tokens", "draft", "target", "prm"]
    assert [line.split()[-3:] for line in lines[1:5]] == [
        ["4", "8", "0"],
        ["5", "0", "0"],
        ["2,000", "7", "0"],
        ["3", "0", "0"],
    ]
    assert [line.split()[-3:] for line in lines[5:9]] == [
        ["44", "8", "4"],
        ["55", "0", "5"],
        ["2,020", "7", "2"],
        ["6", "0", "3"],
    ]
    assert lines[9].split() == ["context", "1,500/4,096", "900/2,048"]
    assert lines[10] == "2 turns, 30% of the tokens by the target, 28.8 s"


@pytest.mark.parametrize("width", [40, 60, 160])
def test_no_number_of_the_statistics_is_cut(width):
    lines = printed(
        chat.statistics, [record(usage={"draft": Usage(1, 20_000, 3, 40_000, 5)})], ROOMS, width=width
    )
    assert fits(lines[:10], width), "the table; the remark below it is one line that the terminal wraps"
    assert "…" not in "".join(lines)


def test_statistics_of_a_turn_without_steps_or_counts():
    lines = printed(chat.statistics, [record(steps=(), usage={})], [])
    assert all(line.split()[-3:] == ["0", "0", "0"] for line in lines[1:9])
    assert lines[10] == "1 turn, 0% of the tokens by the target, 14.4 s"


def test_a_room_knows_its_share():
    assert chat.Room("draft", 1024, 4096).share == 0.25


@pytest.mark.parametrize("width", [70, 80, 120])
def test_conversations_are_a_line_each_whatever_the_question(width):
    rows = [
        {"id": "20250102-030405-abcd", "changed": "2025-01-02 03:04", "turns": "2", "question": "Why? " * 50},
        {"id": "20250101-030405-abcd", "changed": "2025-01-01 03:04", "turns": "12", "question": "Who?"},
    ]
    lines = printed(chat.conversations, rows, width=width)
    assert len(lines) == 3
    assert fits(lines, width)
    assert lines[1].endswith("…")
    assert lines[2].split() == ["20250101-030405-abcd", "2025-01-01", "03:04", "12", "Who?"]


def test_no_conversations_are_an_empty_list():
    assert len(printed(chat.conversations, [])) <= 1


def test_a_screen_shows_both_versions_in_their_colours():
    terminal = Terminal(120, 24)
    chat.rewritten(console_on(terminal, 120, 24), STEPS[2], 3)
    row = terminal.screen.buffer[0]
    assert (row[1].data, row[1].bg) == ("D", "cyan")
    assert row[61].data == "T"
    assert row[61].bg in ("brown", "yellow")  # pyte's name for it
    body = next(y for y in range(24) if "96" in terminal.shown()[y])
    struck = terminal.shown()[body].index("96")
    assert terminal.screen.buffer[body][struck].strikethrough
