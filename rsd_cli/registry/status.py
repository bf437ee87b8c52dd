"""What of the declared is on this machine: the facts behind `rsd models list` and `show`. Hashes nothing."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from rsd_cli.errors import RSDError
from rsd_cli.registry.names import total_size

if TYPE_CHECKING:
    from pathlib import Path

    from rsd_cli.registry.entries import ModelEntry
    from rsd_cli.registry.schema import Registry
    from rsd_cli.registry.store import Store


@dataclass(frozen=True)
class ModelStatus:
    """One model: declared values, and what is there of it."""

    name: str
    present: Literal["yes", "partial", "no"]
    size: int | None
    partial_bytes: int
    path: Path | None
    licence: str
    unverified: str
    trios: tuple[str, ...]


@dataclass(frozen=True)
class TrioStatus:
    """One trio and the models that it still needs; no bytes are given if a size is unknown."""

    name: str
    draft: str
    target: str
    prm: str
    threshold: float
    use_for: str
    missing: tuple[str, ...]
    missing_bytes: int | None


def model_status(entry: ModelEntry, registry: Registry, store: Store) -> ModelStatus:
    """What is there of a model."""
    path, partial = store.find(entry), store.partial(entry)
    return ModelStatus(
        name=entry.name,
        present="yes" if path else "partial" if partial else "no",
        size=entry.size,
        partial_bytes=0 if path else partial,
        path=path,
        licence=entry.licence,
        unverified=entry.unverified,
        trios=tuple(registry.trios_with(entry.name)),
    )


def trio_status(name: str, registry: Registry, store: Store) -> TrioStatus:
    """What a trio lacks. Models that the hub would have to be asked about count as missing."""
    trio = registry.trio(name)
    missing: dict[str, tuple[str, int | None]] = {}
    for model in registry.needs(name):
        try:
            entry = registry.model(model, offline=True)
        except RSDError:
            missing[model] = (model, None)
            continue
        if store.find(entry) is None:
            missing[entry.file_name] = (entry.name, entry.whole_size)
    return TrioStatus(
        name=trio.name,
        draft=trio.draft,
        target=trio.target,
        prm=trio.prm,
        threshold=trio.threshold,
        use_for=trio.use_for,
        missing=tuple(lacking for lacking, _ in missing.values()),
        missing_bytes=total_size(size for _, size in missing.values()),
    )
