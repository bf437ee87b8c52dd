"""Hugging Face repositories: the local cache, addresses, and what files there are.

The only module that imports huggingface_hub, and only when asked, since it reads its environment then. It
does not download: huggingface_hub does not resume across processes, so `ranged` does.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path

from rsd_cli.errors import ModelError
from rsd_cli.output import json_object, keep_json
from rsd_cli.registry.entries import HubSource
from rsd_cli.registry.files import file_size
from rsd_cli.registry.names import SHARD
from rsd_cli.registry.part import SourceError
from rsd_cli.registry.ranged import PASSING, Address
from rsd_cli.registry.verdicts import store_directory

CONNECT_TIMEOUT = 5.0
MODELS = (".gguf",)
COMMIT = re.compile(r"[0-9a-f]{40}")


@dataclass(frozen=True)
class HubFile:
    """A file as a repository lists it; the size is unknown when it was read from the local cache."""

    path: str
    size: int | None


@dataclass(frozen=True)
class Listing:
    """The files of one commit."""

    revision: str
    files: list[HubFile]


def cached(source: HubSource) -> Path | None:
    """The file in the local cache."""
    link = _link(source)
    # The shards of a split model find each other by name, which only the link has.
    return link if link is None or SHARD.fullmatch(link.name) else link.resolve()


def _link(source: HubSource) -> Path | None:
    """The file in the local cache by its name there; a link that leads out of the cache is not followed."""
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    from huggingface_hub import constants, try_to_load_from_cache

    found = try_to_load_from_cache(source.repo, source.file, revision=source.revision)
    if not isinstance(found, str):
        return None
    is_inside = Path(found).resolve().is_relative_to(Path(constants.HF_HUB_CACHE).resolve())
    return Path(found) if is_inside else None


def at_commit(source: HubSource) -> HubSource:
    """The source with the commit that its branch or tag is now; as it was where nobody says."""
    if COMMIT.fullmatch(source.revision):
        return source
    try:
        listing = list_files(source.repo, source.revision, offline=False)
    except ModelError:
        return source
    return source.model_copy(update={"revision": listing.revision})


def address(source: HubSource) -> Address:
    """Where to download it, with the user's token. A branch or a tag may be another file by the next run."""
    from huggingface_hub import constants, get_token, hf_hub_url

    if constants.HF_HUB_OFFLINE:
        raise SourceError("HF_HUB_OFFLINE is set")
    url = hf_hub_url(source.repo, source.file, revision=source.revision)
    token = get_token()
    secret = {"Authorization": f"Bearer {token}"} if token else {}
    fixed = COMMIT.fullmatch(source.revision)
    origin = f"{source.repo}@{source.revision}/{source.file}" if fixed else ""
    return Address(url, secret, CONNECT_TIMEOUT, origin)


def cached_directory(repo: str, commit: str, files: list[str]) -> Path | None:
    """Where the local cache holds these files of a commit's top folder, if it holds them all."""
    sources = [HubSource(kind="hf", repo=repo, revision=commit, file=file) for file in files]
    places = {link.parent if link else None for link in map(_link, sources)}
    return places.pop() if len(places) == 1 else None


def dataset_commit(repo: str) -> str:
    """The newest commit of a data set, so that what was loaded can be recorded."""
    from huggingface_hub import HfApi

    try:
        return str(HfApi().dataset_info(repo, timeout=CONNECT_TIMEOUT).sha)
    except Exception as error:  # noqa: BLE001 - which one depends on the http library that the hub package uses
        raise ModelError(
            f"Cannot reach the hub for {repo}: {(str(error).splitlines() or [''])[0][:200]}.",
            "Check the network and HF_TOKEN, or give --data FILE.",
        ) from None


def list_files(
    repo: str, revision: str | None, *, offline: bool, endings: tuple[str, ...] = MODELS
) -> Listing:
    """The files of a repository; from the local cache where the network is forbidden, needless or down.

    Of what only the hub's own cache knows, those with `endings`: it may hold others, and none that are wanted.
    """
    from huggingface_hub import constants

    offline = offline or bool(constants.HF_HUB_OFFLINE)
    seen = _remembered(repo, revision)
    if seen and COMMIT.fullmatch(revision or ""):
        return seen  # a commit does not change; the hub's own cache, though, lists what was downloaded and no more
    local = seen or _hub_cache_listing(repo, revision, endings)
    if offline and local:
        return local
    if offline:
        raise ModelError(
            f"{repo} is not in the local cache.", "Fetch it once without --offline (rsd models pull)."
        )
    return _online_listing(repo, revision, local)


def _online_listing(repo: str, revision: str | None, local: Listing | None) -> Listing:
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HfHubHTTPError

    try:
        info = HfApi().model_info(repo, revision=revision, files_metadata=True, timeout=CONNECT_TIMEOUT)
    except HfHubHTTPError as error:
        status = error.response.status_code if error.response is not None else 0
        if local and (_is_passing(status) or COMMIT.fullmatch(revision or "")):
            return local  # a commit is what it was, whatever became of its repository
        raise _refused(repo, status) from None
    except Exception as error:  # noqa: BLE001 - which one depends on the http library that the hub package uses
        if local:
            return local
        raise ModelError(
            f"Cannot reach the hub for {repo}: {error}.", "Check HF_ENDPOINT, or name a local file."
        ) from None
    listing = Listing(
        info.sha or revision or "main", [HubFile(f.rfilename, f.size) for f in info.siblings or []]
    )
    _remember(repo, revision, listing)
    return listing


def _is_passing(status: int) -> bool:
    """Whether it is the hub's own trouble, which says nothing of the repository."""
    return status in PASSING or status >= 500 or not status


def _refused(repo: str, status: int) -> ModelError:
    hint = "Try again later." if _is_passing(status) else "Check the name; set HF_TOKEN if it is private."
    return ModelError(f"The hub refuses {repo} ({status or 'no answer'}).", hint)


def _remembered(repo: str, revision: str | None) -> Listing | None:
    """What an earlier look-up saw: all files that there were."""
    seen = json_object(_memory(repo, revision))
    try:
        return Listing(str(seen["revision"]), [HubFile(**file) for file in seen["files"]])
    except (KeyError, TypeError):
        return None


def _hub_cache_listing(repo: str, revision: str | None, endings: tuple[str, ...]) -> Listing | None:
    """The files with these endings that the hub's own cache holds, perhaps not all of the commit."""
    from huggingface_hub import constants
    from huggingface_hub.file_download import repo_folder_name

    try:
        folder = Path(constants.HF_HUB_CACHE) / repo_folder_name(repo_id=repo, repo_type="model")
        reference = folder / "refs" / (revision or "main")
        commit = reference.read_text().strip() if file_size(reference) else (revision or "main")
        snapshot = folder / "snapshots" / commit
        paths = sorted(path for path in snapshot.rglob("*") if path.name.endswith(endings))
        sizes = {path: file_size(path) for path in paths}
    except (OSError, ValueError):  # a name that none can have, or a directory of somebody else
        return None
    found = [HubFile(path.relative_to(snapshot).as_posix(), size) for path, size in sizes.items() if size]
    return Listing(commit, found) if found else None


def _remember(repo: str, revision: str | None, listing: Listing) -> None:
    """So that the same words work without network."""
    data = {"revision": listing.revision, "files": [vars(file) for file in listing.files]}
    keep_json(_memory(repo, revision), data)


def _memory(repo: str, revision: str | None) -> Path:
    name = re.sub(r"[^A-Za-z0-9._-]", "_", f"{repo}@{revision or 'main'}")
    return store_directory() / "listings" / f"{name}.json"
