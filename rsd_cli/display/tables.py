"""Tables of models and trios. Decides how facts look; where they come from is the registry's business."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from rich.console import Console
from rich.table import Table
from rich.text import Text

from rsd_cli.display.consoles import literal
from rsd_cli.registry.names import size_text

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from rich.console import RenderableType

    from rsd_cli.registry.status import ModelStatus, TrioStatus

PIPE_WIDTH = 160
WIDE = 80  # below, the trios of a model are left to the table of trios
NARROW = 50
STYLES = {"yes": "green", "partial": "yellow", "no": "dim"}


def result_console() -> Console:
    """Results go to stdout; into a pipe they are wide, since nobody sees the edge there."""
    console = Console(highlight=False)
    if not console.is_terminal and "COLUMNS" not in os.environ:
        console.width = PIPE_WIDTH
    return console


def show_list(console: Console, models: Sequence[ModelStatus], trios: Sequence[TrioStatus]) -> None:
    """What `rsd models list` prints."""
    console.print(_model_table(models, console.width))
    console.print()
    console.print(_trio_table(trios, console.width))


def show_fields(console: Console, fields: Mapping[str, str | Sequence[str]]) -> None:
    """Names and values; a value of several lines stays in its column, an empty one is left out."""
    grid = Table.grid(padding=(0, 2))
    grid.add_column(no_wrap=True, style="bold")
    grid.add_column(overflow="fold")
    for name, value in fields.items():
        lines = [value] if isinstance(value, str) else list(value)
        if any(lines):
            grid.add_row(name, literal("\n".join(lines)))
    console.print(grid)


def _model_table(models: Sequence[ModelStatus], width: int) -> Table:
    table = _table(width, "model", "present")
    table.add_column("size", justify="right", no_wrap=True)
    table.add_column("licence", overflow="fold")
    if width >= WIDE:
        table.add_column("trios", overflow="fold")
    for model in models:
        name = model.name + (" *" if model.unverified else "")
        present = Text(_presence(model), style=STYLES[model.present])
        cells: list[RenderableType] = [
            literal(name),
            present,
            _size(model.size),
            literal(model.licence),
            literal(", ".join(model.trios)),
        ]
        table.add_row(*cells[: len(table.columns)])
    if any(model.unverified for model in models):
        table.caption = "* unverified: rsd models show NAME says what could not be checked"
        table.caption_justify = "left"
    return table


def _size(size: int | None) -> str:
    return "unknown" if size is None else size_text(size)


def _presence(model: ModelStatus) -> str:
    if model.present == "partial" and model.size:
        return f"partial {100 * model.partial_bytes // model.size} %"
    return model.present


def _trio_table(trios: Sequence[TrioStatus], width: int) -> Table:
    table = _table(width, "trio")
    table.add_column("missing", overflow="fold")
    table.add_column("use it for", overflow="fold")
    for trio in trios:
        missing = Text("nothing", style="green") if not trio.missing else literal(_missing(trio))
        table.add_row(literal(trio.name), missing, literal(trio.use_for))
    return table


def _missing(trio: TrioStatus) -> str:
    size = f" ({size_text(trio.missing_bytes)})" if trio.missing_bytes is not None else ""
    return f"{', '.join(trio.missing)}{size}"


def _table(width: int, *names: str) -> Table:
    """Names stay whole, so that they can be copied, unless the screen is very narrow."""
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="bold")
    for name in names:
        table.add_column(name, overflow="fold", no_wrap=width >= NARROW)
    return table
