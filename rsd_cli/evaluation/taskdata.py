"""A task's items, from a JSONL file or from the Hugging Face Hub, and where they are from. Grades nothing."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from rsd_cli.errors import ModelError, RSDError, UsageError
from rsd_cli.registry.hub import dataset_commit
from rsd_cli.strictjson import parsed

if TYPE_CHECKING:
    from collections.abc import Iterator
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
    task: Task, data: Path | None = None, limit: int | None = None, *, offline: bool = False
) -> TaskData:
    """The first `limit` items of a task, from `data`, the task's own file or the hub."""
    file = data or task.file
    rows, origin = _from_file(file) if file else _from_hub(task, offline=offline)
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


def _from_hub(task: Task, *, offline: bool) -> tuple[Iterator[Row], Origin]:
    if task.source is None:
        raise UsageError(f"The task {task.name} has no data of its own.", "Give --data FILE.")
    if offline:
        raise ModelError(
            f"{task.name} is loaded from the hub, and --offline forbids that.", "Give --data FILE."
        )
    source = task.source
    commit = source.revision or dataset_commit(source.repo)
    origin = Origin(source.repo, revision=commit, pinned=source.revision is not None)
    return _hub_rows(source, commit), origin


def _hub_rows(source: HubData, commit: str) -> Iterator[Row]:
    try:
        import datasets
    except ImportError:
        raise RSDError(
            f"{source.repo} is loaded with the package datasets, which is not installed.",
            "pip install 'rsd-cli[eval]', or give --data FILE.",
        ) from None
    datasets.disable_progress_bars()  # stderr is the command's own
    for split in source.splits:
        try:
            rows: Any = datasets.load_dataset(source.repo, source.config, split=split, revision=commit)
        except Exception as error:  # noqa: BLE001 - which one depends on the hub, the format and the package
            reason = (str(error).splitlines() or [type(error).__name__])[0][:300]
            gate = "Accept its terms on its page, set HF_TOKEN" if source.gated else "Check the network"
            raise ModelError(
                f"{source.repo} can't be loaded: {reason}.", f"{gate}, or give --data FILE."
            ) from None
        yield from (dict(row) for row in rows)
