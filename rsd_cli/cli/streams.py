"""Standard streams that were closed by whoever started the command, or that nobody reads any more.

/dev/null takes the places of closed ones before anything else is opened: a file that got the number of such a stream
would be written to as one. What nobody reads of stderr, or what can't be written there, is dropped; of stdout it is
an end.
"""

from __future__ import annotations

import io
import os
import sys
from typing import TYPE_CHECKING, TextIO

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer

STREAMS = (("stdin", "r"), ("stdout", "w"), ("stderr", "w"))


def fill_gaps() -> None:
    """Let the descriptors 0 to 2 be open, and Python have a stream on each."""
    for number, (name, mode) in enumerate(STREAMS):
        try:
            os.fstat(number)
        except OSError:
            os.set_inheritable(
                os.open(os.devnull, os.O_RDWR), True
            )  # takes the lowest number that is free: this one
        if getattr(sys, name) is None:
            setattr(sys, name, os.fdopen(number, mode, encoding="utf-8", closefd=False))


class Output(io.FileIO):
    """A stream to write to that remembers that its reader is gone; a failure is an error where it `is_needed`."""

    def __init__(self, number: int, *, is_needed: bool) -> None:
        super().__init__(number, "w", closefd=False)
        self.is_needed = is_needed
        self.is_broken = False

    def write(self, data: ReadableBuffer, /) -> int:
        """Write what the system takes of it."""
        try:
            return super().write(data)
        except OSError as error:
            self.is_broken = isinstance(error, BrokenPipeError)
            if self.is_needed:
                raise
            self.discard()
            return memoryview(data).nbytes

    def discard(self) -> None:
        """Lead to /dev/null from now on, whoever writes to it."""
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, self.fileno())
        os.close(nowhere)


def watch() -> Output:
    """Take over stdout and stderr; gives stdout, to ask whether it broke."""
    out, err = Output(1, is_needed=True), Output(2, is_needed=False)
    sys.stdout, sys.stderr = _text(out, sys.stdout), _text(err, sys.stderr)
    return out


def _text(raw: Output, before: TextIO) -> TextIO:
    lines = isinstance(before, io.TextIOWrapper) and before.line_buffering
    buffer = io.BufferedWriter(raw)
    return io.TextIOWrapper(buffer, before.encoding, before.errors, line_buffering=lines)
