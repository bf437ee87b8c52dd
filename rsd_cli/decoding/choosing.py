"""Which of several whole answers to deliver: the majority's, or the PRM's favourite. Decides, and writes nothing.

Both work on any first answers of a longer row, so that one set of samples tells about every n.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from rsd_cli.decoding import branching
from rsd_cli.decoding.policies import known
from rsd_cli.decoding.strategies import parse
from rsd_cli.evaluation.grading import alike
from rsd_cli.records import Flops, Sample, Timings, total, total_time
from rsd_cli.rewards.families import AGGREGATES, Aggregate, aggregate

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rsd_cli.records import Record


@dataclass(frozen=True)
class Majority:
    """The final answer that most samples give, and the place of the first that gives it."""

    answer: str
    votes: int
    of: int
    place: int


def majority(finals: Sequence[str | None]) -> Majority | None:
    """Answers that are the same number or text vote together; of equals the first to be given wins.

    Self-consistency (Wang et al., arXiv 2203.11171). None where no sample has a final answer; an empty one is none.
    """
    places = max(alike([final or None for final in finals]), key=len, default=None)
    if places is None:
        return None
    return Majority(str(finals[places[0]]), len(places), len(finals), places[0])


def score(record: Record, how: Aggregate) -> float:
    """The aggregate of an answer's rewards; NaN where a reward that counts is missing."""
    return aggregate([math.nan if step.reward is None else step.reward for step in record.steps], how)


def best(records: Sequence[Record], how: Aggregate) -> int:
    """The place of the answer with the highest score, the first of equals (best-of-n); NaN is below all."""
    return branching.best([score(record, how) for record in records])


def chosen(records: Sequence[Record]) -> int:
    """The place of the answer that the samples' strategy delivers; without any final answer the first."""
    if parse(records[0].strategy).choice == "best":
        return best(records, aggregate_of(records[0]))
    most = majority([record.final_answer for record in records])
    return most.place if most else 0


def delivered(records: Sequence[Record]) -> Record:
    """The chosen answer with what all of them cost; what the target alone would have needed is for its text."""
    choice, first = records[chosen(records)], records[0]
    by_prm = parse(choice.strategy).choice == "best"
    scores = [known(score(record, aggregate_of(record))) if by_prm else None for record in records]
    return replace(
        choice,
        usage={role: total(record.usage[role] for record in records) for role in first.usage},
        flops=Flops(
            draft=sum(record.flops.draft for record in records),
            target=sum(record.flops.target for record in records),
            prm=sum(record.flops.prm for record in records),
            target_only=choice.flops.target_only,
        ),
        timings=Timings(
            load_ms=first.timings.load_ms,
            first_token_ms=first.timings.first_token_ms,
            total_ms=max(record.timings.total_ms for record in records),
            roles={
                role: total_time(record.timings.roles[role] for record in records)
                for role in first.timings.roles
            },
        ),
        samples=tuple(
            Sample(record.final_answer, sum(step.tokens for step in record.steps), record.ended_by, earned)
            for record, earned in zip(records, scores, strict=True)
        ),
    )


def aggregate_of(record: Record) -> Aggregate:
    """How a record's run aggregates rewards."""
    named = record.settings.get("aggregate")
    return next((how for how in AGGREGATES if how == named), AGGREGATES[0])
