"""Lines of a file or a pipe, as they arrive and within bounds. Knows nothing of what stands in them."""

from __future__ import annotations

import gzip
import io
import os
import select
import stat
import sys
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, cast

from rsd_cli.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from _typeshed import WriteableBuffer

LONGEST_LINE = 4_000_000  # bytes; what is longer is reported, and never held in memory
CHUNK = 1 << 16
BOM = b"\xef\xbb\xbf"
UTF16 = (b"\xff\xfe", b"\xfe\xff")
GZIP = b"\x1f\x8b"


@dataclass(frozen=True)
class Line:
    """A line by its number from 1, without its end; `data` is None where it is longer than `LONGEST_LINE`."""

    number: int
    data: bytes | None
    size: int

    @property
    def is_blank(self) -> bool:
        """Whether nothing stands in it."""
        return self.data is not None and not self.data.strip()


class Source:
    """An input file. A regular file is read as it was when it was opened, as often as wanted; a pipe once."""

    def __init__(self, name: str) -> None:
        self.name = "standard input" if name == "-" else name
        self.place = "" if name == "-" else str(Path(name).absolute())
        self._file = self._open(name)
        status = os.fstat(self._file)
        if stat.S_ISDIR(status.st_mode):
            raise UsageError(f"{name} is a directory.", "Name a JSONL file.")
        self.rereadable = stat.S_ISREG(status.st_mode)
        self._size = status.st_size
        self._zipped = self.rereadable and os.pread(self._file, 2, 0) == GZIP

    @staticmethod
    def _open(name: str) -> int:
        if name == "-":
            return sys.stdin.fileno()
        try:
            return os.open(name, os.O_RDONLY | os.O_CLOEXEC)
        except OSError as error:
            raise UsageError(
                f"{name} can't be read: {error.strerror}.", "Name a JSONL file, or - for standard input."
            ) from error

    def is_file(self, path: Path) -> bool:
        """Whether a path leads to the very file that is read."""
        try:
            return self.rereadable and os.path.samestat(path.stat(), os.fstat(self._file))
        except OSError:
            return False

    def lines(self) -> Iterator[Line | None]:
        """Every line; None where a pipe has nothing to read yet."""
        number, rest, dropped = 0, b"", 0
        for chunk in self._chunks():
            if chunk is None:
                yield None
                continue
            *whole, rest = (rest + chunk).split(b"\n")
            for data in whole:
                number += 1
                yield _line(number, data, dropped)
                dropped = 0
            if len(rest) > LONGEST_LINE:
                dropped, rest = dropped + len(rest), b""
        if rest or dropped:
            yield _line(number + 1, rest, dropped)

    def _chunks(self) -> Iterator[bytes | None]:
        """What the file holds; its first bytes show an encoding that no line could be read in."""
        first: bytes | None = b""
        for chunk in self._zip_chunks() if self._zipped else self._plain_chunks():
            if chunk is None or first is None:
                yield chunk
                continue
            first += chunk
            if len(first) >= len(BOM):
                yield self._without_mark(first)
                first = None
        if first:
            yield self._without_mark(first)

    def _without_mark(self, first: bytes) -> bytes:
        if first.startswith(UTF16):
            raise UsageError(f"{self.name} is UTF-16.", "Save it as UTF-8.")
        if first.startswith(GZIP):
            raise UsageError(f"What {self.name} gives is gzipped.", "Unzip it: gunzip -c FILE | rsd batch -")
        return first.removeprefix(BOM)

    def _plain_chunks(self) -> Iterator[bytes | None]:
        at = 0
        while True:
            if not self.rereadable and not select.select([self._file], [], [], 0)[0]:
                yield None
                continue
            chunk = self._read(at)
            if not chunk:
                return
            at += len(chunk)
            yield chunk

    def _read(self, at: int) -> bytes:
        if self.rereadable:
            return os.pread(self._file, min(CHUNK, self._size - at), at)
        return os.read(self._file, CHUNK)

    def _zip_chunks(self) -> Iterator[bytes]:
        zipped = io.BufferedReader(_Positioned(self._file))
        with gzip.open(zipped) as unzipped:
            try:
                yield from iter(lambda: cast("BinaryIO", unzipped).read(CHUNK), b"")
            except (OSError, EOFError, zlib.error) as error:
                raise UsageError(f"{self.name} is a damaged gzip file: {error}.") from error


class _Positioned(io.RawIOBase):
    """An open file from its beginning, with a position of its own."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor, self._at = descriptor, 0

    def readable(self) -> bool:
        """It is."""
        return True

    def readinto(self, buffer: WriteableBuffer) -> int:
        """What comes next."""
        view = memoryview(buffer)
        data = os.pread(self._descriptor, len(view), self._at)
        view[: len(data)] = data
        self._at += len(data)
        return len(data)


def _line(number: int, data: bytes, dropped: int) -> Line:
    size = dropped + len(data)
    return Line(number, None if size > LONGEST_LINE else data.removesuffix(b"\r"), size)
