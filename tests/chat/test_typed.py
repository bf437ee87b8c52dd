"""The prompt as a person meets it: keys go in, turns come out."""

from __future__ import annotations

import os
import stat
import time

import pytest
from prompt_toolkit.completion import CompleteEvent
from prompt_toolkit.document import Document

from rsd_cli.chat.commands import COMMANDS, SHOWN
from rsd_cli.chat.prompt import CommandCompleter
from rsd_cli.chat.settings import KEYS
from rsd_cli.decoding.strategies import STRATEGIES, parse
from tests.chat.desk import (
    ALT_ENTER,
    CTRL_C,
    CTRL_D,
    CTRL_O,
    CTRL_R,
    ENTER,
    HOME,
    LEFT,
    TAB,
    UP,
    Press,
    desk_with,
)

pytestmark = pytest.mark.timeout(60)


@pytest.fixture
def desk():
    with desk_with(None) as desk:
        yield desk


def pasted(text):
    return f"\x1b[200~{text}\x1b[201~"


def test_enter_sends_a_line(desk):
    assert desk.read("What is 1+1?", ENTER) == "What is 1+1?"
    assert desk.read("And 2+2?", ENTER) == "And 2+2?"


def test_the_prompt_and_the_status_are_shown(desk):
    desk.read("What?", Press(ENTER, once="What?"))
    drawn = desk.terminal.getvalue()
    assert "> " in drawn
    assert "rsd at 0.7" in drawn
    assert desk.terminal.shown()[0] == "> What?"  # and stays above the answer, without the status
    assert "rsd at 0.7" not in "".join(desk.terminal.shown())


def test_alt_enter_makes_a_new_line(desk):
    assert desk.read("one", ALT_ENTER, "two", ALT_ENTER, ALT_ENTER, "three", ENTER) == "one\ntwo\n\nthree"
    assert desk.terminal.shown()[:2] == ["> one", "  two"]


def test_triple_quotes_stay_open_until_they_end(desk):
    assert desk.read('"""one', ENTER, "", ENTER, '  two"""', ENTER) == "one\n\n  two"


def test_a_quick_block_is_one_turn(desk):
    assert desk.read('"""one"""', ENTER) == "one"


def test_a_paste_of_500_lines_is_one_turn(desk):
    text = "\n".join(f"line {number}" for number in range(500))
    assert desk.read(pasted(text), ENTER) == text
    assert desk.read(pasted(text.replace("\n", "\r\n")), ENTER) == text
    assert desk.read(pasted(text.replace("\n", "\r")), ENTER) == text


def test_a_paste_sends_nothing_by_itself_and_can_be_edited(desk):
    assert desk.read("Look: ", pasted("a\nb\n"), "c", LEFT, "!", ENTER) == "Look: a\nb\n!c"


@pytest.mark.parametrize("line", ["x" * 40, "x" * 40 + "\n"])
def test_a_megabyte_with_escapes_is_data_and_soon_there(desk, line):
    piece = line + "\x1b[31m\x1b]0;title\x07\x1b[2J\x00\x03\x04\x12\x1a\x7f\x1bOP"
    text = piece * (1_000_000 // len(piece))
    began = time.perf_counter()
    assert desk.read(pasted(text), ENTER) == text
    assert time.perf_counter() - began < 20  # about one second; a second a kilobyte would be the mistake
    assert "\x1b]0;title" not in desk.terminal.getvalue()
    assert desk.read("and on", ENTER) == "and on"


def test_ctrl_c_raises_and_the_next_line_is_fresh(desk):
    with pytest.raises(KeyboardInterrupt):
        desk.read("half a quest", CTRL_C)
    assert desk.read("Whole.", ENTER) == "Whole."


def test_ctrl_c_leaves_an_open_block(desk):
    with pytest.raises(KeyboardInterrupt):
        desk.read('"""one', ENTER, CTRL_C)


def test_ctrl_d_ends_an_empty_line_only(desk):
    with pytest.raises(EOFError):
        desk.read(CTRL_D)
    assert desk.read("stay", CTRL_D, ENTER) == "stay"


def test_a_default_can_be_edited(desk):
    assert desk.read(ENTER, default="Was it 3?") == "Was it 3?"
    assert desk.read(LEFT, "3", ENTER, default="Was it 3?") == "Was it 33?"
    assert desk.read(HOME, "So: ", ENTER, default="one\ntwo") == "one\nSo: two"


def test_half_a_character_is_taken(desk):
    assert desk.read("caf\udce9", ENTER) == "caf\udce9"


def test_arrow_up_brings_lines_back(desk):
    for line in ("first", "second", "other"):
        desk.read(line, ENTER)
    assert desk.read(UP, UP, ENTER) == "second"
    assert desk.read("fi", UP, ENTER) == "first"


def test_a_search_finds_a_line_and_enter_takes_it(desk):
    for line in ("the first one", "the second one"):
        desk.read(line, ENTER)
    assert desk.read(CTRL_R, "first", Press(ENTER, once=" one"), "!", ENTER) == "the !first one"


def test_a_search_can_be_left(desk):
    desk.read("the first one", ENTER)
    with pytest.raises(KeyboardInterrupt):
        desk.read(CTRL_R, "first", CTRL_C, CTRL_C)


def test_an_editor_edits_the_line(desk, tmp_path, monkeypatch):
    editor = tmp_path / "editor"
    editor.write_text('#!/bin/sh\nprintf "%s\\nand more" "$(cat "$1")" > "$1.new" && mv "$1.new" "$1"\n')
    editor.chmod(0o700)
    monkeypatch.setenv("VISUAL", str(editor))
    assert desk.read("one", CTRL_O, Press(ENTER, once="and more")) == "one\nand more"


def test_history_is_there_in_the_next_process(tmp_path):
    path = tmp_path / "state" / "history"
    with desk_with(path) as desk:
        desk.read("first", ENTER)
        desk.read('"""two\nlines"""', ENTER)
        desk.read("caf\udce9", ENTER)
        desk.read("/set seed 3", ENTER)
    with desk_with(path) as desk:
        assert desk.read(UP, ENTER) == "/set seed 3"
        assert desk.read('"', UP, ENTER) == "two\nlines"
        assert desk.read("f", UP, ENTER) == "first"
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700


def test_history_is_private_whatever_the_umask(tmp_path):
    before = os.umask(0)
    try:
        with desk_with(tmp_path / "history") as desk:
            desk.read("secret", ENTER)
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "history").stat().st_mode) == 0o600
    assert "secret" in (tmp_path / "history").read_text()


