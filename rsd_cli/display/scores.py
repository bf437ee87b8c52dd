"""Rewards of solutions as a table with bars."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from rich.table import Table
from rich.text import Text

from rsd_cli.display.latex import readable
from rsd_cli.display.sanitise import visible

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rich.console import Console

BAR = 20  # characters of a whole bar
NARROW = 60


def show_scores(
    console: Console, name: str, steps: Sequence[str], rewards: Sequence[float], threshold: float
) -> None:
    """One line a step: its reward, a bar, and how it begins."""
    table = Table(title=Text(visible(name)), title_justify="left", box=None, pad_edge=False)
    table.add_column("step", justify="right")
    table.add_column("reward", justify="right")
    if console.width >= NARROW:
        table.add_column("", width=BAR)
    table.add_column("text", no_wrap=True, overflow="ellipsis", ratio=1)
    for number, (step, reward) in enumerate(zip(steps, rewards, strict=True), start=1):
        style = "green" if reward >= threshold else "red"
        known = not math.isnan(reward)
        cells = [Text(str(number)), Text(f"{reward:.3f}" if known else "none", style=style)]
        if console.width >= NARROW:
            cells.append(Text("█" * round(reward * BAR) if known else "", style=style))
        table.add_row(*cells, Text(visible(readable(" ".join(step.split())))))
    console.print(table)
