"""A terminal in memory: what a console writes to it, and the screen that a person would see."""

from __future__ import annotations

import io
import itertools
from typing import TYPE_CHECKING

import pyte
from rich.console import Console

from rsd_cli.display.ask import AskDisplay
from tests.display.scripted import QUESTION, ROLES

if TYPE_CHECKING:
    from collections.abc import Iterable

    from rsd_cli.decoding.events import Event
    from rsd_cli.display.live import LiveRegion


class Terminal(io.StringIO):
    """Feeds a pyte screen; line feeds return the carriage, as a terminal's driver makes them do."""

    def __init__(self, width: int, height: int) -> None:
        super().__init__()
        self.screen = pyte.HistoryScreen(width, height, history=1000)
        self._stream = pyte.Stream(self.screen)

    def write(self, text: str) -> int:
        self._stream.feed(text.replace("\n", "\r\n"))
        return super().write(text)

    def isatty(self) -> bool:
        return True

    def shown(self) -> list[str]:
        return [line.rstrip() for line in self.screen.display]

    def everything(self) -> str:
        """The scrolled-off lines and the screen."""
        above = [
            "".join(line[column].data for column in range(self.screen.columns)).rstrip()
            for line in self.screen.history.top
        ]
        return "\n".join([*above, *self.shown()])


def console_on(file: io.StringIO, width: int, height: int, **options: object) -> Console:
    settings: dict[str, object] = {
        "file": file,
        "width": width,
        "height": height,
        "force_terminal": True,
        "color_system": "auto",
        "highlight": False,
        "_environ": {"TERM": "xterm-256color", "COLORTERM": "truecolor"},
    }
    return Console(**(settings | options))  # type: ignore[arg-type]


def display_on(console: Console, question: str = QUESTION) -> AskDisplay:
    ticks = itertools.count()
    return AskDisplay(console, question, ROLES, "rsd", lambda: next(ticks) / 100)


def refreshed(display: AskDisplay) -> LiveRegion:
    assert display._live is not None
    display._live.refresh()
    return display._live


def play(console: Console, events: Iterable[Event]) -> None:
    with display_on(console) as display:
        display.loading("draft", "qwen2.5-coder-0.5b")
        for event in events:
            display.handle(event)
