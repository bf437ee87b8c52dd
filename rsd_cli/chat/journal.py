"""A conversation on disk, written as it goes: one JSON line for everything that changes it.

Replaying the lines gives the conversation, so a process that dies loses at most the answer that it was writing; the
question stays, as `unanswered`. A journal that can't be written any more is left alone: the conversation goes on.
"""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import time
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rsd_cli.chat.conversation import Conversation
from rsd_cli.decoding.strategies import parse
from rsd_cli.decoding.trajectory import Settings
from rsd_cli.engine.sampling import Sampling
from rsd_cli.errors import RSDError, UsageError
from rsd_cli.output import OwnFile, whole_lines
from rsd_cli.records import Record
from rsd_cli.registry.files import file_size, kind_at
from rsd_cli.rewards.families import Aggregate
from rsd_cli.strictjson import read_object, shown

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

SCHEMA = 1
SAID = ("asked", "answered")


def data_directory() -> Path:
    """Where conversations are kept."""
    home = os.environ.get("RSD_HOME")
    if home:
        return Path(home).expanduser() / "chats"
    from platformdirs import user_data_path

    return user_data_path("rsd") / "chats"


def history_file() -> Path:
    """Where the lines are kept that were typed."""
    home = os.environ.get("RSD_HOME")
    if home:
        return Path(home).expanduser() / "history"
    from platformdirs import user_state_path

    return user_state_path("rsd") / "history"


@dataclass(frozen=True)
class Parts:
    """Models that were named in place of the trio's own; None where there is none."""

    draft: str | None = None
    target: str | None = None
    prm: str | None = None


@dataclass(frozen=True)
class Kept:
    """What a journal tells: a conversation, its models and settings, and a question that has no answer yet."""

    id: str
    trio: str
    settings: Settings
    conversation: Conversation = field(default_factory=Conversation)
    unanswered: str = ""
    parts: Parts = Parts()

    def after(self, line: dict[str, Any]) -> Kept:
        """What is so after one more line; KeyError, TypeError or ValueError if it is none of ours."""
        kind, talk = line["kind"], self.conversation
        if kind == "asked":
            return replace(self, unanswered=str(line["question"]))
        if kind == "answered":
            turn, before = Record.from_json(line["record"]), talk.undone() if line["again"] else talk
            return replace(self, conversation=before.answered(turn), unanswered="")
        if kind == "undone":
            return replace(self, conversation=talk.undone(), unanswered="")
        if kind == "dropped":
            return replace(self, conversation=talk.without_oldest(line["turns"]), unanswered="")
        if kind == "set":
            return replace(self, settings=read_settings(line["settings"]))
        if kind == "models":
            return replace(self, trio=str(line["trio"]), parts=read_object(Parts, line["parts"], "parts"))
        raise ValueError(f"a line of the unknown kind {kind!r}")


def read_settings(values: object) -> Settings:
    """The settings from their JSON form; ValueError if they are none of this version."""
    settings = read_object(Settings, values, "settings", Sampling=Sampling, Aggregate=Aggregate)
    try:
        parse(settings.strategy)
    except UsageError as error:
        raise ValueError(f"settings.strategy is {shown(settings.strategy)}") from error
    return settings


def opening(kept: Kept) -> dict[str, Any]:
    """The first line of a journal."""
    values = {"trio": kept.trio, "parts": asdict(kept.parts), "settings": asdict(kept.settings)}
    return {"schema": SCHEMA, "kind": "chat", "id": kept.id, **values}


def turn_line(turn: Record, *, again: bool = False) -> dict[str, Any]:
    """A line for an answer; `again` says that it stands in place of the newest one."""
    return {"kind": "answered", "again": again, "record": json.loads(turn.to_json())}


def replay(lines: Iterable[str], name: object) -> Kept:
    """What the lines of a journal come to; UsageError with the line that can't be read."""
    kept: Kept | None = None
    number = 0
    try:
        for number, text in enumerate(lines, start=1):  # noqa: B007 - the error names it
            line = json.loads(text)
            kept = _opened(line) if kept is None else kept.after(line)
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise UsageError(
            f"Line {number} of {name} is none of a conversation: {error}.",
            "Name a file that /save wrote, or one of `rsd chat --list`.",
        ) from error
    if kept is None:
        raise UsageError(f"{name} is empty.", "Name a file that /save wrote.")
    return kept


