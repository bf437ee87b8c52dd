"""`rsd merge`: the outputs of `rsd batch --shard` as one file, with every row once."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from rsd_cli.errors import OutputError, UsageError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from rsd_cli.batch.merging import Merged, Part

NAMED = 5  # records that are named when they are left out


def merge(
    parts: Annotated[list[Path], typer.Argument(metavar="FILE...", help="The outputs of all shards.")],
    output: Annotated[Path, typer.Option("--output", "-o", metavar="FILE", help="The whole.")],
    questions: Annotated[
        Path | None,
        typer.Option("--questions", metavar="FILE", help="The input, to check by; default where it was."),
    ] = None,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace the output if it is there.")
    ] = False,
) -> None:
    """Put shards together.

    Checks that they were made with the same settings and that every row of the input is there once; writes them in
    the order of the input, without what is no row of it. A single output can be given as well: what --retry-errors
    appended is sorted out.
    """
    from rsd_cli.batch.merging import Merged, read_parts, write_merged_manifest
    from rsd_cli.registry.files import kind_at

    for part in parts:
        kind = kind_at(part)
        if kind != "file":
            problem = "is no file" if kind else "is not there"
            raise UsageError(f"{part} {problem}.", "Name files that rsd batch wrote.")
    known = read_parts(parts)
    asked_in = [questions] if questions else [Path(part.source) for part in known if part.source]
    _check_output(output, [*parts, *asked_in], overwrite=overwrite)
    merged = Merged()
    for part in parts:
        merged.add(part)
    asked = set(_asked(known[0], questions))
    missing = sorted(asked - merged.places.keys())
    if missing:
        raise OutputError(
            f"{len(missing):,} of {len(asked):,} rows have no record, {missing[0]!r} for one.",
            "Run the same rsd batch once more for each shard.",
        )
    strangers = merged.leave_out_all_but(asked) if asked else []
    merged.write(output)
    write_merged_manifest(output, known[0])
    _tell(output, merged, strangers, checked=bool(asked))


def _tell(output: Path, merged: Merged, strangers: list[str], *, checked: bool) -> None:
    from rsd_cli.display.steps import counted

    rows, errors = counted(len(merged.places), "row"), counted(merged.n_failed, "error")
    found = (
        "every row of the input is there once"
        if checked
        else "the input is gone, so nothing could be checked by it"
    )
    typer.echo(f"{output}: {rows}, with {errors}; {found}.", err=True)
    if strangers:
        more = f" and {len(strangers) - NAMED:,} more" if len(strangers) > NAMED else ""
        named = ", ".join(repr(name) for name in strangers[:NAMED])
        typer.echo(f"Left out, for the input has no such rows: {named}{more}.", err=True)


def _check_output(output: Path, read: list[Path], *, overwrite: bool) -> None:
    """Refuse to write over what is read, over a file that nobody gave up, and where no file can be."""
    from rsd_cli.output import is_same_file
    from rsd_cli.registry.files import kind_at

    if any(is_same_file(output, each) for each in read):
        raise UsageError(f"{output} is read as well.", "Name another file for the whole.")
    if kind_at(output.parent) != "folder":
        raise UsageError(f"{output.parent} is no folder.", "Name a file in a folder that exists.")
    there = kind_at(output)
    if there and there != "file":
        raise UsageError(f"{output} is no regular file.", "Name a file to write to.")
    if there and not overwrite:
        raise UsageError(f"{output} is there already.", "Name another file, or replace it with --overwrite.")


def _asked(part: Part, questions: Path | None) -> Iterator[str]:
    """The ids of the input, if it is still there."""
    from rsd_cli.batch.rows import Fields, row_id
    from rsd_cli.batch.source import Source
    from rsd_cli.registry.files import file_size

    place = str(questions) if questions else part.source
    if not questions and file_size(Path(place)) is None:
        return
    names = part.settings.get("fields") or ["", ""]
    for line in Source(place).lines():
        if line and not line.is_blank:
            yield row_id(line, Fields(*names))
