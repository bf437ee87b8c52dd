"""A conversation on disk: replaying its lines gives it back, whatever happened to the process or the disk."""

from __future__ import annotations

import errno
import fcntl
import json
import os
import random
import stat
import subprocess
import sys
from dataclasses import asdict, replace
from typing import TYPE_CHECKING

import pytest

from rsd_cli.chat.conversation import Conversation
from rsd_cli.chat.journal import Journal, Kept, find, listed, new_id, opening, read, replay, turn_line
from rsd_cli.decoding.trajectory import Settings
from rsd_cli.errors import OutputError, UsageError
from tests.chat.talks import HOSTILE, a_hostile_talk, a_talk, a_turn

if TYPE_CHECKING:
    from rsd_cli.records import Record

NEW = Kept("20250102-030405-abcd", "starter", Settings())


def written(path, kept=NEW, *turns):
    """A journal of these turns, as `rsd chat` writes it."""
    journal = Journal(path)
    journal.write_line(opening(kept))
    for turn in turns:
        journal.write("asked", question=turn.question)
        journal.write_line(turn_line(turn))
    assert journal.failure is None
    journal.close()
    return path


def random_change(draw, turns):
    """A change of a list of turns, as a line for the journal and as what the list is then."""
    turn = a_turn(draw.choice(HOSTILE), draw.choice(HOSTILE) + "x", seed=draw.randrange(9))
    kind = draw.choice(["asked", "answered", "again", "undone", "compact", "clear"])
    if kind == "asked":
        return {"kind": "asked", "question": turn.question}, turns
    if kind == "answered" or (kind == "again" and not turns):
        return turn_line(turn), [*turns, turn]
    if kind == "again":
        return turn_line(turn, again=True), [*turns[:-1], turn]
    if kind == "undone":
        return {"kind": "undone"}, turns[:-1]
    n = len(turns) if kind == "clear" else draw.randint(0, len(turns))
    return {"kind": "dropped", "turns": n}, turns[n:]


@pytest.mark.parametrize("seed", range(10))
def test_changes_in_any_order_replay_as_a_plain_list_does(tmp_path, seed):
    draw = random.Random(seed)
    path = written(tmp_path / "talk.jsonl")
    turns: list[Record] = []
    history = {path.stat().st_size: turns}
    journal = Journal(path)
    for _ in range(40):
        if draw.random() < 0.1:  # another process goes on
            journal.close()
            journal = Journal(path)
        line, turns = random_change(draw, turns)
        journal.write_line(line)
        history[path.stat().st_size] = turns
        assert read(path).conversation == Conversation(tuple(turns))
    journal.close()
    data = path.read_bytes()
    for _ in range(20):  # and a process that died at any byte
        end = draw.randint(min(history), len(data))
        path.write_bytes(data[:end])
        known = history[max(size for size in history if size <= end + 1)]  # a whole line needs no newline
        assert read(path).conversation == Conversation(tuple(known))


def test_everything_that_was_written_comes_back(tmp_path):
    kept = a_hostile_talk()
    path = written(
        tmp_path / "talk.jsonl", replace(kept, conversation=Conversation()), *kept.conversation.turns
    )
    assert read(path) == kept


def test_a_question_without_its_answer_stays(tmp_path):
    path = written(tmp_path / "talk.jsonl", NEW, a_turn("One?"))
    journal = Journal(path)
    journal.write("asked", question="Two?")
    assert (read(path).unanswered, len(read(path).conversation.turns)) == ("Two?", 1)
    journal.write_line(turn_line(a_turn("Two?")))
    assert (read(path).unanswered, len(read(path).conversation.turns)) == ("", 2)
    journal.close()


def test_settings_that_were_set_come_back(tmp_path):
    path = written(tmp_path / "talk.jsonl")
    journal = Journal(path)
    journal.write("set", settings=asdict(Settings("audit", 0.25, system="Be brief.")))
    journal.close()
    assert read(path).settings == Settings("audit", 0.25, system="Be brief.")


@pytest.mark.parametrize(
    "left",
    [
        lambda whole: whole + '{"kind": "answered", "rec\u00f6'.encode()[:-1],
        lambda whole: whole[:-1],  # by an editor
    ],
    ids=["torn", "without a newline"],
)
def test_whoever_goes_on_cuts_a_torn_last_line_off_and_keeps_one_without_its_newline(left, tmp_path):
    path = written(tmp_path / "talk.jsonl", NEW, a_turn("One?"))
    whole = path.read_bytes()
    path.write_bytes(left(whole))
    assert read(path).conversation.last == a_turn("One?")
    journal = Journal(path)
    assert path.read_bytes() == whole
    journal.write_line(turn_line(a_turn("Two?")))
    journal.close()
    assert [turn.question for turn in read(path).conversation.turns] == ["One?", "Two?"]


