"""What a calibration has answered, and the file in which a later run of the same calibration finds it."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from rsd_cli.batch.ledger import difference
from rsd_cli.errors import OutputError, UsageError
from rsd_cli.output import OwnFile
from rsd_cli.records import EndedBy, Step
from rsd_cli.registry.files import kind_at
from rsd_cli.strictjson import read_object

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from rsd_cli.cli.questions import GoldQuestion
    from rsd_cli.cli.warm import FoundTrio
    from rsd_cli.decoding.trajectory import Settings

SCHEMA, KIND = 1, "calibration"
LONGEST_HEADER = 100_000  # bytes: what has a longer first line is no record


def described(trio: str, found: FoundTrio, settings: Settings) -> dict[str, Any]:
    """What all answers depend on besides their questions and thresholds, as JSON has it."""
    return {
        "trio": trio,
        "models": found.hashes,
        "prm": found.prm.identity,
        "sampling": asdict(settings.sampling) if settings.sampling else None,
        "max_tokens": settings.max_tokens,
        "max_steps": settings.max_steps,
        "seed": settings.seed,
    }


def digest(question: str) -> str:
    """Tells one question from another."""
    return hashlib.sha256(question.encode("utf-8", "backslashreplace")).hexdigest()[:16]


@dataclass(frozen=True)
class Answered:
    """One question, by its id and its digest, as one run answered it; records of earlier versions tell no end."""

    run: str
    id: str
    question: str
    steps: tuple[Step, ...]
    ended_by: EndedBy | None = None

    @property
    def text(self) -> str:
        """The answer."""
        return "".join(step.text for step in self.steps)


class Answers:
    """What was answered, in memory and, if wanted, in a file that a later run continues."""

    def __init__(
        self, path: Path | None, settings: dict[str, Any], tasks: Iterable[GoldQuestion] = ()
    ) -> None:
        self._done: dict[tuple[str, str], Answered] = {}
        self._file: OwnFile | None = None
        if path is None:
            return
        header = json.dumps({"schema": SCHEMA, "kind": KIND, "settings": settings})
        _refuse_foreign(path, header)
        self._file = OwnFile(path, str(path))
        try:
            self._read(path, header, {task.id: digest(task.question) for task in tasks})
        except BaseException:
            self.close()
            raise

    def _read(self, path: Path, header: str, questions: dict[str, str]) -> None:
        """Learn what is done; it must be answers to these questions under these settings."""
        first, *lines = path.read_bytes().split(b"\n")  # JSON may hold what else ends a line
        if not lines:
            self._append(header)
            return
        other = difference(_settings_in(first + b"\n", path), json.loads(header)["settings"])
        if other:
            raise OutputError(
                f"{path} holds a calibration with other settings: {other}.", "Name another --record."
            )
        for number, line in enumerate(lines[:-1], start=2):
            answered = _answered(line, f"Line {number} of {path}")
            if questions.get(answered.id, answered.question) != answered.question:
                raise OutputError(
                    f"Line {number} of {path} answers another question than {answered.id} is now.",
                    "Give the same questions, behind which there may be more, or name another --record.",
                )
            self._done[answered.run, answered.id] = answered

    def _append(self, line: str) -> None:
        if self._file:
            self._file.append(line)

    def add(self, answered: Answered) -> None:
        """Keep one."""
        self._done[answered.run, answered.id] = answered
        self._append(json.dumps(asdict(answered), ensure_ascii=False, allow_nan=False))

    def get(self, run: str, task: str) -> Answered | None:
        """One, if it is there."""
        return self._done.get((run, task))

    def close(self) -> None:
        """Let others write to the file."""
        if self._file:
            self._file.close()
            self._file = None


def _refuse_foreign(path: Path, header: str) -> None:
    """Refuse a file of something else before a last line of it is taken for a torn one and cut off."""
    kind = kind_at(path)
    if kind is None:
        return
    if kind != "file":
        raise UsageError(f"--record {path} is no regular file.", "Name a file to write to.")
    try:
        with path.open("rb") as file:
            first = file.readline(LONGEST_HEADER)
    except OSError as error:
        raise UsageError(f"--record {path} can't be read: {error.strerror}.", "Name another.") from error
    is_torn_header = not first.endswith(b"\n") and header.encode().startswith(first)
    if not is_torn_header:
        _settings_in(first, path)


def _settings_in(first: bytes, path: Path) -> dict[str, Any]:
    """The settings that the first line of a record tells."""
    try:
        header = json.loads(first)
        if (header["schema"], header["kind"], first[-1:]) == (SCHEMA, KIND, b"\n"):
            return dict(header["settings"])
    except (ValueError, LookupError, TypeError, RecursionError):
        pass
    raise OutputError(f"{path} is no record of rsd prm calibrate.", "Name another --record.")


def _answered(line: bytes, where: str) -> Answered:
    try:
        return read_object(Answered, json.loads(line), "answer")
    except (ValueError, RecursionError) as error:
        raise OutputError(
            f"{where} is none of rsd prm calibrate: {error}.", "Mend or remove it, or name another --record."
        ) from error
