"""The commands of a conversation by name: what there is, and which one a line means. Carries none of them out."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from rsd_cli.errors import UsageError
from rsd_cli.registry.names import nearest

SLASH = "/"
SHOWN = ("settings", "trio", "context")


@dataclass(frozen=True)
class Command:
    """A command; `argument` is how its help writes what follows the name, and `choices` what that may be."""

    name: str
    help: str
    argument: str = ""
    aliases: tuple[str, ...] = ()
    choices: tuple[str, ...] = ()

    @property
    def takes_a_file(self) -> bool:
        """Whether a file's name follows."""
        return "FILE" in self.argument


COMMANDS = (
    Command("help", "what can be typed here", aliases=("?",)),
    Command("bye", "leave; Ctrl-D does it too", aliases=("exit", "quit")),
    Command("clear", "begin a new conversation, without a file of /read; the system prompt stays"),
    Command("regen", "answer the last question again, with the next seed"),
    Command("undo", "take the last question and its answer back"),
    Command("edit", "change the last question, here or as TEXT", "[TEXT]"),
    Command("set", "change a setting; alone: show them", "[KEY VALUE]"),
    Command("show", "what is set, loaded or remembered", f"[{'|'.join(SHOWN)}]", choices=SHOWN),
    Command("steps", "the last answer's steps, rewards and rejected drafts"),
    Command("why", "step N's rejected draft beside the target's step", "N"),
    Command("stats", "what the last answer and this conversation took"),
    Command("compare", "the last question by the target alone, beside the answer"),
    Command("compact", "drop the oldest turns: N, or until half of the context is free", "[N]"),
    Command("save", "keep the conversation: .md reads well, any other name is JSONL", "FILE"),
    Command("load", "go on with a saved conversation", "FILE"),
    Command("read", "put a text file before your next question; alone: leave it out again", "[FILE]"),
    Command("copy", "the last answer to the clipboard, through the terminal"),
)
LONGEST_NUMBER = 18  # digits; Python refuses to read some thousands
NAMES = {name: command for command in COMMANDS for name in (command.name, *command.aliases)}


@dataclass(frozen=True)
class Call:
    """A command with the text behind its name."""

    command: Command
    argument: str

    @property
    def name(self) -> str:
        """The command's first name."""
        return self.command.name


def parse(line: str) -> Call | None:
    """The command that a line calls, None for a question; what begins with a slash is never a question."""
    if not line.startswith(SLASH):
        return None
    word, *rest = line[1:].strip().split(maxsplit=1) or [""]
    name, argument = word.lower(), "".join(rest)
    if name not in NAMES:
        raise _unknown(name)
    command = NAMES[name]
    if argument and not command.argument:
        raise UsageError(f"/{command.name} takes nothing behind it, not {argument!r}.")
    if not argument and command.argument and not command.argument.startswith("["):
        raise UsageError(f"/{command.name} needs {command.argument}.", f"{command.help}.".capitalize())
    if command.takes_a_file:
        _check_file(argument)
    return Call(command, argument)


def _check_file(name: str) -> None:
    """Refuse what can't name a file on any disk."""
    try:
        Path(name).expanduser()
    except RuntimeError as error:
        raise UsageError(f"{name!r} begins with a home that is not there.", "Name another file.") from error
    if "\0" in name:
        raise UsageError(f"{name!r} is no name of a file.", "Name another file.")


def _unknown(name: str) -> UsageError:
    near = nearest(name, NAMES)
    meant = f"Did you mean /{near}? " if near else ""
    return UsageError(
        f"/{name} is no command.",
        f"{meant}/help lists them; a question that begins with a slash wants a space before it.",
    )


def whole_number(text: str, name: str, most: int | None = None) -> int:
    """A number from 1 to `most` behind a command."""
    number = int(text) if text.isascii() and text.isdigit() and len(text) <= LONGEST_NUMBER else 0
    if number < 1 or (most is not None and number > most):
        upto = f" to {most}" if most is not None else " or more"
        raise UsageError(f"/{name} {text!r} is not a number from 1{upto}.")
    return number
