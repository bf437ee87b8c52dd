"""How long a model's decodes take by how many tokens they write, from those that it has done. Predicts little.

A decode of several tokens takes hardly longer than one of a single one up to some number, and then longer by each:
where that lies depends on the machine, so it is measured while answers are given.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

FEWEST = 8  # decodes of one size from which on their mean tells something


@dataclass
class Pace:
    """Decodes that only wrote, a token for each seat: how many of each size, and their seconds together."""

    decodes: dict[int, int] = field(default_factory=dict)
    spent: dict[int, float] = field(default_factory=dict)

    def add(self, n: int, seconds: float, decodes: int = 1) -> None:
        """Count decodes of n tokens."""
        self.decodes[n] = self.decodes.get(n, 0) + decodes
        self.spent[n] = self.spent.get(n, 0.0) + seconds

    def __add__(self, other: Pace) -> Pace:
        both = Pace(dict(self.decodes), dict(self.spent))
        for n, decodes in other.decodes.items():
            both.add(n, other.spent[n], decodes)
        return both

    def __sub__(self, earlier: Pace) -> Pace:
        """What has come since an earlier state of this pace."""
        since = {n: count - earlier.decodes.get(n, 0) for n, count in self.decodes.items()}
        return Pace(
            {n: count for n, count in since.items() if count},
            {n: self.spent[n] - earlier.spent.get(n, 0.0) for n, count in since.items() if count},
        )

    def copy(self) -> Pace:
        """As it is now."""
        return self + Pace()

    def to_json(self) -> list[list[float]]:
        """Triples of size, decodes and seconds."""
        return [[n, count, round(self.spent[n], 3)] for n, count in sorted(self.decodes.items())]

    @classmethod
    def from_json(cls, triples: list[list[float]]) -> Pace:
        """From such triples."""
        pace = cls()
        for n, decodes, seconds in triples:
            pace.add(int(n), float(seconds), int(decodes))
        return pace

    @property
    def sizes(self) -> list[int]:
        """The sizes that came up often enough, in order."""
        return sorted(n for n, count in self.decodes.items() if count >= FEWEST)

    def seconds(self, n: int) -> float:
        """Of one decode of n tokens: the mean, between sizes that are known, or of the nearest; needs `sizes`.

        A mean below that of a smaller size is noise.
        """
        means = np.maximum.accumulate([self.spent[size] / self.decodes[size] for size in self.sizes])
        return float(np.interp(n, self.sizes, means))