RUBBISH = {
    "no JSON": "rubbish",
    "an empty line": "",
    "a list": "[]",
    "a string": '"kind"',
    "null": "null",
    "no kind": "{}",
    "an unknown kind": '{"kind": "sung"}',
    "an answer without a record": '{"kind": "answered", "again": false}',
    "an answer that is none": '{"kind": "answered", "again": false, "record": {"schema": 1}}',
    "a drop without a number": '{"kind": "dropped"}',
    "a drop of words": '{"kind": "dropped", "turns": "two"}',
    "unknown settings": '{"kind": "set", "settings": {"colour": "red"}}',
    "settings that crash later": '{"kind": "set", "settings": {"threshold": "high", "sampling": null}}',
    "a beginning in the middle": json.dumps(opening(NEW)),
    "a deep line": "[" * 100_000,
    "a huge number": "9" * 5000,
}


@pytest.mark.parametrize("rubbish", RUBBISH)
def test_a_line_of_rubbish_is_named(tmp_path, rubbish):
    path = written(tmp_path / "talk.jsonl", NEW, a_turn())
    lines = path.read_text("utf-8").splitlines()
    path.write_text("\n".join([*lines[:2], RUBBISH[rubbish], *lines[2:], ""]), "utf-8")
    with pytest.raises(UsageError, match=f"^Line 3 of {path} is none of a conversation"):
        read(path)


@pytest.mark.parametrize(
    "first",
    [
        "[]",
        "{}",
        '{"kind": "chat", "schema": 2}',
        '{"kind": "chat", "schema": 1}',
        json.dumps({"kind": "undone"}),
    ],
)
def test_what_begins_otherwise_is_no_conversation(first):
    with pytest.raises(UsageError, match=r"^Line 1 of talk\.jsonl"):
        replay([first], "talk.jsonl")


def test_bytes_that_are_no_text_are_named(tmp_path):
    path = written(tmp_path / "talk.jsonl")
    start = path.stat().st_size
    path.write_bytes(path.read_bytes() + b"caf\xe9\n")
    with pytest.raises(UsageError, match=f"byte {start + 4} is not UTF-8"):
        read(path)


@pytest.mark.parametrize("data", [b"", b'{"schema": 1, "kind": "ch'])
def test_a_journal_that_was_never_begun_is_empty(tmp_path, data):
    path = tmp_path / "talk.jsonl"
    path.write_bytes(data)
    with pytest.raises(UsageError, match="is empty"):
        read(path)


def test_what_cannot_be_read_is_an_error_of_ours(tmp_path):
    with pytest.raises(UsageError, match="can't be read"):
        read(tmp_path)
    with pytest.raises(UsageError, match="can't be read"):
        read(tmp_path / "none.jsonl")


def test_conversations_are_private(chats):
    path = written(chats / "talk.jsonl")
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(chats.stat().st_mode) == 0o700


def test_without_a_path_nothing_is_written():
    journal = Journal(None)
    journal.write("undone")
    journal.close()
    assert (journal.is_open, journal.failure) == (False, None)


@pytest.mark.parametrize("place", ["file/talk.jsonl", "folder"])
def test_a_place_that_cannot_be_written_is_a_failure_that_stops_nothing(tmp_path, place):
    (tmp_path / "file").touch()
    (tmp_path / "folder").mkdir()
    journal = Journal(tmp_path / place)
    assert not journal.is_open
    assert isinstance(journal.failure, UsageError)
    assert str(tmp_path / place) in journal.failure.message
    journal.failure = None
    journal.write("undone")
    assert journal.failure is None  # told once
    journal.close()


FULL = """
    import resource, signal, sys
    from pathlib import Path
    from rsd_cli.chat.journal import Journal
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    journal, size = Journal(Path(sys.argv[1])), int(sys.argv[2])
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))
    journal.write("asked", question="fits")
    assert journal.failure is None
    journal.write("asked", question="x" * 1000)
    print(journal.is_open, type(journal.failure).__name__, journal.failure.message)
    journal.failure = None
    journal.write("asked", question="y")
    print(journal.failure)
"""


def python(source, *arguments):
    """What another process says."""
    lines = "\n".join(line.removeprefix("    ") for line in source.splitlines())
    command = [sys.executable, "-c", lines, *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=True, timeout=60).stdout.splitlines()


def test_a_full_disk_is_told_once_and_keeps_whole_lines(tmp_path):
    path = written(tmp_path / "talk.jsonl", NEW, a_turn("One?"))
    first, second = python(FULL, path, path.stat().st_size + 200)
    assert first == f"False ResourceError No room left to write {path}."
    assert second == "None"
    assert path.read_bytes().endswith(b"\n")
    assert read(path).unanswered == "fits"


