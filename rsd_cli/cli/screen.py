"""Where answers go: the live steps to stderr where a person watches, the answer to stdout. Runs no model."""

from __future__ import annotations

import io
import sys
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

import typer

from rsd_cli.decoding.gating import unrewarded

if TYPE_CHECKING:
    from contextlib import ExitStack

    from rsd_cli.cli.trio import LoadedTrio
    from rsd_cli.display.ask import AskDisplay
    from rsd_cli.display.consoles import Console
    from rsd_cli.records import Record


def echo_json(text: str) -> None:
    """Write JSON to stdout; on a terminal what that would obey or hide is an escape, which is the same JSON."""
    from rsd_cli.display.sanitise import visible_json

    if isinstance(sys.stdout, io.TextIOWrapper):
        # Whatever the terminal speaks, JSON is UTF-8; half a character is an escape.
        sys.stdout.reconfigure(encoding="utf-8", errors="backslashreplace")
    typer.echo(visible_json(text) if sys.stdout.isatty() else text)


@dataclass(frozen=True)
class Screen:
    """How answers are shown; `is_brief` in a conversation, whose questions were typed before our eyes."""

    as_json: bool
    quiet: bool
    color: bool
    is_brief: bool = False

    @property
    def shows_steps(self) -> bool:
        """A person watches stderr and wants to see the steps."""
        return not self.quiet and sys.stderr.isatty()

    @property
    def console(self) -> Console:
        """The console for everything but the answer."""
        from rsd_cli.display.consoles import stderr_console

        return stderr_console(color=self.color)

    def display(
        self, stack: ExitStack, question: str, strategy: str, loaded: LoadedTrio
    ) -> AskDisplay | None:
        """The live display, where a person watches stderr."""
        if not self.shows_steps:
            return None
        from rsd_cli.display.answer import print_brief, print_summary
        from rsd_cli.display.ask import AskDisplay

        names = {role: model.name for role, model in loaded.models.items()}
        if loaded.prm:
            names["prm"] = loaded.prm.name
        asked, summary = (None, print_brief) if self.is_brief else (question, print_summary)
        display = AskDisplay(self.console, asked, names, strategy, time.perf_counter, summary)
        loaded.on_loading = display.loading
        return stack.enter_context(display)

    def deliver(self, record: Record) -> None:
        """The answer to stdout; steps that got no reward are worth a word."""
        n = unrewarded(record)
        if n and not self.quiet:
            from rsd_cli.display.steps import counted

            written = "it" if n == 1 else "them"
            told = f"The PRM gave no reward for {counted(n, 'step')}; the target wrote {written}."
            typer.echo(told, err=True)
        if self.as_json:
            echo_json(record.to_json())
        elif self.shows_steps and sys.stdout.isatty():
            from rsd_cli.display.answer import print_answer
            from rsd_cli.display.consoles import stdout_console

            print_answer(stdout_console(color=self.color), record)
        else:
            from rsd_cli.display.sanitise import visible

            text = record.answer.strip()
            typer.echo(visible(text) if sys.stdout.isatty() else text)
        sys.stdout.flush()
