"""From rollouts to a head: split by problem, inputs, labels, the fit, and its figures on held-out problems.

It reads no files and runs no models.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from rsd_cli.rewards.draft_head import HIDDEN, head_inputs
from rsd_cli.rewards.families import Solution
from rsd_cli.rewards.features import FEATURES
from rsd_cli.rewards.heads import Head, Layer
from rsd_cli.rewards.quality import Bin, auc, calibration_error, reliability
from rsd_cli.rewards.training import Examples, Fit, fit, part_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from numpy.typing import NDArray

    from rsd_cli.rewards.rollouts import Rollout, SeenStep

INPUTS = (HIDDEN, *FEATURES)
TRAINING, VALIDATION = 60, 75  # percentiles of problems: up to here for training, up to there for choosing


@dataclass(frozen=True)
class Seen:
    """A step with the solution it stands in."""

    rollout: Rollout
    index: int

    @property
    def step(self) -> SeenStep:
        """The step itself."""
        return self.rollout.steps[self.index]

    @property
    def solution(self) -> Solution:
        """What a family sees of it."""
        steps = self.rollout.steps[: self.index + 1]
        return Solution(self.rollout.question, tuple(step.text for step in steps))


def seen_steps(rollouts: Sequence[Rollout], low: int = 0, high: int = 100) -> list[Seen]:
    """Every step of the problems in percentiles low <= p < high."""
    return [
        Seen(rollout, i)
        for rollout in rollouts
        if low <= part_of(rollout.id) < high
        for i in range(len(rollout.steps))
    ]


def is_held_out(problem: str) -> bool:
    """Whether a problem is never trained on: it serves to calibrate or to report."""
    return part_of(problem) >= TRAINING


def examples(steps: Sequence[Seen], good: Callable[[Seen], bool], inputs: Sequence[str] = INPUTS) -> Examples:
    """Rows of inputs with labels; every solution weighs the same, however many steps it has."""
    rows = np.array([head_inputs(inputs, seen.step.hidden, seen.solution) for seen in steps], np.float64)
    counts = Counter(seen.rollout.key for seen in steps)
    weight = np.array([1 / counts[seen.rollout.key] for seen in steps])
    return Examples(
        rows,
        np.array([good(seen) for seen in steps], np.float64),
        weight * len(steps) / weight.sum(),
        len(steps[0].step.hidden) if HIDDEN in inputs else 0,
    )


def outcome(seen: Seen) -> bool:
    """The solution's final answer is right."""
    return seen.rollout.right


def reaches(seen: Seen) -> bool:
    """At least one completion from behind the step reached the gold answer."""
    return bool(seen.step.reaches)


@dataclass(frozen=True)
class Figures:
    """How good rewards are on some steps."""

    label: str
    steps: int
    problems: int
    good: float
    auc: float
    calibration_error: float
    diagram: tuple[Bin, ...]


def figures(label: str, steps: Sequence[Seen], rewards: NDArray[np.float64], good: Sequence[bool]) -> Figures:
    """AUC, expected calibration error and reliability diagram."""
    problems = len({seen.rollout.id for seen in steps})
    error = calibration_error(rewards, good)
    diagram = tuple(reliability(rewards, good))
    return Figures(label, len(steps), problems, float(np.mean(good)), auc(rewards, good), error, diagram)


@dataclass(frozen=True)
class Trained:
    """A fitted head with what it was made from."""

    fit: Fit
    inputs: tuple[str, ...]
    n_rollouts: int
    n_training: int


def train_head(
    rollouts: Sequence[Rollout], labelled: Sequence[Rollout], inputs: Sequence[str] = INPUTS
) -> Trained:
    """Fit on outcomes of the training problems; choose and calibrate on the validation problems.

    Calibration is on completions' labels where there are any, since those are what a reward claims.
    """
    training = seen_steps(rollouts, 0, TRAINING)
    fitted = fit(
        examples(training, outcome, inputs),
        _validation(rollouts, inputs),
        _calibration(rollouts, labelled, inputs),
    )
    return Trained(fitted, tuple(inputs), len(rollouts), len(training))


def _validation(rollouts: Sequence[Rollout], inputs: Sequence[str]) -> Examples:
    return examples(seen_steps(rollouts, TRAINING, VALIDATION), outcome, inputs)


def _calibration(rollouts: Sequence[Rollout], labelled: Sequence[Rollout], inputs: Sequence[str]) -> Examples:
    tried = [seen for seen in seen_steps(labelled, TRAINING, VALIDATION) if seen.step.reaches is not None]
    return examples(tried, reaches, inputs) if tried else _validation(rollouts, inputs)


def held_out(trained: Trained, rollouts: Sequence[Rollout], labelled: Sequence[Rollout]) -> Iterator[Figures]:
    """Figures on the problems that neither training nor choosing saw: by completions, and by the outcome."""
    tried = [seen for seen in seen_steps(labelled, VALIDATION) if seen.step.reaches is not None]
    for label, steps, good in (
        ("completions", tried, reaches),
        ("outcome", seen_steps(rollouts, VALIDATION), outcome),
    ):
        if steps:
            rows = examples(steps, good, trained.inputs)
            yield figures(label, steps, trained.fit.rewards(rows.inputs), [good(seen) for seen in steps])


def as_head(
    trained: Trained, hidden_size: int, base: str, base_sha256: str, facts: Mapping[str, str]
) -> Head:
    """The side-car of a fitted head."""
    fitted = trained.fit
    return Head(
        family="draft-head",
        activation="sigmoid",
        hidden_size=hidden_size,
        layers=tuple(
            Layer(layer.weight.astype(np.float32), layer.bias.astype(np.float32)) for layer in fitted.layers
        ),
        separator="\n\n",
        base=base,
        base_sha256=base_sha256,
        inputs=trained.inputs,
        shift=fitted.shift.astype(np.float32),
        scale=fitted.scale.astype(np.float32),
        calibration=fitted.platt,
        facts=facts,
    )
