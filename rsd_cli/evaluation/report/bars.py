"""Bars as SVG: the rewards of accepted and rejected steps, and the target's share along the solution."""

from __future__ import annotations

from dataclasses import dataclass
from html import escape
from typing import TYPE_CHECKING

from rsd_cli.decoding.gating import gated
from rsd_cli.evaluation.report.axes import Frame, svg
from rsd_cli.evaluation.runs import records_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rsd_cli.evaluation.accounts import StrategyRun
    from rsd_cli.records import Record

SMALL = Frame(340, 190, left=42, right=8, top=14, bottom=40)
BINS, DECILES = 20, 10


@dataclass(frozen=True)
class Rewards:
    """How many of the draft's steps earned a reward in each of `BINS` equal parts of [0, 1]."""

    accepted: tuple[int, ...]
    rejected: tuple[int, ...]


def rewards_of(run: StrategyRun) -> Rewards:
    """Steps without a reward are left out."""
    steps = [step for record in records_of(run.samples) for step in gated(record)]
    passed = [step.reward for step in steps if step.passed and step.reward is not None]
    failed = [step.reward for step in steps if not step.passed and step.reward is not None]
    return Rewards(_counted(passed), _counted(failed))


def target_share_along(run: StrategyRun) -> tuple[float, ...]:
    """The share of tokens that the target wrote in each tenth of a solution, over all solutions."""
    written, target = [0.0] * DECILES, [0.0] * DECILES
    for record in records_of(run.samples):
        _add_along(record, written, target)
    return tuple(
        by_target / whole if whole else 0.0 for by_target, whole in zip(target, written, strict=True)
    )


def rewards_picture(rewards: Rewards) -> str:
    """Accepted steps in the draft's colour, rejected ones on top of them."""
    sums = [kept + lost for kept, lost in zip(rewards.accepted, rewards.rejected, strict=True)]
    highest = max(1, *sums)
    width = (SMALL.width - SMALL.left - SMALL.right) / BINS
    drawn = _frame(f"{highest:,}", "reward of the draft's step", ("0", "0.5", "1"))
    for i, (kept, lost) in enumerate(zip(rewards.accepted, rewards.rejected, strict=True)):
        left, told = SMALL.left + i * width, f"{i / BINS:.2f} to {(i + 1) / BINS:.2f}"
        drawn.append(_bar(left, width, (0, kept / highest), "draft", f"{told}: {kept} accepted"))
        drawn.append(
            _bar(
                left, width, (kept / highest, (kept + lost) / highest), "rejected", f"{told}: {lost} rejected"
            )
        )
    return svg(SMALL, drawn, "rewards of accepted and rejected steps")


def share_picture(shares: Sequence[float]) -> str:
    """One bar for each tenth of the solution."""
    width = (SMALL.width - SMALL.left - SMALL.right) / len(shares)
    drawn = _frame("100%", "along the solution", ("start", "", "end"))
    drawn += [
        _bar(SMALL.left + i * width, width, (0, share), "target", f"tenth {i + 1}: {share:.0%} by the target")
        for i, share in enumerate(shares)
    ]
    return svg(SMALL, drawn, "share of tokens by the target along the solution")


def _add_along(record: Record, written: list[float], target: list[float]) -> None:
    """Spread each step's tokens over the tenths of the solution that it covers."""
    total = sum(step.tokens for step in record.steps)
    start = 0
    for step in record.steps:
        for tenth in range(DECILES):
            low, high = total * tenth / DECILES, total * (tenth + 1) / DECILES
            part = max(0.0, min(high, start + step.tokens) - max(low, start))
            written[tenth] += part
            target[tenth] += part if step.author == "target" else 0.0
        start += step.tokens


def _counted(rewards: Sequence[float]) -> tuple[int, ...]:
    counts = [0] * BINS
    for reward in rewards:
        counts[min(BINS - 1, max(0, int(reward * BINS)))] += 1
    return tuple(counts)


def _frame(top: str, label: str, ticks: tuple[str, str, str]) -> list[str]:
    right, middle = SMALL.width - SMALL.right, (SMALL.left + SMALL.width - SMALL.right) / 2
    drawn = [
        f'<line class="grid" x1="{SMALL.left}" x2="{right}" y1="{SMALL.top}" y2="{SMALL.top}"/>',
        f'<text class="tick" text-anchor="end" x="{SMALL.left - 4}" y="{SMALL.top + 4}">{escape(top)}</text>',
        f'<text class="tick" text-anchor="end" x="{SMALL.left - 4}" y="{SMALL.floor + 4}">0</text>',
        f'<line class="axis" x1="{SMALL.left}" x2="{right}" y1="{SMALL.floor}" y2="{SMALL.floor}"/>',
        f'<text class="label" text-anchor="middle" x="{middle}" y="{SMALL.height - 6}">{escape(label)}</text>',
    ]
    places = ((SMALL.left, "start"), (middle, "middle"), (right, "end"))
    return drawn + [
        f'<text class="tick" text-anchor="{anchor}" x="{at}" y="{SMALL.floor + 16}">{escape(tick)}</text>'
        for tick, (at, anchor) in zip(ticks, places, strict=True)
    ]


def _bar(left: float, width: float, span: tuple[float, float], css: str, told: str) -> str:
    """A bar between two shares of the picture's height."""
    height = SMALL.floor - SMALL.top
    top, bottom = SMALL.floor - span[1] * height, SMALL.floor - span[0] * height
    if bottom - top <= 0:
        return ""
    return (
        f'<rect class="bar {css}" x="{left + 0.75:.1f}" y="{top:.1f}" width="{width - 1.5:.1f}" '
        f'height="{bottom - top:.1f}"><title>{escape(told)}</title></rect>'
    )
