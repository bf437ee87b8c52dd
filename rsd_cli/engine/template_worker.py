"""Renders chat templates in a process of its own, where a hostile template can only hurt itself.

Reads one JSON request a line, writes one JSON answer a line. Started by `isolated.command`; imports nothing of this
package. The parent bounds the time; memory and CPU time are bounded here.
"""

from __future__ import annotations

import contextlib
import json
import math
import sys
import time
from datetime import datetime
from typing import TYPE_CHECKING

from jinja2 import TemplateError, Undefined, UndefinedError
from jinja2.ext import Extension, loopcontrols
from jinja2.nodes import Node, Scope
from jinja2.sandbox import ImmutableSandboxedEnvironment

if TYPE_CHECKING:
    from jinja2.parser import Parser

MEMORY_BYTES = 1 << 30
CPU_SECONDS = 8
OUTPUT_CHARACTERS = 1_000_000


def limit_resources() -> None:
    """Bound memory, and the CPU time of the next request, where the system can."""
    try:
        import resource
    except ImportError:  # Windows has no rlimits; the parent's clock remains
        return
    seconds = math.ceil(time.process_time()) + CPU_SECONDS  # the system counts from the start
    longest = resource.getrlimit(resource.RLIMIT_CPU)[1]  # which could not be raised again
    bounds = {resource.RLIMIT_AS: (MEMORY_BYTES, MEMORY_BYTES), resource.RLIMIT_CPU: (seconds, longest)}
    for limit, amounts in bounds.items():
        with contextlib.suppress(OSError, ValueError):  # macOS knows no limit on addresses
            resource.setrlimit(limit, amounts)


def raise_exception(message: str) -> None:
    """What templates call to refuse a conversation."""
    raise TemplateError(message)


def strftime_now(layout: str) -> str:
    """What templates call to show today's date."""
    return datetime.now().astimezone().strftime(layout)


class Generation(Extension):
    """`{% generation %}`, with which templates mark what is trained on: here its body only."""

    tags = {"generation"}  # noqa: RUF012 - declared like this by jinja2

    def parse(self, parser: Parser) -> Node:
        """The body; what is set inside stays inside."""
        line = next(parser.stream).lineno
        return Scope(parser.parse_statements(("name:endgeneration",), drop_needle=True), lineno=line)


def environment(*, dated: bool = False) -> ImmutableSandboxedEnvironment:
    """The environment that transformers gives to chat templates, with today's date or without."""
    made = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, undefined=Undefined, extensions=[loopcontrols, Generation]
    )
    made.globals["raise_exception"] = raise_exception
    if dated:
        made.globals["strftime_now"] = strftime_now
    made.filters["tojson"] = lambda value, **_options: json.dumps(value, ensure_ascii=False)
    return made


def render(request: dict[str, object]) -> str:
    """The text of one request, or an exception whose text says what is wrong.

    Only a template that can't do without a date gets one: others have a fixed one, with which a run can be repeated.
    """
    source = str(request.pop("template"))
    try:
        return written(environment(), source, request)
    except UndefinedError as error:
        if f"'{strftime_now.__name__}'" not in str(error):
            raise
        return written(environment(dated=True), source, request)


def written(jinja: ImmutableSandboxedEnvironment, source: str, request: dict[str, object]) -> str:
    """What the template writes, as long as it is not too much."""
    pieces, length = [], 0
    for piece in jinja.from_string(source).generate(**request, add_generation_prompt=True):
        length += len(piece)
        if length > OUTPUT_CHARACTERS:
            raise TemplateError(f"it writes more than {OUTPUT_CHARACTERS:,} characters")
        pieces.append(piece)
    return "".join(pieces)


def answer(line: str) -> dict[str, str]:
    """One request's answer: its text, or why there is none."""
    try:
        return {"text": render(json.loads(line))}
    except MemoryError:
        return {"error": f"it needs more than {MEMORY_BYTES >> 20} MiB"}
    except Exception as error:  # noqa: BLE001 - a template can raise anything
        return {"error": f"{type(error).__name__}: {error}"[:500]}


def main() -> None:
    """Serve until standard input ends."""
    for line in sys.stdin:
        limit_resources()
        sys.stdout.write(json.dumps(answer(line)) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
