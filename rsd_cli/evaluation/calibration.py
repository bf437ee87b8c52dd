"""What a threshold would do: the rewards' distribution, the target's share and the compute at every threshold.

Arithmetic on what runs gave; it runs nothing. Shares at thresholds that were not run are estimates: they
take the draft's own answers, which a rewritten step would have changed.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from decimal import ROUND_FLOOR, Decimal
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

RESAMPLES = 2000  # of the bootstrap
DIGITS = 6  # of a threshold
GRID = 20  # thresholds that a report shows


@dataclass(frozen=True)
class JudgedStep:
    """A step of the draft: its reward, its tokens, and what the target's step earned there, if that was tried.

    A reward that the PRM did not give is NaN; such a step goes to the target at every threshold.
    """

    reward: float
    tokens: int
    earned: float | None = None


@dataclass(frozen=True)
class Costs:
    """Parameters of the roles; the PRM has none of its own when it is a head on the draft."""

    draft: int
    target: int
    prm: int = 0

    def compute(self, target_share: float) -> float:
        """Generation compute against the target alone, 2N a token: every step drafted, a share rewritten."""
        return (self.draft + self.prm + target_share * self.target) / self.target


@dataclass(frozen=True)
class Point:
    """An estimate at one threshold: the share of tokens that the target writes, and the compute."""

    threshold: float
    target_share: float
    compute: float


def curve(steps: Sequence[JudgedStep], costs: Costs) -> list[Point]:
    """Estimates from threshold 0 to 1."""
    return [point_at(steps, costs, i / GRID) for i in range(GRID + 1)]


def point_at(steps: Sequence[JudgedStep], costs: Costs, threshold: float) -> Point:
    """The estimate at one threshold."""
    tokens = np.array([step.tokens for step in steps], np.float64)
    below = np.array([not step.reward >= threshold for step in steps])
    share = float(tokens[below].sum() / tokens.sum())
    return Point(threshold, share, costs.compute(share))


def threshold_for(steps: Sequence[JudgedStep], share: float) -> float:
    """The threshold at which the target writes about this share of tokens: the rewards' quantile.

    The budget view of the paper's Proposition 2.3: under a budget of target use the best acceptance rule is a
    threshold at that quantile, as `rounded` gives it.
    """
    known = sorted((step for step in steps if not math.isnan(step.reward)), key=lambda step: step.reward)
    if not known or share >= 1:
        return 1.0
    total = sum(step.tokens for step in steps)
    written = total - sum(step.tokens for step in known)
    for step in known:
        if written >= share * total:
            return rounded(step.reward)
        written += step.tokens
    return 1.0


def rounded(threshold: float) -> float:
    """Six digits of a threshold, or of what it lacks to 1 where that is less: near an end a little is much.

    Downwards: steps with this very reward, as a saturated PRM gives to most, go on to pass.
    """
    room = min(threshold, 1 - threshold)
    places = DIGITS if room <= 0 else DIGITS - 1 - math.floor(math.log10(room))
    unit = Decimal(1).scaleb(-places)
    return float(Decimal(repr(float(threshold))).quantize(unit, ROUND_FLOOR))


@dataclass(frozen=True)
class Graded:
    """One answered question of a run."""

    right: bool
    target_tokens: int
    tokens: int


@dataclass(frozen=True)
class Measured:
    """A run over all questions at one threshold; 0 is the draft alone, 1 the target alone."""

    threshold: float
    answers: tuple[Graded, ...]

    @property
    def accuracy(self) -> float:
        """Share of right answers."""
        return sum(answer.right for answer in self.answers) / len(self.answers)

    @property
    def target_share(self) -> float:
        """Share of the kept tokens that the target wrote."""
        return sum(answer.target_tokens for answer in self.answers) / sum(
            answer.tokens for answer in self.answers
        )


@dataclass(frozen=True)
class Gain:
    """Accuracy above the chord from draft to target, which whole questions at random give; 95% by bootstrap."""

    mean: float
    low: float
    high: float


def above_chord(run: Measured, draft: Measured, target: Measured, seed: int = 0) -> Gain:
    """Paired over questions, each drawn with its three answers."""
    share = run.target_share
    gains = np.array(
        [
            own.right - (1 - share) * by_draft.right - share * by_target.right
            for own, by_draft, by_target in zip(run.answers, draft.answers, target.answers, strict=True)
        ]
    )
    drawn = np.random.default_rng(seed).integers(0, len(gains), (RESAMPLES, len(gains)))
    low, high = np.quantile(gains[drawn].mean(axis=1), [0.025, 0.975])
    return Gain(float(gains.mean()), float(low), float(high))
