"""The weights of a hub's checkpoint in a directory of ours, for what is converted here. Converts nothing."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from rsd_cli.registry import hub, ranged
from rsd_cli.registry.entries import HubSource, ModelEntry
from rsd_cli.registry.part import Part, SourceError, require_space

if TYPE_CHECKING:
    from pathlib import Path

    from rsd_cli.registry.entries import ConvertSource
    from rsd_cli.registry.hub import HubFile
    from rsd_cli.registry.part import Progress

ENDINGS = (".safetensors", ".bin", ".index.json")
PART_OF = re.compile(r"-\d{5}-of-(?P<count>\d{5})\.")


def fetch_weights(source: ConvertSource, folder: Path, progress: Progress, made: int = 0) -> Path:
    """Their directory: the hub's cache if it has them all, else one below `folder`, where a later run goes on.

    `made` are the bytes that will be made of them beside `folder`, for which there must be room as well.
    """
    listing = hub.list_files(source.repo, source.revision, offline=False, endings=ENDINGS)
    files = _weights(source.repo, listing.files)
    cached = hub.cached_directory(source.repo, listing.revision, [file.path for file in files])
    if cached:
        require_space(source.repo, made, folder.parent)
        return cached
    directory = folder / listing.revision  # a branch may have moved since the last run
    directory.mkdir(parents=True, exist_ok=True)
    parts = [
        Part(_entry(source.repo, listing.revision, file), directory / f"{file.path}.part", progress)
        for file in files
        if not (directory / file.path).is_file()
    ]
    require_space(source.repo, made + sum((part.total or 0) - part.present for part in parts), directory)
    for part in parts:
        _fetch(part)
    return directory


def _weights(repo: str, files: list[HubFile]) -> list[HubFile]:
    """The files with tensors, and their index; PyTorch's format only where there is no other."""
    top = [file for file in files if "/" not in file.path]
    ending = ".safetensors" if any(file.path.endswith(".safetensors") for file in top) else ".bin"
    wanted = [file for file in top if file.path.removesuffix(".index.json").endswith(ending)]
    if not wanted:
        raise SourceError(f"{repo} has no weights among its {len(top)} files")
    counts = [int(part["count"]) for file in wanted if (part := PART_OF.search(file.path))]
    if len(counts) < max(counts, default=0):  # the hub's cache, where the hub itself can't be asked
        raise SourceError(f"of {max(counts)} files with the weights of {repo} only {len(counts)} are here")
    return wanted


def _entry(repo: str, revision: str, file: HubFile) -> ModelEntry:
    return ModelEntry.model_construct(
        name=file.path,
        size=file.size,
        unverified="a checkpoint's file has no declared hash",
        sources=[HubSource(kind="hf", repo=repo, revision=revision, file=file.path)],
    )


def _fetch(part: Part) -> None:
    """One file, which only has its name when it is complete."""
    (source,) = part.entry.sources
    if not isinstance(source, HubSource):
        raise TypeError(f"{source} is not of the hub")
    try:
        ranged.download(hub.address(source), part)
        part.finish()
    except SourceError as error:
        raise SourceError(f"{source}: {error}", network=error.network) from None
    finally:
        part.release()
    part.path.replace(part.path.with_name(source.file))
    part.discard()
