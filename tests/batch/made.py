"""Rows, answers and a clock, made by hand."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from rsd_cli.batch.answers import Answered, Problematic
from rsd_cli.batch.rows import BadRow, Own, Row
from rsd_cli.records import Flops, ModelId, Record, Rejected, RoleTime, Step, Timings, Usage

CONTENT = "00112233445566ff"


@dataclass
class Clock:
    now: float = 0.0

    def __call__(self) -> float:
        return self.now


def a_step(**changes: Any) -> Step:
    fields: dict[str, Any] = {
        "text": "A step.\n\n",
        "author": "draft",
        "reward": 0.9,
        "tokens": 5,
        "ms": 10.0,
    }
    return Step(**(fields | changes))


REWRITTEN = a_step(author="target", reward=None, tokens=15, rejected=Rejected("Wrong.\n\n", 0.3, 4))


def a_record(final: str | None = "72", **changes: Any) -> Record:
    fields: dict[str, Any] = {
        "id": "q1",
        "question": "How many?",
        "answer": f"A step.\n\nSo \\boxed{{{final}}}.\n" if final is not None else "A step.\n\nWho knows?\n",
        "final_answer": final,
        "steps": (a_step(), REWRITTEN),
        "usage": {"draft": Usage(70, 9, 4, 90), "target": Usage(78, 15, 0, 83), "prm": Usage(999, 0, 4, 95)},
        "flops": Flops(1e9, 2e9, 1e9, 8e9),
        "timings": Timings(
            1.0, 2.0, 3.0, {"draft": RoleTime(100, 200), "target": RoleTime(10, 20), "prm": RoleTime(5)}
        ),
        "ended_by": "eog",
        "strategy": "rsd",
        "settings": {"threshold": 0.7},
        "models": {"draft": ModelId("tiny", None, 10)},
        "versions": {"rsd": "0"},
        "seed": 0,
    }
    return Record(**(fields | changes))


def a_row(**changes: Any) -> Row:
    fields: dict[str, Any] = {
        "line": 1,
        "id": "q1",
        "question": "How many?",
        "before": (),
        "own": Own(),
        "gold": None,
        "content": CONTENT,
    }
    return Row(**(fields | changes))


def answered(*finals: str | None, **row: Any) -> Answered:
    return Answered(a_row(**row), tuple(a_record(final) for final in finals or ("72",)))


def failed(name: str = "q1", line: int = 1, message: str = "No room.") -> Problematic:
    return Problematic(BadRow(line, name, "context_overflow", message, CONTENT), "context_overflow", message)
