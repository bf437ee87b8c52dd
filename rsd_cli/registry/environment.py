"""What a machine, its settings and its files mean for running trios: the facts behind `rsd doctor`.

Changes nothing, downloads nothing, hashes nothing. What llama.cpp says is filled in by the command.
"""

from __future__ import annotations

import os
import re
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from rsd_cli.registry.files import file_size, registry_files

if TYPE_CHECKING:
    from collections.abc import Mapping

    from rsd_cli.engine.llama import Device
    from rsd_cli.registry.fitness import TrioFacts
    from rsd_cli.registry.store import Store

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


@dataclass(frozen=True)
class Setting:
    """An environment variable with the value that counts, and whose it is."""

    name: str
    value: str | None
    origin: Literal["user", "rsd", "unset"]


@dataclass(frozen=True)
class Build:
    """The llama.cpp that the package carries; `features` by backend, as in its `system_info` line.

    `amx_works` is true where nothing of it is used.
    """

    llama_cpp_commit: str
    ggml: str
    system_info: str
    features: dict[str, tuple[str, ...]]
    gpu_offload: bool
    blas: bool
    openmp: bool
    amx_works: bool


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
class Report:
    """All that `rsd doctor` says. `build` is None if llama.cpp cannot be loaded; `engine_problem` says why."""

    versions: dict[str, str]
    build: Build | None
    engine_problem: Problem | None
    devices: tuple[Device, ...]
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
        config_files=tuple(
            path.absolute() for path in registry_files(models_file) if file_size(path) is not None
        ),
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
