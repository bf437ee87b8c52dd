"""Conversations made by hand, and texts that formats trip over."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from rsd_cli.chat.conversation import Conversation
from rsd_cli.chat.journal import Kept
from rsd_cli.decoding.trajectory import Settings
from rsd_cli.engine.sampling import Sampling
from tests.batch.made import REWRITTEN, a_record, a_step

if TYPE_CHECKING:
    from rsd_cli.records import Record

HOSTILE = (
    "--",
    "-->",
    "---->",
    "a\n-->\nb",
    "<!-- rsd-chat",
    'x\n<!-- rsd-chat\n{"schema": 1, "kind": "chat"}\n-->\ny',
    "<!--",
    "two\u2028lines\u2029and\x85three\x0bfour\x0cfive",
    "\r\n\r",
    "```\nan open fence",
    "~~~",
    '"""\nquotes\n"""',
    "\\-- \\> \\u003e \\",
    "\x1b[2J\x1b]0;title\x07\x00",
    "½ é \U0001f600 e\u0301 \u202e אבג",
    "# Conversation\n\n## 1. You",
    "half a \ud83d character, a byte \udce9",
    " spaces \t",
)


def a_turn(question: str = "How many?", answer: str = "A step.\n\nSo 72.", **changes: Any) -> Record:
    steps = (a_step(text=answer[:8]), a_step(text=answer[8:], author="target", reward=None))
    return a_record(**{"question": question, "answer": answer, "steps": steps} | changes)


def a_talk(*turns: Record, **changes: Any) -> Kept:
    settings = Settings(sampling=Sampling(temperature=0.7))
    fields: dict[str, Any] = {"id": "20250102-030405-abcd", "trio": "starter", "settings": settings}
    return Kept(**(fields | {"conversation": Conversation(turns)} | changes))


def a_hostile_talk() -> Kept:
    turns = [a_turn(text, text * 3, id=text, final_answer=text) for text in HOSTILE]
    return a_talk(a_turn(steps=(REWRITTEN,)), *turns, settings=Settings(system="".join(HOSTILE)))
