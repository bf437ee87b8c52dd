"""`rsd chat` in a real terminal (pexpect), seen as a person sees it (pyte), and fed from a pipe."""

from __future__ import annotations

import json
import os
import random
import re
import signal
import subprocess
import termios
import time
from datetime import datetime
from pathlib import Path

import pytest

from tests.cli.command import ENTRY, declared, ended, trio, wait_for_lines
from tests.cli.conftest import BIG
from tests.cli.test_signals import wait_until_it_writes
from tests.engine.driving import NO_END

pexpect = pytest.importorskip("pexpect")
pyte = pytest.importorskip("pyte")

PROMPT = "> "
SHORT = ("--threads", "1", "-n", "24", "--max-steps", "3")
CLOSING = """
import os, signal
from rsd_cli.cli.trio import LoadedTrio
LoadedTrio.close = lambda _self: os.kill(os.getpid(), signal.SIGSEGV)
from rsd_cli.__main__ import main
main()
"""


class Terminal:
    """A chat in a terminal; `screen` is what a person sees."""

    def __init__(self, rsd, *arguments, columns=100, rows=30, command="chat", env=None, entry=ENTRY):
        self.screen = pyte.HistoryScreen(columns, rows, history=10_000)
        self.stream = pyte.ByteStream(self.screen)
        self.child = pexpect.spawn(
            entry[0], [*entry[1:], command, *arguments], env=rsd.env(TERM="xterm-256color", **(env or {})),
            cwd=str(rsd.home), dimensions=(rows, columns), timeout=30,
        )  # fmt: skip
        self.raw = b""

    def see(self, words, seconds=30.0):
        """Wait until the screen holds these words; answers prompt_toolkit's question where the cursor is."""
        end = time.monotonic() + seconds
        while words not in self.text():
            assert time.monotonic() < end, f"{words!r} did not appear:\n{self.text()}"
            self.feed(0.05)
        return self.text()

    def feed(self, seconds):
        try:
            data = self.child.read_nonblocking(65536, seconds)
        except pexpect.TIMEOUT:
            return
        except pexpect.EOF:
            raise AssertionError(f"the chat ended:\n{self.text()}") from None
        self.raw += data
        self.stream.feed(data)
        if b"\x1b[6n" in data:
            cursor = self.screen.cursor
            self.child.send(f"\x1b[{cursor.y + 1};{cursor.x + 1}R")

    def lines(self):
        above = [
            "".join(line[x].data for x in range(self.screen.columns)) for line in self.screen.history.top
        ]
        return [line.rstrip() for line in [*above, *self.screen.display]]

    def text(self):
        return "\n".join(self.lines())

    def at_prompt(self, seconds=30.0):
        """Wait until a prompt is the last thing above the status line."""
        end = time.monotonic() + seconds
        while not self.is_at_prompt():
            assert time.monotonic() < end, f"no prompt:\n{self.text()}"
            self.feed(0.05)
        return self.text()

    def last_line(self):
        """What stands at the prompt."""
        return [line for line in self.screen.display if line.strip()][-2]

    def is_at_prompt(self):
        lines = [line for line in self.screen.display if line.strip()]
        return len(lines) > 1 and lines[-2].startswith(PROMPT[:1]) and " · " in lines[-1]

    def say(self, text, then=None):
        self.at_prompt()
        self.child.send(text)
        self.see(text.strip().splitlines()[-1][-40:])
        self.child.send("\r")
        if then:
            self.see(then)

    def answer(self, question):
        """Ask, and wait for the prompt behind the answer."""
        before = self.answers()
        self.say(question)
        end = time.monotonic() + 40
        while self.answers() == before:
            assert time.monotonic() < end, self.text()
            self.feed(0.05)
        return self.at_prompt()

    def answers(self):
        """How many answers have come to their end."""
        return "".join(self.text().split()).count("persecond")

    def end(self):
        self.child.expect(pexpect.EOF, timeout=20)
        self.raw += self.child.before
        self.stream.feed(self.child.before)
        self.modes = termios.tcgetattr(self.child.child_fd)[3]
        self.child.close()
        return self.child.exitstatus


