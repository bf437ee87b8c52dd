"""The loop of `rsd chat`: reads what is typed, and carries out its commands. The conversation itself is `Talk`'s."""

from __future__ import annotations

import base64
import math
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from rsd_cli.chat import settings as keys
from rsd_cli.chat.commands import COMMANDS, SHOWN, parse, whole_number
from rsd_cli.chat.saving import load, save
from rsd_cli.cli.conversing import NEARLY_FULL
from rsd_cli.cli.options import one_of
from rsd_cli.cli.question import MAX_BYTES, read_file
from rsd_cli.display import chat as shown
from rsd_cli.display.consoles import show_error
from rsd_cli.display.steps import counted
from rsd_cli.errors import RSDError, UsageError

if TYPE_CHECKING:
    from rsd_cli.chat.prompt import Reader
    from rsd_cli.cli.conversing import Talk
    from rsd_cli.records import Record

TWICE_SECONDS = 2.0  # a second Ctrl-C this soon after one that stopped an answer means the whole program
LEAVING = "Ctrl-D or /bye leaves; Ctrl-C stops an answer."


@dataclass
class Repl:
    """Reads turns until the end. The next prompt begins with `default`; `file` goes before the next question.

    While `editing` the next question replaces the last one.
    """

    talk: Talk
    default: str = ""
    file: str = ""
    editing: bool = False
    has_failed: bool = False
    _is_over: bool = False
    _stopped_at: float = -math.inf
    _commands: dict[str, Callable[[str], None]] = field(init=False)

    def __post_init__(self) -> None:
        self._commands = {command.name: getattr(self, f"_{command.name}") for command in COMMANDS}

    def run(self, reader: Reader) -> None:
        """Until /bye, the end of the input or a signal; `has_failed` tells whether anything was refused."""
        while not self._is_over:
            try:
                default, self.default = self.default, ""
                with self.talk.read_ahead, self.talk.interrupt.at_rest():
                    text = reader.read(default)
            except EOFError:
                return
            except KeyboardInterrupt:
                if not sys.stdin.isatty() or time.monotonic() - self._stopped_at < TWICE_SECONDS:
                    raise
                self.editing = False
                self._say(LEAVING)
                continue
            self._take(text)

    def _take(self, text: str) -> None:
        edits, self.editing = self.editing, False  # whatever else comes now ends an edit
        try:
            call = parse(text)
            if call:
                self._commands[call.name](call.argument)
            elif text.strip():
                self._ask(text.strip(), edits=edits)
        except RSDError as error:
            self.has_failed = True
            show_error(error, color=self.talk.screen.color)
        self._warn_of_the_journal()
        self._heed_signals()

    def _heed_signals(self) -> None:
        """End on a signal. Ctrl-C at a terminal only stops an answer; a script would go on by itself."""
        if not self.talk.interrupt():
            return
        if self.talk.interrupt.exit_code != 130 or not sys.stdin.isatty():
            raise typer.Exit(self.talk.interrupt.exit_code)
        self._stopped_at = time.monotonic()

    def _ask(self, typed: str, *, edits: bool = False) -> None:
        try:
            question = _checked("\n\n".join(part for part in (self.file, typed) if part))
            record = self.talk.ask_again(question) if edits else self.talk.ask(question)
        except RSDError as error:
            # Nobody should have to type it again; a script does not.
            self.default, self.editing = typed, edits and sys.stdin.isatty()
            if self.file:
                self.default = ""  # what comes next is a command
                error.hint = f"{error.hint} /read without a name leaves the file out.".strip()
            raise
        self.file = ""
        self._told(record)

    def _told(self, record: Record) -> None:
        """Deliver an answer, and say what a person should know after it."""
        if record.answer.strip() or not sys.stdin.isatty():  # a script counts on an answer for each turn
            self.talk.screen.deliver(record)
        else:
            self._say("Nothing was written; your question is one key up.")
        self.talk.measure()
        room = self.talk.fullest
        if room and room.share >= NEARLY_FULL:
            self._say(
                f"The {room.role} model's context is {room.share:.0%} full ({room.used:,} of {room.n_ctx:,} tokens): "
                "/compact drops the oldest turns, /clear begins anew."
            )

    def _warn_of_the_journal(self) -> None:
        failure, self.talk.journal.failure = self.talk.journal.failure, None
        if failure:
            self._say(
                f"The conversation is no longer kept on disk: {failure.message} /save keeps it in a file."
            )

    def _say(self, text: str) -> None:
        shown.notice(self.talk.screen.console, text)

    def status(self) -> str:
        """The line below the prompt: trio, criterion, contexts, share by target."""
        talk = self.talk
        parts = ["this replaces your last question"] if self.editing else []
        parts += [talk.kept.trio, keys.method(talk.settings)]
        parts += [f"{room.role} {room.used:,}/{room.n_ctx:,}" for room in talk.rooms]
        steps = [step for turn in talk.conversation.turns for step in turn.steps]
        tokens = sum(step.tokens for step in steps)
        if tokens:
            share = sum(step.tokens for step in steps if step.author == "target") / tokens
            parts.append(f"target wrote {share:.0%}")
        parts += ["a file goes with your question"] if self.file else []
        return " · ".join(parts)

    def _help(self, _argument: str) -> None:
        names = [" ".join(f"/{name}" for name in (c.name, *c.aliases)) for c in COMMANDS]
        rows = [(f"{name} {c.argument}".strip(), c.help) for name, c in zip(names, COMMANDS, strict=True)]
        shown.pairs(self.talk.screen.console, rows)
        self._say('"""…""" or Alt-Enter: several lines. Ctrl-O: your editor. Ctrl-R: search. ' + LEAVING)

    def _bye(self, _argument: str) -> None:
        self._is_over = True

    def _clear(self, _argument: str) -> None:
        self.talk.drop(len(self.talk.conversation.turns))
        self.talk.measure()
        self._say("A new conversation; the system prompt stays.")
        self._drop_file()

    def _regen(self, _argument: str) -> None:
        last = self.talk.last()
        if not (self.talk.settings.sampling and self.talk.settings.sampling.temperature):
            self._say("The temperature is 0, so the same answer comes again; try /set temperature 0.7.")
        self._told(self.talk.ask_again(last.question, last.seed + 1))

    def _undo(self, _argument: str) -> None:
        undone = self.talk.undo()
        self.talk.measure()
        self._say(f"Taken back: {_short(undone.question)}")

    def _edit(self, argument: str) -> None:
        last = self.talk.last()
        if argument:
            self._ask(argument, edits=True)
        else:
            self.default, self.editing = last.question, True
            self._say("What you send now replaces your last question; a blank line leaves it.")

    def _set(self, argument: str) -> None:
        if argument:
            self.talk.set(keys.change(self.talk.settings, argument))
            self.talk.measure()
        else:
            self._show("settings")

    def _show(self, argument: str) -> None:
        what = one_of("/show", argument or "settings", SHOWN)
        rows = {"settings": self._settings, "trio": self._trio, "context": self._context}[what]()
        shown.pairs(self.talk.screen.console, rows)

    def _settings(self) -> list[tuple[str, str]]:
        return keys.shown(self.talk.settings)

    def _trio(self) -> list[tuple[str, str]]:
        loaded = self.talk.loaded
        there = loaded.loaded()
        rows = [
            (role, f"{model.name}, {model.path}" + ("" if role in there else " (not loaded yet)"))
            for role, model in loaded.models.items()
        ]
        judge = [("rewards", f"{loaded.prm.name}, family {loaded.prm.family}")] if loaded.prm else []
        return [("trio", self.talk.kept.trio), *rows, *judge]

    def _context(self) -> list[tuple[str, str]]:
        self.talk.measure()
        rooms = [
            (room.role, f"{room.used:,} of {room.n_ctx:,} tokens, {room.share:.0%}")
            for room in self.talk.rooms
        ]
        turns = counted(len(self.talk.conversation.turns), "turn")
        return [("conversation", f"{self.talk.kept.id}, {turns}"), *rooms]

    def _steps(self, _argument: str) -> None:
        shown.all_steps(self.talk.screen.console, self.talk.last())

    def _why(self, argument: str) -> None:
        steps = self.talk.last().steps
        number = whole_number(argument, "why", len(steps))
        step = steps[number - 1]
        if step.rejected is None:
            reward = "" if step.reward is None else f" with reward {step.reward:.2f}"
            self._say(f"Step {number} is the {step.author}'s{reward}; nothing was rejected there.")
        else:
            shown.rewritten(self.talk.screen.console, step, number)

    def _stats(self, _argument: str) -> None:
        self.talk.last()
        self.talk.measure()
        shown.statistics(self.talk.screen.console, self.talk.conversation.turns, self.talk.rooms)
        ahead = [f"{role} {tokens:,}" for role, tokens in self.talk.read_ahead.fed.items() if tokens]
        if ahead:
            self._say(f"Read between the answers, while you typed: {', '.join(ahead)} tokens.")

    def _compare(self, _argument: str) -> None:
        last = self.talk.last()
        alone = self.talk.alone()
        shown.compared(self.talk.screen.console, last, alone)

    def _compact(self, argument: str) -> None:
        self.talk.last()
        turns = len(self.talk.conversation.turns)
        n = whole_number(argument, "compact", turns) if argument else self.talk.turns_to_drop()
        self.talk.drop(n)
        self.talk.measure()
        self._say(
            f"Dropped the {n} oldest of {counted(turns, 'turn')}; the system prompt stays. The rest is read anew."
        )

    def _save(self, argument: str) -> None:
        save(self.talk.kept, Path(argument).expanduser())
        self._say(f"Saved to {argument}.")

    def _load(self, argument: str) -> None:
        kept = load(Path(argument).expanduser())
        self.talk.replace_by(kept.conversation, kept.settings)
        self.talk.measure()
        self._say(f"{counted(len(kept.conversation.turns), 'turn')} from {argument}.")

    def _read(self, argument: str) -> None:
        if argument:
            text = read_file(argument)
            if not text.strip():
                raise UsageError(f"There is no text in {argument}.", "Name a file with text in it.")
            self.file = text
            lines = counted(len(text.splitlines()), "line")
            self._say(f"{argument} goes before your next question: {lines}.")
        elif self.file:
            self._drop_file()
        else:
            raise UsageError("No file goes with your next question.", "/read FILE puts one before it.")

    def _drop_file(self) -> None:
        if self.file:
            self.file = ""
            self._say("No file goes with your next question any more.")

    def _copy(self, _argument: str) -> None:
        text = self.talk.last().answer.strip()
        if not sys.stderr.isatty():
            raise UsageError("/copy needs a terminal.", "Use /save FILE.")
        encoded = base64.b64encode(text.encode("utf-8", "replace")).decode()
        sys.stderr.write(f"\x1b]52;c;{encoded}\x07")
        sys.stderr.flush()
        self._say(
            f"{len(text):,} characters given to the terminal's clipboard (OSC 52; some terminals refuse it)."
        )


def _checked(text: str) -> str:
    if len(text.encode("utf-8", "replace")) > MAX_BYTES:
        raise UsageError(f"That is longer than {MAX_BYTES:,} bytes.", "Shorten it.")
    return text


def _short(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= 60 else f"{line[:59]}…"
