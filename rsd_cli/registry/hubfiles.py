"""The files of a Hugging Face repository, read by byte range: a head costs kilobytes of a checkpoint of 15 GB."""

from __future__ import annotations

from dataclasses import dataclass, field

from rsd_cli.errors import ModelError
from rsd_cli.registry.entries import HubSource
from rsd_cli.registry.hub import COMMIT, address, list_files
from rsd_cli.registry.part import SourceError
from rsd_cli.registry.ranged import read_range


@dataclass
class HubFile:
    """One file of one commit. `read_bytes` counts what came over the network."""

    source: HubSource
    size: int
    read_bytes: int = 0

    @property
    def name(self) -> str:
        """How errors call it."""
        return f"{self.source.repo}/{self.source.file}"

    def read(self, start: int, length: int) -> bytes:
        """Exactly these bytes."""
        if not length:
            return b""
        try:
            data = read_range(address(self.source), start, length)
        except SourceError as error:
            raise ModelError(f"{self.name}: {error}.", "Check the name, HF_TOKEN and the network.") from None
        self.read_bytes += len(data)
        return data


@dataclass
class HubFiles:
    """A repository at one commit."""

    repo: str
    revision: str | None = None
    opened: list[HubFile] = field(default_factory=list)

    def __post_init__(self) -> None:
        listing = list_files(self.repo, self.revision, offline=False)
        self._sizes = {file.path: file.size or 0 for file in listing.files}
        self._revision = listing.revision

    @property
    def name(self) -> str:
        """How errors call it."""
        return self.repo

    @property
    def commit(self) -> str:
        """The commit that they are of; empty where the hub names none."""
        return self._revision if COMMIT.fullmatch(self._revision) else ""

    @property
    def read_bytes(self) -> int:
        """What came over the network so far."""
        return sum(file.read_bytes for file in self.opened)

    def names(self) -> list[str]:
        """What files there are."""
        return list(self._sizes)

    def open(self, name: str) -> HubFile:
        """One of them."""
        source = HubSource(kind="hf", repo=self.repo, revision=self._revision, file=name)
        self.opened.append(HubFile(source, self._sizes[name]))
        return self.opened[-1]