@pytest.fixture
def talk(rsd):
    """talk(*arguments): a chat with the tiny trio in a terminal."""
    opened = []

    def start(*arguments, **options):
        opened.append(Terminal(rsd, *(arguments or ("--trio", "judged", *SHORT)), **options))
        return opened[-1]

    yield start
    for terminal in opened:
        terminal.child.close(force=True)


def journals(rsd):
    return sorted((rsd.home / "rsd_home" / "chats").glob("*.jsonl"))


def working(chat):
    """The process that runs the models."""
    return int(Path(f"/proc/{chat.child.pid}/task/{chat.child.pid}/children").read_text().split()[0])


def is_stopped(pid):
    return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] == "T"


def kinds(path):
    return [json.loads(line)["kind"] for line in path.read_text().splitlines()]


def kept_settings(rsd):
    """What the only conversation would go on with."""
    (path,) = journals(rsd)
    return [
        line["settings"] for line in map(json.loads, path.read_text().splitlines()) if "settings" in line
    ][-1]


def records(path):
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    return [line["record"] for line in lines if line["kind"] == "answered"]


def test_a_conversation_and_its_commands(talk, rsd):
    chat = talk()
    chat.answer("What is 1 + 2?")
    chat.answer("And 2 + 2?")
    chat.say("/stats", "2 turns")
    chat.say("/steps", "reward")
    chat.say("/show context", "2 turns")
    chat.say("/set threshold 0.9")
    chat.say("/set", "0.9")
    chat.say("/frobnicate", "/frobnicate is no command.")
    chat.say("/sett", "Did you mean /set?")
    chat.say("/why 99", "is not a number from 1 to")
    chat.say("/undo", "Taken back: And 2 + 2?")
    chat.say("/bye")
    assert chat.end() == 0
    (path,) = journals(rsd)
    assert kinds(path) == ["chat", "asked", "answered", "asked", "answered", "set", "undone"]
    assert path.stat().st_mode & 0o777 == 0o600
    _, second = records(path)
    assert second["question"] == "And 2 + 2?"
    assert second["usage"]["draft"]["prompt"] > second["usage"]["draft"]["fed"] > 0, "the first turn is known"


def test_ctrl_d_leaves_and_the_terminal_is_as_before(talk):
    chat = talk()
    chat.at_prompt()
    chat.child.sendeof()
    assert chat.end() == 0
    assert chat.raw.count(b"\x1b[?2004h") == chat.raw.count(b"\x1b[?2004l"), "bracketed paste is off again"
    assert chat.raw.rfind(b"\x1b[?25h") >= chat.raw.rfind(b"\x1b[?25l")


def test_ctrl_c_at_the_prompt_clears_the_line_and_says_how_to_leave(talk):
    chat = talk()
    chat.at_prompt()
    chat.child.send("half a quest")
    chat.see("half a quest")
    chat.child.sendintr()
    chat.see("Ctrl-D or /bye leaves")
    chat.at_prompt()
    assert chat.answer("What is 1 + 2?")


def test_the_status_line_and_a_narrow_terminal(talk):
    chat = talk("--trio", "judged", *SHORT, columns=44, rows=20)
    chat.answer("What is 1 + 2?")
    assert max(map(len, chat.lines())) <= 44
    assert "judged · rsd" in chat.screen.display[-1] + chat.screen.display[-2]


@pytest.fixture
def slow(rsd, tiny):
    """slow(phase): arguments for a chat whose model of that phase never comes to an end."""
    files = {
        "quick": tiny(seed=1, n_ctx_train=16384),
        "slow": tiny(seed=4, favour=NO_END, **BIG),
    }
    rsd.write_models(
        declared(
            files,
            {
                "reading": trio("slow", "slow"),
                "drafting": trio("slow", "slow"),
                "judging": trio("quick", "quick", "slowly", 0.5),
                "rewriting": trio("quick", "slow", threshold=1.0),
            },
            slowly={"family": "judge", "model": "slow", "threshold": 0.5, "calibrated_on": "nothing"},
        )
    )
    return lambda phase: ("--trio", phase, "--threads", "1", "--ctx", "16000", "--system", "", "-n", "15000")


PHASES = {
    "reading": ("draft reads the question", 9_000),
    "drafting": ("draft writes", 3),
    "judging": ("prm judges", 9_000),
    "rewriting": ("target writes", 3),
}


