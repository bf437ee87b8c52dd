"""Which of several answers counts: the most frequent, the best scored, or the best scored in sum.

For one set of samples at every budget, the whole included. What `rsd ask`, `chat` and `batch` choose by is
`decoding`'s.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Literal

from rsd_cli.evaluation.grading import alike

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rsd_cli.evaluation.samples import Branch, Sample

Choice = Literal["majority", "best", "weighted"]


def choose(branches: Sequence[Branch], how: Choice) -> Branch | None:
    """The branch whose answer counts; None where none gave an answer that could be voted for.

    majority: the answer that most give; best: the highest score, whether there is a final answer or not; weighted:
    the answer with the highest sum of scores (Li et al., arXiv 2206.02336). Of equals the first to be drawn wins.
    Votes are of what the grader reads, which without a box is the last number or letter.
    """
    if how == "best":
        return max(branches, key=_score, default=None)
    groups = [[branches[place] for place in places] for places in alike([b.extracted for b in branches])]
    weigh = _total if how == "weighted" else len
    most = max(groups, key=weigh, default=None)
    return most[0] if most else None


def counting(branches: Sequence[Branch], how: Choice | None) -> Branch:
    """The branch that stands for the question: the chosen one, or the first where none is or can be."""
    return (choose(branches, how) if how else None) or branches[0]


def choices(samples: Sequence[Sample]) -> tuple[Choice, ...]:
    """How these samples can be looked at: without scores by majority alone, with a single answer not at all."""
    branches = [branch for sample in samples for branch in sample.branches]
    if len(branches) <= len(samples):
        return ()
    scored = any(branch.score is not None for branch in branches)
    return ("majority", "best", "weighted") if scored else ("majority",)


def budgets(n: int) -> list[int]:
    """1, 2, 4 and so on up to n, and n itself."""
    return sorted({2**k for k in range(n.bit_length()) if 2**k <= n} | {n})


def _score(branch: Branch) -> float:
    return -math.inf if branch.score is None else branch.score


def _total(group: Sequence[Branch]) -> float:
    return sum(branch.score or 0.0 for branch in group)
