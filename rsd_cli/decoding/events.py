"""What happens while questions are answered, as small values that displays and writers consume."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rsd_cli.records import Author, Record, Role, Step


@dataclass(frozen=True)
class Reading:
    """A role reads: `done` of `total` tokens of the current job are in its cache."""

    id: str
    role: Role
    done: int
    total: int


@dataclass(frozen=True)
class Streamed:
    """The author sampled a token of the step it is writing; `text` may be empty inside a character.

    `lane` tells several candidates for one step apart.
    """

    id: str
    author: Author
    text: str
    lane: int = 0


@dataclass(frozen=True)
class Judging:
    """The draft's step, or each of several candidates, is whole and the PRM, or the target, looks at it."""

    id: str
    role: Role = "prm"


@dataclass(frozen=True)
class Judged:
    """The verdict on the draft's step; of several candidates `Kept` tells."""

    id: str
    text: str
    tokens: int
    reward: float | None
    accepted: bool


@dataclass(frozen=True)
class Kept:
    """A step became part of the answer; it carries the draft step that it replaced, if any."""

    id: str
    step: Step


@dataclass(frozen=True)
class Ended:
    """The answer is complete, or as complete as it gets (`record.ended_by`)."""

    id: str
    record: Record


Event = Reading | Streamed | Judging | Judged | Kept | Ended
