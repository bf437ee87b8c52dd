"""What a run found out about its trio, kept for the next one while nothing changed on disk.

Reading and validating models.yaml and finding the files costs 0.2 s; this costs a few calls of stat. Only whole
trios by name are kept, since other names may mean something else tomorrow. A file that can't be read or written
only costs time.
"""

from __future__ import annotations

import contextlib
import os
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import rsd_cli
from rsd_cli.output import json_object, keep_json
from rsd_cli.registry.files import registry_files
from rsd_cli.registry.verdicts import identity, sha256_of, store_directory
from rsd_cli.rewards.spec import PrmSpec

if TYPE_CHECKING:
    from rsd_cli.records import Role
    from rsd_cli.registry.part import Progress


@dataclass(frozen=True)
class FoundModel:
    """A file that plays a role; with its sha256 where that was declared and verified, or was asked for."""

    name: str
    path: Path
    sha256: str | None
    parameters: int | None

    def hashed(self, progress: Progress | None = None) -> FoundModel:
        """The same with its sha256: a path may be another file's tomorrow."""

        def told(done: int, total: int) -> None:
            if progress:
                progress(self.name, "verifying", done, total)

        return replace(self, sha256=self.sha256 or sha256_of(self.path, told))


@dataclass(frozen=True)
class FoundTrio:
    """What a trio's name stands for: files by role, the PRM, threshold and sampling."""

    models: dict[Role, FoundModel]
    prm: PrmSpec
    threshold: float
    sampling: dict[str, Any]

    def hashed(self, progress: Progress | None = None) -> FoundTrio:
        """The same with the sha256 of every file."""
        return replace(self, models={role: model.hashed(progress) for role, model in self.models.items()})

    @property
    def hashes(self) -> dict[Role, str | None]:
        """Which bytes play the roles: what answers depend on."""
        return {role: model.sha256 for role, model in self.hashed().models.items()}


def recall(trio: str, models_file: Path | None) -> FoundTrio | None:
    """What was kept for this trio, if its files and every models.yaml are as they were."""
    try:
        kept = json_object(_file())[trio]
        if kept["stamp"] != _stamp(models_file, kept):
            return None
        models = {
            role: FoundModel(**model | {"path": Path(model["path"])})
            for role, model in kept["models"].items()
        }
        prm = kept["prm"]
        spec = PrmSpec(**prm | {"head": Path(prm["head"]) if prm["head"] else None})
        return FoundTrio(models, spec, kept["threshold"], kept["sampling"])
    except (OSError, ValueError, KeyError, TypeError):
        return None


def keep(trio: str, models_file: Path | None, found: FoundTrio) -> None:
    """Keep it for the next run."""
    kept: dict[str, Any] = asdict(found)
    for model in kept["models"].values():
        model["path"] = str(model["path"])
    kept["prm"]["head"] = str(found.prm.head) if found.prm.head else None
    with contextlib.suppress(OSError, ValueError):  # a file may be gone by now
        kept["stamp"] = _stamp(models_file, kept)
        keep_json(_file(), json_object(_file()) | {trio: kept})


def _file() -> Path:
    return store_directory() / "trios.json"


def _stamp(models_file: Path | None, kept: dict[str, Any]) -> list[Any]:
    """The version and the identity of every file that matters; OSError if one is gone."""
    paths = [Path(os.path.realpath(path)) for path in registry_files(models_file)]
    paths += [Path(model["path"]) for model in kept["models"].values()]
    paths += [Path(kept["prm"]["head"])] if kept["prm"]["head"] else []
    return [rsd_cli.__version__, *([str(path), identity(path)] for path in paths)]
