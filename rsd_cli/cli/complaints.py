"""What typer finds wrong with a command line, as an error like all others: one sentence, and what to try next."""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING, Any

import typer
from typer._click import exceptions as click

from rsd_cli.errors import RSDError, UsageError

if TYPE_CHECKING:
    from collections.abc import Sequence

TOO_MANY = "Got unexpected extra argument"
FOR_EXAMPLE = {"beta": "gsi", "aggregate": "best-of-n"}  # settings that say nothing to RSD itself


def is_complaint(error: Exception) -> bool:
    """Whether typer raised this, and not a command."""
    return isinstance(error, typer.Abort | click.ClickException)


def is_interrupt(error: Exception) -> bool:
    """Whether somebody pressed Ctrl-C at a question of typer's, which makes an Abort of that and of Ctrl-D."""
    return isinstance(error, typer.Abort) and isinstance(error.__context__, KeyboardInterrupt)


def translated(error: Exception, argv: Sequence[str]) -> RSDError:
    """A complaint of typer's about this command line, in our words."""
    if isinstance(error, typer.Abort):
        return RSDError("It was not agreed to, so nothing was done.", "--yes agrees beforehand.")
    text = error.format_message() if isinstance(error, click.ClickException) else str(error)
    message, _, hint = text.partition(". ")
    context = getattr(error, "ctx", None)
    command = context.command_path if context else "rsd COMMAND"
    if isinstance(error, click.NoSuchOption):
        message = f"{command} has no option {error.option_name}"
        hint = _option_hint(command, error.option_name, error.possibilities or (), argv)
    elif command == "rsd ask" and message.startswith(TOO_MANY):
        hint = 'A question of several words stands in quotes: rsd ask "What is 3 x 4?"'
    elif isinstance(error, click.NoArgsIsHelpError):
        message, hint = f"{command} needs a command", ""
    elif isinstance(error, click.BadParameter) and error.__cause__:
        message = _value_message(error, error.__cause__)
    return UsageError(f"{message.rstrip('.')}.", hint or f"`{command} --help` says what there is.")


def _value_message(error: click.BadParameter, cause: Any) -> str:  # noqa: ANN401 - pydantic's, which is not imported
    """--threshold 'nan' should be …"""
    wrong = cause.errors()[0]
    name = error.param.opts[0] if error.param else ""
    return f"{name} {wrong['input']!r} {wrong['msg'].removeprefix('Input ').split(', ')[0]}"


def _option_hint(command: str, option: str, possible: Sequence[str], argv: Sequence[str]) -> str:
    from rsd_cli.cli.eval_plan import KEYS

    key = option.removeprefix("--")
    if command == "rsd eval" and key.replace("-", "_") in KEYS:
        strategy = FOR_EXAMPLE.get(key, "rsd")
        return f"There it is a strategy's own: {strategy}/{key}={_value(option, argv)} in --strategies."
    asked = next((argument for argument in argv if _is_question(argument, option)), None)
    if command == "rsd ask" and asked:
        return f"A question that begins with - stands behind --: rsd ask -- {shlex.quote(asked)}"
    return f"Did you mean {' or '.join(sorted(possible))}?" if possible else ""


def _is_question(argument: str, option: str) -> bool:
    """Whether what was taken for this option is a text or a number; a value behind --option= may be a text."""
    name = argument.partition("=")[0] if option.startswith("--") else argument
    return argument.startswith(option) and (" " in name or option[1:2].isdecimal())


def _value(option: str, argv: Sequence[str]) -> str:
    """What stands behind an option that is not known."""
    words = [word for argument in argv for word in argument.split("=", 1)]
    behind = words[words.index(option) + 1 :] if option in words else []
    return behind[0] if behind and not behind[0].startswith("-") else "on"
