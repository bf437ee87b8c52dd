"""Which rows of a batch crash the engine: found by trying those that were in flight again, one at a time."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from rsd_cli.cli import notes
from rsd_cli.errors import EngineError

if TYPE_CHECKING:
    from collections.abc import Iterable

MOST_CRASHES = 5  # in a row, with no answer between them: then it is not the rows


class Crash:
    """What an earlier process left when the engine crashed, and what this one would leave.

    `suspects` were in flight, `alone` is the row that crashed it all by itself, and `killers` did so earlier;
    `ids` are all that this process tries alone or not at all, `failed` those that this command has tried in vain, as
    far as it was told. The output had `since` bytes when the command began.
    """

    def __init__(
        self, left: dict[str, Any] | None = None, *, takes_notes: bool = False, since: int = 0
    ) -> None:
        self._takes_notes, self._since = takes_notes, since
        self.crashes: int = left["crashes"] + 1 if left else 0
        self.alone: str | None = left["alone"] if left else None
        self.killers: list[str] = left["killers"] if left else []
        self.suspects: set[str] = set(left["rows"]) - {self.alone} if left else set()
        self.failed: set[str] = set(left["failed"]) if left else set()
        self._trying: str | None = None
        if self.crashes > MOST_CRASHES:
            raise EngineError(
                f"The engine crashed {self.crashes} times in a row, whatever it was asked.",
                "Check the models with `rsd models verify`, and the machine with `rsd doctor`.",
            )
        if self.alone:
            self.killers = [*self.killers, self.alone]
        self.ids = self.suspects | set(self.killers)

    def is_next(self, row: str, *, ordered: bool) -> bool:
        """Whether the next row of the input is to be tried alone; in order, every one before the last suspect is."""
        return bool(self.suspects) if ordered else row in self.suspects

    def try_alone(self, row: str) -> None:
        """Only this row will be in flight, and it is not tried again."""
        self.ids.add(row)
        self.suspects.discard(row)
        self._trying = row

    def tried(self) -> None:
        """The row is over that was tried alone; others may be in flight together."""
        self._trying = None

    def over(self) -> None:
        """No row is suspected any more."""
        self.suspects = set()
        self.tried()

    def note(self, in_flight: Iterable[str], *, answered: bool = False) -> None:
        """Leave what is in flight now."""
        self.crashes = 0 if answered else self.crashes
        if self._takes_notes:
            rows = [*in_flight, *self.suspects]
            left = {"rows": rows, "alone": self._trying, "killers": self.killers, "crashes": self.crashes}
            notes.leave(left | {"failed": list(self.failed), "since": self._since})
