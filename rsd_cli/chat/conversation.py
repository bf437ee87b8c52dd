"""A conversation as a value: the answered questions, and what models read of them. Writes and runs nothing."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from rsd_cli.engine.templates import Message
from rsd_cli.rewards.families import Solution

if TYPE_CHECKING:
    from rsd_cli.records import Record


@dataclass(frozen=True)
class Conversation:
    """Answered questions, the oldest first; each record has its question."""

    turns: tuple[Record, ...] = ()

    @property
    def last(self) -> Record | None:
        """The newest turn."""
        return self.turns[-1] if self.turns else None

    @property
    def messages(self) -> tuple[Message, ...]:
        """What a generator reads before the next question: the accepted texts."""
        return tuple(
            message
            for turn in self.turns
            for message in (Message("user", turn.question), Message("assistant", turn.answer))
        )

    @property
    def solutions(self) -> tuple[Solution, ...]:
        """What a PRM reads before the next question."""
        return tuple(Solution(turn.question, tuple(step.text for step in turn.steps)) for turn in self.turns)

    @property
    def answers(self) -> frozenset[str]:
        """The texts of all answers."""
        return frozenset(turn.answer for turn in self.turns)

    def answered(self, turn: Record) -> Conversation:
        """With one more turn."""
        return replace(self, turns=(*self.turns, turn))

    def undone(self) -> Conversation:
        """Without the newest turn."""
        return replace(self, turns=self.turns[:-1])

    def without_oldest(self, n: int) -> Conversation:
        """Without the `n` oldest turns."""
        return replace(self, turns=self.turns[n:])
