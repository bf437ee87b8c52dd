"""Which files had the right hash when they were last read: a file that did not change is not read again.

A verdict is only as good as size, time stamp and inode; `rsd models verify` asks the bytes.
"""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from typing import TYPE_CHECKING

from rsd_cli.output import json_object, keep_json

if TYPE_CHECKING:
    from collections.abc import Callable

CHUNK = 1 << 20


def store_directory() -> Path:
    """Where models are kept; absolute, since pip works elsewhere."""
    home = os.environ.get("RSD_HOME")
    if home:
        return Path(home).expanduser().absolute() / "models"
    from platformdirs import user_cache_path

    return user_cache_path("rsd").absolute() / "models"


def hash_file(path: Path, told: Callable[[int, int], None] = lambda _done, _total: None) -> str:
    """The sha256 of a file; `told` hears bytes done and bytes in all."""
    digest, total, done = hashlib.sha256(), path.stat().st_size, 0
    with path.open("rb") as file:
        while chunk := file.read(CHUNK):
            digest.update(chunk)
            done += len(chunk)
            told(done, total)
    return digest.hexdigest()


class Verdicts:
    """A small JSON file; one that cannot be read or written only costs time."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def sha256(self, file: Path) -> str | None:
        """The hash that this file had, if it is still the same file."""
        seen = json_object(self._path).get(str(file))
        if not isinstance(seen, dict) or {**seen, "sha256": ""} != {**identity(file), "sha256": ""}:
            return None
        found = seen.get("sha256")
        return found if isinstance(found, str) else None

    def record(self, file: Path, sha256: str) -> None:
        """Remember a hash that was just computed."""
        verdict = {**identity(file), "sha256": sha256}
        keep_json(self._path, {**json_object(self._path), str(file): verdict})


def sha256_of(file: Path, told: Callable[[int, int], None] = lambda _done, _total: None) -> str:
    """The sha256 of a file whose hash nobody declared: what it was when it was last read, else that of its bytes."""
    verdicts, file = Verdicts(store_directory() / "verdicts.json"), file.absolute()
    known = verdicts.sha256(file)
    if known is None:
        known = hash_file(file, told)
        verdicts.record(file, known)
    return known


def identity(file: Path) -> dict[str, int]:
    """What changes when a file does."""
    status = file.stat()
    return {"size": status.st_size, "mtime_ns": status.st_mtime_ns, "inode": status.st_ino}
