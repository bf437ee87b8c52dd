"""Whether models fit: an estimate from their headers against what the machine has free. Loads nothing."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from rsd_cli.engine.jobs import SNAPSHOTS
from rsd_cli.registry.files import file_size
from rsd_cli.registry.gguf import read_header
from rsd_cli.registry.names import shard_names

if TYPE_CHECKING:
    from collections.abc import Iterable

    from rsd_cli.engine.llama import Device
    from rsd_cli.registry.gguf import Header

KV_BYTES = {"f32": 4.0, "f16": 2.0, "q8_0": 34 / 32, "q4_0": 18 / 32}  # per value, scales included
DEFAULT_CTX = 4096
OVERHEAD = 200_000_000  # compute buffers and vocabulary of one context, roughly
MEMINFO = Path("/proc/meminfo")
STATM = Path("/proc/self/statm")
CGROUP = Path("/sys/fs/cgroup")


def plenty(paths: Iterable[Path], n_ctx: int, n_seats: int) -> bool:
    """Whether twice the files and 1 MB per token of context are free: then no header needs to be read."""
    available = available_memory()
    cells = 3 * n_seats * (n_ctx or DEFAULT_CTX)
    return available is not None and available > 2 * sum(map(_model_bytes, paths)) + cells * 1_000_000


def _model_bytes(path: Path) -> int:
    """The size of a model in all its files; one that is missing is named by whoever opens it."""
    return sum(file_size(path.with_name(name)) or 0 for name in shard_names(path.name))


def kv_cache_bytes(header: Header, n_ctx: int, kv_type: str) -> float:
    """Keys and values of `n_ctx` tokens: sum over layers of kv heads x (key + value length) x bytes."""
    return n_ctx * header.kv_heads * (header.key_length + header.value_length) * KV_BYTES[kv_type]


def needed_memory(paths: Iterable[Path], n_ctx: int, n_seats: int, kv_type: str) -> int:
    """Estimated bytes for a context per role; weights that several roles share count once."""
    roles = [(path, read_header(path)) for path in paths]
    weights = {path: header.tensor_bytes for path, header in roles}
    caches = sum(
        n_seats * (1 + _snapshots(header)) * _text_bytes(header, n_ctx, kv_type) + OVERHEAD
        for _, header in roles
    )
    return int(sum(weights.values()) + caches)


def _snapshots(header: Header) -> int:
    """How often a seat's memory is kept beside its context."""
    return 0 if header.can_be_cut else SNAPSHOTS


def _text_bytes(header: Header, n_ctx: int, kv_type: str) -> float:
    """A seat's part of a context: its state, and keys and values for as many tokens as it has room for."""
    cells = n_ctx or min(DEFAULT_CTX, header.context_length)
    return header.state_bytes + kv_cache_bytes(header, cells, kv_type)


@dataclass(frozen=True)
class Places:
    """Bytes of the machine's own memory, and of all GPUs together."""

    host: int
    gpu: int


def needed_by_place(roles: Iterable[tuple[Path, int]], n_ctx: int, n_seats: int, kv_type: str) -> Places:
    """The same where each role puts so many of its layers on GPUs, with their part of the cache; -1 for all.

    A file of several roles is loaded once, as the first of them has it. Snapshots are in the machine's own memory.
    """
    files: dict[Path, list[int]] = {}
    for path, layers in roles:
        files.setdefault(path, []).append(layers)
    host = gpu = 0.0
    for path, counts in files.items():
        header, share = read_header(path), _offloaded(path, counts[0])
        kept = len(counts) * n_seats * _snapshots(header) * _text_bytes(header, n_ctx, kv_type)
        needed = needed_memory([path] * len(counts), n_ctx, n_seats, kv_type) - kept
        host, gpu = host + kept + (1 - share) * needed, gpu + share * needed
    return Places(int(host), int(gpu))


def _offloaded(path: Path, layers: int) -> float:
    """The share of a model that lies on GPUs."""
    if layers <= 0:
        return 1.0 if layers < 0 else 0.0
    return min(1.0, layers / max(1, read_header(path).layers))


def gpu_memory(devices: Iterable[Device]) -> int | None:
    """Free bytes of all devices with memory of their own; None where there is none."""
    gpus = [device.free or 0 for device in devices if device.name != "CPU" and device.total]
    return sum(gpus) if gpus else None


def available_memory() -> int | None:
    """Bytes that can still be used, within container's and process's limits; None where the system does not tell."""
    if not sys.platform.startswith("linux"):
        return None
    try:
        fields = dict(line.split(":", 1) for line in MEMINFO.read_text().splitlines())
        free = int(fields["MemAvailable"].split()[0]) * 1024
    except (OSError, KeyError, ValueError):
        return None
    return min(free, _container_room(free), address_room(free))


def address_room(otherwise: int) -> int:
    """What a limit on this process's address space (`ulimit -v`, usual on clusters) leaves."""
    if not sys.platform.startswith("linux"):
        return otherwise
    import resource  # Windows has none

    limit, _ = resource.getrlimit(resource.RLIMIT_AS)
    if limit == resource.RLIM_INFINITY:
        return otherwise
    used = int(STATM.read_text().split()[0]) * resource.getpagesize()
    return max(0, limit - used)


def _container_room(otherwise: int) -> int:
    """What a cgroup v2 memory limit leaves; file cache that can be dropped counts as used, so be lenient."""
    try:
        limit = (CGROUP / "memory.max").read_text().strip()
        used = int((CGROUP / "memory.current").read_text())
        stat = dict(line.split() for line in (CGROUP / "memory.stat").read_text().splitlines())
    except (OSError, ValueError):
        return otherwise
    return otherwise if limit == "max" else int(limit) - used + int(stat.get("file", 0))
