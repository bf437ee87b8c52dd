"""A batch with all that is known before it begins: what its output depends on, what is done, what is left."""

from __future__ import annotations

import importlib.metadata
import textwrap
import time
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import typer

import rsd_cli
from rsd_cli.batch.ledger import Done, Ledger
from rsd_cli.batch.rows import field_names, number_of, parse_row, row_id
from rsd_cli.batch.tally import Tally
from rsd_cli.cli import notes
from rsd_cli.cli.batch_run import BatchRun, Stdout, is_due
from rsd_cli.cli.crash import Crash
from rsd_cli.cli.trio import LoadedTrio
from rsd_cli.display.batch import watching
from rsd_cli.errors import UsageError
from rsd_cli.evaluation.grader import Grader

if TYPE_CHECKING:
    from pathlib import Path

    from rsd_cli.batch.rows import Fields
    from rsd_cli.batch.source import Source
    from rsd_cli.cli.batch_plan import Plan, Shard
    from rsd_cli.cli.batch_run import Brake, Sink
    from rsd_cli.cli.shape import Shape
    from rsd_cli.cli.warm import FoundTrio


LONGEST_NAMES = 200  # characters of a row's field names in an error


def count_rows(source: Source, fields: Fields, shard: Shard) -> int:
    """How many rows there are; refuses ids that stand twice, before any model is looked for."""
    _check_field(source, "--input-field", fields.question)
    _check_field(source, "--id-field", fields.id)
    seen: set[int] = set()
    rows = 0
    for line in source.lines():
        if line is None or line.is_blank:
            continue
        name = row_id(line, fields)
        if number_of(name) in seen:
            first = next(each for each in source.lines() if each and row_id(each, fields) == name)
            raise UsageError(
                f"Lines {first.number} and {line.number} of {source.name} have the same id {name!r}.",
                "Every row needs an id of its own; --id-field names the field that holds it.",
            )
        seen.add(number_of(name))
        rows += shard.has(line.number)
    return rows


def _check_field(source: Source, option: str, name: str) -> None:
    """Refuse the name of a field that no row has: a slip would be known only from the answers."""
    first: tuple[str, ...] = ()
    for line in source.lines() if name else ():
        names = field_names(line) if line else ()
        if name in names:
            return
        first = first or names
    if first:
        shown = textwrap.shorten(", ".join(first), LONGEST_NAMES, placeholder=" …")
        raise UsageError(
            f"{option} {name!r} is a field of no row of {source.name}.", f"The first row has {shown}."
        )


@dataclass
class Job:
    """A batch with all that is known before it begins. With `recalls` its summary is of earlier answers too."""

    plan: Plan
    shape: Shape
    found: FoundTrio
    source: Source
    total: int | None
    brake: Brake
    quiet: bool
    color: bool
    recalls: bool = False

    def open(self, place: Path | None, *, overwrite: bool) -> tuple[Sink, Done]:
        """Where lines go (None for standard output), and what is there already."""
        if place is None:
            return Stdout(), Done()
        left = notes.read()
        anew = overwrite and left is None  # not again by the process that takes over after a crash
        since = left["since"] if left else None
        ledger = Ledger(
            place,
            self.fingerprint(),
            self.source.place,
            overwrite=anew,
            since=since,
            recalls=self.recalls,
        )
        if ledger.torn and not self.quiet:
            typer.echo(f"{place}: a torn last line of {ledger.torn} bytes was cut off.", err=True)
        return ledger, ledger.done

    def fingerprint(self) -> dict[str, Any]:
        """What answers depend on: a file holds answers of one kind."""
        plan, found = self.plan, self.found
        settings = asdict(plan.settings)
        sampling = settings.pop("sampling") or {}
        same_bytes = ("threads", "n_batch") if plan.reproducible else ()
        shape = {key: asdict(self.shape)[key] for key in ("ctx", "kv_type", "reproducible", *same_bytes)}
        shape |= {"exact": True} if self.shape.exact else {}
        return {
            "rsd": rsd_cli.__version__,
            "llama_cpp_python": importlib.metadata.version("llama-cpp-python"),
            "trio": plan.described["trio"],
            "models": found.hashes,
            "prm": found.prm.identity,
            **settings,
            **sampling,
            **shape,
            "samples": plan.samples,
            "format": plan.form,
            "shard": str(plan.shard),
            "fields": [plan.fields.question, plan.fields.id],
        }

    def run(self, sink: Sink, done: Done) -> Tally | None:
        """Answer what is left; loads no model where nothing is. None if it was stopped before that was known."""
        with Grader() as grader:
            return self._run(sink, done, Tally(time.perf_counter, self.total, grade=grader.known_right))

    def _run(self, sink: Sink, done: Done, tally: Tally) -> Tally | None:
        tally.workload.rows = self.shape.n_streams
        self._count_done(done, tally)
        if self.brake():
            return None
        tally.started = tally.clock()  # reading answers back is not answering
        if tally.left == 0:
            return tally
        to_stdout = isinstance(sink, Stdout)
        # What a pipe gave is gone with the process that read it, and standard output can't be read again.
        again = self.source.rereadable and not to_stdout
        run = BatchRun(self.plan, self.source, done, sink, tally, self.brake)
        run.crash = Crash(notes.read(), takes_notes=again, since=done.since)
        prm = self.found.prm if "prm" in self.plan.roles else None
        samples = self.plan.samples
        watched = watching(tally, samples, quiet=self.quiet, color=self.color, to_stdout=to_stdout)
        loaded = LoadedTrio(self.found.models, prm, self.shape, self.brake)
        try:
            loaded.load_all()
            if self._begins_with_all:
                loaded.wait_for_all()
            # Every row without settings of its own would fail for the same reason.
            loaded.check_templates(self.plan.settings)
            loaded.check_pair(self.plan.settings)
            with watched as run.display:
                run.run(loaded)
        finally:
            tally.paces = {role: engine.pace for role, engine in loaded.loaded().items()}
            loaded.close()
        return tally

    @property
    def _begins_with_all(self) -> bool:
        """Whether all models are to be there before the first row.

        A reproducible record tells which ones were when its answer was over; the clock of --max-seconds runs on for
        all rows while the first of them waits for a model.
        """
        return self.plan.reproducible or self.plan.settings.max_seconds is not None

    def _count_done(self, done: Done, tally: Tally) -> None:
        """Count rows of a file that need nothing more; refuses rows that were asked something else before."""
        if not (self.source.rereadable and done.n_rows):
            return
        lines = (line for line in self.source.lines() if line and self.plan.shard.has(line.number))
        rows = (parse_row(line, self.plan.fields) for line in lines)
        for row in rows:
            if self.brake():
                return
            if row and not is_due(row, done, retry_errors=self.plan.retry_errors):
                tally.skip(done.outcome(row), failed=done.failed(row.id))
