"""/undo, /regen, /edit, /compact and /clear in every order: the conversation, its journal and a plain list agree."""

from __future__ import annotations

import random
import signal
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest
import typer

from rsd_cli.chat.journal import Journal, opening, read
from rsd_cli.chat.saving import load
from rsd_cli.cli.conversing import Answered, Talk
from rsd_cli.cli.interrupt import Interrupt
from rsd_cli.cli.question import MAX_BYTES
from rsd_cli.cli.repl import Repl
from rsd_cli.cli.screen import Screen
from tests.chat.talks import a_talk, a_turn

if TYPE_CHECKING:
    from collections.abc import Iterator

    from rsd_cli.chat.conversation import Conversation

SCRIPTS = 20
LINES = 40


class Answering(Talk):
    """A talk whose answers tell what they were asked with: no model would answer this often in a test."""

    def _answer(self, question: str, before: Conversation, settings: Any, started: float) -> Answered:
        asked = [turn.question for turn in before.turns]
        answer = "" if question == "silence" else f"{question} after {asked} with seed {settings.seed}"
        return Answered(a_turn(question, answer, seed=settings.seed), SimpleNamespace())  # type: ignore[arg-type]

    def _measure(self, *_: Any) -> tuple[()]:
        return ()


@dataclass
class Model:
    """The conversation as a list of (question, seed), and what each line does to it."""

    turns: list[tuple[str, int]] = field(default_factory=list)
    seed: int = 0

    def take(self, line: str) -> None:
        """Do what the help says of a line."""
        name, _, rest = line.partition(" ")
        if not name.startswith("/"):
            self.turns += [] if line == "silence" else [(line, self.seed)]
        elif name == "/set":
            self.seed = int(rest.split()[1])
        elif name == "/clear":
            self.turns = []
        elif name == "/undo":
            self.turns = self.turns[:-1]
        elif name == "/regen" and self.turns:
            question, seed = self.turns[-1]
            self.turns[-1] = (question, seed + 1)
        elif name == "/edit" and self.turns and rest != "silence":
            self.turns[-1] = (rest, self.seed)
        elif name == "/compact":
            n = int(rest) if rest else min(1, len(self.turns))
            self.turns = self.turns[n:] if n <= len(self.turns) else self.turns


class Script:
    """Types random lines, and looks before each at what the last one did."""

    def __init__(self, talk: Talk, path: Any, seed: int) -> None:
        self.talk, self.path, self.model = talk, path, Model()
        self._lines = list(self._random_lines(random.Random(seed)))

    @staticmethod
    def _random_lines(draw: random.Random) -> Iterator[str]:
        kinds = ["ask", "ask", "ask", "/undo", "/regen", "/regen", "/edit", "/compact", "/clear", "/set"]
        for number in range(LINES):
            kind = draw.choice(kinds)
            question = "silence" if draw.random() < 0.1 else f"question {number}"
            yield {
                "ask": question,
                "/edit": f"/edit {question}",
                "/compact": draw.choice(["/compact", f"/compact {draw.randint(1, 3)}"]),
                "/set": f"/set seed {draw.randint(0, 9)}",
            }.get(kind, kind)

    def read(self, _default: str = "") -> str:
        """The next line of the script."""
        turns = self.talk.conversation.turns
        assert [(turn.question, turn.seed) for turn in turns] == self.model.turns
        kept = read(self.path)
        assert (kept.conversation, kept.settings) == (self.talk.conversation, self.talk.settings)
        assert kept.unanswered == self.talk.kept.unanswered
        if not self._lines:
            raise EOFError
        line = self._lines.pop(0)
        self.model.take(line)
        return line


def talking(path):
    """A conversation that has just begun, in a journal."""
    kept, journal = a_talk(), Journal(path)
    journal.write_line(opening(kept))
    loaded: Any = SimpleNamespace(remember=lambda *_: None, loaded=dict, shape=SimpleNamespace(n_seats=1))
    screen = Screen(as_json=False, quiet=True, color=False)
    return Answering(loaded, Interrupt(), screen, {}, kept, journal, 0.5)


@pytest.mark.parametrize("seed", range(SCRIPTS))
def test_any_order_of_commands_leaves_what_a_plain_list_holds(tmp_path, seed):
    path = tmp_path / "talk.jsonl"
    talk = talking(path)
    script = Script(talk, path, seed)
    Repl(talk).run(script)
    with pytest.raises(EOFError):  # all lines were read, and the last one is looked at too
        script.read()
    talk.journal.close()


