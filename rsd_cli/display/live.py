"""A small region below append-only output, redrawn a dozen times a second. Knows nothing of what it shows."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from rich.live import Live
from rich.text import Text

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from rich.console import Console, ConsoleDimensions, ConsoleOptions, ConsoleRenderable, RenderResult

    Lines = Callable[[ConsoleDimensions], Sequence[Text]]

_REFRESHES_PER_SECOND = 12


class _Region:
    """Asks for its lines whenever it is drawn, so what is printed above never meets an old picture."""

    def __init__(self, lines: Lines) -> None:
        self._lines = lines
        self.drawn: list[int] = []

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        lines = [line.copy() for line in self._lines(options.size)]
        for line in lines:
            line.truncate(options.max_width, overflow="ellipsis")
        self.drawn = [line.cell_len for line in lines]
        yield Text("\n").join(lines)


class LiveRegion(Live):
    """Rich's transient live display, which also erases what the terminal rewrapped when it got narrower."""

    def __init__(self, console: Console, lines: Lines) -> None:
        self._region = _Region(lines)
        self._drawn_at = console.width
        self._is_rewrapped = "XTERM_VERSION" not in os.environ and os.environ.get("TERM") != "linux"
        super().__init__(
            console=console,
            get_renderable=lambda: self._region,
            refresh_per_second=_REFRESHES_PER_SECOND,
            transient=True,
            redirect_stdout=False,  # stdout may be a file, and is the answer's
            vertical_overflow="crop",
        )

    def process_renderables(self, renderables: list[ConsoleRenderable]) -> list[ConsoleRenderable]:
        """Come between the console and the terminal, as all of Rich's live displays do."""
        width = self.console.width
        if width < self._drawn_at and self._is_rewrapped:
            rows = sum(max(1, -(-cells // width)) for cells in self._region.drawn)
            self._live_render._shape = (width, rows)
        self._drawn_at = width
        return super().process_renderables(renderables)