OPEN = """
    import sys
    from pathlib import Path
    from rsd_cli.chat.journal import Journal
    from rsd_cli.errors import OutputError
    try:
        Journal(Path(sys.argv[1]))
        print("opened")
    except OutputError as error:
        print(error.message)
"""


def test_two_processes_never_write_the_same_conversation(tmp_path):
    path = written(tmp_path / "talk.jsonl", NEW, a_turn())
    journal = Journal(path)
    path.open("ab").write(b"torn")  # nobody but the owner cuts it off
    assert python(OPEN, path) == ["The conversation talk is open in another rsd."]
    assert path.read_bytes().endswith(b"torn")
    with pytest.raises(OutputError):
        Journal(path)
    journal.close()
    assert python(OPEN, path) == ["opened"]


def test_a_disk_without_locks_is_no_other_process(tmp_path, monkeypatch):
    def no_locks(*_):
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(fcntl, "flock", no_locks)
    journal = Journal(tmp_path / "talk.jsonl")
    assert not journal.is_open
    assert journal.failure
    assert os.strerror(errno.ENOLCK) in journal.failure.message


def test_a_conversation_in_which_nothing_was_said_leaves_no_file(chats):
    begun(chats, "20250101-a")
    journal = Journal(chats / "20250102-b.jsonl")
    journal.begin(opening(NEW))
    journal.write("set", settings=asdict(NEW.settings))
    assert find("last").stem == "20250101-a"
    assert [row.id for row in listed()] == ["20250101-a"]
    journal.close()
    assert [path.name for path in chats.iterdir()] == ["20250101-a.jsonl"]


def test_what_came_before_the_first_question_is_kept_with_it(chats):
    path = chats / "20250102-b.jsonl"
    journal = Journal(path)
    journal.begin(opening(NEW))
    brief = replace(NEW.settings, system="Be brief.")
    journal.write("set", settings=asdict(brief))
    journal.write("asked", question="One?")
    assert read(path) == replace(NEW, settings=brief, unanswered="One?")
    journal.close()
    assert find("last") == path


def begun(chats, *names):
    """Conversations of these names, each newer than the one before."""
    for age, name in enumerate(names):
        path = written(chats / f"{name}.jsonl", replace(NEW, id=name), a_turn(f"Is it {name}?"))
        os.utime(path, (1_000_000 + age, 1_000_000 + age))


def test_a_conversation_is_found_by_its_beginning_or_as_the_last(chats):
    begun(chats, "20250103-b", "20250102-a", "20250101-c")
    assert find("20250103-b") == find("20250103") == chats / "20250103-b.jsonl"
    assert find("last") == chats / "20250101-c.jsonl"  # by when it was changed
    with pytest.raises(UsageError, match="3 conversations begin with '2025'"):
        find("2025")
    with pytest.raises(UsageError, match="No conversation begins with 'b'"):
        find("b")


def test_a_whole_name_is_its_own_though_others_go_on_from_it(chats):
    begun(chats, "20250103-b", "20250103-b copy")
    assert find("20250103-b").stem == "20250103-b"


@pytest.mark.parametrize("name", ["last", "2025", ""])
def test_where_there_is_no_conversation_one_can_begin(chats, name):
    with pytest.raises(UsageError, match="There is no conversation") as refused:
        find(name)
    assert refused.value.hint == "Begin one: rsd chat"


def test_a_name_with_a_pattern_or_a_way_out_is_only_a_name(chats):
    begun(chats, "20250103-b")
    for name in ("*", "../20250103-b", "[2]0250103-b", "/etc/passwd"):
        with pytest.raises(UsageError, match="No conversation begins"):
            find(name)


def test_the_list_is_the_newest_first_without_what_cannot_be_read(chats):
    begun(chats, "20250103-b", "20250102-a")
    (chats / "rubbish.jsonl").write_text("rubbish\n")
    (chats / "folder.jsonl").mkdir()
    (chats / "gone.jsonl").symlink_to(chats / "nowhere")
    (chats / "notes.txt").touch()
    journal = Journal(chats / "20250102-a.jsonl")
    journal.write("dropped", turns=1)
    journal.write("asked", question="And now?")
    journal.close()
    rows = [(row.id, row.turns, row.question) for row in listed()]
    assert rows == [("20250102-a", 0, "And now?"), ("20250103-b", 1, "Is it 20250103-b?")]
    assert find("last").stem in {"20250102-a", "rubbish"}


def test_an_empty_folder_has_no_list(chats):
    assert list(listed()) == []


def test_names_sort_by_time_and_differ():
    names = [new_id() for _ in range(50)]
    assert len(set(names)) > 40
    assert [name[:15] for name in names] == sorted(name[:15] for name in names)


def test_a_talk_without_turns_is_its_opening():
    kept = a_talk()
    assert replay([json.dumps(opening(kept))], "talk") == kept
