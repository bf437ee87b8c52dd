"""Scales and the frame of a picture: from values to positions, with round ticks. Draws SVG, knows no figures."""

from __future__ import annotations

import math
from dataclasses import dataclass
from html import escape
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

STEPS = (1.0, 2.0, 2.5, 5.0, 10.0)  # that a tick may go by
LOGARITHMIC = 8.0  # from this ratio of largest and smallest on


@dataclass(frozen=True)
class Frame:
    """A picture's size and margins, in pixels of its text."""

    width: int
    height: int
    left: int = 46
    right: int = 16
    top: int = 30
    bottom: int = 44

    @property
    def floor(self) -> int:
        """Where the horizontal axis lies."""
        return self.height - self.bottom


@dataclass(frozen=True)
class Scale:
    """Values from `low` to `high` as pixels from `start` to `end`."""

    low: float
    high: float
    start: float
    end: float
    logarithmic: bool = False

    def __call__(self, value: float) -> float:
        """Where a value lies."""
        low, high, at = self.low, self.high, value
        if self.logarithmic:
            low, high, at = math.log(low), math.log(high), math.log(value)
        return self.start + (at - low) / (high - low) * (self.end - self.start)

    def ticks(self, most: int) -> list[float]:
        """Round values within the scale, about as many as asked for at most."""
        if self.logarithmic:
            return _logarithmic_ticks(self.low, self.high, most)
        step = _round_step((self.high - self.low) / most)
        first = math.ceil(self.low / step - 1e-9)
        last = math.floor(self.high / step + 1e-9)
        return [i * step for i in range(first, last + 1)]


def horizontal(values: Sequence[float], frame: Frame) -> Scale:
    """A scale for amounts above 0: from 0 on, or logarithmic where they differ much."""
    low, high = min(values), max(values)
    if high / low >= LOGARITHMIC:
        return Scale(low / 1.3, high * 1.3, frame.left, frame.width - frame.right, logarithmic=True)
    return Scale(0.0, high * 1.12, frame.left, frame.width - frame.right)


def vertical(values: Sequence[float], frame: Frame) -> Scale:
    """A scale for shares: about the values, in steps of 5 points, within 0 and 1."""
    low = max(0.0, math.floor(min(values) * 20 - 0.2) / 20)
    high = min(1.0, math.ceil(max(values) * 20 + 0.2) / 20)
    return Scale(low, max(high, low + 0.05), frame.floor, frame.top)


def axes(frame: Frame, x: Scale, y: Scale, labels: tuple[str, str]) -> list[str]:
    """Grid lines, tick labels and the two axes' names."""
    right = frame.width - frame.right
    drawn = [
        f'<line class="grid" x1="{frame.left}" x2="{right}" y1="{y(tick):.1f}" y2="{y(tick):.1f}"/>'
        f'<text class="tick" text-anchor="end" x="{frame.left - 6}" y="{y(tick) + 4:.1f}">{100 * tick:g}%</text>'
        for tick in y.ticks(6)
    ]
    drawn += [
        f'<text class="tick" text-anchor="middle" x="{x(tick):.1f}" y="{frame.floor + 17}">{tick:g}</text>'
        for tick in x.ticks(max(3, frame.width // 80))
    ]
    drawn.append(f'<line class="axis" x1="{frame.left}" x2="{right}" y1="{frame.floor}" y2="{frame.floor}"/>')
    middle = (frame.left + right) / 2
    drawn.append(
        f'<text class="label" text-anchor="middle" x="{middle:.0f}" y="{frame.height - 6}">{escape(labels[0])}</text>'
    )
    drawn.append(f'<text class="label" x="4" y="{frame.top - 16}">{escape(labels[1])}</text>')
    return drawn


def svg(frame: Frame, drawn: Sequence[str], says: str) -> str:
    """A picture that grows with its place; `says` is read aloud in its stead."""
    return (
        f'<svg viewBox="0 0 {frame.width} {frame.height}" role="img" '
        f'aria-label="{escape(says)}" xmlns="http://www.w3.org/2000/svg">{"".join(drawn)}</svg>'
    )


def _round_step(least: float) -> float:
    power = 10.0 ** math.floor(math.log10(least))
    return next(step * power for step in STEPS if step * power >= least * (1 - 1e-9))


def _logarithmic_ticks(low: float, high: float, most: int) -> list[float]:
    """1, 2, 5 of every power of ten, or the powers alone where those are too many."""
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    for digits in ((1, 2, 5), (1, 3), (1,)):
        ticks = [digit * 10.0**power for power in powers for digit in digits]
        inside = [tick for tick in ticks if low <= tick <= high]
        if len(inside) <= most:
            break
    return inside
