"""The end of a run: the answer set apart, and what it took. Shows a finished record; measures nothing."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.panel import Panel
from rich.rule import Rule
from rich.table import Table
from rich.text import Text

from rsd_cli.display.latex import formula, readable
from rsd_cli.display.sanitise import visible
from rsd_cli.display.steps import COLOURS, LETTERS, counted
from rsd_cli.records import ROLES

if TYPE_CHECKING:
    from rich.console import Console

    from rsd_cli.records import Author, EndedBy, Record

_AUTHORS: tuple[Author, ...] = ("draft", "target")
_LABELS = 11  # cells that the labels of the summary take
_STRIP = 60  # cells of the strip that shows who wrote what, at most

_ENDINGS: dict[EndedBy, str] = {
    "max_tokens": "stopped at --max-tokens: the answer may be incomplete",
    "max_steps": "stopped at --max-steps: the answer may be incomplete",
    "timeout": "stopped at the time limit: the answer may be incomplete",
    "context": "stopped because the context is full: the answer may be incomplete",
    "interrupted": "interrupted: this is what was there",
}


def print_answer(console: Console, record: Record) -> None:
    """Set the final answer apart on a terminal; without one, say so and show the last step."""
    if record.final_answer is not None:
        content = Text(visible(_as_maths(record.final_answer)), style="bold")
        console.print(
            Panel(
                content,
                title="answer",
                title_align="left",
                border_style="green",
                padding=(0, 2),
                expand=False,
            )
        )
        return
    if not record.answer.strip():
        console.print(Text("no answer", style="dim"))
        return
    console.print(Text("no boxed answer; the last step says:", style="dim"))
    last = record.steps[-1].text if record.steps else record.answer
    console.print(Text(visible(readable(last.strip(" \n")))))


def print_summary(console: Console, record: Record) -> None:
    """Say who wrote the answer, what was discarded, and what it cost."""
    console.print(Rule(style="dim"))
    if record.ended_by in _ENDINGS:
        console.print(Text(f"! {_ENDINGS[record.ended_by]}", style="bold red"))
    table = Table.grid(padding=(0, 2))
    table.add_column(style="dim", min_width=_LABELS - 2)
    table.add_column(overflow="fold")
    for label, value in _rows(record, console.width - _LABELS):
        table.add_row(label, value)
    console.print(table)
    console.print()


def print_brief(console: Console, record: Record) -> None:
    """Say in a line who wrote the answer and how long it took; in a conversation there are many."""
    if record.ended_by in _ENDINGS:
        console.print(Text(f"! {_ENDINGS[record.ended_by]}", style="bold red"))
    parts = [_authors(record), Text(f"{duration(record.timings.total_ms)} · {_speed(record)}", style="dim")]
    console.print(Text(" ").join(parts))


def _rows(record: Record, width: int) -> list[tuple[str, Text]]:
    rows = [("written by", _authors(record))]
    strip = _strip(record, min(width, _STRIP))
    if strip is not None:
        rows.append(("", strip))
    if "draft" in record.usage and "target" in record.usage:
        rows.append(("discarded", Text(_discarded(record))))
    rows += [("time", _times(record)), ("speed", Text(_speed(record)))]
    if record.flops.target_only:
        share = record.flops.total / record.flops.target_only
        rows.append(("compute", Text(f"{share:.0%} of what the target alone needs for this text")))
    return rows


def _authors(record: Record) -> Text:
    shown = Text()
    for author in _AUTHORS:
        steps = sum(step.author == author for step in record.steps)
        shown.append(f"{LETTERS[author]} {counted(steps, 'step')}", COLOURS[author]).append("  ")
    tokens = sum(step.tokens for step in record.steps)
    if not tokens:
        return shown
    by_target = [step for step in record.steps if step.author == "target"]
    of_steps = len(by_target) / len(record.steps)
    of_tokens = sum(step.tokens for step in by_target) / tokens
    return shown.append(f"(target: {of_steps:.0%} of steps, {of_tokens:.0%} of tokens)", "dim")


def _strip(record: Record, width: int) -> Text | None:
    """Draw the steps in line, each as long as its share of the tokens."""
    tokens = sum(step.tokens for step in record.steps)
    spare = width - len(record.steps)
    if not tokens or spare < len(record.steps):
        return None
    shown = Text()
    for step in record.steps:
        cells = int(step.tokens / tokens * spare)
        shown.append(LETTERS[step.author] + "━" * cells, COLOURS[step.author])
    return shown


def _discarded(record: Record) -> str:
    rejected = sum(step.rejected is not None for step in record.steps)
    tokens = record.usage["draft"].discarded
    return f"{counted(tokens, 'draft token')}, {counted(rejected, 'rejected step')}"


def _times(record: Record) -> Text:
    shown = Text(f"{duration(record.timings.total_ms)}  ")
    parts = [f"load {duration(record.timings.load_ms)}"]
    for role in ROLES:
        if role in record.timings.roles:
            spent = record.timings.roles[role]
            parts.append(f"{role} {duration(spent.prompt_ms + spent.decode_ms)}")
    return shown.append(f"({' · '.join(parts)})", "dim")


def _speed(record: Record) -> str:
    tokens = sum(step.tokens for step in record.steps)
    seconds = (record.timings.total_ms - record.timings.load_ms) / 1000
    return (
        f"{counted(tokens, 'token')}, {tokens / seconds:.1f} per second"
        if seconds > 0
        else f"{tokens} tokens"
    )


def duration(milliseconds: float) -> str:
    """Write a time as people say it."""
    seconds = milliseconds / 1000
    return f"{seconds:.1f} s" if seconds < 60 else f"{seconds // 60:.0f} min {seconds % 60:02.0f} s"


def _as_maths(answer: str) -> str:
    """Read a box's content: maths where it looks like it, for boxes also hold words and money."""
    return formula(answer) if "\\" in answer or "^" in answer else answer
