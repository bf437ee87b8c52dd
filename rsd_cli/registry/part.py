"""A model file while it arrives: appended to, hashed on the way, kept beside its final place until complete.

Knows nothing about where the bytes come from; a source says at which byte it starts and then writes.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import shutil
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, BinaryIO, NoReturn, Protocol

from rsd_cli.errors import DISK_FULL, OutputError, ResourceError
from rsd_cli.output import json_object
from rsd_cli.registry.names import size_text

if TYPE_CHECKING:
    from pathlib import Path

    from rsd_cli.registry.entries import ModelEntry

CHUNK = 1 << 20
LARGEST = 1 << 40  # where no size is declared, a limit all the same


class Progress(Protocol):
    """Told how far a file is; phases are downloading, verifying, waiting, converting and quantizing."""

    def __call__(self, name: str, phase: str, done: int, total: int | None) -> None:
        """`total` is None where nobody knows it."""


class SourceError(Exception):
    """Why one source did not deliver; the next one is tried."""

    def __init__(self, reason: str, *, network: bool = False) -> None:
        super().__init__(reason)
        self.network = network


@dataclass(frozen=True)
class WheelsDone:
    """How many wheels of a source are in the file completely, and how many bytes that is."""

    wheels: int = 0
    size: int = 0


def silent(name: str, phase: str, done: int, total: int | None) -> None:
    """Progress for nobody."""


class Part:
    """The `.part` file of one model; used by one process at a time, which holds the model's lock."""

    def __init__(self, entry: ModelEntry, path: Path, progress: Progress) -> None:
        self.entry = entry
        self.path = path
        self.total = entry.size
        self._notes = path.with_name(path.name + ".json")
        self._progress = progress
        self._file: BinaryIO | None = None
        self._hash = hashlib.sha256()
        self.done = 0

    @property
    def present(self) -> int:
        """Bytes that are there already."""
        return self.path.stat().st_size if self.path.is_file() else 0

    @property
    def kept(self) -> int:
        """Bytes that a source which may go on from them keeps: not more than the file has in all."""
        return min(self.present, self.entry.size or self.present)

    def start_at(self, offset: int, total: int | None = None) -> None:
        """Keep the first bytes, drop the rest; what is written comes after them. What others wrote is hashed."""
        self.close()
        self.total = self.entry.size or total
        self.require_space(offset)
        try:
            self._reopen(offset)
        except OSError as error:
            self._stop(error)
        self.tick()

    def _reopen(self, offset: int) -> None:
        if not offset:
            self._notes.unlink(missing_ok=True)  # what follows need not be of the same origin
        self.path.touch()
        self._file = self.path.open("r+b")
        if self.done == offset == self.present:  # a retry: these bytes are in the hash already
            self._file.seek(offset)
            return
        self._file.truncate(offset)
        self._hash, self.done = hashlib.sha256(), 0
        while chunk := self._file.read(CHUNK):
            self._hash.update(chunk)
            self.done += len(chunk)
            self._progress(self.entry.name, "verifying", self.done, self.total)

    def tick(self) -> None:
        """Say how far it is, also when nothing arrived."""
        self._progress(self.entry.name, "downloading", self.done, self.total)

    def write(self, chunk: bytes) -> None:
        """Append; more bytes than declared are refused, a full disk gives its space back."""
        if self._file is None:
            raise ValueError("start_at comes before write")
        if self.done + len(chunk) > (self.total or LARGEST):
            raise SourceError(f"sends more than the declared {self.total} bytes")
        try:
            self._file.write(chunk)
        except OSError as error:
            self._stop(error)
        self._hash.update(chunk)
        self.done += len(chunk)
        self.tick()

    def finish(self) -> None:
        """Compare size and hash with the entry; a file that differs is deleted."""
        self.close()
        wanted, found = self.entry.sha256, self._hash.hexdigest()
        if self.total is not None and self.done != self.total:
            raise SourceError(f"delivered {self.done} bytes instead of {self.total}")
        if wanted and found != wanted:
            self.discard()
            raise SourceError(f"delivered a file with sha256 {found[:12]}… instead of {wanted[:12]}…")

    def close(self) -> None:
        """Put what was written on the disk."""
        if self._file is None:
            return
        file, self._file = self._file, None
        try:
            with file:
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            self._stop(error)

    def release(self) -> None:
        """Close; what came of it stays for the next try, an empty file does not."""
        self.close()
        if not self.present:
            self.discard()

    def discard(self) -> None:
        """Delete the file and the notes about it."""
        if self._file is not None:
            with contextlib.suppress(OSError):
                self._file.close()
            self._file = None
        self.path.unlink(missing_ok=True)
        self._notes.unlink(missing_ok=True)

    def wheels_done(self, origin: str) -> WheelsDone:
        """Where a source made of wheels can go on."""
        notes = json_object(self._notes)
        try:
            done = WheelsDone(int(notes["wheels"]), int(notes["size"]))
        except (ValueError, KeyError, TypeError):
            return WheelsDone()
        fits = notes.get("origin") == origin and 0 <= done.size <= self.present
        return done if fits else WheelsDone()

    def note_wheels(self, origin: str, wheels: int, size: int) -> None:
        """Remember that these wheels are the first `size` bytes; the bytes first, then the note about them."""
        if self._file is not None:
            self._file.flush()
            os.fsync(self._file.fileno())
        self._note({"origin": origin, "wheels": wheels, "size": size})

    def is_of(self, origin: str) -> bool:
        """Whether all that is there was noted to come from there."""
        return json_object(self._notes).get("origin") == origin

    def note_origin(self, origin: str) -> None:
        """Remember where all that follows comes from; before the first byte."""
        self._note({"origin": origin})

    def _note(self, note: dict[str, Any]) -> None:
        fresh = self._notes.with_name(self._notes.name + ".new")
        try:
            fresh.write_text(json.dumps(note))
            fresh.replace(self._notes)
        except OSError as error:
            self._stop(error)

    def require_space(self, present: int = 0) -> None:
        """Refuse before starting rather than fail near the end."""
        if self.total is None:
            return
        needed = int(self.total * 1.05) - max(present, self.present)
        require_space(self.entry.name, needed, self.path.parent)

    def _stop(self, error: OSError) -> NoReturn:
        """The disk's fault, not the source's, so no other source is tried."""
        if error.errno in {errno.EACCES, errno.EPERM, errno.EROFS}:
            raise OutputError(
                f"Cannot write {self.path}: {error.strerror}.",
                "Delete it, or set RSD_HOME to a directory that you may write to.",
            ) from None
        if error.errno in DISK_FULL:
            self.discard()
        raise ResourceError(
            f"Cannot write {self.entry.name} to {self.path.parent}: {error.strerror}.",
            "Free some space, or set RSD_HOME to a directory on a larger disk.",
        ) from None


def require_space(name: str, needed: int, directory: Path) -> None:
    """Raise ResourceError where fewer bytes are free."""
    free = shutil.disk_usage(directory).free
    if free < needed:
        raise ResourceError(
            f"{name} needs {size_text(needed)}, and {size_text(free)} are free in {directory}.",
            "Free some space, or set RSD_HOME to a directory on a larger disk.",
        )
