"""How sure an accuracy and a difference of accuracies are. Arithmetic on right and wrong, nothing else."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

RESAMPLES = 10_000  # of the bootstrap


@dataclass(frozen=True)
class Difference:
    """The second accuracy less the first over the same n questions, with its 95% bootstrap interval.

    `gained` questions only the second got right, `lost` only the first; `p` is McNemar's exact, two-sided.
    """

    mean: float
    low: float
    high: float
    p: float
    gained: int
    lost: int
    n: int


def standard_error(right: int, n: int) -> float | None:
    """Of an accuracy: the sample's standard deviation over the root of n; None for fewer than two questions."""
    if n < 2:
        return None
    accuracy = right / n
    return math.sqrt(accuracy * (1 - accuracy) / (n - 1))


def mcnemar(gained: int, lost: int) -> float:
    """The exact two-sided p of McNemar's test: were gain and loss equally likely, how odd is this split?"""
    n = gained + lost
    tail = sum(math.comb(n, k) for k in range(min(gained, lost) + 1))
    return min(1.0, float(2 * tail / 2**n))


def paired(first: Sequence[bool], second: Sequence[bool], seed: int = 0) -> Difference:
    """Compare two strategies, or runs, question by question.

    The bootstrap draws questions with their pair of grades. A pair differs by -1, 0 or 1, so a resample is one
    draw of how often each comes up. ValueError if there are no questions or not as many on both sides.
    """
    if len(first) != len(second) or not first:
        raise ValueError(f"{len(first)} and {len(second)} grades make no pairs")
    n = len(first)
    gained = sum(after and not before for before, after in zip(first, second, strict=True))
    lost = sum(before and not after for before, after in zip(first, second, strict=True))
    drawn = np.random.default_rng(seed).multinomial(
        n, [gained / n, lost / n, (n - gained - lost) / n], RESAMPLES
    )
    low, high = np.quantile((drawn[:, 0] - drawn[:, 1]) / n, [0.025, 0.975])
    return Difference((gained - lost) / n, float(low), float(high), mcnemar(gained, lost), gained, lost, n)
