"""From a line of input to a question, in the three forms that are in use: OpenAI's batch lines, Inspect's, plain.

A row that can't be asked becomes a `BadRow`, with the reason; nothing here stops a run.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from rsd_cli.engine.templates import Message
from rsd_cli.strictjson import parsed

if TYPE_CHECKING:
    from collections.abc import Callable

    from rsd_cli.batch.source import Line

LONGEST_ID = 512  # characters
QUESTIONS = ("prompt", "question", "problem", "messages")
IDS = ("custom_id", "id")
GOLDS = ("target", "answer")
UNSUPPORTED = (
    *("tools", "functions", "response_format", "stream_options", "audio"),
    *("stop", "logprobs", "top_logprobs", "presence_penalty", "frequency_penalty", "logit_bias"),
)
USUAL = {"response_format": {"type": "text"}}  # says what rsd does anyway
TURNS = ("system", "user", "assistant")


@dataclass(frozen=True)
class Own:
    """What a row sets for itself; None where the run's setting holds."""

    max_tokens: int | None = None
    temperature: float | None = None
    top_p: float | None = None
    seed: int | None = None
    system: str | None = None
    strategy: str | None = None
    threshold: float | None = None


@dataclass(frozen=True)
class Row:
    """A question with its place, its name and what it sets for itself.

    `content` stands for all that its answer depends on: a row that was changed since it was answered is noticed.
    """

    line: int
    id: str
    question: str
    before: tuple[Message, ...]
    own: Own
    gold: str | None
    content: str


@dataclass(frozen=True)
class BadRow:
    """A line that can't be asked. `id` is its own where it has a usable one, else `line-N`."""

    line: int
    id: str
    code: str
    message: str
    content: str


@dataclass(frozen=True)
class Fields:
    """Names of the fields of plain rows; empty for the usual ones."""

    question: str = ""
    id: str = ""


class _BadRowError(Exception):
    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code


def parse_row(line: Line, fields: Fields) -> Row | BadRow | None:
    """The row of a line, None of a blank one."""
    if line.is_blank:
        return None
    name = f"line-{line.number}"
    try:
        values = _object(line)
        name = _id(values, fields) or name
        return _row(line, name, values, fields)
    except _BadRowError as bad:
        return BadRow(line.number, name, bad.code, str(bad), _digest(line.data or b""))


def row_id(line: Line, fields: Fields) -> str:
    """The name alone; cheaper, for a first look at a whole file."""
    try:
        return _id(_object(line), fields) or f"line-{line.number}"
    except _BadRowError:
        return f"line-{line.number}"


def field_names(line: Line) -> tuple[str, ...]:
    """What the fields of a line are called; none of a line that is no row."""
    try:
        return tuple(_object(line))
    except _BadRowError:
        return ()


def _object(line: Line) -> dict[str, Any]:
    if line.data is None:
        raise _BadRowError("too_long", f"The line is {line.size:,} bytes long; at most 4,000,000 are read.")
    try:
        text = line.data.decode()
    except UnicodeDecodeError as error:
        raise _BadRowError("invalid_utf8", f"Byte {error.start + 1} of the line is not UTF-8.") from error
    try:
        values = parsed(text)
    except RecursionError:
        raise _BadRowError("invalid_json", "The line is nested too deeply.") from None
    except ValueError as error:
        raise _BadRowError("invalid_json", f"The line is not JSON: {error}.") from error
    if not isinstance(values, dict):
        raise _BadRowError("invalid_json", f"The line is a JSON {type(values).__name__}, not an object.")
    return values


def _id(values: dict[str, Any], fields: Fields) -> str | None:
    """Strings and whole numbers are names (1 and "1" are the same); a row without one is called by its line."""
    name = next(
        (values[key] for key in ((fields.id,) if fields.id else IDS) if values.get(key) is not None), None
    )
    if name is None:
        return None
    if isinstance(name, bool) or not isinstance(name, (str, int)):
        raise _BadRowError(
            "bad_id", f"The id is a {type(name).__name__}; it must be a string or a whole number."
        )
    name = str(name)
    if not name.strip() or len(name) > LONGEST_ID:
        raise _BadRowError(
            "bad_id", f"The id is {len(name):,} characters long; possible are 1 to {LONGEST_ID}."
        )
    return _text(name, "id")


def _row(line: Line, name: str, values: dict[str, Any], fields: Fields) -> Row:
    body = values.get("body")
    if isinstance(body, dict):
        _check_openai(values, body)
        asked, given = body.get("messages"), body
    else:
        asked, given = _asked(values, fields), values
    question, before, system = _conversation(asked)
    own = _own(given, system)
    gold = None if isinstance(body, dict) else _gold(values)
    said = [{"role": turn.role, "content": turn.content} for turn in before]
    content = json.dumps([question, said, asdict(own)]).encode()
    return Row(line.number, name, question, before, own, gold, _digest(content))


