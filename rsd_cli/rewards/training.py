"""Fits a head: logistic regression or a small MLP over standardised inputs, then Platt's calibration. NumPy only.

It sees arrays, not models or files. Splits are by group (the problem), so that no problem is on two sides.
"""

from __future__ import annotations

import zlib
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from rsd_cli.rewards.quality import auc

if TYPE_CHECKING:
    from numpy.typing import NDArray

PENALTIES = (0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0)  # L2 on a state's inputs, per example
FEATURE_PENALTY = 0.003  # L2 on the few others
WIDTHS = (32,)  # hidden units of the MLPs that are tried
NEWTON_STEPS = 12
EPOCHS, BATCH, RATE = 60, 64, 1e-3


@dataclass(frozen=True)
class Examples:
    """Steps as rows: inputs [n, d], whether each is good [n], and its weight [n].

    The first `n_state` inputs are a hidden state: many, and each says little.
    """

    inputs: NDArray[np.float64]
    good: NDArray[np.float64]
    weight: NDArray[np.float64]
    n_state: int = 0


@dataclass(frozen=True)
class Dense:
    """weight [out, in] and bias [out] in double precision."""

    weight: NDArray[np.float64]
    bias: NDArray[np.float64]


@dataclass(frozen=True)
class Fit:
    """A fitted head: standardisation [d], dense layers with ReLU between, Platt's a and b, and how it was chosen."""

    shift: NDArray[np.float64]
    scale: NDArray[np.float64]
    layers: tuple[Dense, ...]
    platt: tuple[float, float] = (1.0, 0.0)
    name: str = ""
    validation_auc: float = float("nan")

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


def part_of(group: str, parts: int = 100) -> int:
    """A stable number from 0 to parts - 1 for a problem, the same in every run and on every machine."""
    return zlib.crc32(group.encode()) % parts


def fit(train: Examples, validation: Examples, calibration: Examples) -> Fit:
    """The candidate with the best AUC on the validation problems, calibrated on further labels."""
    fits = [_linear(train, penalty) for penalty in PENALTIES]
    scored = [_scored(candidate, validation) for candidate in fits]
    scored += [_scored(mlp, validation) for width in WIDTHS for mlp in [_mlp(train, width)]]
    return _calibrated(max(scored, key=lambda candidate: candidate.validation_auc), calibration)


def _scored(candidate: Fit, validation: Examples) -> Fit:
    return replace(candidate, validation_auc=auc(candidate.logits(validation.inputs), validation.good))


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
    return Fit(shift, scale, (Dense(w[None, :-1], w[-1:]),), name=f"logistic regression, L2 {penalty:g}")


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
                values[i] = values[i] * (1 - RATE * 0.3) - RATE * 0.3 * update
    w1, b1, w2, b2 = values
    return Fit(shift, scale, (Dense(w1.T, b1), Dense(w2.T, b2)), name=f"MLP of {width}")


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


def _calibrated(candidate: Fit, labels: Examples) -> Fit:
    """Platt's scaling (1999): a logistic regression of the outcome on the logit."""
    logit = candidate.logits(labels.inputs)[:, None]
    platt = _linear(Examples(logit, labels.good, labels.weight), 0)
    a = float(platt.layers[0].weight[0, 0] / platt.scale[0])
    b = float(platt.layers[0].bias[0] - a * platt.shift[0])
    return replace(candidate, platt=(a, b))
