"""What a llama_decode costs a model, from answers that it took part in, and how many of them other answers need.

A decode of one token takes nearly as long as one of several, so a token's price depends on how many share a decode.
RSD's target writes for the few seats whose step was rejected, and the target alone for all of them.
"""

from __future__ import annotations

import heapq
import itertools
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterable

    from numpy.typing import NDArray

    from rsd_cli.records import RoleTime, Usage

UNKNOWNS = 3
FEWEST = 3 * UNKNOWNS  # answers from which on a pace can be told


@dataclass(frozen=True)
class Pace:
    """Seconds of a decode by itself, and beside it of each token in it that is read, and that is written."""

    decode: float
    read: float
    write: float

    def seconds(self, decodes: float, read: float, written: float) -> float:
        """What so many decodes take with so many tokens in all of them together."""
        return self.decode * decodes + self.read * read + self.write * written


@dataclass
class PaceFit:
    """Least squares over answers, each weighted by one over its tokens; no part of a pace is negative."""

    n: int = 0
    _matrix: NDArray[np.float64] = field(default_factory=lambda: np.zeros((UNKNOWNS, UNKNOWNS)))
    _vector: NDArray[np.float64] = field(default_factory=lambda: np.zeros(UNKNOWNS))

    def add(self, used: Usage, spent: RoleTime) -> None:
        """Take in what one answer cost a model; those that don't say how many decodes they shared tell nothing."""
        if not spent.decodes or not used.decoded:
            return
        parts = np.array([spent.decodes, used.fed, used.generated], dtype=np.float64)
        seconds = (spent.prompt_ms + spent.decode_ms) / 1000
        self._matrix += np.outer(parts, parts) / used.decoded
        self._vector += parts * seconds / used.decoded
        self.n += 1

    def pace(self) -> Pace | None:
        """None from too few answers."""
        if self.n < FEWEST:
            return None
        fits = (self._fit(kept) for kept in _subsets())
        return Pace(*min((fit for fit in fits if min(fit) >= 0), key=self._error))

    def _fit(self, kept: list[int]) -> list[float]:
        """The least squares with these parts only; the others cost nothing."""
        found = np.zeros(UNKNOWNS)
        if kept:
            found[kept] = np.linalg.lstsq(self._matrix[np.ix_(kept, kept)], self._vector[kept], rcond=None)[0]
        return [float(part) for part in found]

    def _error(self, parts: list[float]) -> float:
        """The squared error, but for what all fits share."""
        own = np.array(parts)
        return float(own @ self._matrix @ own - 2 * own @ self._vector)


def _subsets() -> Iterable[list[int]]:
    return (list(kept) for n in range(UNKNOWNS + 1) for kept in itertools.combinations(range(UNKNOWNS), n))


@dataclass
class Rota:
    """Texts one after another on `rows` rows, each on the one that is free first. A decode goes through all rows."""

    rows: int
    _ends: list[int] = field(default_factory=list)

    def add(self, tokens: int) -> None:
        """Another text, of so many tokens."""
        begin = heapq.heappop(self._ends) if len(self._ends) >= self.rows else 0
        heapq.heappush(self._ends, begin + tokens)

    @property
    def decodes(self) -> int:
        """How many decodes all texts take."""
        return max(self._ends, default=0)
