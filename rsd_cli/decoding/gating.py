"""What a record tells about the criterion: which of the draft's steps it judged, which passed, which it never saw.

Reads finished answers; what accepts a step while it is written is weighting.py.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from rsd_cli.decoding.strategies import parse

if TYPE_CHECKING:
    from rsd_cli.records import Candidate, Record, Step


def unrewarded(record: Record) -> int:
    """Steps of an answer that the PRM gave no reward, so that they were rejected; none where there is no PRM."""
    if "prm" not in parse(record.strategy).roles:
        return 0
    return sum(step.rejected is not None and step.rejected.reward is None for step in record.steps)


@dataclass(frozen=True)
class Gated:
    """A step of the draft that was judged, and whether it passed the criterion."""

    reward: float | None
    tokens: int
    passed: bool


def gated(record: Record) -> list[Gated]:
    """The draft's judged steps; what fails the criterion did not pass, also where it stays (`keep-better`)."""
    if not parse(record.strategy).gates:
        return []
    return [found for step in record.steps if (found := _gated(step))]


def passed_over(record: Record) -> list[Candidate]:
    """Drafts of gated steps of which another was picked, so that the criterion was not asked about them."""
    steps = record.steps if parse(record.strategy).gates else ()
    return [other for step in steps for other in step.others if other.author == "draft"]


def _gated(step: Step) -> Gated | None:
    if step.rejected:
        return Gated(step.rejected.reward, step.rejected.tokens, passed=False)
    if step.author == "target" or step.reward is None:
        return None
    return Gated(step.reward, step.tokens, passed=all(other.author == "draft" for other in step.others))
