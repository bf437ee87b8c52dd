"""What a machine, its settings and its files mean for running trios: the facts behind `rsd doctor`.

Changes nothing, downloads nothing, hashes nothing. What llama.cpp says is filled in by the command.
"""

from __future__ import annotations

import mmap
import os
import re
import shutil
import struct
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal, TypeAlias

from rsd_cli.errors import RSDError
from rsd_cli.registry.files import registry_files
from rsd_cli.registry.gguf import read_header
from rsd_cli.registry.memory import needed_memory

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from rsd_cli.registry.schema import ModelEntry, Registry
    from rsd_cli.registry.store import Store

Verdict: TypeAlias = Literal["yes", "no", "unknown"]

THREAD_VARIABLES = ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "KMP_BLOCKTIME", "OMP_NUM_THREADS")
SECRETS = ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN")
ADDRESSES = (
    *("HF_ENDPOINT", "PIP_INDEX_URL", "PIP_EXTRA_INDEX_URL"),
    *("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "http_proxy", "https_proxy", "all_proxy"),
)
PLAIN = (
    *("RSD_HOME", "RSD_MODELS", "XDG_CACHE_HOME", "XDG_CONFIG_HOME"),
    *("HF_HOME", "HF_HUB_CACHE", "HF_HUB_OFFLINE", "PIP_CONFIG_FILE", "SSL_CERT_FILE", "REQUESTS_CA_BUNDLE"),
    *("LLAMA_CPP_LIB_PATH", "LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH"),
    *("CUDA_VISIBLE_DEVICES", "HIP_VISIBLE_DEVICES", "GGML_VK_VISIBLE_DEVICES"),
    *("NO_COLOR", "FORCE_COLOR"),
)
KV_TYPE = "f16"  # what the commands take by default
_TOKENS_KEY = struct.pack("<Q21sII", 21, b"tokenizer.ggml.tokens", 9, 8)  # an array (9) of strings (8)
_U64 = struct.Struct("<Q")


@dataclass(frozen=True)
class Setting:
    """An environment variable with the value that counts, and whose it is."""

    name: str
    value: str | None
    origin: Literal["user", "rsd", "unset"]


@dataclass(frozen=True)
class Build:
    """The llama.cpp that the package carries; `features` by backend, as in its `system_info` line."""

    llama_cpp_commit: str
    ggml: str
    system_info: str
    features: dict[str, tuple[str, ...]]
    gpu_offload: bool
    blas: bool
    openmp: bool


@dataclass(frozen=True)
class DeviceMemory:
    """A device that ggml computes on; None where nobody tells how much is free."""

    name: str
    description: str
    free: int | None
    total: int


@dataclass(frozen=True)
class Problem:
    """Why something cannot be used, and what to do."""

    reason: str
    hint: str


@dataclass(frozen=True)
class Cpu:
    """The processor: physical cores that this process may use, and the threads that these offer."""

    description: str
    usable_cores: int
    usable_threads: int


@dataclass(frozen=True)
class Place:
    """A file or directory, whether or not it exists yet."""

    path: Path
    exists: bool


@dataclass(frozen=True)
class Places:
    """Where things are kept; `config_files` are those that are read, the first wins."""

    python: Path
    store: Place
    store_free_bytes: int | None
    verdict_cache: Place
    hub_cache: Place
    config_files: tuple[Path, ...]


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


@dataclass(frozen=True)
class Report:
    """All that `rsd doctor` says. `build` is None if llama.cpp cannot be loaded; `engine_problem` says why."""

    versions: dict[str, str]
    build: Build | None
    engine_problem: Problem | None
    devices: tuple[DeviceMemory, ...]
    available_memory: int | None
    cpu: Cpu
    openmp: tuple[Setting, ...]
    environment: dict[str, str]
    places: Places
    models_problem: Problem | None
    trios: tuple[TrioFacts, ...]


def thread_settings(before: Mapping[str, str], now: Mapping[str, str]) -> tuple[Setting, ...]:
    """Whose the OpenMP settings are, from the environment before and after the engine was imported."""
    return tuple(_setting(name, before, now) for name in THREAD_VARIABLES)


def _setting(name: str, before: Mapping[str, str], now: Mapping[str, str]) -> Setting:
    if name in before:
        return Setting(name, before[name], "user")
    return Setting(name, now.get(name), "rsd" if name in now else "unset")


def relevant_variables(environ: Mapping[str, str]) -> dict[str, str]:
    """The variables that are set and matter here, without secrets."""
    shown = {name: environ[name] for name in PLAIN if environ.get(name)}
    addresses = {name: _without_login(environ[name]) for name in ADDRESSES if environ.get(name)}
    return shown | addresses | {name: "set" for name in SECRETS if environ.get(name)}


def _without_login(addresses: str) -> str:
    """Names and passwords before an @, and what follows a question mark, are nobody's business."""
    hidden = re.sub(r"(\w+://)?\S*@", lambda match: f"{match[1] or ''}…@", addresses)
    return re.sub(r"\?\S*", "?…", hidden)


def features(system_info: str) -> dict[str, tuple[str, ...]]:
    """llama.cpp's line `CPU : AVX = 1 | FMA = 1 | CUDA : ARCHS = 890`, taken apart by backend."""
    found: dict[str, list[str]] = {}
    backend = ""
    for part in system_info.split("|"):
        head, colon, rest = part.partition(" : ")
        backend = head.strip() if colon else backend
        name, _, value = (rest if colon else part).partition("=")
        if name.strip():
            flag = name.strip() if value.strip() == "1" else f"{name.strip()}={value.strip()}"
            found.setdefault(backend, []).append(flag)
    return {backend: tuple(flags) for backend, flags in found.items()}


def places(store: Store, models_file: Path | None, environ: Mapping[str, str]) -> Places:
    """Where models, caches and configuration are."""
    return Places(
        python=Path(sys.executable),
        store=_place(store.directory),
        store_free_bytes=_free_bytes(store.directory),
        verdict_cache=_place(store.directory / "verdicts.json"),
        hub_cache=_place(hub_cache(environ)),
        config_files=tuple(path.absolute() for path in registry_files(models_file) if path.is_file()),
    )


def hub_cache(environ: Mapping[str, str]) -> Path:
    """The cache of huggingface_hub, by the same variables in the same order, without importing it."""
    base = environ.get("XDG_CACHE_HOME") or "~/.cache"
    home = environ.get("HF_HOME") or f"{base}/huggingface"
    default = environ.get("HUGGINGFACE_HUB_CACHE") or f"{home}/hub"
    return Path(os.path.expandvars(environ.get("HF_HUB_CACHE") or default)).expanduser()


def _place(path: Path) -> Place:
    try:
        return Place(path.absolute(), path.exists())
    except OSError:  # no permission to look
        return Place(path.absolute(), exists=False)


def _free_bytes(directory: Path) -> int | None:
    """Free space of the disk where the directory is, or will be."""
    try:
        existing = next(path for path in (directory, *directory.absolute().parents) if path.is_dir())
        return shutil.disk_usage(existing).free
    except (OSError, StopIteration):  # a drive that is not there
        return None


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
    names = {"draft": trio.draft, "target": trio.target, "prm": registry.prm(trio.prm, offline=True).model}
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
        _fit(_total(sizes.values()), room, n_ctx, weights_only=True),
        missing=tuple(missing.values()),
        missing_bytes=_total(sizes[key] for key in missing),
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
    return _total(one.size for one in (entry, *entry.further_shards))


def _total(sizes: Iterable[int | None]) -> int | None:
    """The sum, or None if a part is unknown."""
    known = list(sizes)
    return None if None in known else sum(size for size in known if size is not None)


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
    """Whether a token means the same to both; files whose headers were checked."""
    first = _tokens(draft)
    second = first if draft == target else _tokens(target)
    pairs = enumerate(zip(first, second, strict=False))
    difference = next((i for i, (one, other) in pairs if one != other), None)
    return Vocabularies(difference is None, len(first), len(second), difference)


def _tokens(path: Path) -> list[bytes]:
    """The vocabulary, which headers as `read_header` gives them only count."""
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        at = data.find(_TOKENS_KEY) + len(_TOKENS_KEY)
        tokens = []
        (count,), at = _U64.unpack_from(data, at), at + _U64.size
        for _ in range(count):
            start = at + _U64.size
            at = start + _U64.unpack_from(data, at)[0]
            tokens.append(data[start:at])
    return tokens
