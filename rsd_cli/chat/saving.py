"""Conversations as files of the user's: JSONL, or Markdown that reads well and still holds the whole of it.

A Markdown file ends with the JSONL in a comment; that is what is read back, so a restored conversation is exact.
"""

from __future__ import annotations

import contextlib
import json
from typing import TYPE_CHECKING

from rsd_cli.chat.journal import Kept, opening, replay, turn_line
from rsd_cli.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from rsd_cli.records import Record, Step

MARKDOWN = (".md", ".markdown")
BEGIN, END = "<!-- rsd-chat", "-->"


def save(kept: Kept, path: Path) -> None:
    """Write the conversation to a file that is not there yet."""
    lines = [opening(kept), *(turn_line(turn) for turn in kept.conversation.turns)]
    text = "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines)
    if path.suffix.lower() in MARKDOWN:
        # A JSON string may hold what ends a comment; written as escapes it is the same string.
        hidden = text.replace("--", "-\\u002d").replace(">", "\\u003e")
        text = f"{_markdown(kept)}\n{BEGIN}\n{hidden}{END}\n"
    try:
        # Half a character has no UTF-8; as an escape it is the same JSON.
        with path.open("x", encoding="utf-8", errors="backslashreplace") as file, _whole(path):
            file.write(text)
            file.flush()
    except FileExistsError as error:
        raise UsageError(f"{path} is there already.", "Name another file.") from error
    except OSError as error:
        raise UsageError(f"{path} can't be written: {error.strerror}.", "Name another file.") from error


@contextlib.contextmanager
def _whole(path: Path) -> Iterator[None]:
    """Leave no file that could not be written to its end."""
    try:
        yield
    except OSError:
        path.unlink(missing_ok=True)
        raise


def load(path: Path) -> Kept:
    """The conversation that was saved to a file."""
    try:
        if path.exists() and not path.is_file():
            raise UsageError(f"{path} is no regular file.", "Name a file that /save wrote.")
        text = path.read_bytes().decode()
    except UnicodeDecodeError as error:
        raise UsageError(f"{path} is no text: byte {error.start + 1:,} is not UTF-8.") from error
    except OSError as error:
        raise UsageError(
            f"{path} can't be read: {error.strerror}.", "Name a file that /save wrote."
        ) from error
    lines = text.rstrip("\n").split("\n")
    if path.suffix.lower() in MARKDOWN:
        if BEGIN not in lines:
            raise UsageError(f"{path} holds no conversation of rsd.", "Name a file that /save wrote.")
        lines = lines[len(lines) - lines[::-1].index(BEGIN) :]
        lines = lines[: lines.index(END)] if END in lines else lines
    return replay(lines, path)


def _markdown(kept: Kept) -> str:
    parts = [f"# Conversation {kept.id}", f"Trio `{kept.trio}`, threshold {kept.settings.threshold:g}."]
    for number, turn in enumerate(kept.conversation.turns, start=1):
        parts += [
            f"## {number}. You",
            turn.question,
            f"## {number}. Answer",
            *map(_step, turn.steps),
            _facts(turn),
        ]
    return "\n\n".join(parts) + "\n"


def _step(step: Step) -> str:
    reward = "" if step.reward is None else f", reward {step.reward:.2f}"
    return f"{step.text.strip()}\n\n*{step.author}{reward}*"


def _facts(turn: Record) -> str:
    steps = sum(step.author == "target" for step in turn.steps)
    return f"*{steps} of {len(turn.steps)} steps by the target; ended by {turn.ended_by}.*"
