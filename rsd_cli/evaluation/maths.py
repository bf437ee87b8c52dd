"""Asks the maths worker whether two formulas are the same, and bounds how long that may take.

The worker ends itself when a formula takes too long; should even that fail, its whole process group is killed.
Knows no tasks.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import threading
from pathlib import Path
from typing import Literal

from rsd_cli.engine import isolated
from rsd_cli.errors import RSDError
from rsd_cli.evaluation import notation

Verdict = Literal["right", "wrong", "unparsable", "timeout"]
VERDICTS: tuple[Verdict, ...] = ("right", "wrong", "unparsable", "timeout")
START_SECONDS = 60.0  # to import sympy, on a slow disk
GRACE_SECONDS = 5.0  # what the worker gets beyond its own limit


class Comparer:
    """Compares formulas, within `seconds` of wall time each; started with the first one."""

    def __init__(self, seconds: float) -> None:
        if not 0 < seconds <= 3600:
            raise ValueError(f"{seconds} seconds is no time limit")
        self.seconds = seconds
        self._process: subprocess.Popen[str] | None = None
        self._fails = False

    def starts(self) -> bool:
        """Whether the worker runs, which is tried now; one that did not start is not tried again."""
        if not self._fails and (self._process is None or self._process.poll() is not None):
            self.close()
            self._process = _start()
            self._fails = self._process is None
        return not self._fails

    def compare(self, given: str, gold: str) -> Verdict:
        """Whether the formulas are the same. What hangs or crashes is "timeout" and costs this answer only."""
        process = self.running()
        request = {"given": notation.formula(given), "gold": notation.formula(gold), "seconds": self.seconds}
        reply = _exchange(process, json.dumps(request), self.seconds + GRACE_SECONDS)
        if reply is None:
            self.close()
        return next((known for known in VERDICTS if reply and reply.get("verdict") == known), "timeout")

    def close(self) -> None:
        """End the worker with all its processes."""
        if self._process is not None:
            _end(self._process)
            self._process = None

    def running(self) -> subprocess.Popen[str]:
        """The worker; RSDError where it does not start."""
        if not self.starts() or self._process is None:
            raise RSDError(
                "math-verify, which grades formulas, does not start.", "pip install --upgrade 'rsd-cli[eval]'"
            )
        return self._process


def _start() -> subprocess.Popen[str] | None:
    """A worker that is ready; None if it did not get so far."""
    process = subprocess.Popen(
        isolated.command(Path(__file__).with_name("maths_worker.py"), "-B"),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        encoding="utf-8",
        start_new_session=True,  # Ctrl-C is ours to handle, and the group is its own
    )
    if _exchange(process, None, START_SECONDS) is None:
        _end(process)
        return None
    return process


def _exchange(process: subprocess.Popen[str], line: str | None, seconds: float) -> dict[str, str] | None:
    """Send a line, if there is one, and wait for the answer; None if the process did not survive or answer."""
    assert process.stdin and process.stdout  # noqa: S101 - both are pipes
    clock = threading.Timer(seconds, _kill, (process,))
    clock.daemon = True
    clock.start()
    try:
        if line is not None:
            process.stdin.write(line + "\n")
            process.stdin.flush()
        reply = process.stdout.readline()
    except BrokenPipeError:
        return None
    finally:
        clock.cancel()
    decoded: dict[str, str] | None = json.loads(reply) if reply.endswith("\n") else None
    return decoded


def _kill(process: subprocess.Popen[str]) -> None:
    """End its process group, as long as it is not reaped, so that the number is still its own."""
    if process.returncode is None:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, signal.SIGKILL)


def _end(process: subprocess.Popen[str]) -> None:
    _kill(process)
    process.wait()
    for pipe in (process.stdin, process.stdout):
        if pipe:
            with contextlib.suppress(BrokenPipeError):
                pipe.close()
