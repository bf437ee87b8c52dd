"""How far long work is, on stderr: a bar on a terminal, else a plain line now and then. Counts anything."""

from __future__ import annotations

import contextlib
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from rsd_cli.display.consoles import stderr_console

if TYPE_CHECKING:
    from collections.abc import Iterator

    from rich.console import Console

LINE_SECONDS = 30.0


class Tell(Protocol):
    """Say in a few words how it goes, and how many `more` things are done now."""

    def __call__(self, words: str, more: int = 1, /) -> None:
        """Say it; on anything but a terminal not every word is shown."""


@contextlib.contextmanager
def counting(
    label: str, total: int, done: int = 0, *, quiet: bool = False, color: bool = True
) -> Iterator[Tell]:
    """Gives a function to call for each thing done, and between them if they are far apart; it may be quiet."""
    if quiet:
        yield lambda _words, _more=1: None
        return
    console = stderr_console(color=color)
    if not console.is_interactive:  # FORCE_COLOR makes a terminal of a file
        yield _Lines(console, label, total, done)
        return
    columns = [
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
    ]
    with Progress(*columns, TextColumn("{task.fields[words]}", markup=False), console=console) as progress:
        task = progress.add_task(label, total=total, completed=done, words="")
        yield lambda words, more=1: progress.update(task, advance=more, words=words)


@dataclass
class _Lines:
    """Plain lines for logs, not too often."""

    console: Console
    label: str
    total: int
    done: int
    shown_at: float = 0.0

    def __call__(self, words: str, more: int = 1, /) -> None:
        self.done += more
        now = time.monotonic()
        if now - self.shown_at >= LINE_SECONDS or (more and self.done == self.total):
            self.shown_at = now
            line = f"{self.label} {self.done} of {self.total}  {words}"
            self.console.print(line, markup=False, highlight=False, soft_wrap=True)
