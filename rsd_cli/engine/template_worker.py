"""Renders chat templates in a process of its own, where a hostile template can only hurt itself.

Reads one JSON request a line, writes one JSON answer a line. Started by `isolated.command`; imports nothing of this
package. The parent bounds the time; memory and CPU time are bounded here.
"""

from __future__ import annotations

import contextlib
import json
import sys

from jinja2 import TemplateError, Undefined
from jinja2.ext import loopcontrols
from jinja2.sandbox import ImmutableSandboxedEnvironment

MEMORY_BYTES = 1 << 30
CPU_SECONDS = 8
OUTPUT_CHARACTERS = 1_000_000


def limit_resources() -> None:
    """Bound memory and CPU time where the system can."""
    try:
        import resource
    except ImportError:  # Windows has no rlimits; the parent's clock remains
        return
    for limit, amount in ((resource.RLIMIT_AS, MEMORY_BYTES), (resource.RLIMIT_CPU, CPU_SECONDS)):
        with contextlib.suppress(OSError, ValueError):  # macOS knows no limit on addresses
            resource.setrlimit(limit, (amount, amount))


def raise_exception(message: str) -> None:
    """What templates call to refuse a conversation."""
    raise TemplateError(message)


def environment() -> ImmutableSandboxedEnvironment:
    """The environment that transformers gives to chat templates."""
    made = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, undefined=Undefined, extensions=[loopcontrols]
    )
    made.globals["raise_exception"] = raise_exception
    made.filters["tojson"] = lambda value, **_options: json.dumps(value, ensure_ascii=False)
    return made


def render(request: dict[str, object]) -> str:
    """The text of one request, or an exception whose text says what is wrong."""
    template = environment().from_string(str(request.pop("template")))
    pieces, length = [], 0
    for piece in template.generate(**request, add_generation_prompt=True):
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
    limit_resources()
    for line in sys.stdin:
        sys.stdout.write(json.dumps(answer(line)) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
