"""Puts the output files of shards together: one record a row, in the order of the input. Runs no models."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from rsd_cli.batch.answers import read_back
from rsd_cli.batch.ledger import difference, read_manifest, write_manifest
from rsd_cli.errors import OutputError, UsageError
from rsd_cli.output import write_whole

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence, Set
    from pathlib import Path


SHARD = re.compile(r"([1-9][0-9]{0,8})/([1-9][0-9]{0,8})")


@dataclass(frozen=True)
class Place:
    """Where a row's record is, and what it says."""

    line: int
    part: Path
    start: int
    end: int
    ok: bool


@dataclass(frozen=True)
class Part:
    """One output file with what its manifest says: it is part `index` of `count`."""

    path: Path
    settings: dict[str, Any]
    source: str
    index: int
    count: int


@dataclass
class Merged:
    """All rows by id."""

    places: dict[str, Place] = field(default_factory=dict)

    @property
    def n_failed(self) -> int:
        """Rows whose record is an error."""
        return sum(not place.ok for place in self.places.values())

    def add(self, part: Path) -> None:
        """Take in a file; within one file the last record of a row counts, but a good one stays."""
        own: dict[str, Place] = {}
        for start, line in _lines(part):
            try:
                told = read_back(line)
            except ValueError as error:
                raise OutputError(
                    f"{part} has a line at byte {start:,} that is no answer of rsd batch.",
                    "Run its rsd batch once more, without --overwrite, which mends the end of a file.",
                ) from error
            known = own.get(told.id)
            if known is None or told.ok or not known.ok:
                own[told.id] = Place(told.line, part, start, start + len(line), told.ok)
        for name, place in own.items():
            if name in self.places:
                raise OutputError(
                    f"The row {name!r} stands in {self.places[name].part} and in {part}.",
                    "Name each shard's file once; shards of one input share no rows.",
                )
            self.places[name] = place

    def leave_out_all_but(self, rows: Set[str]) -> list[str]:
        """Drop the records of other rows, such as of one that was a failure before it had an id; says which."""
        strangers = sorted(self.places.keys() - rows, key=lambda name: self.places[name].line)
        for name in strangers:
            del self.places[name]
        return strangers

    def write(self, output: Path) -> None:
        """Every record, in the order of the input; the file is there whole or not at all."""
        ordered = sorted(self.places.values(), key=lambda place: place.line)
        write_whole(output, (_piece(place) for place in ordered))


def read_parts(paths: Sequence[Path]) -> list[Part]:
    """The files with their settings, which must be the same but for the shard; every shard must be there."""
    parts = [_part(path) for path in paths]
    for part in parts[1:]:
        other = difference(parts[0].settings, part.settings | {"shard": parts[0].settings.get("shard")})
        if other:
            raise OutputError(
                f"{parts[0].path} and {part.path} were made with other settings: {other}.",
                "Run the rsd batch of one of them anew, with the settings of the other.",
            )
    count = parts[0].count
    stranger = next((part for part in parts if part.count != count), None)
    if stranger:
        raise OutputError(
            f"{parts[0].path} is one of {count} shards, {stranger.path} of {stranger.count}.",
            "Name the files of one input's shards.",
        )
    there = {part.index for part in parts}
    missing = next((i for i in range(1, count + 1) if i not in there), None)
    if missing:
        raise OutputError(f"Shard {missing}/{count} is missing.", "Name the files of all shards.")
    return parts


def _part(path: Path) -> Part:
    manifest = read_manifest(path)
    if not isinstance(manifest.get("settings"), dict):
        raise OutputError(f"{path} has no manifest beside it.", "Name files that rsd batch wrote.")
    settings = manifest["settings"]
    shard = SHARD.fullmatch(str(settings.get("shard", "1/1")))
    if shard is None:
        raise OutputError(
            f"The manifest of {path} says that it is the shard {str(settings['shard'])[:40]!r}, which is none.",
            "Run its rsd batch anew with --overwrite.",
        )
    return Part(path, settings, str(manifest.get("input", "")), int(shard[1]), int(shard[2]))


def write_merged_manifest(output: Path, first: Part) -> None:
    """The merged file is one that rsd batch can go on with."""
    write_manifest(output, first.settings | {"shard": "1/1"}, first.source)


def _lines(path: Path) -> Iterator[tuple[int, bytes]]:
    start = 0
    with path.open("rb") as file:
        for line in file:
            yield start, line
            start += len(line)


def _piece(place: Place) -> bytes:
    """A record with its end of line; that it can't be read says nothing of the file that it is written to."""
    try:
        descriptor = os.open(place.part, os.O_RDONLY)
        try:
            return os.pread(descriptor, place.end - place.start, place.start).rstrip(b"\n") + b"\n"
        finally:
            os.close(descriptor)
    except OSError as error:
        raise UsageError(
            f"{place.part} can't be read: {error.strerror}.", "Check its path, and who may use it."
        ) from error
