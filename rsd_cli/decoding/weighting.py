"""Is a draft step accepted? The paper's weighting functions (Table 1), and a budget in place of a threshold.

A weighting gives omega(reward), the probability with which a step stays. Whoever keeps or rewrites it is elsewhere.
"""

from __future__ import annotations

import bisect
import hashlib
import math
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field

from rsd_cli.errors import UsageError

Accepts = Callable[[float], bool]
Weight = Callable[[float], float]

REMEMBERED = 2_000  # rewards that a budget looks back on
PATIENCE = 20  # steps over which a budget makes up for what it has spent too much or too little


def binary(delta: float) -> Weight:
    """1 if reward >= delta, else 0: what the paper's main results use."""
    return lambda reward: float(reward >= delta)


def constant(p: float) -> Weight:
    """The same p in [0, 1] for every reward: accepting at random."""
    return lambda _reward: p


def clip(reward: float) -> float:
    """min(1, max(0, reward))."""
    return min(1.0, max(0.0, reward))


def sigmoid(reward: float) -> float:
    """max(0, reward / (1 + reward)); at most a half of what is rewarded up to 1 is accepted."""
    return reward / (1 + reward) if reward > 0 else 0.0


def logistic(alpha: float, delta: float) -> Weight:
    """1 / (1 + exp(-alpha (reward - delta))), by tanh, which can't overflow."""
    return lambda reward: (1 + math.tanh(alpha * (reward - delta) / 2)) / 2


@dataclass(frozen=True)
class Kind:
    """A weighting function by name: its parameters' defaults (None: the threshold) and how it is made."""

    defaults: dict[str, float | None]
    make: Callable[..., Weight]


WEIGHTINGS: dict[str, Kind] = {
    "binary": Kind({"delta": None}, binary),
    "constant": Kind({"p": 0.5}, constant),
    "clip": Kind({}, lambda: clip),
    "sigmoid": Kind({}, lambda: sigmoid),
    "logistic": Kind({"alpha": 10.0, "delta": None}, logistic),
}


def weight_of(text: str, threshold: float) -> Weight:
    """The function that NAME[:parameter=value,...] names; a delta that is not given is the threshold.

    Raises UsageError for names, parameters and values that there are not.
    """
    name, _, rest = text.partition(":")
    kind = WEIGHTINGS.get(name)
    if kind is None:
        raise UsageError(f"--weighting {name[:50]!r} is unknown.", f"Choose one of {', '.join(WEIGHTINGS)}.")
    given = dict(_parameter(name, kind, pair) for pair in rest.split(",") if rest)
    values = {key: threshold if value is None else value for key, value in kind.defaults.items()}
    return kind.make(**values | given)


def heeds_threshold(text: str) -> bool:
    """Whether the function that NAME[:parameter=value,...] names looks at the threshold."""
    name, _, rest = text.partition(":")
    given = {pair.partition("=")[0] for pair in rest.split(",")}
    return any(value is None and key not in given for key, value in WEIGHTINGS[name].defaults.items())


def _parameter(name: str, kind: Kind, pair: str) -> tuple[str, float]:
    key, _, number = pair.partition("=")
    known = ", ".join(kind.defaults)
    if key not in kind.defaults:
        hint = f"It has {known}." if known else "It has none."
        raise UsageError(f"--weighting {name} has no parameter {key[:50]!r}.", hint)
    try:
        value = float(number)
    except ValueError:
        value = math.nan
    if not math.isfinite(value) or (key == "p" and not 0 <= value <= 1):
        hint = "p is a number from 0 to 1." if key == "p" else "Write it like logistic:alpha=10."
        raise UsageError(f"--weighting {name} can't use {pair[:50]!r}.", hint)
    return key, value


@dataclass
class Draws:
    """Uniform numbers in [0, 1) that depend on a name and their place in the row, on nothing else."""

    name: str
    drawn: int = 0

    def __call__(self) -> float:
        """The next number."""
        self.drawn += 1
        digest = hashlib.blake2b(f"{self.name}/{self.drawn}".encode(), digest_size=7).digest()
        return (int.from_bytes(digest, "little") >> 3) / (1 << 53)


@dataclass
class Budget:
    """Keeps the share of steps that go to the target at `share`, by a running quantile of the draft's rewards.

    The paper's Proposition 2.3: under a budget the best rule is a threshold at the budget's quantile. Equal rewards
    share what is left of it, so that the budget holds for rewards of any form from the first step on. What was
    spent too much or too little is made up for within about `PATIENCE` steps, so that it also holds where rewards
    drift.
    """

    share: float
    steps: int = 0
    rewritten: int = 0
    _row: deque[float] = field(default_factory=deque)
    _sorted: list[float] = field(default_factory=list)

    def omega(self, reward: float) -> float:
        """The probability of accepting a step; NaN has none."""
        if math.isnan(reward):
            return 0.0
        below = bisect.bisect_left(self._sorted, reward)
        equal = bisect.bisect_right(self._sorted, reward) - below + 1  # with this one
        n = len(self._sorted) + 1
        return 1 - clip((self._due() * n - below) / equal)

    def _due(self) -> float:
        """The share of the next steps that makes the whole share right."""
        return clip(self.share + (self.share * self.steps - self.rewritten) / PATIENCE)

    def count(self, reward: float, *, accepted: bool) -> None:
        """Remember how a step fared."""
        self.steps += 1
        self.rewritten += not accepted
        known = -math.inf if math.isnan(reward) else reward
        self._row.append(known)
        bisect.insort(self._sorted, known)
        if len(self._row) > REMEMBERED:
            del self._sorted[bisect.bisect_left(self._sorted, self._row.popleft())]


@dataclass(frozen=True)
class Acceptance:
    """The acceptance criterion (paper, Algorithm 2): certain where omega is 0 or 1, else one uniform draw.

    Every decision has a draw of its own, whether it needs one or not, so that no decision depends on how certain
    the earlier ones were. A reward of NaN is a reject.
    """

    weight: Weight
    draw: Callable[[], float]
    budget: Budget | None = None

    def __call__(self, reward: float) -> bool:
        """Whether a step with this reward stays."""
        omega = 0.0 if math.isnan(reward) else self.weight(reward)
        accepted = self.draw() < omega
        if self.budget:
            self.budget.count(reward, accepted=accepted)
        return accepted


def within(budget: Budget, draw: Callable[[], float]) -> Acceptance:
    """The criterion that keeps a budget."""
    return Acceptance(budget.omega, draw, budget)