def _check_openai(values: dict[str, Any], body: dict[str, Any]) -> None:
    method, url = values.get("method", "POST"), values.get("url", "/v1/chat/completions")
    if method != "POST":
        raise _BadRowError("bad_request", f"The method is {str(method)[:50]!r}; only POST can be answered.")
    if not isinstance(url, str) or not url.endswith("/chat/completions"):
        raise _BadRowError(
            "bad_request", f"The url is {str(url)[:50]!r}; only /v1/chat/completions can be answered."
        )
    for key in UNSUPPORTED:
        if body.get(key) and body[key] != USUAL.get(key):
            raise _BadRowError("unsupported", f"The request has {key}, which rsd does not do.")
    wanted = body.get("n")
    if wanted not in (None, 1):
        raise _BadRowError(
            "unsupported", f"The request has n {str(wanted)[:50]}; rsd batch --n is for all rows."
        )


def _asked(values: dict[str, Any], fields: Fields) -> object:
    if values.get("choices") and not fields.question:
        raise _BadRowError(
            "unsupported",
            "The row has choices, which rsd does not add to a question; --input-field names one that has them.",
        )
    names = (fields.question,) if fields.question else ("input", *QUESTIONS)
    asked = next((values[name] for name in names if values.get(name) is not None), None)
    if asked is None:
        raise _BadRowError("no_question", f"The row has no question: none of the fields {', '.join(names)}.")
    return asked


def _conversation(asked: object) -> tuple[str, tuple[Message, ...], str | None]:
    """The last user turn, the turns before it, and the system prompt if the conversation has one."""
    if not isinstance(asked, list):
        return _question(asked), (), None
    turns = [_turn(turn) for turn in asked]
    system = turns.pop(0).content if turns and turns[0].role == "system" else None
    if not turns or turns[-1].role != "user":
        raise _BadRowError("no_question", "The last of the messages must be the user's.")
    if any(turn.role == "system" for turn in turns):
        raise _BadRowError("bad_messages", "Only the first of the messages may be the system's.")
    return _question(turns[-1].content), tuple(turns[:-1]), system


def _turn(turn: object) -> Message:
    if not isinstance(turn, dict) or turn.get("role") not in TURNS:
        raise _BadRowError("bad_messages", f"A message needs a role, one of {', '.join(TURNS)}.")
    content = turn.get("content")
    if isinstance(content, list):
        texts = [
            part["text"] for part in content if isinstance(part, dict) and isinstance(part.get("text"), str)
        ]
        if len(texts) < len(content):
            raise _BadRowError("unsupported", "A message has a part that is not text.")
        content = "".join(texts)
    if not isinstance(content, str):
        raise _BadRowError(
            "bad_messages", f"The content of a message is a {type(content).__name__}, not a string."
        )
    return Message(turn["role"], _text(content, "message"))


def _question(asked: object) -> str:
    if not isinstance(asked, str):
        raise _BadRowError("no_question", f"The question is a {type(asked).__name__}, not a string.")
    if not asked.strip():
        raise _BadRowError("no_question", "The question is empty.")
    return _text(asked, "question")


def _text(text: str, what: str) -> str:
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise _BadRowError(
            "invalid_text", f"The {what} has half a surrogate pair at character {error.start + 1}."
        ) from error
    return text


def _gold(values: dict[str, Any]) -> str | None:
    """The known answer; Inspect writes a target that is not known as an empty string."""
    for name in GOLDS:
        given = values.get(name)
        if isinstance(given, list):
            given = given[0] if given else None
        if given is not None and not isinstance(given, (dict, list)) and str(given).strip():
            return _text(str(given), "answer")
    return None


def _own(given: dict[str, Any], system: str | None) -> Own:
    longest = _number(given, "max_completion_tokens", int, lambda n: n >= 1)
    longest = longest or _number(given, "max_tokens", int, lambda n: n >= 1)
    set_system = system if given.get("system") is None else given["system"]
    if set_system is not None and not isinstance(set_system, str):
        raise _BadRowError("bad_value", f"system is a {type(set_system).__name__}, not a string.")
    strategy = given.get("strategy")
    if strategy is not None and not isinstance(strategy, str):
        raise _BadRowError("bad_value", f"strategy is a {type(strategy).__name__}, not a string.")
    return Own(
        max_tokens=None if longest is None else int(longest),
        temperature=_number(given, "temperature", float, lambda t: 0 <= t <= 10),
        top_p=_number(given, "top_p", float, lambda p: 0 < p <= 1),
        seed=None if (seed := _number(given, "seed", int, lambda _: True)) is None else int(seed),
        system=None if set_system is None else _text(set_system, "system"),
        strategy=strategy,
        threshold=_number(given, "threshold", float, lambda t: 0 <= t <= 1),
    )


def _number(
    given: dict[str, Any], name: str, kind: type[int] | type[float], fits: Callable[[float], bool]
) -> float | None:
    value = given.get(name)
    if value is None:
        return None
    known = isinstance(value, int if kind is int else (int, float)) and not isinstance(value, bool)
    if not known or not fits(value):
        raise _BadRowError("bad_value", f"{name} is {str(value)[:50]!r}, which can't be used.")
    return float(value) if kind is float else value


def number_of(name: str) -> int:
    """64 bits that stand for an id where many are kept."""
    return int.from_bytes(hashlib.blake2b(name.encode(), digest_size=8).digest(), "little")


def _digest(data: bytes) -> str:
    return hashlib.blake2b(data, digest_size=8).hexdigest()
