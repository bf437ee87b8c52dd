"""A desk in memory: keys that are pressed, a `Typed` prompt that reads them, and the screen before the person."""

from __future__ import annotations

import contextlib
import threading
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from prompt_toolkit.application import create_app_session
from prompt_toolkit.data_structures import Size
from prompt_toolkit.input import create_pipe_input
from prompt_toolkit.output.vt100 import Vt100_Output

from rsd_cli.chat.prompt import Typed
from tests.display.screens import Terminal

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from prompt_toolkit.input import PipeInput

STATUS = "rsd at 0.7"
ENTER, ALT_ENTER, TAB = "\r", "\x1b\r", "\t"
UP, LEFT, HOME = "\x1b[A", "\x1b[D", "\x1b[H"
CTRL_C, CTRL_D, CTRL_O, CTRL_R = "\x03", "\x04", "\x0f", "\x12"
PATIENCE = 20  # seconds


@dataclass(frozen=True)
class Press:
    """Keys, pressed once something was drawn that was not there before."""

    keys: str
    once: str = ""


@dataclass(frozen=True)
class Desk:
    """A prompt with its keyboard and screen."""

    typed: Typed
    keyboard: PipeInput
    terminal: Terminal

    def read(self, *presses: str | Press, default: str = "") -> str:
        """What the prompt reads; the first keys are pressed when it has been drawn."""
        drawn = len(self.terminal.getvalue())
        hands = threading.Thread(target=self._press, args=(presses, drawn), daemon=True)
        hands.start()
        try:
            return self.typed.read(default)
        finally:
            hands.join(PATIENCE)

    def _press(self, presses: tuple[str | Press, ...], drawn: int) -> None:
        once = STATUS
        for press in (each if isinstance(each, Press) else Press(each) for each in presses):
            self._wait(press.once or once, drawn)
            drawn, once = len(self.terminal.getvalue()), ""
            self.keyboard.send_bytes(press.keys.encode("utf-8", "surrogateescape"))

    def _wait(self, once: str, drawn: int) -> None:
        until = time.monotonic() + PATIENCE
        while once not in self.terminal.getvalue()[drawn:] and time.monotonic() < until:
            time.sleep(0.001)


@contextlib.contextmanager
def desk_with(history: Path | None, width: int = 80, height: int = 24) -> Iterator[Desk]:
    """A desk whose history is kept there."""
    terminal = Terminal(width, height)
    output = Vt100_Output(terminal, lambda: Size(height, width), term="xterm-256color")
    with create_pipe_input() as keyboard, create_app_session(keyboard, output):
        # A terminal says where its cursor is, when it is asked.
        terminal.screen.write_process_input = keyboard.send_text  # type: ignore[method-assign]
        yield Desk(Typed(history, lambda: STATUS, output=output), keyboard, terminal)
