"""What a conversation's commands show: help, settings, steps, a step's two versions, statistics. Decides nothing."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from rich.console import Console
from rich.table import Table
from rich.text import Text

from rsd_cli.display import steps
from rsd_cli.display.answer import duration
from rsd_cli.display.sanitise import visible
from rsd_cli.records import ROLES, Usage, total

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from rsd_cli.records import Record, Role, Step

    Wrapped = Callable[[Console], Text]

WIDE = 100  # columns from which on two texts stand side by side


@dataclass(frozen=True)
class Room:
    """How much of a model's context a conversation takes, in tokens."""

    role: Role
    used: int
    n_ctx: int

    @property
    def share(self) -> float:
        """Of the context, 0 to 1."""
        return self.used / self.n_ctx


def pairs(console: Console, rows: Iterable[tuple[str, str]]) -> None:
    """Print names with what they mean or are."""
    table = Table.grid(padding=(0, 2))
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    for name, meaning in rows:
        table.add_row(Text(visible(name), style="bold"), Text(visible(meaning)))
    console.print(table)


def notice(console: Console, text: str) -> None:
    """Print a remark of the program's own."""
    console.print(Text(visible(text), style="dim"), soft_wrap=True)


def all_steps(console: Console, record: Record) -> None:
    """Print an answer's steps with authors and rewards, and the drafts that were rejected."""
    for number, step in enumerate(record.steps, start=1):
        if step.rejected:
            _print(console, steps.rejected_lines(step.rejected, number, console))
        _print(console, steps.kept_lines(step, number, console))


def rewritten(console: Console, step: Step, number: int) -> None:
    """Print a rejected draft step and what the target wrote in its place."""
    if step.rejected is None:
        return
    rejected = step.rejected
    side_by_side(
        console,
        lambda part: _lines(steps.rejected_lines(rejected, number, part)),
        lambda part: _lines(steps.kept_lines(step, number, part)),
    )


def compared(console: Console, record: Record, alone: Record) -> None:
    """Print an answer beside that of the target alone, with their times."""
    side_by_side(
        console,
        lambda part: _titled(record, f"{record.strategy}: {_took(record)}", part),
        lambda part: _titled(alone, f"target alone: {_took(alone)}", part),
    )


def side_by_side(console: Console, left: Wrapped, right: Wrapped) -> None:
    """Print two texts in two columns where the terminal is wide, else below each other."""
    if console.width < WIDE:
        console.print(left(console), Text(), right(console), sep="\n")
        return
    part = Console(width=console.width // 2 - 1)  # only measures
    table = Table.grid(padding=(0, 1))
    for _ in ("left", "right"):
        table.add_column(width=part.width, no_wrap=True)
    table.add_row(left(part), right(part))
    console.print(table)


def statistics(console: Console, turns: Sequence[Record], rooms: Iterable[Room]) -> None:
    """Print what the last answer fed and wrote in each model, the same for all turns, and the contexts."""
    table = Table(box=None, padding=(0, 1), pad_edge=False, header_style="dim")
    table.add_column("tokens", style="dim", no_wrap=True)
    for role in ROLES:
        table.add_column(role, justify="right", no_wrap=True)
    last = [turns[-1].usage.get(role, Usage()) for role in ROLES]
    every = [total(turn.usage.get(role, Usage()) for turn in turns) for role in ROLES]
    for name, counted in (("last", last), ("all", every)):
        table.add_row(f"{name}: fed", *(f"{usage.fed:,}" for usage in counted))
        table.add_row("reused", *(f"{usage.reused:,}" for usage in counted))
        table.add_row("written", *(f"{usage.generated:,}" for usage in counted))
        table.add_row("discarded", *(f"{usage.discarded:,}" for usage in counted))
    by_role = {room.role: f"{room.used:,}/{room.n_ctx:,}" for room in rooms}
    table.add_row("context", *(by_role.get(role, "") for role in ROLES))
    console.print(table)
    kept = [step for turn in turns for step in turn.steps]
    by_target = sum(step.tokens for step in kept if step.author == "target")
    share = by_target / max(1, sum(step.tokens for step in kept))
    seconds = duration(sum(turn.timings.total_ms for turn in turns))
    notice(
        console, f"{steps.counted(len(turns), 'turn')}, {share:.0%} of the tokens by the target, {seconds}"
    )


def conversations(console: Console, rows: Iterable[Mapping[str, str]]) -> None:
    """Print a list of conversations."""
    table = Table(box=None, padding=(0, 2), header_style="dim")
    for heading in ("id", "changed", "turns"):
        table.add_column(heading, no_wrap=True)
    table.add_column(_in_a_line("first question"))  # it gives way, for an id is there to be copied
    for row in rows:
        table.add_row(*(_in_a_line(text) for text in row.values()))
    console.print(table)


def _in_a_line(text: str) -> Text:
    return Text(visible(text), no_wrap=True, overflow="ellipsis")


def _titled(record: Record, title: str, console: Console) -> Text:
    return _lines([Text(visible(title), style="bold"), *steps.wrapped(record.answer, console)])


def _took(record: Record) -> str:
    tokens = sum(step.tokens for step in record.steps)
    return f"{duration(record.timings.total_ms)}, {steps.counted(tokens, 'token')}"


def _lines(lines: Iterable[Text]) -> Text:
    return Text("\n").join(lines)


def _print(console: Console, lines: list[Text]) -> None:
    console.print(_lines([*lines, Text()]), no_wrap=True, overflow="ellipsis")
