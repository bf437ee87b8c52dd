"""A Hugging Face checkpoint's tensors by name, wherever its files lie; reads headers, then what is asked for."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Protocol

from rsd_cli.errors import ModelError
from rsd_cli.rewards.heads import LocalFile
from rsd_cli.rewards.pickles import open_pickled
from rsd_cli.rewards.tensors import open_tensors

if TYPE_CHECKING:
    from pathlib import Path

    import numpy as np
    from numpy.typing import NDArray

    from rsd_cli.rewards.pickles import PickledFile
    from rsd_cli.rewards.tensors import Bytes, TensorFile

INDICES = ("model.safetensors.index.json", "pytorch_model.bin.index.json")
WHOLE = ("model.safetensors", "pytorch_model.bin")
LARGEST_INDEX = 20_000_000


class Files(Protocol):
    """The files of a checkpoint."""

    @property
    def name(self) -> str:
        """How errors call it."""
        ...

    @property
    def commit(self) -> str:
        """The commit of the repository that they are of; empty where nobody says."""
        ...

    def names(self) -> list[str]:
        """What files there are."""
        ...

    def open(self, name: str) -> Bytes:
        """One of them, to read ranges of."""
        ...


@dataclass(frozen=True)
class LocalFiles:
    """A directory; `label` is what is in it, where the path does not tell, and `commit` which state of that."""

    directory: Path
    label: str | None = None
    commit: str = ""

    @property
    def name(self) -> str:
        """How errors call it."""
        return self.label or str(self.directory)

    def names(self) -> list[str]:
        """Its files."""
        try:
            return sorted(path.name for path in self.directory.iterdir() if path.is_file())
        except OSError as error:
            raise ModelError(
                f"{self.directory} can't be read: {error.strerror}.", "Check its path."
            ) from error

    def open(self, name: str) -> Bytes:
        """One of them."""
        return LocalFile(self.directory / name)


@dataclass
class Checkpoint:
    """Tensors by name, in safetensors or, where there are none, in PyTorch's format; whole or in shards."""

    files: Files
    _opened: dict[str, TensorFile | PickledFile] = field(default_factory=dict)

    @cached_property
    def places(self) -> dict[str, str]:
        """Each tensor's file."""
        names = self.files.names()
        for index, whole in zip(INDICES, WHOLE, strict=True):
            if whole in names:
                return dict.fromkeys(self._open(whole).stored, whole)
            if index in names:
                return self._index(index)
        raise ModelError(
            f"{self.files.name} has no {' or '.join(WHOLE)}.", "Name a checkpoint's repository or directory."
        )

    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Each tensor's shape; reads the headers of all files."""
        return {name: self._holding(name).stored[name].shape for name in self.places}

    @property
    def n_vocab(self) -> int:
        """Rows of the input embeddings; 0 where their file is not there."""
        name = next((name for name in self.places if name.endswith("embed_tokens.weight")), None)
        if name is None or self.places[name] not in self.files.names():
            return 0
        return next(iter(self._holding(name).stored[name].shape), 0)

    def tensor(self, name: str) -> NDArray[np.float32]:
        """One tensor's values."""
        return self._holding(name).tensor(name)

    def _holding(self, name: str) -> TensorFile | PickledFile:
        """The opened file that a tensor is in."""
        file = self._open(self.places[name])
        if name not in file.stored:
            raise ModelError(f"{file.source.name} has no tensor {name[:60]!r}, which the index says it has.")
        return file

    def _index(self, name: str) -> dict[str, str]:
        source = self.files.open(name)
        try:
            if source.size > LARGEST_INDEX:
                raise ValueError
            places = json.loads(source.read(0, source.size))["weight_map"]
            return {str(tensor): str(file) for tensor, file in places.items()}
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
            raise ModelError(f"{source.name} is no index of tensors.") from None

    def _open(self, name: str) -> TensorFile | PickledFile:
        if name not in self._opened:
            if "/" in name or name not in self.files.names():
                raise ModelError(f"{self.files.name} has no file {name[:100]!r}.")
            opener = open_tensors if name.endswith(".safetensors") else open_pickled
            self._opened[name] = opener(self.files.open(name))
        return self._opened[name]