@pytest.mark.parametrize("phase", PHASES)
def test_ctrl_c_stops_an_answer_in_every_phase_and_stays(phase, talk, slow, rsd):
    words, length = PHASES[phase]
    chat = talk(*slow(phase))
    (rsd.home / "long.txt").write_text("is so " * (length // 2))
    chat.say("/read long.txt", "before your next question")
    chat.say("What is that?")
    chat.see(words, 60)
    chat.child.sendintr()
    pressed = time.monotonic()
    chat.at_prompt(10)
    assert time.monotonic() - pressed < 3, "a fifth of a second on a quiet machine"
    chat.say("/show settings", "max-tokens")
    chat.say("/bye")
    assert chat.end() == 0
    (path,) = journals(rsd)
    assert kinds(path)[:2] == ["chat", "asked"]
    for record in records(path):
        assert record["ended_by"] == "interrupted"
        assert record["answer"].strip()
    assert bool(records(path)) == (phase != "reading")


def test_an_interrupted_answer_is_part_of_the_conversation(talk, slow, rsd):
    chat = talk(*slow("drafting"))
    chat.say("What is 1 + 2?")
    chat.see("draft writes")
    time.sleep(0.5)
    chat.child.sendintr()
    chat.see("interrupted: this is what was there")
    chat.say("/set max-tokens 20")
    chat.answer("Go on.")
    chat.say("/bye")
    assert chat.end() == 0
    first, second = records(journals(rsd)[0])
    assert second["usage"]["draft"]["fed"] < second["usage"]["draft"]["prompt"] - len(
        first["steps"][0]["text"].split()
    )


def test_ctrl_c_twice_leaves(talk, slow):
    chat = talk(*slow("drafting"))
    chat.say("What is 1 + 2?")
    chat.see("draft writes")
    chat.child.sendintr()
    time.sleep(0.7)
    chat.child.sendintr()
    assert chat.end() == 130


def test_sigterm_at_the_prompt_restores_the_terminal(talk):
    chat = talk()
    chat.at_prompt()
    os.kill(chat.child.pid, signal.SIGTERM)
    assert chat.end() == 143
    assert chat.raw.count(b"\x1b[?2004h") == chat.raw.count(b"\x1b[?2004l")


def test_the_window_may_change_its_size_in_an_answer(talk, slow):
    chat = talk(*slow("drafting"))
    chat.say("What is 1 + 2?")
    chat.see("draft writes")
    for columns in (40, 120, 60):
        chat.child.setwinsize(30, columns)
        chat.screen.resize(30, columns)
        for _ in range(4):
            chat.feed(0.1)
    chat.child.sendintr()
    chat.see("interrupted")
    chat.at_prompt()


def test_five_hundred_pasted_lines_are_one_turn(talk, slow, rsd):
    chat = talk(*slow("judging")[:-1], "24", "--max-steps", "3")
    chat.at_prompt()
    pasted = "\n".join(f"line {i} is so" for i in range(500))
    chat.child.send("\x1b[200~" + pasted + "\x1b[201~")
    chat.see("line 499 is so")
    chat.child.send("\r")
    chat.see(" per second", 60)
    chat.say("/bye")
    assert chat.end() == 0
    (record,) = records(journals(rsd)[0])
    assert record["question"] == pasted


def test_the_conversation_goes_on_after_it_was_left(talk, rsd):
    chat = talk()
    chat.answer("What is 1 + 2?")
    chat.say("/set temperature 0.5")
    chat.child.sendeof()
    chat.end()
    again = talk("--resume", "--threads", "1")
    again.see("goes on, with 1 turn")
    again.say("/set", "0.5")
    again.answer("And 2 + 2?")
    again.say("/bye")
    again.end()
    (path,) = journals(rsd)
    assert [record["question"] for record in records(path)] == ["What is 1 + 2?", "And 2 + 2?"]
    assert rsd("ask", "-c", "And 3?", "--trio", "judged", "-n", "10").code == 0
    assert len(records(path)) == 3
    listed = rsd("chat", "--list")
    assert path.stem in listed.out
    assert "What is 1 + 2?" in listed.out


def test_the_last_conversation_is_one_in_which_something_was_asked(talk, rsd):
    asked = talk()
    asked.answer("What is 1 + 2?")
    asked.say("/bye")
    asked.end()
    for lines in (["/bye"], ["/set seed 3", "/bye"]):
        chat = talk()
        for line in lines:
            chat.say(line)
        assert chat.end() == 0
    assert len(journals(rsd)) == 1
    again = talk("--resume")
    again.see("goes on, with 1 turn")


def test_a_killed_chat_keeps_the_question_that_was_being_answered(talk, slow, rsd):
    chat = talk(*slow("drafting"))
    chat.say("What is 1 + 2?")
    chat.see("draft writes")
    os.kill(working(chat), signal.SIGKILL)
    assert chat.end() == 4
    again = talk("--resume", "last")
    again.at_prompt()
    assert "What is 1 + 2?" in again.last_line()


def test_a_crash_of_the_engine_ends_in_the_same_conversation(talk, slow, rsd):
    chat = talk(*slow("drafting"))
    chat.say("/set max-tokens 20")
    chat.answer("What is 1 + 2?")
    chat.say("/set max-tokens 15000")
    chat.say("And 2 + 2?")
    time.sleep(1.0)
    os.kill(working(chat), signal.SIGSEGV)
    chat.see("The engine crashed in an answer.")
    chat.see("goes on, with 1 turn")
    chat.at_prompt()
    assert "And 2 + 2?" in chat.last_line()
    os.kill(working(chat), signal.SIGSEGV)  # at the prompt nothing is in flight
    assert chat.end() == 6
    assert kept_settings(rsd)["max_tokens"] == 15000


def is_as_before(chat):
    """Whether the terminal echoes, edits lines itself, and gives pastes as they are."""
    pastes = chat.raw.rfind(b"\x1b[?2004l") > chat.raw.rfind(b"\x1b[?2004h") > 0
    return bool(chat.modes & termios.ECHO and chat.modes & termios.ICANON) and pastes


def test_a_crash_at_the_prompt_ends_in_the_same_conversation_unless_it_comes_again(talk, rsd):
    chat = talk()
    chat.answer("What is 1 + 2?")
    os.kill(working(chat), signal.SIGSEGV)
    chat.see("The engine crashed at the prompt.")
    chat.see("goes on, with 1 turn")
    chat.at_prompt()
    assert chat.last_line().rstrip() == PROMPT.rstrip()
    os.kill(working(chat), signal.SIGSEGV)  # before anything was asked
    assert chat.end() == 6
    assert is_as_before(chat)


def test_a_crash_at_the_first_prompt_behind_ask_ends_in_the_same_conversation(talk, rsd):
    chat = talk("What is 1 + 2?", "--chat", command="ask")
    chat.at_prompt()
    os.kill(working(chat), signal.SIGSEGV)
    chat.see("The engine crashed at the prompt.")
    chat.see("goes on, with 1 turn")
    chat.at_prompt()


def test_after_a_crash_no_question_is_read_from_standard_input_again(talk):
    chat = talk("-", "--chat", "--trio", "judged", *SHORT, command="ask")
    chat.child.send("What is 1 + 2?\n\x04")
    chat.at_prompt()
    os.kill(working(chat), signal.SIGSEGV)
    chat.see("The engine crashed at the prompt.")
    chat.see("goes on, with 1 turn")
    chat.at_prompt()


@pytest.mark.parametrize(("number", "code"), [(signal.SIGSEGV, 6), (signal.SIGKILL, 4)])
def test_who_typed_when_the_engine_died_has_the_terminal_as_before(number, code, talk):
    chat = talk()
    chat.at_prompt()
    chat.child.send("What is")
    chat.see("What is")
    os.kill(working(chat), number)
    assert chat.end() == code
    assert is_as_before(chat)


def test_who_has_left_does_not_come_back(rsd, talk):
    """Not even where the engine crashes while it is closed."""
    (rsd.home / "crashes.py").write_text(CLOSING)
    chat = talk("--trio", "judged", *SHORT, entry=[ENTRY[0], "crashes.py"])
    chat.answer("What is 1 + 2?")
    chat.say("/bye")
    assert chat.end() == 6


@pytest.mark.parametrize("command", ["chat", "ask"])
def test_after_a_crash_what_was_set_in_the_conversation_counts(command, talk, rsd):
    given = ("--trio", "endless", "--threads", "1", "--speculative", "--threshold", "0.9", "-n", "20")
    asked = ("What is 1 + 2?", "--chat") if command == "ask" else ()
    chat = talk(*asked, *given, command=command)
    if asked:
        chat.see("written by")
    for line in ("/set draft off", "/set threshold 0.2", "/set max-tokens 15000", "/set max-steps 1000"):
        chat.say(line)
    chat.say("And 2 + 2?")
    wait_for_lines(journals(rsd)[0], 8 if asked else 6)
    before = kept_settings(rsd)
    time.sleep(1.0)
    os.kill(working(chat), signal.SIGSEGV)
    chat.see("The engine crashed in an answer.")
    chat.at_prompt()
    assert kept_settings(rsd) == before
    assert [before[key] for key in ("strategy", "threshold", "max_tokens")] == ["target", 0.2, 15000]


def test_a_crash_in_the_chat_behind_ask_goes_on_as_that_chat(talk, slow, rsd):
    chat = talk("What is 1 + 2?", "--chat", *slow("drafting")[:-1], "20", command="ask")
    chat.see("written by")
    chat.say("/set max-tokens 15000")
    chat.say("And 2 + 2?")
    time.sleep(1.0)
    os.kill(working(chat), signal.SIGSEGV)
    chat.see("The engine crashed in an answer.")
    chat.see("goes on, with 1 turn")
    chat.at_prompt()
    assert "And 2 + 2?" in chat.last_line()
    assert len(journals(rsd)) == 1


def test_chat_after_ask(talk, rsd):
    chat = talk("What is 1 + 2?", "--chat", "--trio", "judged", *SHORT, command="ask")
    chat.see("written by")
    chat.answer("And 2 + 2?")
    chat.say("/bye")
    assert chat.end() == 0
    assert len(records(journals(rsd)[0])) == 2


def test_a_dumb_terminal_gets_no_cursor_movements(rsd):
    terminal = pexpect.spawn(
        ENTRY[0], [*ENTRY[1:], "chat", "--trio", "judged", *SHORT], env=rsd.env(TERM="dumb"), cwd=str(rsd.home),
        dimensions=(24, 80), timeout=30,
    )  # fmt: skip
    terminal.expect("Ctrl-D leaves")
    terminal.send("What is 1 + 2?\r")
    terminal.expect("per second")
    answered = terminal.before
    terminal.send("/bye\r")
    terminal.expect(pexpect.EOF)
    terminal.close()
    assert terminal.exitstatus == 0
    assert b"\x1b[?25l" not in answered + terminal.before
    assert len(records(journals(rsd)[0])) == 1


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="reads Linux's /proc")
def test_ctrl_z_and_fg(talk):
    """A shell stops and continues the whole process group."""
    chat = talk("--trio", "judged", *SHORT)
    chat.answer("What is 1 + 2?")
    os.killpg(chat.child.pid, signal.SIGSTOP)
    end = time.monotonic() + 30
    while not all(map(is_stopped, (chat.child.pid, working(chat)))):
        assert time.monotonic() < end, "the processes did not stop"
        time.sleep(0.02)
    os.killpg(chat.child.pid, signal.SIGCONT)
    assert chat.answer("And 2 + 2?")


def lines(*turns):
    return "".join(f"{turn}\n" for turn in turns).encode()


def test_turns_from_a_pipe(rsd):
    done = rsd(
        "chat",
        "--trio",
        "judged",
        *SHORT,
        stdin=lines("What is 1 + 2?", "", '"""And', '2 + 2?"""', "/bye", "no"),
    )
    assert done.code == 0, done.err
    assert "\x1b" not in done.out
    turns = records(journals(rsd)[0])
    assert [turn["question"] for turn in turns] == ["What is 1 + 2?", "And\n2 + 2?"]
    assert done.out == "".join(turn["answer"].strip() + "\n" for turn in turns)


def test_records_from_a_pipe(rsd):
    done = rsd("chat", "--trio", "judged", *SHORT, "--json", "--no-log", stdin=lines("What?", "And?"))
    assert [json.loads(line)["question"] for line in done.out.splitlines()] == ["What?", "And?"]
    assert journals(rsd) == []


@pytest.mark.parametrize("flag", [(), ("--json",)])
def test_bytes_from_a_pipe_that_are_no_text_are_refused_in_every_locale(flag, rsd):
    bad = b"caf\xe9\n"
    for env in ({"LC_ALL": "C.UTF-8"}, {"LC_ALL": "C"}, {"PYTHONIOENCODING": "latin-1"}):
        done = rsd("chat", "--trio", "judged", *SHORT, *flag, stdin=bad, env=env)
        done.refused(2, "The input is no text", "UTF-8")
    assert journals(rsd) == []


def test_the_mark_before_the_first_line_is_no_part_of_it(rsd):
    turns = "\ufeff/set seed 7\nIs it caf\u00e9?\n".encode()
    done = rsd("chat", "--trio", "judged", *SHORT, "--json", stdin=turns, env={"PYTHONIOENCODING": "latin-1"})
    assert done.code == 0, done.err
    (record,) = map(json.loads, done.out.splitlines())
    assert (record["question"], record["seed"]) == ("Is it caf\u00e9?", 7)


def test_the_list_for_programs_is_one_document(rsd):
    question = "Is it so? " * 30 + "\x1b[31m \u00e9\n\nAnd why?"
    assert json.loads(rsd("chat", "--list", "--json").out) == []
    assert rsd("ask", question, "--trio", "judged", *SHORT).code == 0
    (row,) = json.loads(rsd("chat", "--list", "--json").out)
    (path,) = journals(rsd)
    assert (row["id"], row["turns"], row["question"]) == (path.stem, 1, question)
    changed = datetime.strptime(row["changed"], "%Y-%m-%dT%H:%M:%S%z")
    assert abs(changed.timestamp() - path.stat().st_mtime) <= 1


def test_the_id_of_a_conversation_alone_is_told_how_to_go_on(rsd):
    assert rsd("ask", "And why?", "--trio", "judged", *SHORT).code == 0
    (path,) = journals(rsd)
    rsd("chat", path.stem).refused(2, f"Go on with it: rsd chat --resume {path.stem}")
    rsd("chat", path.stem[:3]).refused(2, f"Ask one question: rsd ask '{path.stem[:3]}'")


def test_a_refused_turn_of_a_script_is_an_error_at_the_end(rsd):
    done = rsd("chat", "--trio", "judged", *SHORT, stdin=lines("/nonsense", "What is 1 + 2?"))
    assert done.code == 1
    assert "/nonsense is no command." in done.err
    assert done.out.strip()


def test_ctrl_c_ends_a_script_and_keeps_what_was_written(slow, rsd):
    (rsd.home / "turns").write_bytes(lines("What?", "And?", "And then?"))
    with (rsd.home / "turns").open("rb") as turns:
        process = subprocess.Popen(
            [*ENTRY, "chat", *slow("drafting")], stdin=turns, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
            env=rsd.env(), cwd=rsd.home, start_new_session=True,
        )  # fmt: skip
    try:
        wait_until_it_writes(process.pid)
        os.killpg(process.pid, signal.SIGINT)
        code, out, err = ended(process)
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
    assert code == 130, err
    assert out.strip()
    (path,) = journals(rsd)
    assert kinds(path) == ["chat", "asked", "answered"]
    assert records(path)[0]["ended_by"] == "interrupted"


def test_a_full_context_is_said_and_nothing_is_cut_silently(rsd):
    question = "is so " * 13
    told = rsd(
        "chat", "--trio", "judged", "--threads", "1", "-n", "40", "--ctx", "512",
        stdin=lines(question, question, question, question, "/compact", question),
    )  # fmt: skip
    assert told.code == 1
    assert re.search(r"context is \d+% full", told.err)
    assert "leaves no room for an answer." in told.err
    assert "/compact drops the oldest turns" in told.err
    assert re.search(r"Dropped the \d oldest of \d turns; the system prompt stays", told.err)
    path = journals(rsd)[0]
    assert kinds(path)[-1] == "answered"


def test_an_unwritable_place_is_one_warning(rsd):
    (rsd.home / "rsd_home").mkdir(exist_ok=True)
    (rsd.home / "rsd_home" / "chats").write_text("a file where the folder should be")
    done = rsd("chat", "--trio", "judged", *SHORT, stdin=lines("What is 1 + 2?", "And?"))
    assert done.code == 0
    assert done.err.count("no longer kept on disk") == 1
    assert done.out.strip()


def test_a_template_that_refuses_a_second_turn_refuses_that_turn_only(rsd, tiny):
    template = (
        "{% if messages|length > 2 %}{{ raise_exception('one turn only') }}{% endif %}"
        "{% for m in messages %}[{{ m['role'] }}]{{ m['content'] }}{% endfor %}[assistant]"
    )
    one = tiny(seed=1, template=template)
    rsd.write_models(declared({"one": one}, {"one": trio("one", "one")}))
    done = rsd("chat", "--trio", "one", *SHORT, stdin=lines("What?", "And?", "/clear", "What?"))
    assert done.code == 1
    assert "one turn only" in done.err
    assert len(records(journals(rsd)[0])) == 2


@pytest.mark.parametrize("kind", ["llama", "hybrid"])
def test_a_second_turn_says_what_it_would_say_in_a_fresh_process(kind, rsd, tiny):
    """Also of models whose memory can't be cut: they read again instead."""
    files = {"draft": tiny(kind, seed=1), "target": tiny(kind, seed=2)}
    rsd.write_models(declared(files, {"two": trio("draft", "target", threshold=0.3)}))
    arguments = ("--trio", "two", *SHORT)
    together = rsd("chat", *arguments, "--json", "--no-log", stdin=lines("What is 1 + 2?", "And 2 + 2?"))
    assert rsd("ask", "What is 1 + 2?", *arguments).code == 0
    alone = rsd("ask", "-c", "And 2 + 2?", *arguments, "--json")
    assert json.loads(together.out.splitlines()[1])["answer"] == json.loads(alone.out)["answer"]


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="reads Linux's /proc")
def test_two_hundred_turns_leave_memory_flat(rsd):
    process = subprocess.Popen(
        [*ENTRY, "chat", "--trio", "judged", "--threads", "1", "-n", "8", "--json", "--quiet"],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=rsd.env(), cwd=rsd.home,
    )  # fmt: skip
    assert process.stdin
    assert process.stdout
    sizes = []
    for turn in range(200):
        said = f"What is {turn}?\n" + ("/compact\n" if turn % 10 == 9 else "")
        process.stdin.write(said.encode())
        process.stdin.flush()
        assert json.loads(process.stdout.readline())["question"] == f"What is {turn}?"
        sizes.append(anonymous_megabytes(process.pid))
    process.stdin.close()
    assert process.wait(20) == 0
    assert max(sizes[150:]) - max(sizes[20:60]) < 8, sizes[::20]


