"""A calibration as tables and plots of characters."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from rich.table import Table
from rich.text import Text

from rsd_cli.registry.names import number_text

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rich.console import Console

    from rsd_cli.evaluation.calibration import Gain, Measured, Point

BAR, BINS = 30, 10
COMPUTE = "against the target alone, reading included, prompts left out"


@dataclass(frozen=True)
class Report:
    """All that a calibration says; `rewards` has None for a step that the PRM gave none.

    `left_out` questions were too long for a model's context. `draft` is the draft alone, as far as gold answers are
    known.
    """

    title: str
    rewards: tuple[float | None, ...]
    earned: tuple[float, ...]
    points: tuple[Point, ...]
    runs: tuple[tuple[Measured, Gain | None], ...]
    threshold: float
    reason: str
    left_out: int = 0
    draft: Measured | None = None

    @property
    def about(self) -> str:
        """What was answered, and how well by the draft."""
        if self.draft is None:
            return self.title
        right, graded = sum(answer.right for answer in self.draft.answers), len(self.draft.answers)
        return f"{self.title}; {right} of {graded} answers right ({right / graded:.1%})"


def show_calibration(console: Console, report: Report) -> None:
    """Distribution, estimates at every threshold, measured runs, recommendation."""
    console.print(Text(report.about, style="bold"))
    if report.left_out:
        console.print(f"without {report.left_out} more that are too long for a model's context")
    console.print()
    known = [reward for reward in report.rewards if reward is not None]
    console.print(_distribution("rewards of the draft's steps", known))
    if unjudged := len(report.rewards) - len(known):
        console.print(
            f"{unjudged} of {len(report.rewards)} steps without a reward: the target's at every threshold"
        )
    if report.earned:
        console.print(_distribution("rewards of the target's steps in their place", report.earned))
    console.print(_estimates(report.points))
    if report.runs:
        console.print(_measured(report.runs))
    console.print(Text(f"threshold {number_text(report.threshold)}: {report.reason}", style="bold green"))


def _distribution(title: str, rewards: Sequence[float]) -> Table:
    counts, edges = np.histogram(rewards, BINS, (0, 1))
    table = _table(title, "reward", "steps", "")
    for count, edge in zip(counts, edges, strict=False):
        label = f"{edge:.1f}-{edge + 1 / BINS:.1f}"
        table.add_row(label, str(count), Text("█" * round(BAR * count / max(1, counts.max())), style="cyan"))
    return table


def _estimates(points: Sequence[Point]) -> Table:
    table = _table(
        f"estimated at every threshold; compute {COMPUTE}", "threshold", "target writes", "compute", ""
    )
    for point in points:
        bar = Text("█" * round(BAR * point.target_share), style="magenta")
        table.add_row(f"{point.threshold:.2f}", f"{point.target_share:.0%}", f"{point.compute:.0%}", bar)
    return table


def _measured(runs: Sequence[tuple[Measured, Gain | None]]) -> Table:
    table = _table("measured", "threshold", "target writes", "accuracy", "above the chord", "")
    for run, gain in runs:
        above = f"{100 * gain.mean:+.1f} ({100 * gain.low:+.1f} to {100 * gain.high:+.1f})" if gain else ""
        bar = Text("█" * round(BAR * run.accuracy), style="green")
        table.add_row(
            number_text(run.threshold), f"{run.target_share:.0%}", f"{run.accuracy:.1%}", above, bar
        )
    return table


def _table(title: str, *columns: str) -> Table:
    table = Table(title=Text(title), title_justify="left", box=None, pad_edge=False)
    for column in columns:
        table.add_column(column, justify="left" if not column else "right")
    return table
