"""A made-up run of five steps, one of them rejected. Watch it: `python -m tests.display.scripted`."""

from __future__ import annotations

import re
import sys
import time
from typing import TYPE_CHECKING

from rsd_cli.decoding.events import Ended, Event, Judged, Judging, Kept, Reading, Streamed
from rsd_cli.display.answer import print_answer
from rsd_cli.display.ask import AskDisplay
from rsd_cli.display.consoles import stderr_console, stdout_console
from rsd_cli.records import Flops, ModelId, Record, Rejected, Role, RoleTime, Step, Timings, Usage

if TYPE_CHECKING:
    from collections.abc import Iterator

QUESTION = (
    "Natalia sold clips to 48 of her friends in April, and then she sold half as many clips in May. "
    "How many clips did Natalia sell altogether in April and May?"
)
ROLES: dict[Role, str] = {
    "draft": "qwen2.5-coder-0.5b",
    "target": "qwen2.5-coder-1.5b",
    "prm": "judge on qwen2.5-coder-1.5b",
}
REJECTED = Rejected(
    "In May she sold half as many clips, so she sold\n\\[ 48 \\times 2 = 96 \\text{ clips}. \\]\n\n", 0.31, 27
)
STEPS = (
    Step(
        "To find how many clips Natalia sold altogether, we add the clips of April and of May.\n\n",
        "draft",
        0.94,
        20,
        900,
    ),
    Step("In April, Natalia sold \\(48\\) clips, one to each of her friends.\n\n", "draft", 0.91, 17, 800),
    Step(
        "In May, she sold half as many clips as in April:\n"
        "\\[ \\text{Clips in May} = \\frac{48}{2} = 24 \\]\n\n",
        "target",
        None,
        31,
        4100,
        REJECTED,
    ),
    Step("Adding both months gives\n\\[ 48 + 24 = 72. \\]\n\n", "draft", 0.88, 19, 850),
    Step("So Natalia sold \\(\\boxed{72}\\) clips altogether in April and May.", "draft", 0.97, 18, 800),
)
MODELS: dict[Role, ModelId] = {role: ModelId(name, None, 500_000_000) for role, name in ROLES.items()}


def record(**changes: object) -> Record:
    fields: dict[str, object] = {
        "id": "ask",
        "question": QUESTION,
        "answer": "".join(step.text for step in STEPS),
        "final_answer": "72",
        "steps": STEPS,
        "usage": {
            "draft": Usage(78, 101, 27, 109, 0),
            "target": Usage(78, 31, 0, 115, 0),
            "prm": Usage(60, 0, 27, 240, 0),
        },
        "flops": Flops(2.1e11, 4.5e11, 7.4e11, 5.6e12 / 3),
        "timings": Timings(
            1210.0,
            1630.0,
            14420.0,
            {"draft": RoleTime(420, 3350), "target": RoleTime(1460, 4100), "prm": RoleTime(3880, 0)},
        ),
        "ended_by": "eog",
        "strategy": "rsd",
        "settings": {},
        "models": MODELS,
        "versions": {},
        "seed": 0,
    }
    return Record(**(fields | changes))  # type: ignore[arg-type]


def _written(author: str, text: str) -> Iterator[Event]:
    for piece in re.findall(r"\s*\S{1,5}|\s+", text):
        yield Streamed("ask", author, piece)  # type: ignore[arg-type]


def _judged(text: str, tokens: int, reward: float, accepted: bool) -> Iterator[Event]:
    yield from _written("draft", text)
    yield Judging("ask")
    yield Reading("ask", "prm", tokens, tokens)
    yield Judged("ask", text, tokens, reward, accepted)


def events() -> Iterator[Event]:
    for done in (26, 52, 78):
        yield Reading("ask", "draft", done, 78)
    for step in STEPS:
        if step.rejected is not None:
            yield from _judged(step.rejected.text, step.rejected.tokens, 0.31, accepted=False)
            for done in (64, 115):
                yield Reading("ask", "target", done, 115)
            yield from _written("target", step.text)
        else:
            yield from _judged(step.text, step.tokens, step.reward or 0.0, accepted=True)
        yield Kept("ask", step)
    yield Ended("ask", record())


def main(pause: float) -> None:
    with AskDisplay(stderr_console(color=True), QUESTION, ROLES, "rsd", time.monotonic) as display:
        for role, name in ROLES.items():
            display.loading(role, name)
            time.sleep(pause * 5)
        for event in events():
            display.handle(event)
            time.sleep(pause * (1 if isinstance(event, Streamed) else 5))
    if sys.stdout.isatty():
        print_answer(stdout_console(color=True), record())


if __name__ == "__main__":
    main(float(sys.argv[1]) if len(sys.argv) > 1 else 0.05)
