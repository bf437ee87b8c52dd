"""A batch while it runs: rows become problems, what the runner tells becomes lines of output, in bounded memory."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Protocol

from rsd_cli.batch.answers import Answered, Problematic, line_of
from rsd_cli.batch.rows import BadRow, Row, number_of, parse_row
from rsd_cli.cli.batch_plan import settings_of
from rsd_cli.cli.crash import Crash
from rsd_cli.cli.recording import recorded
from rsd_cli.decoding.participants import TwoVocabulariesError
from rsd_cli.decoding.recording import timeless
from rsd_cli.decoding.runner import Failed, Finished, Runner
from rsd_cli.decoding.trajectory import Problem, solved
from rsd_cli.display.sanitise import visible_json
from rsd_cli.engine.jobs import ContextOverflow
from rsd_cli.engine.templates import TemplateError
from rsd_cli.errors import EngineError, ModelError, OutputError, UsageError

if TYPE_CHECKING:
    from rsd_cli.batch.answers import Outcome
    from rsd_cli.batch.ledger import Done
    from rsd_cli.batch.source import Source
    from rsd_cli.batch.tally import Tally
    from rsd_cli.cli.batch_plan import Plan
    from rsd_cli.cli.trio import LoadedTrio
    from rsd_cli.decoding.events import Event
    from rsd_cli.errors import RSDError
    from rsd_cli.records import Record

CRASHED = "The engine crashed while it answered this row and no other."
WINDOW = 8  # with --ordered, how many rows per seat may be ahead of the oldest that is not done


class Sink(Protocol):
    """Where lines of output go."""

    def append(self, line: str) -> None:
        """Write one; when this returns it is where it should be."""


class Display(Protocol):
    """Whoever watches."""

    def handle(self, event: Event) -> None:
        """Something happened to a row."""

    def forget(self, name: str) -> None:
        """A row is over."""

    def fail(self, line: int, name: str, message: str) -> None:
        """It has no answer."""


class Stdout:
    """Lines on standard output, as they come; a terminal gets as escapes what it would obey or hide."""

    def append(self, line: str) -> None:
        """Write one and flush."""
        line = visible_json(line) if sys.stdout.isatty() else line
        sys.stdout.buffer.write(line.encode("utf-8", "backslashreplace") + b"\n")
        sys.stdout.buffer.flush()


@dataclass
class Brake:
    """Stops the models in the middle of a decode: asked for by a signal, or by the run itself."""

    interrupt: Callable[[], bool]
    pulled: bool = False

    def __call__(self) -> bool:
        """Whether to stop."""
        return self.pulled or self.interrupt()


@dataclass
class Open:
    """A row that is being answered, with the samples that are done; `place` is its place in the output."""

    row: Row
    place: int
    samples: dict[int, Record] = field(default_factory=dict)


@dataclass
class BatchRun:
    """One pass over the input. `display` sees what happens while rows are answered."""

    plan: Plan
    source: Source
    done: Done
    sink: Sink
    tally: Tally
    brake: Brake
    display: Display | None = None
    crash: Crash = field(default_factory=Crash)
    _open: dict[str, Open] = field(default_factory=dict)
    _seen: set[int] = field(default_factory=set)
    _held: dict[int, Outcome] = field(default_factory=dict)
    _places: int = 0
    _written: int = 0

    def run(self, loaded: LoadedTrio) -> None:
        """Answer what is not done yet."""
        seats = loaded.shape.n_seats
        runner = Runner(loaded, self.plan.settings, seats, side_by_side=loaded.on_several_devices)
        for happened in runner.run(self._problems(seats)):
            if isinstance(happened, Finished):
                if happened.ended_by != "interrupted":
                    self._collect(happened, loaded)
            elif isinstance(happened, Failed):
                self._fail(happened)
            elif self.display and happened.id in self._open:  # a failed row's other samples go on
                self.display.handle(happened)

    def _problems(self, seats: int) -> Iterator[Problem | None]:
        """The rows that are to be answered, each as often as there are samples; None while none has arrived."""
        yield from self._suspects()
        for row in self._rows():
            if self.brake():
                return
            if row is None:
                yield None
            elif row.id not in self.crash.ids and self._is_due(row):
                while (
                    self.plan.ordered and self._places - self._written >= WINDOW * seats and not self.brake()
                ):
                    yield None
                yield from self._begin(row)

    def _suspects(self) -> Iterator[Problem | None]:
        """Rows that were in flight when the engine crashed: one at a time, but for one that crashed it alone.

        In order, those between them as well: their answers waited for the suspects', and are lost.
        """
        for row in self._rows() if self.crash.ids else ():
            if self.brake():
                return
            if row and row.id == self.crash.alone and not self.done.just_failed(row.id):
                place, self._places = self._places, self._places + 1
                self._write(Problematic(row, "engine_crash", CRASHED), place)
            elif (
                row
                and row.id not in self.crash.killers
                and self.crash.is_next(row.id, ordered=self.plan.ordered)
            ):
                self.crash.try_alone(row.id)
                yield from self._begin(row) if self._is_due(row) else ()
                while self._open and not self.brake():
                    yield None
        self.crash.over()

    def _rows(self) -> Iterator[Row | BadRow | None]:
        for line in self.source.lines():
            if line is None:
                yield None
            elif self.plan.shard.has(line.number) and (row := parse_row(line, self.plan.fields)):
                yield self._once(row)

    def _is_due(self, row: Row | BadRow) -> bool:
        """Whether a row is still to be answered; refuses one that was asked something else before."""
        if not is_due(row, self.done, retry_errors=self.plan.retry_errors):
            if not self.source.rereadable:  # else they were counted beforehand
                self.tally.skip(self.done.outcome(row), failed=self.done.failed(row.id))
            return False
        return True

    def _once(self, row: Row | BadRow) -> Row | BadRow:
        """The row; of a pipe, whose ids could not be looked through, an error if its id was there before."""
        if self.source.rereadable:
            return row
        if number_of(row.id) in self._seen:
            message = f"An earlier line has the id {row.id!r} too."
            return BadRow(row.line, f"line-{row.line}", "duplicate_id", message, row.content)
        self._seen.add(number_of(row.id))
        return row

    def _begin(self, row: Row | BadRow) -> Iterator[Problem]:
        place, self._places = self._places, self._places + 1
        settings = None if isinstance(row, BadRow) else settings_of(row, self.plan)
        if isinstance(row, BadRow):
            self._write(Problematic(row, row.code, row.message), place)
        elif isinstance(settings, Problematic):
            self._write(settings, place)
        else:
            self._open[row.id] = Open(row, place)
            self.crash.note(self._open)
            for branch in range(self.plan.samples):
                if row.id in self._open:
                    earlier = solved(row.before)
                    yield Problem(row.id, row.question, row.before, earlier, settings, branch)

    def _collect(self, finished: Finished, loaded: LoadedTrio) -> None:
        problem = finished.trajectory.problem
        row = self._open.get(problem.id)
        if row is None:
            return
        # A row may have waited for free seats since it was read.
        began = finished.trajectory.began
        row.samples[problem.branch] = recorded(finished, loaded, self.plan.described, began)
        if len(row.samples) == self.plan.samples:
            del self._open[problem.id]
            samples = tuple(row.samples[branch] for branch in range(self.plan.samples))
            self._write(Answered(row.row, samples), row.place)
            self.crash.note(self._open, answered=True)

    def _fail(self, failed: Failed) -> None:
        row = self._open.pop(failed.problem.id, None)
        if row:
            told = f"{failed.error.message} {failed.error.hint}".strip()
            self._write(Problematic(row.row, code_of(failed.error), told), row.place)
            self.crash.note(self._open)

    def _write(self, outcome: Outcome, place: int) -> None:
        """Write a row that is over; in order, those before it come first."""
        if self.display:
            self.display.forget(outcome.row.id)
        self._held[place] = outcome
        ready = self._written if self.plan.ordered else place
        while ready in self._held:
            self._write_now(self._held.pop(ready))
            ready += 1

    def _write_now(self, outcome: Outcome) -> None:
        self.sink.append(self._line(outcome))
        self._written += 1
        self.tally.add(outcome)
        if self.display and isinstance(outcome, Problematic):
            self.display.fail(outcome.row.line, outcome.row.id, outcome.message)
        if self.plan.max_errors and self.tally.failed >= self.plan.max_errors:
            self.brake.pulled = True

    def _line(self, outcome: Outcome) -> str:
        """What no rerun would give again, such as times, is left out where that was promised."""
        created = 0 if self.plan.reproducible else int(time.time())
        if isinstance(outcome, Answered) and self.plan.reproducible:
            outcome = replace(outcome, samples=tuple(timeless(sample) for sample in outcome.samples))
        return line_of(outcome, self.plan.form, str(self.plan.described["trio"]), created)


def is_due(row: Row | BadRow, done: Done, *, retry_errors: bool) -> bool:
    """Whether a row has no record yet, or one of a failure that is to be tried again."""
    if not done.knows(row.id):
        return True
    if done.failed(row.id) and retry_errors and not done.just_failed(row.id):
        return True
    if done.is_same(row.id, row.content):
        return False
    if done.failed(row.id):
        raise OutputError(
            f"Line {row.line} with the id {row.id!r} was changed since it failed.",
            "Add --retry-errors, which asks it as it is now.",
        )
    raise OutputError(
        f"Line {row.line} has the id {row.id!r}, under which the output holds the answer to another question.",
        "Give changed rows another id, or start anew with --overwrite.",
    )


def code_of(error: RSDError) -> str:
    """A failure in one word, for programs."""
    if isinstance(error, TemplateError):
        return "bad_messages"
    if isinstance(error, (TwoVocabulariesError, ModelError)):  # these models can't do what the row asks for
        return "unsupported"
    if isinstance(error, (ContextOverflow, UsageError)):
        return "context_overflow"
    return "engine_error" if isinstance(error, EngineError) else "error"
