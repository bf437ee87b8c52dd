"""What a working child leaves for the one that takes over after a crash: in memory that the waiting parent holds.

The parent looks only at whether there is anything; what it means is the command's business.
"""

from __future__ import annotations

import json
import os
from typing import Any

VARIABLE = "RSD_NOTES"  # the number of the file descriptor


def offer() -> int | None:
    """Memory for notes, announced to the children; None where the system has none."""
    if not hasattr(os, "memfd_create"):
        return None
    notes = os.memfd_create("rsd-notes")
    os.environ[VARIABLE] = str(notes)
    return notes


def are_there(notes: int | None) -> bool:
    """Whether a child left something."""
    return notes is not None and os.fstat(notes).st_size > 0


def read() -> dict[str, Any] | None:
    """What an earlier child left; None if this is the first."""
    notes = _descriptor()
    if notes is None or not are_there(notes):
        return None
    values: dict[str, Any] = json.loads(os.pread(notes, os.fstat(notes).st_size, 0))
    return values


def leave(values: dict[str, Any]) -> None:
    """Leave this in place of what is there."""
    notes = _descriptor()
    if notes is not None:
        data = json.dumps(values).encode()
        os.pwrite(notes, data, 0)
        os.ftruncate(notes, len(data))


def _descriptor() -> int | None:
    number = os.environ.get(VARIABLE)
    return int(number) if number else None
