"""Lines as commands: names, aliases, arguments, and what is refused with which advice."""

from __future__ import annotations

import pytest

from rsd_cli.chat.commands import COMMANDS, NAMES, SHOWN, parse, whole_number
from rsd_cli.errors import UsageError

NEEDS = [command.name for command in COMMANDS if command.argument and not command.argument.startswith("[")]
MAY_HAVE = [command.name for command in COMMANDS if command.argument.startswith("[")]
TAKES_NONE = [command.name for command in COMMANDS if not command.argument]


def called(line):
    call = parse(line)
    return call and (call.name, call.argument)


@pytest.mark.parametrize(
    "question", ["", "What?", " /help", "help", "a /help", "\\help", "1/2 + 1/3", "\n/help"]
)
def test_what_begins_with_no_slash_is_a_question(question):
    assert parse(question) is None


@pytest.mark.parametrize(
    ("line", "call"),
    [
        ("/help", ("help", "")),
        ("/?", ("help", "")),
        ("/HELP", ("help", "")),
        ("/exit", ("bye", "")),
        ("/Quit", ("bye", "")),
        ("/bye  ", ("bye", "")),
        ("/ bye", ("bye", "")),
        ("/set", ("set", "")),
        ("/set  threshold   0.5 ", ("set", "threshold   0.5")),
        ("/set\tseed 3", ("set", "seed 3")),
        ("/set system Two  words\nand a Line", ("set", "system Two  words\nand a Line")),
        ("/save My Notes.md", ("save", "My Notes.md")),
        ("/edit\nWhat\nnow?", ("edit", "What\nnow?")),
        ("/why 3", ("why", "3")),
        ("/show Trio", ("show", "Trio")),
    ],
)
def test_commands_are_read_whatever_their_case(line, call):
    assert called(line) == call


def test_every_command_has_its_own_names_and_says_what_it_does():
    names = [name for command in COMMANDS for name in (command.name, *command.aliases)]
    assert len(names) == len(set(names)) == len(NAMES)
    assert all(command.help for command in COMMANDS)


@pytest.mark.parametrize("name", [*TAKES_NONE, *MAY_HAVE])
def test_some_commands_stand_alone(name):
    assert called(f"/{name}") == (name, "")


@pytest.mark.parametrize("name", NEEDS)
def test_a_missing_argument_is_named(name):
    with pytest.raises(UsageError, match=f"^/{name} needs {NAMES[name].argument}") as refused:
        parse(f"/{name} ")
    assert refused.value.hint.lower() == f"{NAMES[name].help}.".lower()


@pytest.mark.parametrize("name", TAKES_NONE)
def test_an_argument_too_many_is_shown(name):
    with pytest.raises(UsageError, match=f"^/{name} takes nothing behind it, not 'it all'"):
        parse(f"/{name} it all")


@pytest.mark.parametrize(
    ("line", "meant"),
    [
        ("/hlep", "/help"),
        ("/regenerate", "/regen"),
        ("/UNDOO", "/undo"),
        ("/exti now", "/exit"),
        ("/stat", "/stats"),
    ],
)
def test_a_slip_is_told_what_was_meant(line, meant):
    with pytest.raises(UsageError, match="is no command") as refused:
        parse(line)
    assert f"Did you mean {meant}?" in refused.value.hint


@pytest.mark.parametrize("line", ["/", "/ ", "//", "/usr/bin/env python", "/dx/dt", "/\x1b[2J", "/é"])
def test_other_slashes_never_become_questions(line):
    with pytest.raises(UsageError, match="is no command") as refused:
        parse(line)
    assert "Did you mean" not in refused.value.hint
    assert "wants a space before it" in refused.value.hint


@pytest.mark.parametrize("name", [command.name for command in COMMANDS if command.takes_a_file])
@pytest.mark.parametrize("file", ["a\0b", "~nobody-of-this-name/x"])
def test_what_can_name_no_file_is_refused(name, file):
    with pytest.raises(UsageError, match=r"is no name|begins with a home"):
        parse(f"/{name} {file}")


def test_the_commands_with_files_are_known():
    assert {command.name for command in COMMANDS if command.takes_a_file} == {"save", "load", "read"}


def test_what_can_be_shown_is_offered():
    assert NAMES["show"].choices == SHOWN
    assert all(what in NAMES["show"].argument for what in SHOWN)


@pytest.mark.parametrize(("text", "number"), [("1", 1), ("007", 7), ("10", 10)])
def test_numbers_behind_commands(text, number):
    assert whole_number(text, "why", 10) == number
    assert whole_number(text, "compact") == number


@pytest.mark.parametrize(
    "text", ["0", "-1", "+1", "1.0", "1e1", "", " 1", "1 2", "one", "１", "²", "1_0", "nan", "9" * 5000, "11"]
)
def test_what_is_no_number_up_to_the_most_is_refused(text):
    with pytest.raises(UsageError, match="is not a number from 1 to 10"):
        whole_number(text, "why", 10)


def test_a_number_of_nothing_is_refused():
    with pytest.raises(UsageError, match=r"^/why '1' is not a number from 1 to 0\.$"):
        whole_number("1", "why", 0)
    with pytest.raises(UsageError, match="is not a number from 1 or more"):
        whole_number("0", "compact")
