"""How far downloads and checks are, on stderr: a bar on a terminal, else a plain line every 5 s or 5 %.

Is called by the model store, and knows nothing of it but how it calls.
"""

from __future__ import annotations

import contextlib
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from rich.progress import (
    BarColumn,
    DownloadColumn,
    Progress,
    ProgressColumn,
    TextColumn,
    TimeRemainingColumn,
    TransferSpeedColumn,
)

from rsd_cli.display.consoles import stderr_console
from rsd_cli.display.sanitise import visible
from rsd_cli.registry import part

if TYPE_CHECKING:
    from collections.abc import Iterator

    from rich.console import Console
    from rich.progress import TaskID

WIDE = 80
LINE_SECONDS = 5.0
LINE_PERCENT = 5
QUIETEST_SECONDS = 0.5


@contextlib.contextmanager
def transfer_progress(
    console: Console | None = None, *, quiet: bool = False, color: bool = True
) -> Iterator[part.Progress]:
    """Show progress while the block runs; nothing of it stays on a terminal."""
    console = console or stderr_console(color=color)
    if quiet:
        yield part.silent
    elif not console.is_interactive:  # FORCE_COLOR makes a terminal of a file
        yield _Lines(console)
    else:
        with Progress(*_columns(console.width), console=console, transient=True) as progress:
            yield _Bars(progress)


def _columns(width: int) -> list[ProgressColumn]:
    label = TextColumn("{task.description}", markup=False)
    percent = TextColumn("{task.percentage:>3.0f} %")
    if width < WIDE:
        return [label, BarColumn(bar_width=None), percent]
    return [label, BarColumn(), percent, DownloadColumn(), TransferSpeedColumn(), TimeRemainingColumn()]


class _Bars:
    """One bar for each file and phase; a new phase takes the place of the old one."""

    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        self._label = ""
        self._task: TaskID | None = None

    def __call__(self, name: str, phase: str, done: int, total: int | None) -> None:
        label = _label(name, phase)
        if self._task is None or label != self._label:
            if self._task is not None:
                self._progress.remove_task(self._task)
            self._label, self._task = label, self._progress.add_task(label, completed=done, total=total)
        self._progress.update(self._task, completed=done, total=total)


@dataclass
class _Lines:
    """Plain lines for logs: the first call of a phase, then not too often, and its end."""

    console: Console
    label: str = ""
    shown_at: float = 0.0
    shown_percent: int = 0
    ended: bool = False

    def __call__(self, name: str, phase: str, done: int, total: int | None) -> None:
        label, percent = _label(name, phase), 100 * done // total if total else 0
        is_new, ends = label != self.label, total is not None and done >= total
        if is_new:
            self.ended = False
        if is_new or (ends and not self.ended) or self._is_time(percent):
            self.label, self.shown_at, self.shown_percent = label, time.monotonic(), percent
            self.ended = ends
            self.console.print(_line(label, done, total), markup=False, highlight=False, soft_wrap=True)

    def _is_time(self, percent: int) -> bool:
        waited = time.monotonic() - self.shown_at
        step = percent - self.shown_percent >= LINE_PERCENT
        return not self.ended and (waited >= LINE_SECONDS or (step and waited >= QUIETEST_SECONDS))


def _label(name: str, phase: str) -> str:
    return f"{visible(name)}: {'waiting for another process' if phase == 'waiting' else phase}"


def _line(label: str, done: int, total: int | None) -> str:
    megabytes = f"{done / 1e6:.0f}"
    return (
        f"{label} {100 * done // total} % ({megabytes} of {total / 1e6:.0f} MB)"
        if total
        else f"{label} {megabytes} MB"
    )
