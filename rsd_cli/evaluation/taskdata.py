"""A task's items, from a JSONL file or from the Hugging Face Hub, and where they are from. Grades nothing."""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from rsd_cli.errors import ModelError, RSDError, UsageError
from rsd_cli.registry.hub import dataset_commit
from rsd_cli.strictjson import parsed

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from rsd_cli.evaluation.items import Item, Row
    from rsd_cli.evaluation.tasks import HubData, Task


@dataclass(frozen=True)
class Origin:
    """Where rows are from: a file with its sha256, or a repository of the hub at a commit.

    `pinned` says that the commit stands in the task; else it was the newest one when the rows were loaded. Of a
    user's own task `declaration` is the hash of how its rows are read.
    """

    place: str
    sha256: str | None = None
    revision: str | None = None
    pinned: bool = False
    declaration: str | None = None


@dataclass(frozen=True)
class TaskData:
    """The items of a task, in the order of its rows."""

    task: Task
    items: tuple[Item, ...]
    origin: Origin


def load(
    task: Task,
    data: Path | None = None,
    limit: int | None = None,
    *,
    offline: bool = False,
    revision: str | None = None,
) -> TaskData:
    """The first `limit` items of a task, from `data`, the task's own file or the hub.

    Of a task that names no commit at `revision`, without one the newest.
    """
    file = data or task.file
    rows, origin = _from_file(file) if file else _from_hub(task, revision, offline=offline)
    origin = replace(origin, declaration=task.declaration)
    found: list[Item] = []
    for number, row in enumerate(rows):
        if limit is not None and len(found) >= limit:
            break
        item = _item(task, origin, number, row)
        if item is not None:
            found.append(item)
    if not found:
        raise UsageError(
            f"{origin.place} has no rows of {task.name}.", "Name a file with questions and answers."
        )
    _refuse_twins(found, origin)
    return TaskData(task, tuple(found), origin)


def _item(task: Task, origin: Origin, number: int, row: Row) -> Item | None:
    try:
        return task.read(str(number), {key.lower() if task.file is None else key: row[key] for key in row})
    except KeyError as error:
        problem = f"has no field {error.args[0]!r}; it has {', '.join(sorted(row))[:200]}"
    except (TypeError, ValueError) as error:
        problem = f"can't be used: {error}"
    hint = (
        "Give a file in this task's own form."
        if task.file is None
        else "Correct the row, or the task's fields."
    )
    raise UsageError(f"Row {number + 1} of {origin.place} {problem}.", hint)


def _refuse_twins(found: list[Item], origin: Origin) -> None:
    seen: set[str] = set()
    for item in found:
        if item.id in seen:
            raise UsageError(
                f"The id {item.id[:40]!r} stands twice in {origin.place}.", "Give each row its own id."
            )
        seen.add(item.id)


def _from_file(path: Path) -> tuple[Iterator[Row], Origin]:
    """Rows of a JSONL file."""
    try:
        content = path.read_bytes()
        text = content.decode("utf-8-sig")
    except OSError as error:
        raise UsageError(f"{path} can't be read: {error.strerror}.", "Name a JSONL file.") from None
    except UnicodeDecodeError as error:
        raise UsageError(f"{path} is not UTF-8 (byte {error.start}).", "Save it as UTF-8.") from None
    return _parsed(path, text), Origin(str(path), sha256=hashlib.sha256(content).hexdigest())


def _parsed(path: Path, text: str) -> Iterator[Row]:
    for number, line in enumerate(text.split("\n"), start=1):
        if not line.strip():
            continue
        why = ""
        try:
            row = parsed(line)
        except RecursionError:
            row = None
        except ValueError as error:
            row, why = None, f": {error}"
        if not isinstance(row, dict):
            raise UsageError(
                f"Line {number} of {path} is no JSON object{why}.", "A task's file is JSONL, a row a line."
            )
        yield row


def _from_hub(task: Task, revision: str | None, *, offline: bool) -> tuple[Iterator[Row], Origin]:
    if task.source is None:
        raise UsageError(f"The task {task.name} has no data of its own.", "Give --data FILE.")
    source = replace(task.source, revision=task.source.revision or revision)
    datasets = _package(source, offline=offline)
    if datasets.config.HF_HUB_OFFLINE:
        builder = _cached(datasets, source)
        commit = str(builder.hash)
        rows = _rows(source, lambda split: builder.as_dataset(split=split))
    else:
        commit = source.revision or dataset_commit(source.repo)
        rows = _rows(
            source,
            lambda split: datasets.load_dataset(source.repo, source.config, split=split, revision=commit),
        )
    return rows, Origin(source.repo, revision=commit, pinned=task.source.revision is not None)


def _package(source: HubData, *, offline: bool) -> Any:  # noqa: ANN401 - it ships no types
    if offline:
        os.environ |= {"HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1"}  # read when it is imported
    try:
        import datasets
    except ImportError:
        raise RSDError(
            f"{source.repo} is loaded with the package datasets, which is not installed.",
            "pip install 'rsd-cli[eval]', or give --data FILE.",
        ) from None
    datasets.disable_progress_bars()  # stderr is the command's own
    return datasets


def _cached(datasets: Any, source: HubData) -> Any:  # noqa: ANN401 - they have no types
    """What the package's cache has of a repository, at the task's commit if it has one.

    Offline it takes what was loaded last, whatever commit is asked for.
    """
    way_out = "Load it once with the hub at hand, or give --data FILE."
    datasets.logging.set_verbosity_error()  # it warns that it takes what it has
    try:
        builder = datasets.load_dataset_builder(source.repo, source.config, revision=source.revision)
    except Exception as error:  # noqa: BLE001 - which one depends on the package
        raise ModelError(
            f"{source.repo} is not in the cache of datasets, and offline there is no other: {_reason(error)}.",
            way_out,
        ) from None
    if source.revision not in (None, builder.hash):
        raise ModelError(
            f"The cache of datasets has {source.repo} at {str(builder.hash)[:40]}, not at {source.revision}.",
            way_out,
        )
    return builder


def _rows(source: HubData, read: Callable[[str], Any]) -> Iterator[Row]:
    for split in source.splits:
        try:
            rows = read(split)
        except Exception as error:  # noqa: BLE001 - which one depends on the hub, the format and the package
            gate = "Accept its terms on its page, set HF_TOKEN" if source.gated else "Check the network"
            raise ModelError(
                f"{source.repo} can't be loaded: {_reason(error)}.", f"{gate}, or give --data FILE."
            ) from None
        yield from (dict(row) for row in rows)


def _reason(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0][:300].rstrip(".")
