"""What a question, the roles and a step look like: pure functions from values to lines of Rich text.

A model's text becomes readable and harmless here, and is never parsed as markup.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.text import Text

from rsd_cli.display.latex import readable
from rsd_cli.display.sanitise import visible

if TYPE_CHECKING:
    from collections.abc import Mapping

    from rich.console import Console

    from rsd_cli.records import Author, Rejected, Role, Step

COLOURS: dict[Role, str] = {"draft": "cyan", "target": "yellow", "prm": "magenta"}
LETTERS: dict[Role, str] = {"draft": "D", "target": "T", "prm": "P"}

NARROW = 72  # columns below which headings and the status line abbreviate

_BOX = r"⟦[^⟧]*⟧"
_MARGIN = 4
_QUESTION_LINES = 12


def counted(number: int, noun: str) -> str:
    """Write `1 token` or `2 tokens`."""
    return f"{number:,} {noun}" if number == 1 else f"{number:,} {noun}s"


def badge(role: Role) -> Text:
    """Show a role by letter and colour."""
    return Text(f" {LETTERS[role]} ", style=f"bold black on {COLOURS[role]}")


def question_lines(question: str, console: Console) -> list[Text]:
    """Show the question, or the first lines of a very long one."""
    lines = wrapped(question, console, "bold")
    hidden = len(lines) - _QUESTION_LINES
    if hidden > 1:
        lines[_QUESTION_LINES:] = [Text(f"… {hidden} more lines", style="dim")]
    return [Text.assemble("  ", line) for line in lines]


def role_lines(roles: Mapping[Role, str], strategy: str, width: int) -> list[Text]:
    """Say which letter and colour belongs to which model: in one line if it fits, else a line each."""
    named = [(role, visible(name)) for role, name in roles.items()]
    entries = [Text.assemble(badge(role), " ", (role, "dim"), " ", name) for role, name in named]
    line = Text("   ").join([*entries, Text.assemble(("strategy ", "dim"), visible(strategy))])
    if line.cell_len <= width:
        return [line]
    stacked = [Text.assemble(badge(role), " ", (f"{role:8}", "dim"), " ", name) for role, name in named]
    return [*stacked, Text.assemble(("    strategy ", "dim"), visible(strategy))]


def kept_lines(step: Step, number: int, console: Console) -> list[Text]:
    """Show a step that stays."""
    details = _rewards(step.reward, console)
    if step.rejected is not None and step.author == "target":
        details.append("rewritten")
    details.append(counted(step.tokens, "token"))
    heading = _heading(step.author, number, Text(" · ".join(details), style="dim"))
    return [heading, *body_lines(step.text, step.author, console)]


def rejected_lines(rejected: Rejected, number: int, console: Console) -> list[Text]:
    """Show a draft step that the target rewrites."""
    figures = [*_rewards(rejected.reward, console), counted(rejected.tokens, "token")]
    details = Text.assemble(("✗ rejected", "bold red"), (" · " + " · ".join(figures), "dim"))
    lines = [Text.assemble((" ┊  ", "dim"), line) for line in wrapped(rejected.text, console, "dim strike")]
    return [_heading("draft", number, details), *lines]


def unfinished_lines(text: str, author: Author, number: int, console: Console) -> list[Text]:
    """Show the step that was being written when everything stopped."""
    heading = _heading(author, number, Text("unfinished", style="dim"))
    return [heading, *body_lines(text, author, console)]


def writing_heading(author: Author, number: int) -> Text:
    """Head the step that is being written."""
    return _heading(author, number, Text("…", style="dim"))


def body_lines(text: str, author: Author, console: Console) -> list[Text]:
    """Show a step's text beside a bar in its author's colour."""
    lines = wrapped(text, console)
    for line in lines:
        line.highlight_regex(_BOX, "bold green")
    return [Text.assemble((" ┃  ", COLOURS[author]), line) for line in lines]


def wrapped(text: str, console: Console, style: str = "") -> list[Text]:
    """Fold a model's text to the console's width, less the margin."""
    shown = Text(visible(readable(text.strip(" \n"))), style=style)
    shown.expand_tabs(4)
    lines = shown.wrap(console, max(console.width - _MARGIN, 1))
    for line in lines:
        line.rstrip()
    return list(lines)


def _heading(author: Author, number: int, details: Text) -> Text:
    return Text.assemble(badge(author), " ", (str(number), "bold"), "  ", details)


def _rewards(reward: float | None, console: Console) -> list[str]:
    if reward is None:
        return []
    return [f"reward {reward:.2f}" if console.width >= NARROW else f"{reward:.2f}"]
