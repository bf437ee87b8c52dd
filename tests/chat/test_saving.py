"""`/save` and `/load`: a restored conversation is exact, whatever its texts, in both kinds of file."""

from __future__ import annotations

import os
import random
from pathlib import Path

import pytest

from rsd_cli.chat.conversation import Conversation
from rsd_cli.chat.saving import load, save
from rsd_cli.errors import UsageError
from tests.chat.talks import HOSTILE, a_hostile_talk, a_talk, a_turn
from tests.chat.test_journal import python

NAMES = ("talk.jsonl", "talk.md", "talk.MARKDOWN", "talk")


@pytest.mark.parametrize("name", NAMES)
def test_hostile_texts_come_back_exactly(tmp_path, name):
    kept = a_hostile_talk()
    save(kept, tmp_path / name)
    assert load(tmp_path / name) == kept


@pytest.mark.parametrize("name", NAMES)
def test_an_empty_conversation_comes_back(tmp_path, name):
    save(a_talk(), tmp_path / name)
    assert load(tmp_path / name) == a_talk()


@pytest.mark.parametrize("seed", range(50))
def test_random_texts_come_back_exactly(tmp_path, seed):
    draw = random.Random(seed)
    pieces = [*HOSTILE, *"-<>!\\\"'`\n\r{}#*", "rsd-chat", "\\u002d"]
    texts = ["".join(draw.choices(pieces, k=draw.randint(1, 12))) for _ in range(6)]
    kept = a_talk(*(a_turn(text, text + "x", seed=seed) for text in texts))
    for name in NAMES:
        save(kept, tmp_path / name)
        assert load(tmp_path / name) == kept


def test_markdown_reads_well(tmp_path):
    save(a_talk(a_turn("Why?", "Since.\n\nSo.")), tmp_path / "talk.md")
    shown = (tmp_path / "talk.md").read_text().partition("<!--")[0]
    assert shown.splitlines() == [
        "# Conversation 20250102-030405-abcd",
        "",
        "Trio `starter`, threshold 0.7.",
        "",
        "## 1. You",
        "",
        "Why?",
        "",
        "## 1. Answer",
        "",
        "Since.",
        "",
        "*draft, reward 0.90*",
        "",
        "So.",
        "",
        "*target*",
        "",
        "*1 of 2 steps by the target; ended by eog.*",
        "",
    ]


def test_what_markdown_hides_ends_where_its_comment_does(tmp_path):
    """A renderer shows nothing of it: the comment has no end before its own."""
    save(a_hostile_talk(), tmp_path / "talk.md")
    hidden = (tmp_path / "talk.md").read_bytes().rpartition(b"<!-- rsd-chat\n")[2]
    assert hidden.endswith(b"\n-->\n")
    assert b"--" not in hidden[: -len(b"-->\n")]
    assert b">" not in hidden[: -len(b"-->\n")]


def test_text_around_the_hidden_part_may_be_edited(tmp_path):
    path = tmp_path / "talk.md"
    save(a_hostile_talk(), path)
    path.write_bytes(b"My notes.\n\n" + path.read_bytes() + b"\nThe end.\n")
    assert load(path) == a_hostile_talk()


@pytest.mark.parametrize("name", NAMES)
def test_a_file_that_is_there_stays_as_it_is(tmp_path, name):
    path = tmp_path / name
    path.write_text("precious")
    with pytest.raises(UsageError, match="is there already"):
        save(a_talk(), path)
    assert path.read_text() == "precious"


def test_a_link_to_nowhere_is_not_followed(tmp_path):
    (tmp_path / "talk.md").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(UsageError, match="is there already"):
        save(a_talk(), tmp_path / "talk.md")
    assert not (tmp_path / "elsewhere").exists()


@pytest.mark.parametrize("name", ["none/talk.md", "file/talk.md", "x" * 300, "."])
def test_a_place_that_cannot_be_written_is_refused(tmp_path, name):
    (tmp_path / "file").touch()
    with pytest.raises(UsageError, match=r"can't be written|is there already"):
        save(a_talk(), tmp_path / name)
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


FULL = """
    import resource, signal, sys
    from pathlib import Path
    from rsd_cli.chat.saving import save
    from rsd_cli.errors import UsageError
    from tests.chat.talks import a_talk, a_turn
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (5000, 5000))
    try:
        save(a_talk(a_turn("x" * int(sys.argv[2]))), Path(sys.argv[1]))
    except UsageError as error:
        print(error.message)
"""


@pytest.mark.parametrize("size", [5_000, 500_000])
def test_a_full_disk_leaves_no_half_of_a_file(tmp_path, size, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parents[2]))
    path = tmp_path / "talk.jsonl"
    assert python(FULL, path, size) == [f"{path} can't be written: File too large."]
    assert not path.exists()


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "Line 1 of"),
        (b"# Notes\n", "Line 1 of"),
        (b"caf\xe9", "byte 4 is not UTF-8"),
        (b'{"kind": "chat", "schema": 99}\n', "of this version"),
    ],
)
def test_other_files_are_no_conversations(tmp_path, data, message):
    path = tmp_path / "talk.jsonl"
    path.write_bytes(data)
    with pytest.raises(UsageError, match=message):
        load(path)


def test_other_markdown_is_no_conversation(tmp_path):
    (tmp_path / "notes.md").write_text("# Notes\n\nAbout `<!-- rsd-chat`.\n")
    with pytest.raises(UsageError, match="holds no conversation of rsd"):
        load(tmp_path / "notes.md")


@pytest.mark.timeout(5)
def test_a_pipe_keeps_nobody_waiting(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(UsageError, match="is no regular file"):
        load(tmp_path / "pipe")


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("none.md", "can't be read"),
        (".", "is no regular file"),
        ("x" * 300, "can't be read: File name too long"),
    ],
)
def test_what_cannot_be_read_is_refused(tmp_path, name, why):
    with pytest.raises(UsageError, match=why):
        load(tmp_path / name)


def test_a_line_that_was_damaged_is_named(tmp_path):
    path = tmp_path / "talk.jsonl"
    save(a_talk(a_turn("One?"), a_turn("Two?")), path)
    path.write_text(path.read_text().replace('"question": "Two?"', '"question": 2'))
    with pytest.raises(UsageError, match=r"^Line 3 of .*record\.question is 2"):
        load(path)


def test_a_file_from_elsewhere_with_other_line_ends_is_read(tmp_path):
    path = tmp_path / "talk.jsonl"
    save(a_talk(a_turn("One?")), path)
    path.write_bytes(path.read_bytes().replace(b"\n", b"\r\n"))
    assert load(path).conversation == Conversation((a_turn("One?"),))
