"""What a working child leaves for the one that takes over after a crash: in memory that the waiting parent holds.

The parent looks only at whether there is anything; what it means is the command's business.
"""

from __future__ import annotations

import json
import os
from typing import Any

_shared: list[int] = []  # the descriptor of the memory, which children have from their parent


def offer() -> None:
    """Make memory for the notes of the children to come, where the system has such memory."""
    if hasattr(os, "memfd_create") and not _shared:
        _shared.append(os.memfd_create("rsd-notes"))


def are_there() -> bool:
    """Whether a child left something."""
    return bool(_shared) and os.fstat(_shared[0]).st_size > 0


def read() -> dict[str, Any] | None:
    """What an earlier child left; None if this is the first."""
    if not are_there():
        return None
    values: dict[str, Any] = json.loads(os.pread(_shared[0], os.fstat(_shared[0]).st_size, 0))
    return values


def withdraw() -> None:
    """Leave nothing: a crash from here on ends the command."""
    if _shared:
        os.ftruncate(_shared[0], 0)


def leave(values: dict[str, Any]) -> None:
    """Leave this in place of what is there."""
    if _shared:
        data = json.dumps(values).encode()
        os.pwrite(_shared[0], data, 0)
        os.ftruncate(_shared[0], len(data))
