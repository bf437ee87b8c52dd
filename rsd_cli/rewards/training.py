"""Fits a head: logistic regression or a small MLP over standardised inputs, then Platt's calibration. NumPy only.

It sees arrays, not models or files. What is chosen is chosen by cross-validation over problems, so that no
problem is on two sides.
"""

from __future__ import annotations

import zlib
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from rsd_cli.rewards.quality import auc

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

PENALTIES = (0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0)  # L2 on a state's inputs, per example
FEATURE_PENALTY = 0.003  # L2 on the few others
WIDTHS = (32,)  # hidden units of the MLPs that are tried
NEWTON_STEPS = 12
EPOCHS, BATCH, RATE, DECAY = 30, 64, 3e-4, 0.3
FOLDS = 5
PRIOR = 10.0  # how strongly Platt's slope leans to 1, in labels


@dataclass(frozen=True)
class Examples:
    """Steps as rows: inputs [n, d], whether each is good [n], its weight [n] and its problem's fold [n].

    The first `n_state` inputs are a hidden state: many, and each says little.
    """

    inputs: NDArray[np.float64]
    good: NDArray[np.float64]
    weight: NDArray[np.float64]
    fold: NDArray[np.int_]
    n_state: int = 0

    def where(self, chosen: NDArray[np.bool_]) -> Examples:
        """A part of the rows."""
        return replace(
            self,
            inputs=self.inputs[chosen],
            good=self.good[chosen],
            weight=self.weight[chosen],
            fold=self.fold[chosen],
        )


@dataclass(frozen=True)
class Dense:
    """weight [out, in] and bias [out] in double precision."""

    weight: NDArray[np.float64]
    bias: NDArray[np.float64]


@dataclass(frozen=True)
class Fit:
    """A fitted head: standardisation [d], dense layers with ReLU between, Platt's a and b."""

    shift: NDArray[np.float64]
    scale: NDArray[np.float64]
    layers: tuple[Dense, ...]
    platt: tuple[float, float] = (1.0, 0.0)

    def logits(self, inputs: NDArray[np.float64]) -> NDArray[np.float64]:
        """Uncalibrated logits [n] of inputs [n, d]."""
        values = (inputs - self.shift) / self.scale
        for i, layer in enumerate(self.layers):
            values = (np.maximum(values, 0) if i else values) @ layer.weight.T + layer.bias
        return np.asarray(values[:, 0])

    def rewards(self, inputs: NDArray[np.float64]) -> NDArray[np.float64]:
        """Calibrated probabilities [n]."""
        a, b = self.platt
        return sigmoid(a * self.logits(inputs) + b)


def sigmoid(x: NDArray[np.float64]) -> NDArray[np.float64]:
    """The logistic function, which can't overflow."""
    return np.asarray(0.5 * (1 + np.tanh(x / 2)))


def part_of(group: str) -> int:
    """A stable percentile from 0 to 99 for a problem, the same in every run and on every machine."""
    return zlib.crc32(group.encode()) % 100


def fold_of(group: str) -> int:
    """The fold of a problem in cross-validation; independent of `part_of`."""
    return zlib.crc32(f"fold/{group}".encode()) % FOLDS


@dataclass(frozen=True)
class Chosen:
    """The best recipe, fitted on all rows: its name, its AUC and the logits [n] that it gave to unseen problems."""

    fit: Fit
    name: str
    auc: float
    unseen: NDArray[np.float64]

    def calibrated(self, rows: NDArray[np.bool_], good: NDArray[np.float64]) -> Fit:
        """Platt's scaling (1999) on the unseen logits of some rows; its slope leans to 1 where labels are few."""
        return replace(self.fit, platt=_platt(self.unseen[rows], good))


def choose(train: Examples) -> Chosen:
    """The recipe with the best cross-validated AUC."""
    recipes: dict[str, Callable[[Examples], Fit]] = {
        f"logistic regression, L2 {penalty:g}": partial(_linear, penalty=penalty) for penalty in PENALTIES
    }
    recipes |= {f"MLP of {width}": partial(_mlp, width=width) for width in WIDTHS}
    unseen = {name: _unseen(train, recipe) for name, recipe in recipes.items()}
    scores = {name: auc(logits, train.good) for name, logits in unseen.items()}
    best = max(scores, key=lambda name: scores[name])
    return Chosen(recipes[best](train), best, scores[best], unseen[best])