def test_a_turn_is_answered_behind_the_turns_that_remain(tmp_path, capsys):
    talk = talking(tmp_path / "talk.jsonl")
    repl = Repl(talk)
    for line in ("one", "two", "three", "/undo", "/regen", "/edit zwei", "/compact 1", "/regen", "four"):
        repl._take(line)
    assert [turn.answer for turn in talk.conversation.turns] == [
        "zwei after [] with seed 1",
        "four after ['zwei'] with seed 0",
    ]
    assert not repl.has_failed
    capsys.readouterr()


def test_one_turn_is_called_one(tmp_path, capsys):
    repl, place, text = Repl(talking(tmp_path / "talk.jsonl")), tmp_path / "talk.md", tmp_path / "text.txt"
    text.write_text("a line")
    for line in ("one", "/show context", f"/save {place}", f"/load {place}", "/compact 1", f"/read {text}"):
        repl._take(line)
    said = " ".join(capsys.readouterr().err.split())
    for words in (", 1 turn ", "1 turn from", "Dropped the 1 oldest of 1 turn;", "question: 1 line."):
        assert words in said


@pytest.mark.parametrize(("question", "left"), [("two", ""), ("silence", "silence")])
def test_a_question_without_an_answer_is_overtaken_by_the_next(tmp_path, question, left):
    talk = talking(tmp_path / "talk.jsonl")
    talk.journal.write("asked", question="one")
    talk.kept = read(tmp_path / "talk.jsonl")  # as somebody finds it whose process was killed
    assert talk.kept.unanswered == "one"
    talk.ask(question)
    assert talk.kept.unanswered == read(tmp_path / "talk.jsonl").unanswered == left


@pytest.mark.parametrize("name", ["talk.md", "talk.jsonl"])
def test_what_is_saved_after_any_order_is_loaded_into_another_conversation(tmp_path, name):
    first, second = talking(tmp_path / "first.jsonl"), talking(tmp_path / "second.jsonl")
    for line in ("one", "two", "/set seed 5", "/regen", "three", "/compact 1", f"/save {tmp_path / name}"):
        Repl(first)._take(line)
    for line in ("something else", f"/load {tmp_path / name}"):
        Repl(second)._take(line)
    assert second.conversation == first.conversation == load(tmp_path / name).conversation
    assert second.settings == first.settings
    assert read(tmp_path / "second.jsonl").conversation == first.conversation


@pytest.mark.parametrize(
    ("lines", "questions"),
    [
        (("/edit", "C"), ["A", "C"]),
        (("/edit", "", "C"), ["A", "B", "C"]),
        (("/edit", "", "/undo", "C"), ["A", "C"]),
        (("/edit", "/show settings", "C"), ["A", "B", "C"]),
        (("/edit", "/nonsense", "C"), ["A", "B", "C"]),
        (("/show settings", "/edit", "C", "D"), ["A", "C", "D"]),
    ],
)
def test_an_edit_ends_with_whatever_comes_next(tmp_path, capsys, lines, questions):
    repl = Repl(talking(tmp_path / "talk.jsonl"))
    for line in ("A", "B", *lines):
        repl._take(line)
    assert [turn.question for turn in repl.talk.conversation.turns] == questions
    capsys.readouterr()


def test_a_script_does_not_send_a_refused_edit_again(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("sys.stdin.isatty", lambda: False)
    repl = Repl(talking(tmp_path / "talk.jsonl"))
    for line in ("A", "B", f"/edit {'x' * (MAX_BYTES + 1)}", "C"):
        repl._take(line)
    assert [turn.question for turn in repl.talk.conversation.turns] == ["A", "B", "C"]
    capsys.readouterr()


def test_an_edit_that_was_refused_goes_on_at_a_terminal_and_says_so(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("sys.stdin.isatty", lambda: True)
    repl, long = Repl(talking(tmp_path / "talk.jsonl")), "x" * (MAX_BYTES + 1)
    for line in ("A", "B", "/edit", long):
        repl._take(line)
    assert repl.default == long
    assert "replaces your last question" in repl.status()
    repl._take("C")
    assert "replaces" not in repl.status()
    repl._take(f"/edit {long}")
    assert repl.default == long
    repl._take("D")
    repl._take(long)
    repl._take("E")
    assert [turn.question for turn in repl.talk.conversation.turns] == ["A", "D", "E"]
    capsys.readouterr()


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
@pytest.mark.parametrize("line", ["two", "/regen", "/compare"])
def test_a_signal_in_whatever_takes_time_ends_a_script(tmp_path, capsys, monkeypatch, line, number, code):
    talk = talking(tmp_path / "talk.jsonl")
    repl, answer = Repl(talk), talk._answer
    repl._take("one")

    def interrupted(*asked: Any) -> Any:
        talk.interrupt.signal = number
        return answer(*asked)

    monkeypatch.setattr(talk, "_answer", interrupted)
    with pytest.raises(typer.Exit) as left:
        repl._take(line)
    assert left.value.exit_code == code
    capsys.readouterr()