def test_without_a_place_the_history_is_in_memory(tmp_path):
    (tmp_path / "file").touch()
    with desk_with(tmp_path / "file" / "history") as desk:
        desk.read("first", ENTER)
        assert desk.read(UP, ENTER) == "first"


def test_a_place_that_goes_away_ends_nothing(tmp_path):
    with desk_with(tmp_path / "state" / "history") as desk:
        desk.read("first", ENTER)
        (tmp_path / "state" / "history").unlink()
        (tmp_path / "state").rmdir()
        assert desk.read("second", ENTER) == "second"
        assert "Press ENTER" not in desk.terminal.everything()  # as after an exception
        assert desk.read(UP, UP, ENTER) == "first"


def offered(text):
    """What completes a text, as the whole lines that would come of it."""
    found = CommandCompleter().get_completions(Document(text), CompleteEvent())
    return [text[: len(text) + each.start_position] + each.text for each in found]


def test_commands_complete():
    assert offered("/") == [f"/{command.name}" for command in COMMANDS]
    assert offered("/st") == ["/steps", "/stats"]
    assert offered("/ST") == ["/steps", "/stats"]
    assert offered("/xyz") == []


@pytest.mark.parametrize("text", ["", "What is", "a /st", " /st", "/edit one\n/st", "/undo ", "/why "])
def test_questions_and_free_arguments_complete_to_nothing(text):
    assert offered(text) == []


def test_settings_and_their_values_complete():
    assert offered("/set ") == [f"/set {key}" for key in KEYS]
    assert offered("/set max") == ["/set max-tokens", "/set max-steps"]
    assert offered("/set strategy ") == [f"/set strategy {parse(name)}" for name in STRATEGIES]
    assert offered("/SET draft o") == ["/SET draft on", "/SET draft off"]
    assert offered("/set DRAFT of") == ["/set DRAFT off"]
    assert offered("/set threshold ") == offered("/set nothing ") == []


def test_what_can_be_shown_completes():
    assert offered("/show ") == [f"/show {what}" for what in SHOWN]
    assert offered("/show t") == ["/show trio"]


@pytest.mark.parametrize("command", ["save", "load", "read"])
def test_files_complete(command, tmp_path, monkeypatch):
    for name in ("notes one.md", "notes two.md", "other.txt"):
        (tmp_path / name).touch()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    assert offered(f"/{command} notes ") == [f"/{command} notes one.md", f"/{command} notes two.md"]
    assert offered(f"/{command} {tmp_path}/oth") == [f"/{command} {tmp_path}/other.txt"]
    assert offered(f"/{command} ~/oth") == [f"/{command} ~/other.txt"]
    assert offered(f"/{command} {tmp_path}/none/") == []


def test_tab_completes_at_the_prompt(desk):
    assert desk.read("/und", TAB, Press(ENTER, once="o")) == "/undo"


def test_meanings_are_shown_beside_commands():
    found = CommandCompleter().get_completions(Document("/undo"), CompleteEvent())
    assert [each.display_meta_text for each in found] == [
        next(command.help for command in COMMANDS if command.name == "undo")
    ]
