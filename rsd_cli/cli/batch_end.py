"""The end of a batch: its summary, and what to do about the rows that are left or failed."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import typer

from rsd_cli.display.batch_summary import show_summary
from rsd_cli.display.consoles import stderr_console
from rsd_cli.display.steps import counted
from rsd_cli.registry.files import file_size

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from rsd_cli.batch.tally import Tally
    from rsd_cli.cli.batch_job import Job

OF_THE_ENGINE = ("engine_error", "engine_crash", "error")
TOO_LONG = "context_overflow"
UNSUPPORTED = "unsupported"


def write_summary(path: Path, tally: Tally, *, quiet: bool) -> None:
    """Write a summary, but not one of nothing over one of something."""
    if tally.counted or tally.failed or not file_size(path):
        path.write_text(json.dumps(tally.summary(), indent=1) + "\n", "utf-8")
    elif not quiet:
        typer.echo(f"{path} is left as it was: no answer was there to count.", err=True)


def tell(job: Job, tally: Tally, place: Path | None, *, interrupted: bool, overwrite: bool) -> None:
    """The summary, and how to go on."""
    if job.quiet:
        return
    show_summary(stderr_console(color=job.color), tally, reproducible=job.plan.reproducible)
    failed = tally.failed + tally.failed_before
    if failed and place:
        told = f"{counted(failed, 'row')} failed, with an error in the output."
        typer.echo(" ".join([told, *remedies(tally.errors)]), err=True)
    if interrupted and place:
        over = counted(tally.answered + tally.failed, "row")
        left = "the rest" if tally.left is None else f"{tally.left:,}"
        command = "the same command without --overwrite" if overwrite else "the same command"
        typer.echo(f"{over} done, {left} left; {command} goes on.", err=True)


def remedies(errors: Mapping[str, int]) -> Iterator[str]:
    """What to do about rows that failed, by what kept them from being answered."""
    if any(code in OF_THE_ENGINE for code in errors):
        yield "--retry-errors tries those again that the engine failed at."
    if TOO_LONG in errors:
        yield "Ask those that are too long for this run's context with a larger --ctx, in a file of their own."
    if UNSUPPORTED in errors:
        yield (
            "Take out of the lines what is unsupported, then add --retry-errors; what only these models can't do "
            "can be asked of others, in a file of its own."
        )
    if any(code not in (*OF_THE_ENGINE, TOO_LONG, UNSUPPORTED) for code in errors):
        yield "Correct the lines that can't be asked, then add --retry-errors."
