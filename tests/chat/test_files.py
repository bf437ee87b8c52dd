"""/read: a file goes with one question, can be left out again, and is never more than a question may be."""

from __future__ import annotations

import os
import threading

import pytest

from rsd_cli.cli.question import MAX_BYTES
from rsd_cli.cli.repl import Repl
from rsd_cli.errors import UsageError
from tests.chat.test_orders import talking


@pytest.fixture
def repl(tmp_path):
    (tmp_path / "note.txt").write_text("a note")
    return Repl(talking(tmp_path / "talk.jsonl"))


def questions(repl):
    return [turn.question for turn in repl.talk.conversation.turns]


def test_a_file_goes_with_one_question(repl, tmp_path):
    for line in (f"/read {tmp_path}/note.txt", "one", "two"):
        repl._take(line)
    assert questions(repl) == ["a note\n\none", "two"]


def test_the_mark_before_a_file_is_no_part_of_it(repl, tmp_path):
    (tmp_path / "note.txt").write_text("a note", "utf-8-sig")
    for line in (f"/read {tmp_path}/note.txt", "one"):
        repl._take(line)
    assert questions(repl) == ["a note\n\none"]


@pytest.mark.parametrize("line", ["/read", "/clear"])
def test_a_file_can_be_left_out_again(repl, tmp_path, capsys, line):
    repl._take(f"/read {tmp_path}/note.txt")
    assert "a file goes with your question" in repl.status()
    repl._take(line)
    assert "No file goes with your next question any more." in capsys.readouterr().err
    assert "a file" not in repl.status()
    repl._take("one")
    assert questions(repl) == ["one"]


def test_without_a_file_there_is_none_to_leave_out(repl, capsys):
    repl._take("/clear")
    assert "file" not in capsys.readouterr().err
    repl._take("/read")
    assert "hint: /read FILE puts one before it." in capsys.readouterr().err
    assert repl.has_failed


def test_a_question_that_its_file_makes_too_long_says_how_to_leave_that_out(
    repl, tmp_path, capsys, monkeypatch
):
    def refuse(question, *_):
        if "note" in question:
            raise UsageError("Too long.", "Shorten it.")

    monkeypatch.setattr(repl.talk, "_check_room", refuse)
    for line in (f"/read {tmp_path}/note.txt", "one"):
        repl._take(line)
    assert "hint: Shorten it. /read without a name leaves the file out." in capsys.readouterr().err
    for line in ("/read", "one"):
        repl._take(line)
    assert questions(repl) == ["one"]


@pytest.mark.parametrize(
    ("text", "lines"),
    [("hello", "1 line"), ("hello\n", "1 line"), ("a\nb", "2 lines"), ("a\r\n\r\n", "2 lines")],
)
def test_the_lines_of_a_file_are_counted_as_an_editor_does(repl, tmp_path, capsys, text, lines):
    (tmp_path / "file").write_bytes(text.encode())
    repl._take(f"/read {tmp_path}/file")
    assert f"question: {lines}." in " ".join(capsys.readouterr().err.split())


@pytest.mark.parametrize("text", ["", " \n\n", "\ufeff"])
def test_a_file_without_text_does_not_replace_the_one_before(repl, tmp_path, capsys, text):
    (tmp_path / "empty").write_text(text, "utf-8")
    for line in (f"/read {tmp_path}/note.txt", f"/read {tmp_path}/empty", "one"):
        repl._take(line)
    assert "error: There is no text in" in capsys.readouterr().err
    assert questions(repl) == ["a note\n\none"]


def test_a_huge_file_is_not_read(repl, tmp_path, capsys):
    with (tmp_path / "huge").open("wb") as file:
        file.truncate(2**40)
    repl._take(f"/read {tmp_path}/huge")
    assert f"huge is longer than {MAX_BYTES:,} bytes." in capsys.readouterr().err
    assert not repl.file


def test_what_may_have_no_end_is_not_read(repl, tmp_path, capsys):
    os.mkfifo(tmp_path / "pipe")
    reading = threading.Thread(target=repl._take, args=(f"/read {tmp_path}/pipe",), daemon=True)
    reading.start()
    reading.join(5)
    assert not reading.is_alive()
    repl._take(f"/read {tmp_path}")
    assert capsys.readouterr().err.count("is no regular file.") == 2


@pytest.mark.parametrize(("data", "why"), [(None, "can't be read"), (b"a\xffb", "byte 2 is not UTF-8")])
def test_a_file_that_is_no_text_is_refused(repl, tmp_path, capsys, data, why):
    if data:
        (tmp_path / "file").write_bytes(data)
    repl._take(f"/read {tmp_path}/file")
    assert why in capsys.readouterr().err
    assert not repl.file
