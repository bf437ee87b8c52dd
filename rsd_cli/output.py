"""Files on disk: lines of JSON one by one, others whole or not at all. What they say is their readers' business."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import os
import stat
from typing import TYPE_CHECKING, Any

from rsd_cli.errors import DISK_FULL, OutputError, ResourceError, UsageError

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path


_data_to_disk = getattr(os, "fdatasync", os.fsync)  # macOS has no fdatasync


def is_same_file(one: Path, other: Path) -> bool:
    """Whether two paths lead to one file, be it there or not."""
    try:
        return one.samefile(other)
    except OSError:
        return os.path.realpath(one) == os.path.realpath(other)  # unlike resolve(), survives a loop of links


def write_whole(path: Path, pieces: Iterable[bytes]) -> None:
    """Write a file that is there whole or not at all, also if the power fails, in the mode of what it replaces."""
    fresh = path.with_name(f"{path.name}.{os.getpid()}.new")
    try:
        with fresh.open("wb") as file:
            _take_mode(file.fileno(), path)
            file.writelines(pieces)
            file.flush()
            os.fsync(file.fileno())
        fresh.replace(path)
    except OSError as error:
        if error.errno in DISK_FULL:
            raise ResourceError(f"No room left to write {path}.", "Free some disk space.") from error
        raise UsageError(
            f"{path} can't be written: {error.strerror}.", "Name a file in a folder that can be written to."
        ) from error
    finally:  # also behind a Ctrl-C; it is gone if all went well
        with contextlib.suppress(OSError):
            fresh.unlink()
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def _take_mode(fresh: int, path: Path) -> None:
    """Give an open file the mode of the one that it is going to replace, where there is one."""
    try:
        mode = path.stat().st_mode
    except FileNotFoundError:
        return
    if mode != os.fstat(fresh).st_mode:  # not in vain: some disks know one mode only, and refuse to set any
        os.fchmod(fresh, stat.S_IMODE(mode))


def json_object(path: Path) -> dict[str, Any]:
    """The JSON object in a file; an empty one where none can be read."""
    try:
        data = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError):
        return {}
    return data if isinstance(data, dict) else {}


def keep_json(path: Path, data: dict[str, Any]) -> None:
    """Write what only saves time: not worth an error, nor a wait for the disk."""
    fresh = path.with_name(f"{path.name}.{os.getpid()}.new")
    with contextlib.suppress(OSError):
        path.parent.mkdir(parents=True, exist_ok=True)
        fresh.write_text(json.dumps(data, indent=1))
        fresh.replace(path)


def whole_lines(data: bytes) -> bytes:
    """The lines that were written to their end; a last one of which only the newline is gone gets it back.

    Editors take it away. Of an object that was torn something else is missing.
    """
    end = data.rfind(b"\n") + 1
    try:
        is_whole = isinstance(json.loads(data[end:].decode()), dict)
    except (ValueError, RecursionError):
        is_whole = False
    return data + b"\n" if is_whole else data[:end]


class LineFile:
    """A file to append lines to; opened before any work, so that a bad path costs nothing."""

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            self._file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise UsageError(
                f"{path} can't be written: {error.strerror}.", "Name a file in a folder that exists."
            ) from error

    def append(self, line: str) -> None:
        """Write a line and wait until it is on disk; a line that did not fit is taken back."""
        data = line.encode("utf-8", "backslashreplace") + b"\n"
        start = os.fstat(self._file).st_size
        try:
            while data:
                data = data[os.write(self._file, data) :]
            self._sync()
        except OSError as error:
            self._take_back(start)
            if error.errno in DISK_FULL:
                raise ResourceError(f"No room left to write {self.path}.", "Free some disk space.") from error
            raise ResourceError(f"{self.path} could not be written: {error.strerror}.") from error

    def _sync(self) -> None:
        try:
            _data_to_disk(self._file)
        except OSError as error:
            if error.errno != errno.EINVAL:  # a pipe or a device has nothing to sync
                raise

    def _take_back(self, size: int) -> None:
        try:
            os.ftruncate(self._file, size)
        except OSError:  # a pipe or a device can't be cut
            return

    def _have_alone(self) -> None:
        """Let no other process have it as well; BlockingIOError if one has."""
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise
        except OSError as error:  # a network's disk may know no locks
            raise UsageError(
                f"{self.path} can't be locked: {error.strerror}.", "Name a file on another disk."
            ) from error

    def close(self) -> None:
        """Close the file."""
        os.close(self._file)


class OwnFile(LineFile):
    """A file of lines that one process has at a time; a torn last line is cut off. `called` names it in an error.

    One that `mends` keeps what its readers take for `whole_lines`; else a line without its newline counts as torn.
    """

    def __init__(self, path: Path, called: str, *, mends: bool = False) -> None:
        super().__init__(path)
        try:
            self._have_alone()
        except BlockingIOError as error:
            self.close()
            raise OutputError(
                f"{called} is open in another rsd.", "Leave that one first, or begin a new one."
            ) from error
        except UsageError:
            self.close()
            raise
        data = path.read_bytes()
        if mends and len(whole_lines(data)) > len(data):
            os.write(self._file, b"\n")
        else:
            os.ftruncate(self._file, data.rfind(b"\n") + 1)
