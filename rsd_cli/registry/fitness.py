"""Whether a trio can run here: its files, its estimated memory against what is free, its vocabularies.

Downloads nothing, hashes nothing.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, TypeAlias

from rsd_cli.errors import RSDError
from rsd_cli.registry.gguf import read_header, read_tokens
from rsd_cli.registry.memory import needed_memory
from rsd_cli.registry.names import total_size

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from rsd_cli.registry.entries import ModelEntry
    from rsd_cli.registry.schema import Registry
    from rsd_cli.registry.store import Store

Verdict: TypeAlias = Literal["yes", "no", "unknown"]

KV_TYPE = "f16"  # what the commands take by default


@dataclass(frozen=True)
class Room:
    """Bytes that models may take: of the machine's memory, and of all GPUs together (None without a GPU)."""

    memory: int | None
    gpu: int | None


@dataclass(frozen=True)
class MemoryFit:
    """Estimated bytes against what is free; `fits_gpu` is None without a GPU.

    `weights_only`: the headers are missing that tell the size of the cache. `context` 0: the models' own, up
    to the default.
    """

    estimated_bytes: int | None
    weights_only: bool
    context: int
    available_bytes: int | None
    fits: Verdict
    gpu_free_bytes: int | None
    fits_gpu: Verdict | None


@dataclass(frozen=True)
class Vocabularies:
    """The draft's tokens against the target's; one may have more than the other at its end, as padding."""

    shared: bool
    draft_tokens: int
    target_tokens: int
    first_difference: int | None


@dataclass(frozen=True)
class TrioFacts:
    """Whether one trio can run here; `problem` is what forbids it other than missing files or memory."""

    name: str
    files: Literal["present", "missing", "unusable"]
    memory: MemoryFit
    missing: tuple[str, ...] = ()
    missing_bytes: int | None = 0
    problem: str = ""
    vocabularies: Vocabularies | None = None


def trio_facts(name: str, registry: Registry, store: Store, n_ctx: int, room: Room) -> TrioFacts:
    """What of a trio is there, and whether it fits."""
    try:
        entries = _roles(name, registry)
        paths = {role: store.find(entry) for role, entry in entries.items()}
        present = {role: path for role, path in paths.items() if path}
        if len(present) < len(entries):
            return _incomplete(name, entries, paths, n_ctx, room)
        return _complete(name, present, n_ctx, room)
    except (RSDError, OSError) as error:
        memory = _fit(None, room, n_ctx, weights_only=True)
        return TrioFacts(name, "unusable", memory, problem=str(error))


def _roles(name: str, registry: Registry) -> dict[str, ModelEntry]:
    """The model of every role that has one."""
    trio = registry.trio(name)
    prm = registry.prm(trio.prm, offline=True).model_beside(trio.draft)
    names = {"draft": trio.draft, "target": trio.target, "prm": prm}
    return {role: registry.model(model, offline=True) for role, model in names.items() if model}


def _incomplete(
    name: str, entries: dict[str, ModelEntry], paths: dict[str, Path | None], n_ctx: int, room: Room
) -> TrioFacts:
    """Without headers only the declared sizes of the files are known."""
    sizes = {entry.key: _size(entry, paths[role]) for role, entry in entries.items()}
    missing = {entry.key: entry.name for role, entry in entries.items() if paths[role] is None}
    return TrioFacts(
        name,
        "missing",
        _fit(total_size(sizes.values()), room, n_ctx, weights_only=True),
        missing=tuple(missing.values()),
        missing_bytes=total_size(sizes[key] for key in missing),
    )


def _complete(name: str, paths: dict[str, Path], n_ctx: int, room: Room) -> TrioFacts:
    needed = needed_memory(paths.values(), n_ctx, 1, KV_TYPE)
    return TrioFacts(
        name,
        "present",
        _fit(needed, room, n_ctx, weights_only=False),
        problem=_too_long(paths.values(), n_ctx),
        vocabularies=compare(paths["draft"], paths["target"]),
    )


def _size(entry: ModelEntry, path: Path | None) -> int | None:
    """Bytes of a model in all its files, as they are or as they are declared."""
    if path and not entry.further_shards:
        return path.stat().st_size
    return entry.whole_size


def _fit(estimated: int | None, room: Room, n_ctx: int, *, weights_only: bool) -> MemoryFit:
    return MemoryFit(
        estimated_bytes=estimated,
        weights_only=weights_only,
        context=n_ctx,
        available_bytes=room.memory,
        fits=_verdict(estimated, room.memory, weights_only=weights_only),
        gpu_free_bytes=room.gpu,
        fits_gpu=None if room.gpu is None else _verdict(estimated, room.gpu, weights_only=weights_only),
    )


def _verdict(estimated: int | None, available: int | None, *, weights_only: bool) -> Verdict:
    """Weights alone can be too large for certain, but not small enough."""
    if estimated is None or available is None:
        return "unknown"
    if estimated > available:
        return "no"
    return "unknown" if weights_only else "yes"


def _too_long(paths: Iterable[Path], n_ctx: int) -> str:
    """Why a context of `n_ctx` tokens is refused, if it is."""
    trained = {path.name: read_header(path).context_length for path in dict.fromkeys(paths)}
    short = [f"{name} ({length:,})" for name, length in trained.items() if length < n_ctx]
    return f"--ctx {n_ctx:,} is more than these were trained for: {', '.join(short)}" if short else ""


def compare(draft: Path, target: Path) -> Vocabularies:
    """Whether a token means the same to both."""
    first = read_tokens(draft)
    second = first if draft == target else read_tokens(target)
    pairs = enumerate(zip(first, second, strict=False))
    difference = next((i for i, (one, other) in pairs if one != other), None)
    return Vocabularies(difference is None, len(first), len(second), difference)
