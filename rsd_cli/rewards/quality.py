"""How good rewards are as probabilities that a step is good: AUC, calibration. Arithmetic only."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import ArrayLike

BINS = 10


def auc(rewards: ArrayLike, good: ArrayLike) -> float:
    """Probability that a good step's reward exceeds a bad one's (Mann-Whitney, ties count half); NaN if one lacks."""
    values, labels = np.asarray(rewards, np.float64), np.asarray(good, bool)
    n_good, n_bad = int(labels.sum()), int((~labels).sum())
    if not n_good or not n_bad:
        return float("nan")
    _, index, counts = np.unique(values, return_inverse=True, return_counts=True)
    ranks = (np.cumsum(counts) - (counts - 1) / 2)[index]
    return float((ranks[labels].sum() - n_good * (n_good + 1) / 2) / (n_good * n_bad))


@dataclass(frozen=True)
class Bin:
    """Steps of similar reward: how many, their mean reward, and the share that is good."""

    n: int
    reward: float
    good: float


def reliability(rewards: ArrayLike, good: ArrayLike, bins: int = BINS) -> list[Bin]:
    """The reliability diagram: bins of equal numbers of steps, from the lowest rewards to the highest."""
    values, labels = np.asarray(rewards, np.float64), np.asarray(good, np.float64)
    order = np.argsort(values, kind="stable")
    return [
        Bin(len(part), float(values[part].mean()), float(labels[part].mean()))
        for part in np.array_split(order, bins)
        if len(part)
    ]


def calibration_error(rewards: ArrayLike, good: ArrayLike, bins: int = BINS) -> float:
    """Expected calibration error: mean distance of reward and share of good steps, over `reliability`'s bins."""
    diagram = reliability(rewards, good, bins)
    total = sum(part.n for part in diagram)
    return sum(part.n * abs(part.reward - part.good) for part in diagram) / total
