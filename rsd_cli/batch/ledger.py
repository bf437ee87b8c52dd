"""The output file of a batch: whose it is, what stands in it, and that nobody else writes to it.

Beside the file lies a manifest with the settings that made it; a run with others does not mix into it. A torn last
line is cut off, and a whole one is never touched.
"""

from __future__ import annotations

import json
import os
import stat
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from rsd_cli.batch.answers import read_back, read_outcome
from rsd_cli.batch.rows import number_of
from rsd_cli.errors import OutputError, UsageError
from rsd_cli.output import LineFile, json_object, write_whole

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from rsd_cli.batch.answers import Outcome, Told
    from rsd_cli.batch.rows import BadRow, Row

CHUNK = 1 << 20


def manifest_path(output: Path) -> Path:
    """Where the settings of an output file are kept."""
    return output.with_name(f"{output.name}.run.json")


@dataclass
class Done:
    """Rows that the file at `path` has a record of, as numbers: which, what it was asked, and where that is needed.

    It is of rows that failed, and of all if the file `recalls` its answers. The command that writes to it found it
    with `since` bytes.
    """

    since: int = 0
    path: Path | None = None
    recalls: bool = False
    _contents: dict[int, int] = field(default_factory=dict)
    _places: dict[int, int] = field(default_factory=dict)
    _failed: set[int] = field(default_factory=set)
    _just_failed: set[int] = field(default_factory=set)

    def add(self, told: Told, at: int = 0, *, just_now: bool = False) -> None:
        """The last record of a row counts, but a good one stays good; `just_now`: this command wrote it."""
        key = number_of(told.id)
        if just_now and not told.ok:
            self._just_failed.add(key)
        if told.ok:
            self._failed.discard(key)
        elif key not in self._contents:
            self._failed.add(key)
        if key in self._failed or (told.ok and self.recalls):
            self._places[key] = at
        elif told.ok:
            self._places.pop(key, None)
        self._contents[key] = int(told.content, 16)

    def knows(self, name: str) -> bool:
        """Whether there is a record of this row."""
        return number_of(name) in self._contents

    def failed(self, name: str) -> bool:
        """Whether there is none but of a failure."""
        return number_of(name) in self._failed

    def just_failed(self, name: str) -> bool:
        """Whether this command has tried it in vain, before the engine crashed."""
        return number_of(name) in self._just_failed

    def is_same(self, name: str, content: str) -> bool:
        """Whether the row was asked the same."""
        return self._contents.get(number_of(name)) == int(content, 16)

    def outcome(self, row: Row | BadRow) -> Outcome | None:
        """What became of a row that there is a record of; None where that is not recalled, or not whole."""
        place = self._places.get(number_of(row.id))
        if self.path is None or place is None:
            return None
        try:
            with self.path.open("rb") as file:
                file.seek(place)
                return read_outcome(row, file.readline())
        except OSError:  # it was moved or deleted, which the next line to be written says
            return None

    @property
    def n_rows(self) -> int:
        """How many rows have a record."""
        return len(self._contents)


class Ledger(LineFile):
    """An output file that this process alone writes to, with what it had in it.

    `torn` is how many bytes of a last line had to be cut off. `since` is known to the process that takes over after
    a crash: where what the same command wrote begins. `recalls` says that answers are to be read back, not only
    which there are.
    """

    def __init__(
        self,
        path: Path,
        settings: dict[str, Any],
        source: str,
        *,
        overwrite: bool = False,
        since: int | None = None,
        recalls: bool = False,
    ) -> None:
        _refuse_what_is_no_file(path)
        super().__init__(path)
        self.done = Done(path=path, recalls=recalls)
        self.torn = 0
        try:
            self._lock()
            if overwrite:
                os.ftruncate(self._file, 0)
            if os.fstat(self._file).st_size:
                self._check_settings(settings)
                self._read(since)
            self.done.since = os.fstat(self._file).st_size if since is None else since
            write_manifest(path, settings, source, pid=os.getpid())
        except BaseException:
            self.close()
            raise

    def _lock(self) -> None:
        try:
            self._have_alone()
        except BlockingIOError as error:
            pid = read_manifest(self.path).get("pid", "unknown")
            raise OutputError(
                f"{self.path} is being written by another rsd batch (process {pid}).",
                "Wait for it, or name another file.",
            ) from error
        self.check_place()

    def check_place(self) -> None:
        """Refuse to write into a file that was moved or deleted meanwhile."""
        try:
            same = os.path.samestat(self.path.stat(), os.fstat(self._file))
        except OSError:
            same = False
        if not same:
            raise OutputError(
                f"{self.path} was moved or deleted while it was written.",
                "Put it back and run the command again, without --overwrite; what it holds is kept.",
            )

    def append(self, line: str) -> None:
        """Write a line and wait until it is on disk."""
        self.check_place()
        super().append(line)

    def _check_settings(self, settings: dict[str, Any]) -> None:
        known = read_manifest(self.path).get("settings")
        if not isinstance(known, dict):
            raise OutputError(
                f"{self.path} is there already, but not {manifest_path(self.path).name} that says how it was made.",
                "Name another file, or start anew with --overwrite.",
            )
        other = difference(known, settings)
        if other:
            raise OutputError(
                f"{self.path} was made with other settings: {other}.",
                "Use the same again, name another file, or start anew with --overwrite.",
            )

    def _read(self, since: int | None) -> None:
        """Learn what is done, and mend the end of the file."""
        at = 0
        for number, line in enumerate(_lines_of(self.path), start=1):
            whole = line.endswith(b"\n")
            try:
                self.done.add(read_back(line), at, just_now=since is not None and at >= since)
            except ValueError:
                if whole:
                    raise OutputError(
                        f"Line {number} of {self.path} is no answer of rsd batch.",
                        "Mend or remove it, or start anew with --overwrite.",
                    ) from None
                self.torn = len(line)
                os.ftruncate(self._file, at)
                self._sync()
                return
            at += len(line)
            if not whole:
                os.write(self._file, b"\n")
                return


def difference(before: dict[str, Any], now: dict[str, Any]) -> str:
    """The settings that differ, with both values, those within settings as `data.mine`; empty if none does."""
    return "; ".join(_differences(before, now, ""))


def _differences(before: dict[str, Any], now: dict[str, Any], where: str) -> Iterator[str]:
    for key in {**before, **now}:
        old, new = before.get(key), now.get(key)
        if isinstance(old, dict) and isinstance(new, dict):
            yield from _differences(old, new, f"{where}{key}.")
        elif old != new:
            yield f"{where}{key} was {_short(old)}, now {_short(new)}"


def _refuse_what_is_no_file(path: Path) -> None:
    try:
        mode = path.stat().st_mode
    except OSError:
        return  # opening it will say why
    if not stat.S_ISREG(mode):
        raise UsageError(f"{path} is no regular file.", "Name a file to write to, or - for standard output.")


def write_manifest(output: Path, settings: dict[str, Any], source: str, **more: int) -> None:
    """Keep how an output file is made, and from which input."""
    manifest = {"schema": 1, "settings": settings, "input": source, **more}
    text = json.dumps(manifest, indent=1, ensure_ascii=False) + "\n"
    write_whole(manifest_path(output), [text.encode("utf-8", "backslashreplace")])


def read_manifest(output: Path) -> dict[str, Any]:
    """What is known of how an output file was made; empty where nothing is."""
    return json_object(manifest_path(output))


def _lines_of(path: Path) -> Iterator[bytes]:
    with path.open("rb", buffering=CHUNK) as file:
        yield from file


def _short(value: object) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 60 else f"{text[:57]}…"
