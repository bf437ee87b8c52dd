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
BUDGET = 0.4  # share of tokens by the target that is recommended where nothing was measured


@dataclass(frozen=True)
class JudgedStep:
    """A step of the draft: its reward, its tokens, and what the target's step earned there, if that was tried.

    A reward that the PRM did not give is NaN; such a step goes to the target at every threshold. `answer` is the
    number of the answer that it stands in; the steps of one follow each other.
    """

    reward: float
    tokens: int
    earned: float | None = None
    answer: int = 0


@dataclass(frozen=True)
class Costs:
    """Parameters of the roles; the PRM has none of its own when it is a head on the draft."""

    draft: int
    target: int
    prm: int = 0

    def compute(self, shares: Shares) -> float:
        """Compute against the target alone's, 2N a token written or read, as records count it but for prompts.

        The draft writes every step and a PRM of its own reads it; both read what the target writes in its place.
        What a judge is asked counts as a prompt.
        """
        beside = (self.draft + self.prm) * (1 + shares.reread)
        return (beside + self.target * (shares.written + shares.read)) / self.target


@dataclass(frozen=True)
class Shares:
    """Of an answer's tokens: those that the target writes, and reads; and those of its own that the others read.

    Nobody reads what nobody writes behind: an accepted step is read by the target when it writes again.
    """

    written: float
    read: float
    reread: float


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
    shares = shares_at(steps, threshold)
    return Point(threshold, shares.written, costs.compute(shares))


def shares_at(steps: Sequence[JudgedStep], threshold: float) -> Shares:
    """Who writes and reads which share of the tokens at a threshold."""
    tokens = np.array([step.tokens for step in steps], np.float64)
    below = np.array([not step.reward >= threshold for step in steps])
    answer, place = np.array([step.answer for step in steps]), np.arange(len(steps))
    last, end = np.full((2, answer.max() + 1), -1)  # the target's last step of each answer, and the answer's
    np.maximum.at(last, answer[below], place[below])
    np.maximum.at(end, answer, place)
    parts = (below, ~below & (place < last[answer]), below & (place < end[answer]))
    return Shares(*(float(tokens[part].sum() / tokens.sum()) for part in parts))


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


def recommend(
    steps: Sequence[JudgedStep], runs: Sequence[tuple[Measured, Gain | None]], share: float | None
) -> tuple[float, str]:
    """A threshold and why: the wanted share, else the largest gain that was measured, else a budget."""
    if share is not None:
        return _for_share(steps, share)
    gains = [(gain, run) for run, gain in runs if gain]
    if gains:
        best, run = max(gains, key=lambda pair: pair[0].mean)
        side = "above" if best.mean >= 0 else "below"
        reason = f"{100 * abs(best.mean):.1f} points {side} the chord, the best of those measured"
        if all(gain.low <= 0 for gain, _ in gains):
            reason += "; none is measurably better than sending whole questions to the target at random"
        return run.threshold, reason
    threshold, reason = _for_share(steps, BUDGET)
    return threshold, f"{reason}; --sweep measures accuracy"


def _for_share(steps: Sequence[JudgedStep], share: float) -> tuple[float, str]:
    """The threshold for a share, and the share that it comes to: steps are not cut in two."""
    threshold = threshold_for(steps, share)
    written = shares_at(steps, threshold).written
    return threshold, f"the target writes an estimated {written:.0%} of the tokens, {share:.0%} being wanted"
