"""From rollouts to a head: split by problem, inputs, labels, the fit, and its figures on held-out problems.

It reads no files and runs no models.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from rsd_cli.rewards.draft_head import head_inputs
from rsd_cli.rewards.families import Solution
from rsd_cli.rewards.features import FEATURES
from rsd_cli.rewards.heads import HIDDEN, Head, Layer, check_head
from rsd_cli.rewards.quality import Bin, auc, calibration_error, reliability
from rsd_cli.rewards.training import Chosen, Examples, Fit, choose, fold_of, part_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

    from numpy.typing import NDArray

    from rsd_cli.rewards.rollouts import Rollout, SeenStep

MEAN = "mean"  # the mean state of the step's tokens
STATES = (HIDDEN, MEAN)
INPUTS = (HIDDEN, *FEATURES)
VARIANTS = {
    "the state alone": (HIDDEN,),
    "features of the text alone": tuple(FEATURES),
    "the tokens' probabilities and entropy alone": ("logprob", "lowest", "entropy"),
    "mean state of the step's tokens, and features": (MEAN, *FEATURES),
    "both states, features, probabilities": (HIDDEN, MEAN, *FEATURES, "logprob", "lowest", "entropy"),
}
TRAINING = 60  # percentile of problems: those below are never labelled by completions
HELD_OUT = 75  # those from here on are seen by nothing but the report


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
    def observed(self) -> dict[str, NDArray[np.floating]]:
        """What decoding gave, by the names of inputs."""
        step = self.step
        figures = {"logprob": step.logprob, "lowest": step.lowest, "entropy": step.entropy}
        return {HIDDEN: step.hidden, MEAN: step.mean} | {
            name: np.array([value]) for name, value in figures.items()
        }

    @property
    def solution(self) -> Solution:
        """What a family sees of it."""
        steps = self.rollout.steps[: self.index + 1]
        return Solution(self.rollout.question, tuple(step.text for step in steps))


def variants(rollouts: Iterable[Rollout]) -> dict[str, tuple[str, ...]]:
    """Other inputs by name, of those that were seen: a model may tell no mean state."""
    steps = (step for rollout in rollouts for step in rollout.steps)
    has_means = any((step.mean != step.hidden).any() for step in steps)
    return {name: inputs for name, inputs in VARIANTS.items() if has_means or MEAN not in inputs}


def seen_steps(rollouts: Sequence[Rollout], low: int = 0, high: int = 100) -> list[Seen]:
    """Every step of the problems in percentiles low <= p < high."""
    return [
        Seen(rollout, i)
        for rollout in rollouts
        if low <= part_of(rollout.id) < high
        for i in range(len(rollout.steps))
    ]


def is_labelled(problem: str) -> bool:
    """Whether completions may label a problem's steps: to calibrate on, or to report."""
    return part_of(problem) >= TRAINING


def is_held_out(problem: str) -> bool:
    """Whether a problem's steps are for the report alone."""
    return part_of(problem) >= HELD_OUT


def examples(steps: Sequence[Seen], good: Callable[[Seen], bool], inputs: Sequence[str] = INPUTS) -> Examples:
    """Rows of inputs with labels; every solution weighs the same, however many steps it has."""
    rows = np.array([head_inputs(inputs, seen.observed, seen.solution) for seen in steps], np.float64)
    counts = Counter(seen.rollout.key for seen in steps)
    weight = np.array([1 / counts[seen.rollout.key] for seen in steps])
    return Examples(
        rows,
        np.array([good(seen) for seen in steps], np.float64),
        weight * len(steps) / weight.sum(),
        np.array([fold_of(seen.rollout.id) for seen in steps]),
        sum(len(steps[0].observed[name]) for name in inputs if name in STATES),
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
    chosen: Chosen
    n_training: int
    n_calibration: int


def train_head(
    rollouts: Sequence[Rollout], labelled: Sequence[Rollout], inputs: Sequence[str] = INPUTS
) -> Trained:
    """Fit on outcomes; calibrate on what completions say where that was tried and is not all alike, else on those."""
    steps = seen_steps(rollouts, 0, HELD_OUT)
    chosen = choose(examples(steps, outcome, inputs))
    tried = {
        (seen.rollout.key, seen.index): reaches(seen)
        for seen in seen_steps(labelled, 0, HELD_OUT)
        if seen.step.reaches is not None
    }
    if len(set(tried.values())) < 2:
        tried = {(seen.rollout.key, seen.index): outcome(seen) for seen in steps}
    rows = np.array([(seen.rollout.key, seen.index) in tried for seen in steps])
    good = [float(tried[key]) for seen in steps if (key := (seen.rollout.key, seen.index)) in tried]
    fitted = chosen.calibrated(rows, np.array(good))
    return Trained(fitted, tuple(inputs), chosen, len(steps), len(good))


def held_out(trained: Trained, rollouts: Sequence[Rollout], labelled: Sequence[Rollout]) -> Iterator[Figures]:
    """Figures on the problems that neither training nor calibration saw: by completions, and by the outcome."""
    tried = [seen for seen in seen_steps(labelled, HELD_OUT) if seen.step.reaches is not None]
    for label, steps, good in (
        ("completions", tried, reaches),
        ("outcome", seen_steps(rollouts, HELD_OUT), outcome),
    ):
        if steps:
            rows = examples(steps, good, trained.inputs)
            yield figures(label, steps, trained.fit.rewards(rows.inputs), [good(seen) for seen in steps])


def as_head(
    trained: Trained, hidden_size: int, n_vocab: int, base: str, base_sha256: str, facts: Mapping[str, str]
) -> Head:
    """The side-car of a fitted head; raises ModelError where the fit gave no numbers."""
    fitted = trained.fit
    head = Head(
        family="draft-head",
        activation="sigmoid",
        hidden_size=hidden_size,
        layers=tuple(
            Layer(layer.weight.astype(np.float32), layer.bias.astype(np.float32)) for layer in fitted.layers
        ),
        separator="\n\n",
        base=base,
        base_sha256=base_sha256,
        n_vocab=n_vocab,
        inputs=trained.inputs,
        shift=fitted.shift.astype(np.float32),
        scale=fitted.scale.astype(np.float32),
        calibration=fitted.platt,
        facts=facts,
    )
    check_head(head, f"The head for {base}")
    return head
