"""What `rsd prm train` reads and writes: the folder with a run's rollouts, and the head's place with its card."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from rsd_cli.cli.prm_output import check_head_place
from rsd_cli.cli.setup import HEAD_FILE
from rsd_cli.errors import OutputError, UsageError
from rsd_cli.output import OwnFile
from rsd_cli.registry.files import kind_at

if TYPE_CHECKING:
    from collections.abc import Container, Iterable
    from pathlib import Path

    from rsd_cli.rewards.rollouts import Question, Rollout

MANIFEST = "run.json"
CARD = ".md"
NEWER = {"model_sha256"}  # what folders of earlier versions do not tell until they are gone on with
FORMULAS = "formulas"  # the setting of runs that have some
ROLLOUTS = "rollouts"
HINT = "Name another --work, or the same settings."


class Folder:
    """A directory with the rollouts of one run; it refuses to mix in those of another."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory

    def check(self, settings: dict[str, Any]) -> None:
        """Refuse the folder of a run with other settings; how formulas are compared matters where it had some."""
        before = self._read_manifest()
        if before is None:
            return
        untold = NEWER & set(settings)
        if FORMULAS in settings.keys() - before.keys() and not self._has_formulas():
            untold.add(FORMULAS)
        before = {key: settings[key] for key in untold} | before
        other = [key for key in settings if before.get(key) != settings[key]]
        if other:
            raise OutputError(
                f"{self._directory} holds a run with {other[0]} {before.get(other[0])!r}, "
                f"not {settings[other[0]]!r}.",
                HINT,
            )

    def _has_formulas(self) -> bool:
        """Whether some rollouts may have been graded by a formula; those of earlier versions do not tell."""
        from rsd_cli.evaluation.grader import is_formula

        golds = (rollout.gold for rollout in self._read(ROLLOUTS))
        return any(gold is None or is_formula(gold) for gold in golds)

    def _read_manifest(self) -> dict[str, Any] | None:
        """What is known of the run; None where there is none."""
        path = self._directory / MANIFEST
        try:
            known = json.loads(path.read_bytes())
        except FileNotFoundError:
            return None
        except (OSError, ValueError, RecursionError) as error:
            reason = error.strerror if isinstance(error, OSError) else "it is no JSON"
            raise OutputError(f"{path} can't be read: {reason}.", HINT) from error
        if not isinstance(known, dict):
            raise OutputError(f"{path} describes no run of rsd prm train.", HINT)
        return known

    def begin(self, settings: dict[str, Any]) -> None:
        """Make the folder, and note whose it is, unless it is another run's."""
        from rsd_cli.output import write_whole

        self.check(settings)
        before = self._read_manifest() or {}
        path = self._directory / MANIFEST
        try:
            self._directory.mkdir(parents=True, exist_ok=True)
            if settings.keys() - before.keys():
                write_whole(path, [json.dumps(before | settings, indent=1).encode()])
        except OSError as error:
            raise UsageError(
                f"{self._directory} can't be written: {error.strerror}.", "Name another --work."
            ) from error

    def kept(self, name: str, questions: Iterable[Question], keys: Container[str]) -> list[Rollout]:
        """The rollouts of these keys in a file; refuses those of questions that were others then."""
        now = {question.id: question for question in questions}
        rollouts = [rollout for rollout in self._read(name) if rollout.key in keys]
        for rollout in rollouts:
            question = now[rollout.id]
            self._check_same(rollout.id, "the question", rollout.question, question.text)
            self._check_same(rollout.id, "the answer", rollout.gold or question.gold, question.gold)
        return rollouts

    def _check_same(self, name: str, what: str, before: str, now: str) -> None:
        if before != now:
            raise OutputError(
                f"{self._directory} holds rollouts of problem {name} with {what} {before[:60]!r}, "
                f"which is {now[:60]!r} now.",
                "Name another --work, or give the problems as they were.",
            )

    def _read(self, name: str) -> list[Rollout]:
        """The rollouts of a file; a last line that was cut off by an interruption counts for nothing."""
        path = self._path(name)
        try:
            whole = path.read_bytes().rpartition(b"\n")[0]
        except FileNotFoundError:
            return []
        except OSError as error:
            raise OutputError(f"{path} can't be read: {error.strerror}.", HINT) from error
        return [_rollout(path, number, line) for number, line in enumerate(whole.splitlines(), start=1)]

    def open(self, name: str) -> OwnFile:
        """The same file, to append to; a line that was cut off goes."""
        return OwnFile(self._path(name), str(self._path(name)))

    def _path(self, name: str) -> Path:
        return self._directory / f"{name}.jsonl"


def _rollout(path: Path, number: int, line: bytes) -> Rollout:
    from rsd_cli.rewards.rollouts import Rollout

    try:
        return Rollout.from_json(line.decode())
    except (ValueError, KeyError, TypeError, AttributeError):
        raise OutputError(
            f"Line {number} of {path} is no rollout.", "Remove it, or name another --work."
        ) from None


def card_of(output: Path) -> Path:
    """Where the card of a head comes; what follows a dot in a name, as in m-0.5b, is no ending."""
    return output.with_name(output.name.removesuffix(HEAD_FILE) + CARD)


def check_output(output: Path) -> None:
    """Refuse to write over what is no head, or a text that is no card of it, before hours of work."""
    check_head_place(output)  # first: a folder may have no name to call a card by
    if output.suffix == CARD:
        raise UsageError(
            f"-o {output} is where the card belongs.", f"For example -o {output.stem}.safetensors"
        )
    card = card_of(output)
    kind = kind_at(card)
    if kind and not (kind == "file" and _first_line(card) == title(output)):
        raise UsageError(f"{card} is no card of a head, and would be overwritten.", "Name another -o FILE.")


def _first_line(path: Path) -> str:
    with path.open(encoding="utf-8", errors="replace") as file:
        return file.readline(1000).rstrip()


def title(output: Path) -> str:
    """The first line of a head's card."""
    return plain(f"# {card_of(output).stem}")


def plain(text: str) -> str:
    """A text that UTF-8 can hold: a byte of a name that is no character stands as an escape."""
    return text.encode("utf-8", "backslashreplace").decode()


def write_card(output: Path, text: str) -> None:
    """Write a head's card; one of that name is replaced at once or not at all."""
    from rsd_cli.output import write_whole

    write_whole(card_of(output), [plain(text).encode()])
