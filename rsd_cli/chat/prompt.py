"""Where a person types: editing, history, completion and a status line, by prompt_toolkit; or lines from a pipe.

It knows no conversation: what it reads is a line, and what it shows comes from whoever asks.
"""

from __future__ import annotations

import contextlib
import os
import sys
from typing import TYPE_CHECKING, Protocol

from prompt_toolkit import PromptSession
from prompt_toolkit.application import get_app
from prompt_toolkit.completion import Completer, Completion, PathCompleter
from prompt_toolkit.document import Document
from prompt_toolkit.enums import DEFAULT_BUFFER
from prompt_toolkit.filters import Condition, has_focus
from prompt_toolkit.formatted_text import FormattedText
from prompt_toolkit.history import FileHistory, InMemoryHistory
from prompt_toolkit.key_binding import KeyBindings
from prompt_toolkit.output.color_depth import ColorDepth
from prompt_toolkit.output.defaults import create_output
from prompt_toolkit.utils import is_dumb_terminal

from rsd_cli.chat.commands import COMMANDS, NAMES, SLASH
from rsd_cli.chat.settings import KEYS
from rsd_cli.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from pathlib import Path
    from typing import TextIO

    from prompt_toolkit.completion import CompleteEvent
    from prompt_toolkit.history import History
    from prompt_toolkit.key_binding import KeyPressEvent
    from prompt_toolkit.output import Output

QUOTES = '"""'
PROMPT = "> "
CONTINUED = "  "
LONGEST = 4_000_000  # characters of one question


class Reader(Protocol):
    """Gives what the user says, a turn at a time."""

    def read(self, default: str = "") -> str:
        """The next line or block, `default` to begin with; EOFError at the end, KeyboardInterrupt on Ctrl-C."""
        ...


def is_open(text: str) -> bool:
    """Whether a block in triple quotes has begun and not ended."""
    start = text.lstrip()
    return start.startswith(QUOTES) and not (
        len(start.rstrip()) >= 2 * len(QUOTES) and start.rstrip().endswith(QUOTES)
    )


def unquoted(text: str) -> str:
    """The block without its triple quotes."""
    inner = text.strip()
    return (
        inner[len(QUOTES) : -len(QUOTES)].strip("\n")
        if inner.startswith(QUOTES) and not is_open(text)
        else text
    )


class Lines:
    """Turns from a pipe or a file: a line each, or a block in triple quotes."""

    def __init__(self, source: TextIO) -> None:
        self._source = source

    def read(self, default: str = "") -> str:  # noqa: ARG002 - nobody is there to edit it
        """The next turn; blank lines are none. UsageError where the input ends within a block, or is no text."""
        text = self._line()
        while not text.strip():
            text = self._line()
        try:
            while is_open(text):
                text += "\n" + self._line()
        except EOFError as error:
            raise UsageError(
                f"The input ends within a block that began with {text[:40]!r}.", f"End it with {QUOTES}."
            ) from error
        return unquoted(text)

    def _line(self) -> str:
        """A line, of which a too long one keeps as much as shows that it is too long."""
        try:
            line = rest = self._source.readline(LONGEST + 1)
            while rest and not rest.endswith("\n"):
                rest = self._source.readline(LONGEST)
        except UnicodeDecodeError as error:
            raise UsageError(f"The input is no text: {error.reason}.", "Turns are read as UTF-8.") from error
        if not line:
            raise EOFError
        return line.rstrip("\r\n")


class Typed:
    """Turns from a terminal. The prompt is written to stderr: stdout is for answers."""

    def __init__(
        self,
        history: Path | None,
        status: Callable[[], str],
        *,
        color: bool = True,
        output: Output | None = None,
    ) -> None:
        self._session: PromptSession[str] = PromptSession(
            history=_history(history),
            completer=CommandCompleter(),
            complete_while_typing=False,
            multiline=True,
            prompt_continuation=CONTINUED,
            key_bindings=_bindings(),
            enable_open_in_editor=True,
            enable_suspend=True,
            enable_history_search=True,
            bottom_toolbar=lambda: FormattedText([("", f" {status()} ")]),
            output=output or _output(),
            color_depth=None if color else ColorDepth.DEPTH_1_BIT,
        )

    def read(self, default: str = "") -> str:
        """What is typed, with Enter; Alt-Enter or triple quotes make more lines."""
        return unquoted(self._session.prompt(PROMPT, default=default))


def _output() -> Output | None:
    """Where the prompt goes: stderr, since answers go to stdout; the other one where stderr is a file.

    None lets prompt_toolkit do without cursor movements, for a terminal that knows none.
    """
    if is_dumb_terminal():
        return None
    return create_output(stdout=sys.stderr if sys.stderr.isatty() else sys.stdout)


def _history(path: Path | None) -> History:
    """The history in a file that only its owner can read; in memory where there can't be one."""
    if path is None:
        return InMemoryHistory()
    with contextlib.suppress(OSError):
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600))
        return _FileHistory(path)
    return InMemoryHistory()


class _FileHistory(FileHistory):
    """A history that goes on without its file when that can't be written any more."""

    def store_string(self, string: str) -> None:
        """Append a line to the file, if it can be."""
        with contextlib.suppress(OSError):
            super().store_string(string)


def _bindings() -> KeyBindings:
    bindings = KeyBindings()
    in_text = has_focus(DEFAULT_BUFFER)  # and not in a search, which has keys of its own

    @bindings.add("enter", filter=in_text & Condition(_ends_with_enter))
    def send(event: KeyPressEvent) -> None:
        event.current_buffer.validate_and_handle()

    @bindings.add("escape", "enter", filter=in_text)
    def new_line(event: KeyPressEvent) -> None:
        event.current_buffer.insert_text("\n")

    @bindings.add("c-o", filter=in_text)
    def editor(event: KeyPressEvent) -> None:
        event.current_buffer.open_in_editor()

    return bindings


def _ends_with_enter() -> bool:
    return not is_open(get_app().current_buffer.text)


class CommandCompleter(Completer):
    """Completes commands, the values that they take, and the names of files."""

    def __init__(self) -> None:
        self._paths = PathCompleter(expanduser=True)

    def get_completions(self, document: Document, complete_event: CompleteEvent) -> Iterable[Completion]:
        """What may stand at the cursor; nothing within a question."""
        text = document.text_before_cursor
        if not text.startswith(SLASH) or "\n" in text:
            return
        name, blank, rest = text[1:].partition(" ")
        command = NAMES.get(name.lower())
        if not blank:
            yield from _starting(text, {f"/{each.name}": each.help for each in COMMANDS})
        elif command and command.takes_a_file:
            yield from self._paths.get_completions(Document(rest), complete_event)
        elif command and command.name == "set":
            yield from _of_set(rest)
        elif command:
            yield from _starting(rest, dict.fromkeys(command.choices, ""))


def _of_set(rest: str) -> Iterable[Completion]:
    name, blank, value = rest.partition(" ")
    key = KEYS.get(name.lower())
    if not blank:
        yield from _starting(name, {name: each.help for name, each in KEYS.items()})
    elif key:
        yield from _starting(value, dict.fromkeys(key.values, ""))


def _starting(text: str, among: dict[str, str]) -> Iterable[Completion]:
    for word, meaning in among.items():
        if word.startswith(text.lower()):
            yield Completion(word, start_position=-len(text), display_meta=meaning)