def anonymous_megabytes(pid):
    child = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()[0]
    found = re.search(r"RssAnon:\s+(\d+) kB", Path(f"/proc/{child}/status").read_text())
    assert found
    return int(found[1]) / 1000


@pytest.mark.parametrize("seed", range(3))
def test_regen_and_undo_in_any_order_are_those_of_a_plain_list(seed, rsd):
    """The conversation is that of a list, and its answers those of one in which nobody ever changed his mind."""
    draw = random.Random(seed)
    model: list[str] = []
    said: list[str] = []
    for i in range(14):
        act = draw.choice(("ask", "ask", "/regen", "/undo", "/edit")) if model else "ask"
        if act == "/undo":
            model.pop()
        elif act == "/edit":
            model[-1] = f"Edited {i}?"
        elif act == "ask":
            model.append(f"Question {i}?")
        said.append({"ask": f"Question {i}?", "/edit": f"/edit Edited {i}?"}.get(act, act))
    arguments = ("chat", "--trio", "judged", "--threads", "1", "-n", "12", "--max-steps", "2")
    assert rsd(*arguments, stdin=lines(*said, "/save end.jsonl")).code == 0
    kept = [json.loads(line)["record"] for line in (rsd.home / "end.jsonl").read_text().splitlines()[1:]]
    assert [record["question"] for record in kept] == model
    straight = rsd(*arguments, "--json", "--no-log", stdin=lines(*model))
    assert [json.loads(line)["answer"] for line in straight.out.splitlines()] == [r["answer"] for r in kept]
