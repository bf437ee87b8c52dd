"""One question being answered, live: kept steps above, the step being written and a status line below.

Output above is append-only; only the small region below is redrawn. Off a terminal, on a dumb one and in a
recording there is no region, and steps appear when they are kept. It never writes the answer to stdout.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from rich.text import Text

from rsd_cli.decoding.events import Ended, Event, Judged, Judging, Kept, Reading, Streamed
from rsd_cli.display import steps
from rsd_cli.display.answer import print_summary
from rsd_cli.display.live import LiveRegion
from rsd_cli.display.sanitise import visible
from rsd_cli.records import Rejected

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from types import TracebackType

    from rich.console import Console, ConsoleDimensions

    from rsd_cli.records import Author, Record, Role, Step

    Summary = Callable[[Console, Record], None]

_TAIL = 4_096  # characters of the step being written that are kept; more than the region can show
_LINES = 8  # of it that the region shows, at most
_SPINNER = "⠋⠙⠹⠸⠼⠴⠦⠧⠇⠏"


@dataclass
class _Progress:
    """What the status line tells."""

    activity: str = "starting"
    drafts: int = 0
    targets: int = 0
    judged: int = 0
    accepted: int = 0
    kept_tokens: int = 0
    began: float | None = None

    @property
    def kept(self) -> int:
        return self.drafts + self.targets


@dataclass(frozen=True)
class _Writing:
    """The step being written: its author, its newest text and how many tokens it has."""

    author: Author
    tail: str = ""
    tokens: int = 0

    def extended(self, text: str) -> _Writing:
        return _Writing(self.author, (self.tail + text)[-_TAIL:], self.tokens + 1)


class AskDisplay:
    """Shows the events of one question; use as a context manager around them.

    Without a question there is no heading: whoever typed it sees it.
    """

    def __init__(
        self,
        console: Console,
        question: str | None,
        roles: Mapping[Role, str],
        strategy: str,
        clock: Callable[[], float],
        summary: Summary = print_summary,
    ) -> None:
        self._console = console
        self._question = question
        self._summary = summary
        self._roles = roles
        self._strategy = strategy
        self._clock = clock
        self._started = clock()
        self._progress = _Progress()
        self._writing: _Writing | None = None
        self._shown_rejection = False
        self._live: LiveRegion | None = None

    def __enter__(self) -> AskDisplay:
        if self._question is not None:
            self._print(steps.question_lines(self._question, self._console))
            self._print(steps.role_lines(self._roles, self._strategy, self._console.width))
        # A recording would hold every picture of the region.
        if self._console.is_interactive and not self._console.record:
            self._live = LiveRegion(self._console, self._region)
            self._live.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._stop()
        self._leave_unfinished()

    def loading(self, role: Role, name: str) -> None:
        """Say that a model is being loaded."""
        self._progress.activity = f"loading {role} {visible(name)}"
        if not self._console.is_interactive:
            self._console.print(Text(self._progress.activity, style="dim"))

    def handle(self, event: Event) -> None:
        """Show what happened."""
        if self._progress.began is None:
            self._progress.began = self._clock()
        if isinstance(event, Reading):
            self._progress.activity = self._reading(event)
        elif isinstance(event, Streamed):
            self._stream(event)
        elif isinstance(event, Judging):
            self._progress.activity = f"{event.role} judges"
        elif isinstance(event, Judged):
            self._judge(event)
        elif isinstance(event, Kept):
            self._keep(event.step)
        else:
            self._end(event)

    def _reading(self, event: Reading) -> str:
        counts = f"{event.done}/{event.total} tokens"
        if event.role == "prm":
            return f"prm judges {counts}"
        what = "reads" if self._progress.kept or self._writing else "reads the question"
        return f"{event.role} {what} {counts}"

    def _stream(self, event: Streamed) -> None:
        self._progress.activity = f"{event.author} writes"
        if event.lane:  # of several candidates one is shown
            return
        writing = self._writing
        if writing is None or writing.author != event.author:
            writing = _Writing(event.author)
        self._writing = writing.extended(event.text)

    def _judge(self, event: Judged) -> None:
        self._progress.judged += 1
        self._progress.accepted += event.accepted
        if not event.accepted:
            self._progress.activity = "target takes over"
            self._reject(Rejected(event.text, event.reward, event.tokens))

    def _reject(self, rejected: Rejected) -> None:
        self._writing = None
        self._shown_rejection = True
        self._print(steps.rejected_lines(rejected, self._progress.kept + 1, self._console))

    def _keep(self, step: Step) -> None:
        if step.rejected is not None and not self._shown_rejection:
            self._reject(step.rejected)
        self._shown_rejection = False
        self._writing = None
        progress = self._progress
        progress.activity = "next step"
        progress.kept_tokens += step.tokens
        progress.drafts += step.author == "draft"
        progress.targets += step.author == "target"
        self._print(steps.kept_lines(step, progress.kept, self._console))

    def _end(self, event: Ended) -> None:
        self._stop()
        self._leave_unfinished()
        self._summary(self._console, event.record)

    def _stop(self) -> None:
        live, self._live = self._live, None
        if live is not None:
            live.stop()

    def _leave_unfinished(self) -> None:
        writing, self._writing = self._writing, None
        if writing is None or not writing.tail.strip():
            return
        text = "…" + writing.tail if len(writing.tail) == _TAIL else writing.tail
        self._print(steps.unfinished_lines(text, writing.author, self._progress.kept + 1, self._console))

    def _print(self, lines: list[Text]) -> None:
        """Print lines that fit, followed by an empty one."""
        block = Text("\n").join([*lines, Text()])
        self._console.print(block, no_wrap=True, overflow="ellipsis")

    def _region(self, size: ConsoleDimensions) -> list[Text]:
        lines: list[Text] = []
        writing = self._writing
        room = min(_LINES, size.height - 4)
        if writing is not None and room > 0:
            lines.append(steps.writing_heading(writing.author, self._progress.kept + 1))
            newest = writing.tail[-room * size.width * 3 // 2 :]
            lines += steps.body_lines(newest, writing.author, self._console)[-room:]
            lines.append(Text())
        return [*lines, self._status(size.width)]

    def _status(self, width: int) -> Text:
        now = self._clock()
        spinner = Text(_SPINNER[int(now * 10) % len(_SPINNER)] + " ")
        activity = Text(self._progress.activity, style="bold")
        if width < steps.NARROW:
            return spinner + Text("  ").join([*self._short_counts(now), activity])
        return spinner + Text(" · ").join([activity, *self._counts(now)])

    def _counts(self, now: float) -> list[Text]:
        progress, speed = self._progress, self._speed(now)
        counts = [self._authors(" · ")] if progress.began is not None else []
        if progress.judged:
            counts.append(Text(f"{progress.accepted / progress.judged:.0%} accepted"))
        if speed:
            counts.append(Text(f"{speed:.1f} tokens/s"))
        return [*counts, Text(_minutes(now - self._started))]

    def _short_counts(self, now: float) -> list[Text]:
        progress, speed = self._progress, self._speed(now)
        counts = [self._authors(" ")] if progress.began is not None else []
        if progress.judged:
            counts.append(Text(f"{progress.accepted / progress.judged:.0%}"))
        if speed:
            counts.append(Text(f"{speed:.0f}/s"))
        return [*counts, Text(_minutes(now - self._started))]

    def _authors(self, separator: str) -> Text:
        return Text.assemble(
            (f"D {self._progress.drafts}", steps.COLOURS["draft"]),
            separator,
            (f"T {self._progress.targets}", steps.COLOURS["target"]),
        )

    def _speed(self, now: float) -> float:
        """Tokens of the answer per second since the question was first looked at."""
        began, writing = self._progress.began, self._writing
        tokens = self._progress.kept_tokens + (writing.tokens if writing else 0)
        return tokens / (now - began) if began is not None and now > began else 0.0


def _minutes(seconds: float) -> str:
    return f"{int(seconds) // 60}:{int(seconds) % 60:02d}"
