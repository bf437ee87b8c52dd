"""Runs the real command in a home of its own, with a models.yaml of tiny files."""

from __future__ import annotations

import hashlib
import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

import yaml

ENTRY = [sys.executable, "-m", "rsd_cli"]
PASSED_ON = ("PATH", "LANG", "TZ", "LD_LIBRARY_PATH", "VIRTUAL_ENV", "SYSTEMROOT", "COVERAGE_PROCESS_START")


def environment(home: Path, **more: str) -> dict[str, str]:
    """Everything that the command may read or write lies below `home`; there is no network."""
    own = {name: value for name, value in os.environ.items() if name in PASSED_ON}
    places = {
        name: str(home / name.lower())
        for name in ("RSD_HOME", "XDG_CACHE_HOME", "XDG_CONFIG_HOME", "XDG_DATA_HOME", "HF_HOME")
    }
    root = str(Path(__file__).resolve().parents[2])
    return own | places | {"HOME": str(home), "HF_HUB_OFFLINE": "1", "PYTHONPATH": root} | more


def declared(files: dict[str, Path], trios: dict[str, dict[str, Any]], **prms: dict[str, Any]) -> str:
    """A models.yaml with path sources, one model a file."""
    models = {
        name: {
            "size": path.stat().st_size,
            "sha256": hashlib.sha256(path.read_bytes()).hexdigest(),
            "sources": [{"kind": "path", "path": str(path)}],
        }
        for name, path in files.items()
    }
    return yaml.safe_dump({"models": models, "prms": prms, "trios": trios}, sort_keys=False)


def trio(draft: str, target: str, prm: str = "confidence", threshold: float = 0.2) -> dict[str, Any]:
    return {"draft": draft, "target": target, "prm": prm, "threshold": threshold, "use_for": "tests"}


def ended(process: subprocess.Popen[bytes], seconds: float = 6) -> tuple[int, bytes, str]:
    """Exit code, stdout and stderr of a command that was started and is about to end."""
    out, err = process.communicate(timeout=seconds)
    return process.returncode, out, err.decode()


def wait_for_lines(path: Path, n: int) -> None:
    """Until so many lines are in a file that may not be there yet."""
    end = time.monotonic() + 60
    while time.monotonic() < end:
        if path.exists() and path.read_bytes().count(b"\n") >= n:
            return
        time.sleep(0.01)
    raise AssertionError(f"{path} has no {n} lines")


@dataclass
class Rsd:
    """The command with its home and its working directory."""

    home: Path
    started: list[subprocess.Popen[bytes]] = field(default_factory=list)

    def write_models(self, text: str) -> Path:
        path = self.home / "models.yaml"
        path.write_text(text)
        return path

    def env(self, **more: str) -> dict[str, str]:
        return environment(self.home, **{"RSD_MODELS": str(self.home / "models.yaml")} | more)

    def __call__(
        self, *arguments: str | bytes, stdin: bytes = b"", env: dict[str, str] | None = None
    ) -> Done:
        """Run to the end with `stdin` in a pipe; a tiny model is fastest with one thread."""
        one_thread = ["--threads", "1"] if arguments[0] == "ask" and "--threads" not in arguments else []
        done = subprocess.run(
            [*ENTRY, *arguments, *one_thread],
            input=stdin,
            capture_output=True,
            env=self.env(**(env or {})),
            cwd=self.home,
            timeout=60,
            check=False,
        )
        return Done(done.returncode, done.stdout, done.stderr)

    def start(
        self, *arguments: str, stdout: int | IO[bytes] = subprocess.PIPE, **options: Any
    ) -> subprocess.Popen[bytes]:
        process = subprocess.Popen(
            [*ENTRY, *arguments],
            stdin=subprocess.DEVNULL,
            stdout=stdout,
            stderr=subprocess.PIPE,
            env=self.env(),
            cwd=self.home,
            start_new_session=True,
            **options,
        )
        self.started.append(process)
        return process

    def stop(self) -> None:
        """End what was started and still runs, as it does behind a test that failed."""
        for process in self.started:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
                process.communicate(timeout=60)


@dataclass(frozen=True)
class Done:
    """How a command ended and what it wrote."""

    code: int
    stdout: bytes
    stderr: bytes

    @property
    def out(self) -> str:
        return self.stdout.decode()

    @property
    def err(self) -> str:
        return self.stderr.decode()

    def refused(self, code: int, *words: str) -> str:
        """The one sentence of a refusal; checks that nothing else was written."""
        assert self.code == code, (self.code, self.err[-2000:])
        assert self.stdout == b""
        assert "Traceback" not in self.err
        lines = self.err.splitlines()
        assert len(lines) <= 2, lines
        assert lines[0].startswith("error: "), lines
        for word in words:
            assert word in self.err, (word, self.err)
        return self.err
