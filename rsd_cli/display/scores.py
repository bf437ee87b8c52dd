"""Rewards of solutions as a table with bars."""

from __future__ import annotations

import math
from dataclasses import dataclass
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


@dataclass(frozen=True)
class Score:
    """A row: which step it is, or how the steps were put together; NaN is no reward."""

    name: str
    reward: float
    text: str


def show_scores(console: Console, name: str, rows: Sequence[Score], threshold: float) -> None:
    """One line a score: the reward, a bar, and how the text begins."""
    table = Table(title=Text(visible(name)), title_justify="left", box=None, pad_edge=False)
    table.add_column("step", justify="right")
    table.add_column("reward", justify="right")
    if console.width >= NARROW:
        table.add_column("", width=BAR)
    table.add_column("text", no_wrap=True, overflow="ellipsis", ratio=1)
    for row in rows:
        style = "green" if row.reward >= threshold else "red"
        known = not math.isnan(row.reward)
        cells = [Text(row.name), Text(f"{row.reward:.3f}" if known else "none", style=style)]
        if console.width >= NARROW:
            cells.append(Text("█" * round(row.reward * BAR) if known else "", style=style))
        table.add_row(*cells, Text(visible(readable(" ".join(row.text.split())))))
    console.print(table)
