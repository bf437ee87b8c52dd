"""A batch on stderr: a region that is redrawn on a terminal, else a plain line every few seconds.

Shows what a tally counts, and the newest text of a few rows; knows no files.
"""

from __future__ import annotations

import contextlib
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from rich.cells import cell_len, set_cell_size
from rich.text import Text

from rsd_cli.decoding.events import Kept, Streamed
from rsd_cli.display.batch_summary import clock
from rsd_cli.display.consoles import stderr_console
from rsd_cli.display.live import LiveRegion
from rsd_cli.display.sanitise import visible
from rsd_cli.display.steps import badge, counted

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from rich.console import Console, ConsoleDimensions

    from rsd_cli.batch.tally import Tally
    from rsd_cli.decoding.events import Event
    from rsd_cli.records import Author

LINE_SECONDS = 5.0
TOLD = 10  # failures that are told as they happen
SHOWN = 4  # rows whose newest step is shown
TAIL = 300  # characters of a step that are kept
BAR = 30
SHORT_BAR = 5
NAME = 12  # characters of a row's id that are shown
DOT = " · "


@dataclass
class Newest:
    """A row's newest step."""

    author: Author
    number: int = 1
    text: str = ""


@dataclass
class BatchDisplay:
    """What a batch looks like now. `handle` takes the runner's events of rows that are not over.

    Of several samples no text is shown: their tokens come mixed.
    """

    tally: Tally
    samples: int = 1
    newest: dict[str, Newest] = field(default_factory=dict)
    console: Console | None = None

    def handle(self, event: Event) -> None:
        """Remember what is being written."""
        if isinstance(event, Streamed):
            self.tally.count_token()
            if event.lane:
                return
            step = self.newest.setdefault(event.id, Newest(event.author))
            if step.author != event.author:
                step.author, step.text = event.author, ""
            step.text = (step.text + event.text)[-TAIL:]
        elif isinstance(event, Kept) and event.id in self.newest:
            step = self.newest[event.id]
            step.number, step.text = step.number + 1, ""

    def forget(self, name: str) -> None:
        """A row is over."""
        self.newest.pop(name, None)

    def fail(self, line: int, name: str, message: str) -> None:
        """Say why a row has no answer, of the first few; all stand in the output."""
        if self.console and self.tally.failed <= TOLD:
            more = "; failures from here on are only in the output" if self.tally.failed == TOLD else ""
            text = f"line {line}, {_one_line(name)}: {_one_line(message)}{more}"
            self.console.print(Text(text, style="red"), soft_wrap=not self.console.is_terminal)

    def lines(self, size: ConsoleDimensions) -> list[Text]:
        """The region: a bar, counts and figures in as many lines as they take, and some rows."""
        beside = size.width - SHORT_BAR - 2 if self.tally.total else size.width
        first, *more = _folded(self._counts(), beside)
        more += _folded(self._figures(), size.width)
        shown = [self._bar(first, size.width), *map(Text, more)]
        room = max(0, min(SHOWN, size.height - 2 - len(shown))) if self.samples == 1 else 0
        return shown + [_row(name, step, size.width) for name, step in list(self.newest.items())[:room]]

    def line(self) -> str:
        """The same in one plain line."""
        return DOT.join([*self._counts(), *self._figures()])

    def _bar(self, counts: str, width: int) -> Text:
        tally = self.tally
        if not tally.total:
            return Text(counts)
        cells = min(BAR, max(SHORT_BAR, width - len(counts) - 2))
        full = int(cells * (tally.total - (tally.left or 0)) / tally.total)
        return Text.assemble(("━" * full, "green"), ("─" * (cells - full), "dim"), "  ", counts)

    def _counts(self) -> list[str]:
        tally = self.tally
        done = tally.skipped + tally.answered
        of = f" of {tally.total:,}" if tally.total is not None else ""
        counts = [f"{done:,}{of} done"]
        counts += [f"{tally.failed:,} failed"] if tally.failed else []
        counts += [f"{tally.left:,} left"] if tally.left is not None else []
        seconds = tally.seconds_left()
        return counts + ([f"ETA {clock(seconds)}"] if seconds is not None else [])

    def _figures(self) -> list[str]:
        tally, steps = self.tally, self.tally.steps
        rows, tokens = tally.rates()
        figures = [f"{rows:.2f} rows/s" if rows < 10 else f"{rows:.0f} rows/s", f"{tokens:.0f} tokens/s"]
        if steps.kept:
            figures.append(f"target {steps.by_target / steps.kept:.0%} of steps")
        if steps.judged:
            figures.append(f"accepted {steps.accepted / steps.judged:.0%}")
        if steps.rewarded:
            figures.append(f"reward {steps.rewards / steps.rewarded:.2f}")
        return [*figures, f"{counted(len(self.newest), 'row')} in flight"]


def _folded(parts: list[str], width: int) -> list[str]:
    """As many parts to a line as fit."""
    lines = parts[:1]
    for part in parts[1:]:
        if len(lines[-1] + DOT + part) <= width:
            lines[-1] += DOT + part
        else:
            lines.append(part)
    return lines


def _row(name: str, step: Newest, width: int) -> Text:
    short = name if len(name) <= NAME else f"{name[: NAME - 1]}…"
    text = visible(" ".join(step.text.split()))
    row = Text.assemble(badge(step.author), f" {_one_line(short):{NAME}} ", (f"{step.number:>2} ", "bold"))
    return row.append(_end_of(text, max(1, width - row.cell_len)))


def _end_of(text: str, width: int) -> str:
    """As much of the newest text as fits."""
    if cell_len(text) <= width:
        return text
    return "…" + set_cell_size(text[::-1], width - 1)[::-1]


def _one_line(text: str) -> str:
    return visible(text.replace("\n", " "))


@contextlib.contextmanager
def watching(
    tally: Tally, samples: int, *, quiet: bool, color: bool, to_stdout: bool = False
) -> Iterator[BatchDisplay]:
    """Show a batch while it runs; nothing of the region stays.

    Answers that go `to_stdout` may come to the same screen, where a region would erase them: lines then.
    """
    console = stderr_console(color=color)
    display = BatchDisplay(tally, samples, console=None if quiet else console)
    if quiet:
        yield display
    elif console.is_interactive and not to_stdout:
        with LiveRegion(console, display.lines):
            yield display
    else:
        yield _Lines(tally, samples, console=console)


@dataclass
class _Lines(BatchDisplay):
    """Plain lines for logs, one every few seconds."""

    clock: Callable[[], float] = time.monotonic
    shown_at: float | None = None

    def handle(self, event: Event) -> None:
        """Write a line when it is time."""
        super().handle(event)
        now = self.clock()
        self.shown_at = now if self.shown_at is None else self.shown_at
        if self.console and now - self.shown_at >= LINE_SECONDS:
            self.shown_at = now
            self.console.print(Text(self.line()), soft_wrap=not self.console.is_terminal)
