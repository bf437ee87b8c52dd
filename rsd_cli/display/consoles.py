"""The two consoles, and errors. Honours NO_COLOR, FORCE_COLOR, TERM=dumb and TTY_INTERACTIVE as Rich does."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, TextIO

from rich.console import Console as Console  # noqa: PLC0414 - commands name it without knowing rich
from rich.text import Text

from rsd_cli.display.sanitise import visible

if TYPE_CHECKING:
    from rsd_cli.errors import RSDError


def stderr_console(*, color: bool) -> Console:
    """Give the console for everything but the answer."""
    return _console(sys.stderr, color=color)


def stdout_console(*, color: bool) -> Console:
    """Give the console for an answer that a person reads."""
    return _console(sys.stdout, color=color)


def literal(text: str) -> Text:
    """Text from elsewhere: no markup, nothing that a terminal would obey."""
    return Text(visible(text))


def show_error(error: RSDError, *, color: bool = True) -> None:
    """Write what went wrong and what to try next, a line each, to stderr."""
    console = stderr_console(color=color)
    lines = [Text.assemble(("error: ", "bold red"), _one_line(error.message))]
    if error.hint:
        lines.append(Text.assemble(("hint: ", "bold"), _one_line(error.hint)))
    for line in lines:
        console.print(line, soft_wrap=True)


def _console(file: TextIO, *, color: bool) -> Console:
    # FORCE_COLOR asks for colour in a file, not for cursor movements in it.
    may_animate = None if file.isatty() else False
    return Console(
        file=file,
        no_color=not color or None,  # None: as NO_COLOR says
        force_interactive=may_animate,
        highlight=False,
        markup=False,
        emoji=False,
    )


def _one_line(text: str) -> str:
    return visible(" ".join(text.split("\n")).strip())
