"""The question of `rsd ask`: the argument, standard input, or both; and the file before a question of `rsd chat`.

Refuses what no model should read.
"""

from __future__ import annotations

import sys
from pathlib import Path

from rsd_cli.errors import UsageError

MAX_BYTES = 4_000_000


def read_question(argument: str | None) -> str:
    """The argument, `-` for standard input; piped input is appended to an argument."""
    typed = sys.stdin.isatty()  # nobody pipes anything in
    if argument is None and typed:
        raise UsageError("No question is given.", 'Ask one: rsd ask "What is 3 x 4?"')
    if argument is None or argument == "-":
        return _checked(_read_stdin())
    piped = "" if typed else _read_stdin()
    return _checked("\n\n".join(part for part in (_argument(argument), piped.strip()) if part))


def read_file(name: str) -> str:
    """The text of a regular file: another one may have no end, or nobody at its other end."""
    try:
        path = Path(name).expanduser()
        if path.exists() and not path.is_file():
            raise UsageError(f"{name} is no regular file.", "Name a file with text in it.")
        with path.open("rb") as file:
            data = file.read(MAX_BYTES + 1)
        if len(data) > MAX_BYTES:
            raise UsageError(f"{name} is longer than {MAX_BYTES:,} bytes.", "Name a shorter file.")
        return data.decode().removeprefix("\ufeff")
    except OSError as error:
        raise UsageError(
            f"{name} can't be read: {error.strerror}.", "Name a file with text in it."
        ) from error
    except UnicodeDecodeError as error:
        raise UsageError(
            f"{name} is no text: byte {error.start + 1:,} is not UTF-8.",
            "Convert it, for example with iconv.",
        ) from error


def _argument(text: str) -> str:
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise UsageError(
            f"The question is not valid text: a byte at character {error.start + 1} is not UTF-8.",
            "Check the terminal's encoding, or pass the question through a file: rsd ask - < FILE.",
        ) from error
    return text


def _read_stdin() -> str:
    data = sys.stdin.buffer.read(MAX_BYTES + 1)
    if len(data) > MAX_BYTES:
        raise _too_long()
    try:
        return data.decode().removeprefix("\ufeff")
    except UnicodeDecodeError as error:
        raise UsageError(
            f"Standard input is not UTF-8: byte {error.start + 1:,} is 0x{data[error.start]:02x}.",
            "Convert it, for example with iconv -t UTF-8.",
        ) from error


def _too_long() -> UsageError:
    return UsageError(f"The question is longer than {MAX_BYTES:,} bytes.", "Shorten it.")


def _checked(text: str) -> str:
    if len(text.encode("utf-8", "replace")) > MAX_BYTES:
        raise _too_long()
    if not text.strip():
        raise UsageError("The question is empty.", 'Ask one: rsd ask "What is 3 x 4?"')
    return text.strip()