def _opened(line: dict[str, Any]) -> Kept:
    if line.get("kind") != "chat" or line.get("schema") != SCHEMA:
        raise ValueError("it does not begin as a conversation of this version does")
    parts = read_object(Parts, line.get("parts", {}), "parts")  # older ones have none
    return Kept(str(line["id"]), str(line["trio"]), read_settings(line["settings"]), parts=parts)


def new_id() -> str:
    """A name for a conversation that sorts by time."""
    return f"{time.strftime('%Y%m%d-%H%M%S')}-{secrets.token_hex(2)}"


class Journal:
    """The file of one conversation; nobody else writes to it meanwhile. Without a path nothing is written.

    Of a new one nothing is kept until something is asked: else it would be the last one, and is none.
    """

    def __init__(self, path: Path | None) -> None:
        self.failure: RSDError | None = None
        self._path = path
        self._held: list[dict[str, Any]] = []
        self._file: OwnFile | None = None
        if path:
            try:
                path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
                self._file = OwnFile(path, f"The conversation {path.stem}", mends=True)
            except OSError as error:
                self.failure = UsageError(f"{path} can't be written: {error.strerror}.")
            except UsageError as error:
                self.failure = error

    @property
    def is_open(self) -> bool:
        """Whether lines are still kept."""
        return self._file is not None

    def begin(self, line: dict[str, Any]) -> None:
        """Hold the first line back until something is said, and what comes before that."""
        self._held.append(line)

    def write(self, kind: str, **values: object) -> None:
        """Append a line; the first failure is kept in `failure` and ends the writing."""
        self.write_line({"kind": kind, **values})

    def write_line(self, line: dict[str, Any]) -> None:
        """Append a line that is whole already."""
        if self._file is None:
            return
        if self._held and line["kind"] not in SAID:
            self._held.append(line)
            return
        try:
            self._file.append("\n".join(json.dumps(each, ensure_ascii=False) for each in [*self._held, line]))
            self._held.clear()
        except RSDError as error:
            self.failure = error
            self.close()

    def close(self) -> None:
        """Let others write to it; a file in which nothing was said goes."""
        if self._file is not None:
            if self._held and self._path:
                with contextlib.suppress(OSError):
                    self._path.unlink()
            self._file.close()
            self._file = None


def find(name: str) -> Path:
    """The journal of a conversation by its id, the beginning of it, or `last`."""
    known = _newest_first()
    matching = [path for path in known if path.stem == name] or [
        path for path in known if path.stem.startswith(name)
    ]
    if name == "last" and known:
        return known[0]
    if len(matching) == 1:
        return matching[0]
    if not known:
        raise UsageError(
            f"There is no conversation to go on with in {data_directory()}.", "Begin one: rsd chat"
        )
    many = f"{len(matching)} conversations begin" if matching else "No conversation begins"
    raise UsageError(f"{many} with {name!r}.", "`rsd chat --list` shows them.")


def _newest_first() -> list[Path]:
    """All journals; what else has such a name, as a link to nothing, is none, nor is one that is still empty."""
    folder = data_directory()
    found = folder.glob("*.jsonl") if kind_at(folder) == "folder" else ()
    files = [path for path in found if file_size(path)]
    return sorted(files, key=lambda path: path.stat().st_mtime, reverse=True)


def read(path: Path) -> Kept:
    """The conversation in a journal; a torn last line is none."""
    try:
        text = path.read_bytes()
    except OSError as error:
        raise UsageError(f"{path} can't be read: {error.strerror}.") from error
    return replay(_decoded(whole_lines(text), path), path)


def _decoded(text: bytes, path: Path) -> list[str]:
    try:
        return text.decode().split("\n")[:-1]  # JSON may hold what else ends a line
    except UnicodeDecodeError as error:
        raise UsageError(f"{path} is no text: byte {error.start + 1:,} is not UTF-8.") from error


@dataclass(frozen=True)
class Listed:
    """A conversation in a list; `changed` is in seconds since 1970."""

    id: str
    changed: float
    turns: int
    question: str


def listed() -> Iterator[Listed]:
    """All conversations, the newest first; those that can't be read are left out."""
    for path in _newest_first():
        try:
            kept = read(path)
        except RSDError:
            continue
        first = kept.conversation.turns[0].question if kept.conversation.turns else kept.unanswered
        yield Listed(path.stem, path.stat().st_mtime, len(kept.conversation.turns), first)
