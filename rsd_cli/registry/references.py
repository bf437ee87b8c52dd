"""Models that are not declared: a GGUF file on this machine, or hf://user/repo[@revision][:QUANT|/file.gguf].

Makes an entry of them, without a hash to compare, and says so in the entry. Downloads nothing.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from rsd_cli.errors import ModelError, UsageError
from rsd_cli.registry.entries import HubSource, ModelEntry, PathSource, Shard
from rsd_cli.registry.files import file_size
from rsd_cli.registry.names import SHARD, shard_names, size_text

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rsd_cli.registry.hub import HubFile

DEFAULT_QUANT = "Q4_K_M"
_PART = r"[A-Za-z0-9][\w.-]*"
_HUB = re.compile(
    rf"(?P<scheme>hf://)?(?P<repo>{_PART}/{_PART}?)(?:@(?P<revision>[\w./-]+?))?"
    r"(?::(?P<quant>[A-Za-z0-9_.-]+)|/(?P<file>[^:@]+\.gguf))?"
)


@dataclass(frozen=True)
class HubReference:
    """What the user wrote, taken apart."""

    repo: str
    revision: str | None
    quant: str | None
    file: str | None


def looks_like_one(name: str) -> bool:
    """Whether this can only be a path or a hub reference; a bare word is one if such a file exists."""
    separators = (os.sep, os.altsep or os.sep)
    return name.endswith(".gguf") or any(s in name for s in separators) or file_size(Path(name)) is not None


def resolve(name: str, *, offline: bool = False) -> ModelEntry:
    """The entry for a path or a hub reference; an existing file goes first."""
    reference = parse(name)
    if name.startswith("hf://") and reference is None:
        raise UsageError(
            f"{name!r} is not a hub reference.", "Write hf://user/repo[@rev][:QUANT|/file.gguf]."
        )
    if reference and _is_on_hub(name, reference):
        entry = _on_hub(reference, offline=offline)
    else:
        entry = _on_disk(Path(name).expanduser())
    return entry.model_copy(update={"reference": name})


def lasting(name: str) -> str:
    """The same reference from whatever directory it is looked up: a path is made absolute."""
    reference = parse(name)
    is_on_hub = reference is not None and _is_on_hub(name, reference)
    return name if is_on_hub else str(Path(name).expanduser().absolute())


def _is_on_hub(name: str, reference: HubReference) -> bool:
    return name.startswith("hf://") or (reference.quant is not None and not os.path.lexists(name))


def parse(name: str) -> HubReference | None:
    """A hub reference taken apart; None if it is none."""
    match = _HUB.fullmatch(name)
    if not match or ".." in name:
        return None
    return HubReference(match["repo"], match["revision"], match["quant"], match["file"])


def _on_disk(path: Path) -> ModelEntry:
    """The path is not looked at here: whoever opens it says best what is wrong with it."""
    return ModelEntry.model_construct(
        name=path.stem or str(path),
        unverified="a file given by its path has no declared hash",
        sources=[PathSource(kind="path", path=str(path))],
    )


def _on_hub(reference: HubReference, *, offline: bool) -> ModelEntry:
    from rsd_cli.registry import hub

    listing = hub.list_files(reference.repo, reference.revision, offline=offline)
    chosen = choose(reference, listing.files)
    shards = [_shard_entry(reference, listing.revision, file) for file in chosen]
    first, further = shards[0], tuple(shards[1:])
    return first.model_copy(update={"further_shards": further}) if further else first


def _shard_entry(reference: HubReference, revision: str, file: HubFile) -> ModelEntry:
    match = SHARD.fullmatch(file.path)
    stem = Path(match["stem"] if match else file.path.removesuffix(".gguf")).name
    return ModelEntry.model_construct(
        name=re.sub(r"[^A-Za-z0-9._-]", "_", stem)[:100],
        size=file.size,
        unverified="a file named by a hub reference has no declared hash",
        sources=[
            HubSource.model_construct(kind="hf", repo=reference.repo, revision=revision, file=file.path)
        ],
        shard=_shard(match, f"{reference.repo}@{revision}") if match else None,
    )


def _shard(match: re.Match[str], origin: str) -> Shard:
    return Shard(int(match["index"]), int(match["count"]), f"{origin}/{match['stem']}")


def choose(reference: HubReference, files: Sequence[HubFile]) -> list[HubFile]:
    """The one model that is meant, in all its shards; several or none are refused with the list."""
    models = [f for f in files if f.path.endswith(".gguf") and "mmproj" not in f.path.lower()]
    groups: dict[str, list[HubFile]] = {}
    for file in models:
        match = SHARD.fullmatch(file.path)
        groups.setdefault(match["stem"] if match else file.path, []).append(file)
    meant = [group for group in groups.values() if any(_is_meant(reference, file.path) for file in group)]
    if len(meant) != 1:
        raise _not_one(reference, meant, models)
    return _complete(sorted(meant[0], key=lambda file: file.path))


def _is_meant(reference: HubReference, path: str) -> bool:
    if reference.file:
        return path == reference.file
    quant = (reference.quant or DEFAULT_QUANT).lower()
    return re.search(rf"(^|[^a-z0-9]){re.escape(quant)}([^a-z0-9_]|$)", path.lower()) is not None


def _not_one(reference: HubReference, meant: list[list[HubFile]], models: list[HubFile]) -> UsageError:
    wanted = reference.file or reference.quant or DEFAULT_QUANT
    found = "Several files" if meant else "No file"
    choice = [file for group in meant for file in group] or models
    listed = ", ".join(f"{f.path} ({size_text(f.size)})" if f.size else f.path for f in choice[:20])
    return UsageError(
        f"{found} for {wanted} in {reference.repo}.", f"Name one of: {listed or 'no GGUF there'}."
    )


def _complete(shards: list[HubFile]) -> list[HubFile]:
    first = SHARD.fullmatch(shards[0].path)
    if not first:
        return shards
    expected = shard_names(shards[0].path)
    missing = [name for name in expected if name not in {shard.path for shard in shards}]
    if missing:
        raise ModelError(f"A split model lacks {', '.join(missing[:5])}.", "Choose a complete one.")
    return shards
