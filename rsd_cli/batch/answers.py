"""What a row's answer looks like as a line of output, and what such a line tells when a run goes on.

Two forms: `openai`, which tools for OpenAI's batches read, with our records under the key `rsd`; and `plain`, flat.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from rsd_cli.batch.rows import Row
from rsd_cli.decoding.choosing import chosen, majority
from rsd_cli.records import Record

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rsd_cli.batch.rows import BadRow
    from rsd_cli.decoding.choosing import Majority

Format = Literal["openai", "plain"]
CUT_SHORT = ("max_tokens", "max_steps", "context", "timeout")


@dataclass(frozen=True)
class Answered:
    """A row with its samples, branch after branch."""

    row: Row
    samples: tuple[Record, ...]

    @property
    def majority(self) -> Majority | None:
        """None where no sample has a final answer."""
        return majority([sample.final_answer for sample in self.samples])

    @property
    def final_answer(self) -> str | None:
        """That of the sample which the strategy chooses."""
        return self.samples[chosen(self.samples)].final_answer


@dataclass(frozen=True)
class Problematic:
    """A row that has no answer, and why."""

    row: Row | BadRow
    code: str
    message: str


Outcome = Answered | Problematic


def finish_reason(record: Record) -> str:
    """What OpenAI calls the end of an answer: stop or length."""
    return "length" if record.ended_by in CUT_SHORT else "stop"


def line_of(outcome: Outcome, form: Format, model: str, created: int) -> str:
    """One line of output, without its end; `model` and `created` (seconds) are what OpenAI's form asks for."""
    data = _openai(outcome, model, created) if form == "openai" else _plain(outcome)
    return json.dumps(data, ensure_ascii=False, allow_nan=False)


def _openai(outcome: Outcome, model: str, created: int) -> dict[str, Any]:
    row = outcome.row
    name = f"rsd-{hashlib.blake2b(f'{row.id}/{row.content}'.encode(), digest_size=8).hexdigest()}"
    ours: dict[str, Any] = {"line": row.line, "content": row.content}
    head: dict[str, Any] = {"id": name, "custom_id": row.id}
    if isinstance(outcome, Problematic):
        error = {"code": outcome.code, "message": outcome.message}
        return head | {"response": None, "error": error, "rsd": ours}
    body = {
        "id": name,
        "object": "chat.completion",
        "created": created,
        "model": model,
        "choices": [_choice(i, sample) for i, sample in enumerate(outcome.samples)],
        "usage": _usage(outcome.samples),
    }
    response = {"status_code": 200, "request_id": name, "body": body}
    ours |= {"final_answer": outcome.final_answer, "majority": _majority(outcome)}
    ours["samples"] = [json.loads(sample.to_json()) for sample in outcome.samples]
    return head | {"response": response, "error": None, "rsd": ours}


def _choice(index: int, sample: Record) -> dict[str, Any]:
    message = {"role": "assistant", "content": sample.answer.strip()}
    return {"index": index, "message": message, "finish_reason": finish_reason(sample)}


def _usage(samples: Sequence[Record]) -> dict[str, int]:
    """OpenAI's counts: the prompt as the generators see it, once for each sample, and the kept tokens."""
    writers = [[use for role, use in sample.usage.items() if role != "prm"] for sample in samples]
    prompt = sum(max(use.prompt for use in used) for used in writers)
    kept = sum(step.tokens for sample in samples for step in sample.steps)
    return {"prompt_tokens": prompt, "completion_tokens": kept, "total_tokens": prompt + kept}


def _majority(outcome: Answered) -> dict[str, Any] | None:
    best = outcome.majority
    return {"answer": best.answer, "votes": best.votes, "of": best.of} if best and best.of > 1 else None


def _plain(outcome: Outcome) -> dict[str, Any]:
    row = outcome.row
    head: dict[str, Any] = {"id": row.id, "line": row.line, "content": row.content}
    if isinstance(outcome, Problematic):
        error = {"code": outcome.code, "message": outcome.message}
        return head | {"output": None, "answer": None, "error": error}
    first, many = outcome.samples[0], len(outcome.samples) > 1
    steps = [step for sample in outcome.samples for step in sample.steps]
    data = head | {
        "input": outcome.row.question,
        "output": [sample.answer.strip() for sample in outcome.samples] if many else first.answer.strip(),
        "answer": outcome.final_answer,
        "finish_reason": [finish_reason(sample) for sample in outcome.samples]
        if many
        else finish_reason(first),
        **_usage(outcome.samples),
        "target_tokens": sum(step.tokens for step in steps if step.author == "target"),
        "rewards": [step.reward for step in steps],
        "authors": [step.author for step in steps],
    }
    if many:
        best = outcome.majority
        data |= {
            "answers": [sample.final_answer for sample in outcome.samples],
            "votes": best.votes if best else 0,
        }
    return data | {"error": None}


@dataclass(frozen=True)
class Told:
    """What a line of output says of its row."""

    id: str
    content: str
    line: int
    ok: bool


def read_back(data: bytes) -> Told:
    """The row that a line of output stands for; ValueError if it is no such line."""
    try:
        values = json.loads(data)
        ours = values.get("rsd", values)
        name, content, number = values.get("custom_id", values.get("id")), ours["content"], ours["line"]
        ok = values["error"] is None
    except (KeyError, TypeError, AttributeError, RecursionError) as error:
        raise ValueError(f"no answer of rsd batch: {error!r}") from error
    if not isinstance(name, str) or not isinstance(content, str) or not isinstance(number, int):
        raise ValueError("no answer of rsd batch")  # noqa: TRY004 - the file is wrong, not the program
    return Told(name, content, number, ok)


def read_outcome(row: Row | BadRow, data: bytes) -> Outcome | None:
    """What became of a row, from its line of output; None where that does not have the whole records."""
    try:
        values = json.loads(data)
        if values["error"] is not None:
            return Problematic(row, str(values["error"]["code"]), str(values["error"]["message"]))
        samples = tuple(Record.from_json(sample) for sample in values["rsd"]["samples"])
    except (ValueError, KeyError, TypeError, RecursionError):
        return None
    return Answered(row, samples) if samples and isinstance(row, Row) else None