def _unseen(train: Examples, recipe: Callable[[Examples], Fit]) -> NDArray[np.float64]:
    """Each row's logit from a fit that did not see its problem."""
    logits = np.zeros(len(train.good))
    for fold in np.unique(train.fold):
        out = train.fold == fold
        logits[out] = recipe(train.where(~out)).logits(train.inputs[out])
    return logits


def _standardise(train: Examples) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    deviation = train.inputs.std(axis=0)
    return train.inputs.mean(axis=0), np.where(deviation > 0, deviation, 1.0)


def _linear(train: Examples, penalty: float) -> Fit:
    """Logistic regression with an L2 penalty, by Newton's method."""
    shift, scale = _standardise(train)
    x = np.hstack([(train.inputs - shift) / scale, np.ones((len(train.good), 1))])
    ridge = np.full(x.shape[1], FEATURE_PENALTY)
    ridge[: train.n_state] = penalty
    ridge[-1] = 0  # the bias is free
    ridge *= train.weight.sum()
    w = np.zeros(x.shape[1])
    for _ in range(NEWTON_STEPS):
        p = sigmoid(x @ w)
        gradient = x.T @ (train.weight * (p - train.good)) + ridge * w
        curvature = (x * (train.weight * np.maximum(p * (1 - p), 1e-6))[:, None]).T @ x
        curvature[np.diag_indices_from(curvature)] += ridge + 1e-9
        step = np.linalg.solve(curvature, gradient)
        w = w - step
        if np.abs(step).max() < 1e-6:
            break
    return Fit(shift, scale, (Dense(w[None, :-1], w[-1:]),))


def _mlp(train: Examples, width: int) -> Fit:
    """Linear-ReLU-Linear by Adam with weight decay; seeded, so that it can be made again."""
    random = np.random.default_rng(0)
    shift, scale = _standardise(train)
    x = (train.inputs - shift) / scale
    d = x.shape[1]
    values = [random.normal(0, d**-0.5, (d, width)), np.zeros(width), np.zeros((width, 1)), np.zeros(1)]
    first, second = [np.zeros_like(v) for v in values], [np.zeros_like(v) for v in values]
    step = 0
    for _ in range(EPOCHS):
        order = random.permutation(len(x))
        for start in range(0, len(x), BATCH):
            rows = order[start : start + BATCH]
            step += 1
            gradients = _gradients(values, x[rows], train.good[rows], train.weight[rows])
            for i, gradient in enumerate(gradients):
                first[i] += 0.1 * (gradient - first[i])
                second[i] += 0.001 * (gradient**2 - second[i])
                update = (first[i] / (1 - 0.9**step)) / (np.sqrt(second[i] / (1 - 0.999**step)) + 1e-8)
                values[i] = values[i] * (1 - RATE * DECAY) - RATE * update
    w1, b1, w2, b2 = values
    return Fit(shift, scale, (Dense(w1.T, b1), Dense(w2.T, b2)))


def _gradients(
    values: list[NDArray[np.float64]],
    x: NDArray[np.float64],
    good: NDArray[np.float64],
    weight: NDArray[np.float64],
) -> list[NDArray[np.float64]]:
    w1, b1, w2, b2 = values
    hidden = np.maximum(x @ w1 + b1, 0)
    error = (weight * (sigmoid((hidden @ w2 + b2)[:, 0]) - good) / len(x))[:, None]
    back = (error @ w2.T) * (hidden > 0)
    return [x.T @ back, back.sum(axis=0), hidden.T @ error, error.sum(axis=0)]


def _platt(logits: NDArray[np.float64], good: NDArray[np.float64]) -> tuple[float, float]:
    """a and b of sigmoid(a logit + b), by Newton's method."""
    x = np.stack([logits, np.ones(len(logits))], axis=1)
    w, lean = np.array([1.0, 0.0]), np.diag([PRIOR, 1e-6])
    for _ in range(NEWTON_STEPS):
        p = sigmoid(x @ w)
        gradient = x.T @ (p - good) + lean @ (w - [1.0, 0.0])
        curvature = (x * (p * (1 - p))[:, None]).T @ x + lean
        w = w - np.linalg.solve(curvature, gradient)
    return float(w[0]), float(w[1])
