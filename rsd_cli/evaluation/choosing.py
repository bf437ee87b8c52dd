"""Which of several answers counts: the most frequent, the best scored, or the best scored in sum.

For looking at one set of samples at every budget. The strategies that choose while they run are `decoding`'s.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from rsd_cli.evaluation.grading import same_answer

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rsd_cli.evaluation.samples import Branch, Sample

Choice = Literal["majority", "best", "weighted"]


def choose(branches: Sequence[Branch], how: Choice) -> Branch | None:
    """The branch whose answer counts; None where none gave an answer.

    majority: the answer that most give; best: the highest score; weighted: the answer with the highest sum of
    scores (Li et al., arXiv 2206.02336). Of equals the first to be drawn wins.
    """
    answering = [branch for branch in branches if branch.extracted is not None]
    if not answering:
        return None
    if how == "best":
        return max(answering, key=_score)
    groups = _groups(answering)
    weight = _score if how == "weighted" else _one
    return max(groups, key=lambda group: sum(weight(branch) for branch in group))[0]


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


def _groups(branches: Sequence[Branch]) -> list[list[Branch]]:
    """Branches with the same answer together, in the order in which the answers came up."""
    groups: list[list[Branch]] = []
    for branch in branches:
        group = next((group for group in groups if _same(group[0], branch)), None)
        if group is None:
            groups.append([branch])
        else:
            group.append(branch)
    return groups


def _same(one: Branch, other: Branch) -> bool:
    return same_answer(one.extracted or "", other.extracted or "")


def _score(branch: Branch) -> float:
    return branch.score if branch.score is not None else 0.0


def _one(branch: Branch) -> float:  # noqa: ARG001 - every vote is worth the same
    return 1.0
